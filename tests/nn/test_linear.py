"""Linear layers, GELU and embedding against flax's and plain autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen

from lmjax import param
from lmjax.nn.linear import embedding, exact_gelu, gelu, linear, linear_params, product


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_flax_dense_general(bias):
    specs = linear_params((4, 8), (3, 5), ("heads", None, None, "mlp"), bias=bias)
    assert specs["w"].axes == ("heads", None, None, "mlp")
    params = jax.tree.map(lambda p: jax.random.normal(jax.random.key(1), p.shape), specs, is_leaf=param.is_param)
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 8))
    dense = linen.DenseGeneral((3, 5), axis=(-2, -1), use_bias=bias)
    theirs = {"kernel": params["w"]} | ({"bias": params["b"]} if bias else {})

    def ours(params, x):
        return linear(params, x, inputs=2)

    def flax(params, x):
        return dense.apply({"params": params}, x)

    np.testing.assert_allclose(ours(params, x), flax(theirs, x), atol=1e-4)
    a, b = (jax.grad(lambda p, x, f=f: jnp.sin(f(p, x)).sum(), argnums=(0, 1))(p, x) for f, p in
            ((ours, params), (flax, theirs)))  # fmt: skip
    for ours_leaf, flax_leaf in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(ours_leaf, flax_leaf, atol=1e-4)


def test_the_default_start_keeps_the_variance():
    specs = linear_params(256, 512, ("embed", "mlp"))
    params = param.init(specs, jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (100, 256))
    np.testing.assert_allclose(linear(params, x).std(), 1.0, atol=0.02)
    assert not params["b"].any()


@pytest.mark.parametrize("widths", [(8, 24), (24, 8), (8, 8)])
def test_the_gradient_of_a_product_by_hand(widths):
    x, w = jax.random.normal(jax.random.key(0), (10, widths[0])), jax.random.normal(jax.random.key(1), widths)

    def gradients(f):
        return jax.jit(jax.grad(lambda x, w: jnp.sin(f(x, w)).sum(), argnums=(0, 1)))(x, w)

    for ours, plain in zip(gradients(product), gradients(jnp.matmul), strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-5)


def test_gelu_is_jax_nn_and_its_gradient_exact():
    x = np.concatenate([np.linspace(-12, 12, 2001), [-1e4, 1e4, 0.0]])
    # As users compile it: without LLVM's optimizations, tanh falls a last bit short of 1 where it is flat.
    both = jax.jit(jax.vmap(jax.value_and_grad(gelu)), compiler_options={"xla_backend_optimization_level": 3})
    value, slope = both(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(value, jax.nn.gelu(jnp.asarray(x, jnp.float32)), atol=1e-6)
    c, a = np.sqrt(2 / np.pi), 0.044715  # in float64
    t = np.tanh(c * (x + a * x**3))
    np.testing.assert_allclose(slope, (1 + t) / 2 + x * (1 - t * t) * c * (1 + 3 * a * x * x) / 2, atol=5e-6)
    assert np.isnan(gelu(jnp.nan))
    assert np.isnan(jax.grad(gelu)(jnp.array(jnp.nan)))


def test_exact_gelu_is_x_times_the_normal_distribution_function_and_so_its_gradient():
    x = np.concatenate([np.linspace(-12, 12, 2001), [-1e4, 1e4, 0.0]])
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(exact_gelu)))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(value, x * scipy.stats.norm.cdf(x), atol=2e-6)
    np.testing.assert_allclose(slope, scipy.stats.norm.cdf(x) + x * scipy.stats.norm.pdf(x), atol=2e-6)
    assert exact_gelu(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


def test_embedding_picks_rows_and_its_gradient_adds_them_up():
    table = jnp.arange(12.0).reshape(4, 3)
    tokens = jnp.array([[1, 3, 1]])
    np.testing.assert_array_equal(embedding(table, tokens), table[tokens])
    gradient = jax.grad(lambda t: embedding(t, tokens).sum())(table)
    np.testing.assert_array_equal(gradient, jnp.array([0, 2, 0, 1.0])[:, None] * jnp.ones((1, 3)))
