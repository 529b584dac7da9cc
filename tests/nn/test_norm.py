"""Layer and batch normalization against flax's; spectral normalization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from lmjax import param
from lmjax.nn import norm
from lmjax.nn.norm import layer_norm, layer_norm_params


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_and_its_gradient_are_flax(bias):
    params = param.init(layer_norm_params(32, bias=bias), jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.1 * jnp.arange(32.0), params)
    x = 3 + 2 * jax.random.normal(jax.random.key(1), (2, 5, 32))
    flax = linen.LayerNorm(epsilon=1e-5, use_bias=bias, use_fast_variance=False)

    def ours(params, x):
        return layer_norm(params, x)

    def theirs(params, x):
        return flax.apply({"params": params}, x)

    np.testing.assert_allclose(ours(params, x), theirs(params, x), atol=2e-5)
    a, b = (jax.grad(lambda p, x, f=f: jnp.sin(f(p, x)).sum(), argnums=(0, 1))(params, x) for f in (ours, theirs))
    for ours_leaf, flax_leaf in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(ours_leaf, flax_leaf, atol=2e-5)


def test_a_constant_row_stays_finite():
    params = param.init(layer_norm_params(8), jax.random.key(0))
    x = jnp.full((1, 8), 1e4)
    np.testing.assert_allclose(layer_norm(params, x), 0.0, atol=1e-3)
    assert np.isfinite(jax.grad(lambda x: layer_norm(params, x).sum())(x)).all()


def test_bfloat16_keeps_its_type_and_takes_its_statistics_in_float32():
    params = param.init(layer_norm_params(512), jax.random.key(0))
    x = (100 + jax.random.normal(jax.random.key(1), (4, 512))).astype(jnp.bfloat16)
    y = layer_norm(params, x)
    assert y.dtype == jnp.bfloat16
    exact = layer_norm(params, x.astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.02)


def test_batch_norm_agrees_with_linen_in_training_and_after():
    x = 3 * jax.random.normal(jax.random.key(0), (6, 4, 4, 5)) + jnp.arange(5.0)[None, None, None]
    params = {"scale": jnp.arange(1.0, 6), "bias": jnp.arange(5.0)}
    theirs = linen.BatchNorm(use_running_average=False, momentum=0.0, epsilon=1e-5)
    start = {"mean": jnp.zeros(5), "var": jnp.ones(5)}

    def mine(x):
        return norm.batch_norm(params, x)[0]

    def linens(x):
        return theirs.apply({"params": params, "batch_stats": start}, x, mutable=["batch_stats"])[0]

    np.testing.assert_allclose(mine(x), linens(x), atol=2e-5)
    slope = [jax.grad(lambda x, f=f: (f(x) ** 3).sum())(x) for f in (mine, linens)]
    np.testing.assert_allclose(*slope, rtol=1e-4, atol=1e-2)
    _, statistics = norm.batch_norm(params, x)
    _, kept = theirs.apply({"params": params, "batch_stats": start}, x, mutable=["batch_stats"])
    np.testing.assert_allclose(statistics.mean, kept["batch_stats"]["mean"], rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, kept["batch_stats"]["var"], rtol=1e-4)
    after = linen.BatchNorm(use_running_average=True, epsilon=1e-5)
    one = x[:1]
    np.testing.assert_allclose(
        norm.batch_norm(params, one, statistics)[0], after.apply({"params": params, **kept}, one), atol=2e-5
    )


def test_batch_statistics_are_those_of_all_devices():
    x = jax.random.normal(jax.random.key(0), (8, 3, 4)) * jnp.arange(8.0)[:, None, None]
    parts = jax.pmap(lambda x: norm.batch_statistics(x, lambda s: jax.lax.psum(s, "i")), "i")(x)
    whole = norm.batch_statistics(x)
    for part, one in zip(parts, whole):
        np.testing.assert_allclose(part, np.broadcast_to(one, (8, 4)), rtol=1e-5)


def test_spectral_norm_is_the_largest_singular_value_after_some_steps():
    params = {"a": {"w": jax.random.normal(jax.random.key(0), (3, 3, 4, 6)), "b": jnp.ones(6)}}
    vectors = norm.spectral_start(params)
    assert list(vectors) == ["a/w"]
    for _ in range(200):
        scaled, vectors = norm.spectral_norm(params, vectors)
    largest = np.linalg.svd(params["a"]["w"].reshape(-1, 6), compute_uv=False)[0]
    np.testing.assert_allclose(scaled["a"]["w"], params["a"]["w"] / largest, rtol=1e-5)
    np.testing.assert_array_equal(scaled["a"]["b"], params["a"]["b"])
    # eq. 12: scaling a weight changes nothing, so the gradient has no part along it.
    slope = jax.grad(lambda p: (norm.spectral_norm(p, vectors)[0]["a"]["w"] ** 3).sum())(params)["a"]["w"]
    assert abs(float((slope * params["a"]["w"]).sum())) < 1e-3 * float((slope**2).sum()) ** 0.5
