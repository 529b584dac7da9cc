"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1).

B batch, T query time, S key time, H heads, K head size.
"""

import math

import jax
import jax.numpy as jnp

from lmjax.nn.dropout import dropout, never
from lmjax.nn.xla import written

NEVER = -1e30  # a score that no softmax lets through; finite, so that a row of nothing else stays finite


def attention(q, k, v, mask, *, key=None, rate=0.0):
    """softmax(q k' / sqrt(K)) v over the allowed pairs.

    q [B,T,H,K], k and v [B,S,H,K], `mask` bool [T,S], [B,T,S] or any [B|1,H|1,T,S], True where a query may look; a
    query that may look nowhere gets the mean of v. `key` and `rate`: dropout of the weights. Returns [B,T,H,K]. The
    softmax is in float32.
    """
    mask = mask.reshape((1,) * (mask.ndim == 2) + mask.shape)
    mask = mask[:, None] if mask.ndim == 3 else mask
    scores = jnp.einsum("bthk,bshk->bhts", q, k).astype(jnp.float32) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(mask, scores, NEVER), axis=-1).astype(q.dtype)
    return jnp.einsum("bhts,bshk->bthk", dropout(key, weights, rate), v)


def write_cache(cache, new, slot):
    """The cache [B,H,S,K] of keys or values with `new` [B,T,H,K] in the slots from `slot` on."""
    return jax.lax.dynamic_update_slice(cache, new.swapaxes(1, 2).astype(cache.dtype), (0, 0, slot, 0))


def cached_attention(q, k, v, mask):
    """`attention` of q [B,T,H,K] over caches k and v [B,H,S,K], `mask` bool [B,T,S].

    Each head's slots lie together because that is how both products read them: with [B,S,H,K] XLA on CPU transposed
    both caches anew for every token.
    """
    scores = jnp.einsum("bthk,bhsk->bhts", q, k).astype(jnp.float32) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, NEVER), axis=-1).astype(q.dtype)
    return jnp.einsum("bhts,bhsk->bthk", weights, v)


def causal_mask(length: int):
    """[T,T]: position t may look at s <= t."""
    return jnp.tril(jnp.ones((length, length), bool))


def causal_attention(q, k, v, *, key=None, rate=0.0):
    """`attention` of a sequence to itself, each position to those up to it: q, k, v [B,T,H,K] -> [B,T,H,K]."""
    if not never(key, rate):
        return attention(q, k, v, causal_mask(q.shape[1]), key=key, rate=rate)
    return _causal(q, k, v)


@jax.custom_vjp
def _causal(q, k, v):
    """By hand for CPU, where XLA is slow at products with a transposed operand and at reading a softmax twice.

    Queries go in a few blocks, each over the keys up to its end only; the weights are written once and kept; the
    gradients of k and v come out transposed, so that no product needs the transposed weights.
    """
    return _causal_forward(q, k, v)[0]


def _blocks(length: int):
    """(start, end) of up to four blocks of at least 64 queries; three eighths of all pairs fall away."""
    size = next((length // n for n in (4, 2) if length % n == 0 and length // n >= 64), length)
    return [(start, start + size) for start in range(0, length, size)]


def _causal_forward(q, k, v):
    scale = 1 / math.sqrt(q.shape[-1])
    heads = [written(x.swapaxes(1, 2)) for x in (q * scale, k, v)]  # [B,H,T,K]
    mask = jnp.where(causal_mask(q.shape[1]), 0.0, NEVER)[None, None]
    weights, outputs = [], []
    for start, end in _blocks(q.shape[1]):
        now, past = slice(start, end), slice(end)
        scores = _product(heads[0][:, :, now], heads[1][:, :, past], 3, 3).astype(jnp.float32) + mask[:, :, now, past]
        weights.append(written(jax.nn.softmax(scores, axis=-1).astype(q.dtype)))
        outputs.append(_product(weights[-1], heads[2][:, :, past], 3, 2))
    y = written(jnp.concatenate(outputs, axis=2))
    return y.swapaxes(1, 2), (q, *heads[1:], weights, y)


def _causal_backward(saved, dy):
    q, k, v, weights, y = saved
    length, scale = q.shape[1], 1 / math.sqrt(q.shape[-1])
    dy, dy_t = written(dy.swapaxes(1, 2)), written(dy.transpose(0, 2, 3, 1))  # [B,H,T,K], [B,H,K,T]
    q_t = written((q * scale).transpose(0, 2, 3, 1))
    along = (dy * y).sum(-1, keepdims=True)  # sum over s of weight and gradient, Dao et al. 2022, section 3.1
    dq, dk_t, dv_t = [], 0.0, 0.0
    for (start, end), p in zip(_blocks(length), weights, strict=True):
        now, past = slice(start, end), slice(end)
        ahead = ((0, 0), (0, 0), (0, 0), (0, length - end))
        ds = written(p * (_product(dy[:, :, now], v[:, :, past], 3, 3) - along[:, :, now]))
        dq.append(_product(ds, k[:, :, past], 3, 2))
        dv_t += jnp.pad(_product(dy_t[..., now], p, 3, 2), ahead)
        dk_t += jnp.pad(_product(q_t[..., now], ds, 3, 2), ahead)
    dq = jnp.concatenate(dq, axis=2) * scale
    return dq.swapaxes(1, 2), dk_t.transpose(0, 3, 1, 2), dv_t.transpose(0, 3, 1, 2)


def _product(a, b, i, j):
    """Of each batch row and head, over axis i of a and j of b."""
    return jax.lax.dot_general(a, b, (((i,), (j,)), ((0, 1), (0, 1))))


_causal.defvjp(_causal_forward, _causal_backward)
