"""Attention against flax's, and its gradient by hand against plain autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from lmjax.nn.attention import attention, cached_attention, causal_attention, causal_mask, fused

B, H, K = 2, 4, 8


def qkv(length, dtype=jnp.float32):
    return [jax.random.normal(jax.random.key(i), (B, length, H, K)).astype(dtype) for i in range(3)]


def plain(q, k, v):
    return attention(q, k, v, causal_mask(q.shape[1]))


def test_attention_is_flax_dot_product_attention():
    q, k, v = qkv(16)
    mask = jax.random.bernoulli(jax.random.key(9), 0.7, (B, 16, 16)).at[:, :, 0].set(True)
    ours = jax.jit(attention)(q, k, v, mask)
    np.testing.assert_allclose(ours, linen.dot_product_attention(q, k, v, mask=mask[:, None]), atol=1e-6)


def test_a_query_that_may_look_nowhere_gets_the_mean():
    q, k, v = qkv(16)
    y = attention(q, k, v, jnp.zeros((16, 16), bool))
    np.testing.assert_allclose(y, jnp.broadcast_to(v.mean(1, keepdims=True), y.shape), atol=1e-6)


@pytest.mark.parametrize("length", [1, 16, 60, 128, 256])  # one block of queries, two, four
def test_causal_attention_and_its_gradient_are_the_plain_ones(length):
    weights = jax.random.normal(jax.random.key(5), (B, length, H, K))

    def total(function):
        return jax.jit(jax.value_and_grad(lambda x: (function(*x) * weights).sum()))

    (ours, gradient), (expected, expected_gradient) = (total(f)(qkv(length)) for f in (causal_attention, plain))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    for a, b in zip(gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_no_position_sees_a_later_one():
    q, k, v = qkv(128)
    changed = [x.at[:, 70:].set(3.0) for x in (k, v)]
    np.testing.assert_array_equal(causal_attention(q, k, v)[:, :70], causal_attention(q, *changed)[:, :70])


def test_causal_attention_in_bfloat16_stays_near_float32():
    exact, rounded = causal_attention(*qkv(128)), causal_attention(*qkv(128, jnp.bfloat16))
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), exact, atol=0.03)


def test_dropout_zeroes_weights_and_keeps_the_mean():
    q, k, v = qkv(16)
    v = jnp.ones_like(v)  # each output is the sum of the weights kept
    dropped = jax.jit(jax.vmap(lambda key: causal_attention(q, k, v, key=key, rate=0.3)))
    sums = dropped(jax.random.split(jax.random.key(0), 400))
    assert set(np.unique(np.round(sums[:, :, 0], 4))) == {0.0, np.float32(1.4286)}  # one weight: kept or not
    np.testing.assert_allclose(sums.mean(), 1.0, atol=0.01)


def grouped(groups, length=16):
    q, _, _ = qkv(length)
    return q, *(jax.random.normal(jax.random.key(i), (B, length, groups, K)) for i in (7, 8))


@pytest.mark.parametrize("groups", [1, 2])
def test_grouped_keys_and_values_serve_neighbouring_heads(groups):
    q, k, v = grouped(groups)
    every = [jnp.stack([x[:, :, h * groups // H] for h in range(H)], axis=2) for x in (k, v)]
    np.testing.assert_allclose(causal_attention(q, k, v), plain(q, *every), atol=1e-6)
    np.testing.assert_allclose(attention(q, k, v, None), attention(q, *every, jnp.ones((16, 16), bool)), atol=1e-6)
    mask = jnp.broadcast_to(causal_mask(16)[None], (B, 16, 16))
    cached = cached_attention(q, *(x.swapaxes(1, 2) for x in (k, v)), mask)
    np.testing.assert_allclose(cached, plain(q, *every), atol=1e-6)


@pytest.mark.parametrize("groups", [2, 4])
def test_what_a_gpu_runs_is_the_same_attention(groups):
    q, k, v = grouped(groups)
    np.testing.assert_allclose(fused(q, k, v, causal=True), causal_attention(q, k, v), atol=1e-6)
    mask = jax.random.bernoulli(jax.random.key(9), 0.7, (B, 1, 16, 16)).at[..., 0].set(True)
    np.testing.assert_allclose(fused(q, k, v, mask=mask), attention(q, k, v, mask), atol=1e-6)
