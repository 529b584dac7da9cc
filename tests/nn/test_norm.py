"""Layer normalization against flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from lmjax import param
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
