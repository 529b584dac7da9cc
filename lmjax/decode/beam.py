"""Beam search (Sutskever et al. 2014) with the length penalty of GNMT (Wu et al. 2016), a batch in one program.

A model comes as a `BeamDecoder`, functions over a cache that is a value; nothing here knows which model it is.

B sentences, W hypotheses of each, N room for tokens, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

WORST = -1e30  # a score below any sentence's; finite, so that sums of it stay numbers
CUT = -1e5  # where sentences without an end stand: below those with one, above WORST


class BeamDecoder(NamedTuple):
    """A model to search with.

    start(params, inputs, width, room) -> cache, for `width` hypotheses of up to `room` tokens for each row of inputs.
    step(params, cache, tokens [B,W]) -> (logits [B,W,V] for the token after, cache).
    select(cache, rows [B,W]) -> the cache where hypothesis w goes on from what was hypothesis rows[b,w].
    """

    start: Callable
    step: Callable
    select: Callable


class Found(NamedTuple):
    """The hypotheses of each sentence, the best first: int tokens [B,W,N], `end` and all behind it `end`; score [B,W],
    log-probability over length penalty; length [B,W] with the end, where it was reached before the room was full."""

    tokens: jax.Array
    score: jax.Array
    length: jax.Array


def length_penalty(length, alpha, offset=5.0):
    """((offset + length) / (offset + 1))^alpha: what a log-probability is divided by. alpha 0: one.

    With offset 5 GNMT's (Wu et al. 2016, eq. 14), with 0 length^alpha, as fairseq has it.
    """
    return ((offset + length) / (offset + 1.0)) ** alpha


class _State(NamedTuple):
    i: jax.Array
    cache: object
    tokens: jax.Array  # [B,W,N], of the hypotheses that go on
    total: jax.Array  # [B,W], their log-probabilities
    ended: Found
    count: jax.Array  # [B], how many have ended


@partial(jax.jit, static_argnames=("decoder", "width", "room"))
def beam(
    decoder: BeamDecoder, params, inputs, limit, *, width: int, room: int, begin, end, alpha, offset=5.0
) -> Found:
    """The `width` best sentences of up to `room` tokens for each row of `inputs`, as far as the beam finds them.

    limit: int [B] <= room, tokens a row may have. begin, end: token ids. alpha, offset: of length_penalty. All traced.
    A hypothesis ends where `end` is among the W likeliest continuations of its sentence; a sentence is done when W have
    ended, or at its limit, where what goes on counts as ended but stands behind what has. Width 1 is greedy search.
    """
    B, W = limit.shape[0], width
    cache = decoder.start(params, inputs, width, room)
    blank = jnp.full((B, W, room), end, jnp.int32)
    alone = jnp.where(jnp.arange(W)[None] == 0, 0.0, WORST)  # at first all hypotheses are the same one
    none = Found(blank, jnp.full((B, W), 2 * WORST), jnp.zeros((B, W), jnp.int32))
    state = _State(jnp.zeros((), jnp.int32), cache, blank, jnp.broadcast_to(alone, (B, W)), none,
                   jnp.zeros((B,), jnp.int32))  # fmt: skip

    def going(state):
        return (state.count < W) & (state.i < limit)

    def one(state):
        i = state.i
        last = lax.dynamic_slice(state.tokens, (0, 0, jnp.maximum(i - 1, 0)), (B, W, 1))[:, :, 0]
        logits, cache = decoder.step(params, state.cache, jnp.where(i == 0, begin, last))
        total, rows, tokens = best(state.total, logits.astype(jnp.float32), 2 * W)
        is_end, active = tokens == end, going(state)[:, None]
        # Ended: what came among the first W, at its length and penalty.
        lines = jnp.take_along_axis(state.tokens, rows[:, :, None], axis=1)
        lines = lax.dynamic_update_slice(lines, tokens[:, :, None], (0, 0, i))
        first = jnp.arange(tokens.shape[1])[None] < W
        ends = is_end & first & active & (total > WORST / 2)
        score = jnp.where(ends, total / length_penalty(i + 1.0, alpha, offset), 2 * WORST)
        fresh = Found(lines, score, jnp.full(score.shape, i + 1))
        ended = top(jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), state.ended, fresh), W)
        # Going on: the first W that have not ended.
        total, order = lax.top_k(jnp.where(is_end, 2 * WORST, total), W)
        rows, lines = jnp.take_along_axis(rows, order, axis=1), jnp.take_along_axis(lines, order[:, :, None], axis=1)
        lines = jnp.where(active[:, :, None], lines, state.tokens)
        total = jnp.where(active, total, state.total)
        count = state.count + ends.sum(1, dtype=jnp.int32)
        return _State(i + 1, decoder.select(cache, rows), lines, total, ended, count)

    state = lax.while_loop(lambda state: going(state).any(), one, state)
    length = jnp.minimum(state.i, limit)[:, None]
    cut = Found(state.tokens, state.total / length_penalty(length.astype(jnp.float32), alpha, offset),
                jnp.broadcast_to(length, (B, W)))  # fmt: skip
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), state.ended, cut)
    behind = CUT - jnp.arange(W, dtype=jnp.float32)  # what goes on is sorted already, and of one length
    return top(joined, W, jnp.concatenate([state.ended.score, jnp.broadcast_to(behind[None], (B, W))], axis=1))


def best(total, logits, count: int):
    """The `count` likeliest continuations of all hypotheses: (log-probability, row in 0..W-1, token), each [B,count].

    total [B,W]: log-probabilities so far; logits [B,W,V]; fewer than `count` where W V is. The likeliest of each
    hypothesis come first: the softmax is one number a row and does not change their order.
    """
    B, W, V = logits.shape
    k = min(count, V)
    top, tokens = largest(logits, k)
    scores = total[:, :, None] + top - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    scores, place = lax.top_k(scores.reshape(B, W * k), min(count, W * k))
    return scores, place // k, jnp.take_along_axis(tokens.reshape(B, -1), place, axis=1)


def largest(x, count: int, chunk: int = 32):
    """`lax.top_k` of x [...,V] for a large V: (values, places), each [...,count].

    The `count` largest lie in the `count` chunks with the largest maxima: one pass over V, then two short searches.
    """
    V = x.shape[-1]
    if count * chunk >= V:
        return lax.top_k(x, count)
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -V % chunk)], constant_values=-jnp.inf)
    x = x.reshape(*x.shape[:-1], -1, chunk)
    _, chunks = lax.top_k(x.max(-1), count)
    few = jnp.take_along_axis(x, chunks[..., None], axis=-2)  # [...,count,chunk]
    values, place = lax.top_k(few.reshape(*few.shape[:-2], -1), count)
    return values, jnp.take_along_axis(chunks, place // chunk, axis=-1) * chunk + place % chunk


def top(found: Found, width: int, key=None) -> Found:
    """The `width` best of more hypotheses, best first, by `key` [B,...] or their score."""
    _, order = lax.top_k(found.score if key is None else key, width)
    return jax.tree.map(lambda x: jnp.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - 2)), 1), found)
