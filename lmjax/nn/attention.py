"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1).

B batch, T query time, S key time, H heads, K head size.
"""

import math

import jax
import jax.numpy as jnp

from lmjax.nn.dropout import dropout


def attention(q, k, v, mask, *, key=None, rate=0.0):
    """softmax(q k' / sqrt(K)) v over the allowed pairs.

    q [B,T,H,K], k and v [B,S,H,K], `mask` bool [T,S], [B,T,S] or any [B|1,H|1,T,S], True where a query may look; a
    query that may look nowhere gets the mean of v. `key` and `rate`: dropout of the weights. Returns [B,T,H,K]. The
    softmax is in float32.
    """
    mask = mask.reshape((1,) * (mask.ndim == 2) + mask.shape)
    mask = mask[:, None] if mask.ndim == 3 else mask
    scores = jnp.einsum("bthk,bshk->bhts", q, k).astype(jnp.float32) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(jnp.float32).min), axis=-1).astype(q.dtype)
    return jnp.einsum("bhts,bshk->bthk", dropout(key, weights, rate), v)


def causal_mask(length: int):
    """[T,T]: position t may look at s <= t."""
    return jnp.tril(jnp.ones((length, length), bool))
