"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1).

B batch, T query time, S key time, H heads, G groups of heads that share a key and a value (Ainslie et al. 2023), K head
size. Where G is less than H, heads 0 to H/G - 1 are of group 0, and so on.

On a GPU, attention without dropout is XLA's fused one; on a CPU what is written here measured fastest.
"""

import math

import jax
import jax.numpy as jnp

from lmjax.nn.dropout import dropout, never
from lmjax.nn.xla import written

NEVER = -1e30  # a score that no softmax lets through; finite, so that a row of nothing else stays finite


def attention(q, k, v, mask, *, key=None, rate=0.0):
    """softmax(q k' / sqrt(K)) v over the allowed pairs.

    q [B,T,H,K], k and v [B,S,G,K], `mask` bool [T,S], [B,T,S] or any [B|1,H|1,T,S], True where a query may look; None:
    everywhere. A query that may look nowhere gets the mean of v. `key` and `rate`: dropout of the weights. Returns
    [B,T,H,K]. The softmax is in float32.
    """
    if mask is not None:
        mask = mask.reshape((1,) * (mask.ndim == 2) + mask.shape)
        mask = mask[:, None] if mask.ndim == 3 else mask
    if jax.default_backend() == "gpu" and never(key, rate):
        return fused(q, k, v, mask=mask)
    weights = attention_weights(q, k, mask).astype(q.dtype)
    return jnp.einsum("bhts,bshk->bthk", dropout(key, weights, rate), every_head(v, q))


def attention_weights(q, k, mask=None):
    """softmax(q k' / sqrt(K)), float32 [B,H,T,S]; arguments as of `attention`, `mask` [B|1,H|1,T,S]."""
    scores = jnp.einsum("bthk,bshk->bhts", q, every_head(k, q)).astype(jnp.float32) / math.sqrt(q.shape[-1])
    return jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, NEVER), axis=-1)


def every_head(x, q):
    """Keys or values [B,S,G,K] as each head of q [B,T,H,K] reads them: [B,S,H,K]."""
    repeats = q.shape[2] // x.shape[2]
    return x if repeats == 1 else jnp.repeat(x, repeats, axis=2)


def fused(q, k, v, *, mask=None, causal=False):
    """`attention` by XLA's own kernel, cuDNN's in 16 bits: q [B,T,H,K], k, v [B,S,G,K], mask [B|1,H|1,T,S] or None."""
    half = jax.default_backend() == "gpu" and q.dtype in (jnp.bfloat16, jnp.float16)
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask, is_causal=causal, implementation="cudnn" if half else "xla"
    )  # fmt: skip


def write_cache(cache, new, slot):
    """The cache [B,G,S,K] of keys or values with `new` [B,T,G,K] in the slots from `slot` on: one for all rows, or int
    [B]."""
    new = new.swapaxes(1, 2).astype(cache.dtype)
    if slot.ndim == 0:
        return jax.lax.dynamic_update_slice(cache, new, (0, 0, slot, 0))
    return jax.vmap(lambda row, new, slot: jax.lax.dynamic_update_slice(row, new, (0, slot, 0)))(cache, new, slot)


def cached_attention(q, k, v, mask):
    """`attention` of q [B,T,H,K] over caches k and v [B,G,S,K], `mask` bool [B,T,S].

    Each head's slots lie together because that is how both products read them: with [B,S,H,K] XLA on CPU transposed
    both caches anew for every token.
    """
    B, T, H, K = q.shape
    G, S = k.shape[1:3]
    q = q.reshape(B, T, G, -1, K).swapaxes(1, 2).reshape(B * G, -1, K)  # one batch axis: 1.6 times as fast on a CPU
    scores = jnp.einsum("nrk,nsk->nrs", q, k.reshape(B * G, S, K)).astype(jnp.float32) / math.sqrt(K)
    scores = jnp.where(mask[:, None, :, None], scores.reshape(B, G, T, -1, S), NEVER)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype).reshape(B * G, -1, S)
    y = jnp.einsum("nrs,nsk->nrk", weights, v.reshape(B * G, S, K))
    return y.reshape(B, G, T, -1, K).swapaxes(1, 2).reshape(B, T, H, K)


def attend_slots(q, k, v, parent):
    """Attention of the hypotheses of a beam over keys and values that stay where they were written.

    q [B,W,H,K], the newest token of each of W hypotheses; k, v [B,H,S W,K], what W hypotheses wrote in each of S slots;
    parent int [B,W,S], whose writing each hypothesis goes on from, -1 for none. Returns [B,W,H,K].

    Scores are taken with all S W keys and those of other lines masked away. A beam is narrow and the products small; to
    reorder the caches after every token, as usual, moves them through memory each time.
    """
    B, W, S = parent.shape
    mine = parent[..., None] == jnp.arange(W, dtype=parent.dtype)[None, None, None]  # [B,W,S,W]
    return cached_attention(q, k, v, mine.reshape(B, W, S * W))


def causal_mask(length: int):
    """[T,T]: position t may look at s <= t."""
    return jnp.tril(jnp.ones((length, length), bool))


def causal_attention(q, k, v, *, key=None, rate=0.0):
    """`attention` of a sequence to itself, each position to those up to it: q [B,T,H,K], k, v [B,T,G,K]."""
    if not never(key, rate):
        return attention(q, k, v, causal_mask(q.shape[1]), key=key, rate=rate)
    if jax.default_backend() == "gpu":
        return fused(q, k, v, causal=True)
    return _causal(q, every_head(k, q), every_head(v, q))


@jax.custom_vjp
def _causal(q, k, v):
    """By hand for CPU, where XLA is slow at products with a transposed operand and at reading a softmax twice.

    Queries go in a few blocks, each over the keys up to its end only; the weights are written once and kept; the
    gradients of k and v come out transposed, so that no product needs the transposed weights.
    """
    return _causal_forward(q, k, v)[0]


def _blocks(length: int):
    """(start, end) of up to four blocks of at least 64 queries; three eighths of all pairs fall away. One block of a
    length that is not known yet, in a program to export."""
    if not isinstance(length, int):
        return [(0, length)]
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
