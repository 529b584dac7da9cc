"""Decoding token by token: greedy, temperature, top-k and top-p, a whole batch in one compiled program.

A model comes as a `Decoder`, functions over a cache that is a value; nothing here knows which model it is.

B rows, P prompt tokens, N room for new tokens, V vocabulary.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Decoder(NamedTuple):
    """A model to decode with.

    prefill(params, tokens [B,P], valid bool [B,P], room) -> (logits [B,V] after the last token, cache). The tokens that
        count stand at the right; the cache has room for `room` more.
    step(params, cache, token [B]) -> (logits [B,V], cache).
    context: positions the model has; None: no limit.
    grow(cache, room) -> the cache with room for `room` more; None: a cache of constant size.
    """

    prefill: Callable
    step: Callable
    context: int | None = None
    grow: Callable | None = None


@partial(jax.jit, static_argnames=("decoder", "room"))
def generate(
    decoder: Decoder, params, prompts, valid, key, *, room: int, count, temperature, top_k=0, top_p=1.0, end=-1
):
    """Up to `count` new tokens for each row: int [B,room]; what is behind a row's `end`, or behind `count`, is `end`.

    prompts int [B,P], valid bool [B,P]: the prompts, each at the right end of its row (see `pad`). room: static, at
    least count. count, temperature, top_k, top_p, end (-1: none) and the key are traced: a change compiles nothing.

    A model with a limited context that fills up reads the last half of it again and goes on: it always sees between
    half of its context and all of it. (Learned positions have no meaning in a cache that rolls.)
    """
    B, P = prompts.shape
    tokens = jnp.concatenate([prompts, jnp.full((B, room), end, prompts.dtype)], axis=1)
    seen = jnp.concatenate([valid, jnp.ones((B, room), bool)], axis=1)

    def append(state, logits, cache):
        """The state with the token picked from logits [B,V]."""
        i, tokens, _, done = state
        with jax.named_scope("pick"):
            token = pick(logits, jax.random.fold_in(key, i), temperature, top_k, top_p).astype(tokens.dtype)
        token = jnp.where(done, end, token)
        tokens = lax.dynamic_update_slice(tokens, token[:, None], (0, P + i))
        return i + 1, tokens, cache, done | (token == end)

    def until(limit, state):
        """One token after another up to `limit` new ones."""

        def go_on(state):
            return (state[0] < limit) & ~state[3].all()

        def one(state):
            i, tokens, cache, _ = state
            last = lax.dynamic_slice(tokens, (0, P + i - 1), (B, 1))[:, 0]
            return append(state, *decoder.step(params, cache, jnp.maximum(last, 0)))

        return lax.while_loop(go_on, one, state)

    # Padding takes room in the cache, but no position: what fills up is the longest prompt's row.
    context = decoder.context or P + room
    space = min(room, context)
    first = jnp.minimum(jnp.minimum(space, context - valid.sum(1).max()), count)
    ends = stages(P, space) if decoder.grow else [space]
    state = (jnp.zeros((), jnp.int32), tokens, None, jnp.full(B, count < 1))
    state = append(state, *decoder.prefill(params, prompts, valid, ends[0]))
    state = until(jnp.minimum(ends[0], first), state)
    for before, after in itertools.pairwise(ends):
        i, tokens, cache, done = state
        state = until(jnp.minimum(after, first), (i, tokens, decoder.grow(cache, after - before), done))
    i, tokens, _, done = state
    if P + room > context:
        half = max(context // 2, 1)

        def go_on(state):
            i, _, done = state
            return (i < count) & ~done.all()

        def again(state):
            i, tokens, done = state
            last = lax.dynamic_slice(tokens, (0, P + i - half), (B, half))
            mask = lax.dynamic_slice(seen, (0, P + i - half), (B, half))
            read = decoder.prefill(params, jnp.maximum(last, 0), mask, context - half)
            state = append((i, tokens, None, done), *read)
            i, tokens, _, done = until(jnp.minimum(count, i + context - half), state)
            return i, tokens, done

        i, tokens, done = lax.while_loop(go_on, again, (i, tokens, done))
    return tokens[:, P:]


def stages(filled: int, room: int, least: int = 64) -> list[int]:
    """After how many new tokens a cache with `filled` slots grows, the last is `room`.

    Attention reads the whole cache for every token, so it starts with few free slots and doubles. Each stage is
    compiled by itself: no more than log2 of them.
    """
    ends = [least]
    while ends[-1] < room:
        ends.append(filled + 2 * ends[-1])
    return [*ends[:-1], room]


def pick(logits, key, temperature, top_k, top_p):
    """The next token int [B] from logits [B,V].

    temperature 0: the likeliest. Else a draw from softmax(logits / temperature) cut to the top_k likeliest (0: all) and
    to the fewest likeliest whose probability reaches top_p (Holtzman et al. 2020). Ties at the cut stay.
    """
    logits = logits.astype(jnp.float32)

    def draw():
        scaled = logits / jnp.maximum(temperature, 1e-6)
        cut = (top_k > 0) | (top_p < 1.0)
        kept = lax.cond(cut, lambda: cut_tail(scaled, top_k, top_p), lambda: scaled)
        return jax.random.categorical(key, kept)

    return lax.cond(temperature > 0, draw, lambda: jnp.argmax(logits, axis=-1))


def cut_tail(logits, top_k, top_p):
    """Logits [B,V] with -inf outside the top_k likeliest and outside the nucleus of probability top_p."""
    V = logits.shape[-1]
    falling = -jnp.sort(-logits, axis=-1)
    k = jnp.where(top_k > 0, jnp.minimum(top_k, V), V)
    within = jnp.arange(V)[None, :] < k
    share = jax.nn.softmax(jnp.where(within, falling, -jnp.inf), axis=-1)
    before = jnp.cumsum(share, axis=-1) - share
    within &= (before < top_p) | (jnp.arange(V)[None, :] == 0)
    lowest = jnp.min(jnp.where(within, falling, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits < lowest, -jnp.inf, logits)


def pad(prompts, limit: int | None = None):
    """Token lists of any lengths >= 1 -> (int32 [B,P], valid bool [B,P]), each at the right end of its row.

    P is a power of two, so that prompts of any length share a few compiled programs. At most the last `limit` tokens
    of each are kept.
    """
    cut = [list(p)[-limit:] if limit else list(p) for p in prompts]
    length = bucket(max(map(len, cut)))
    length = min(length, limit) if limit else length
    tokens, valid = np.zeros((len(cut), length), np.int32), np.zeros((len(cut), length), bool)
    for row, prompt in enumerate(cut):
        tokens[row, length - len(prompt) :] = prompt
        valid[row, length - len(prompt) :] = True
    return tokens, valid


def bucket(n: int, least: int = 16) -> int:
    """The smallest power of two that holds n, at least `least`."""
    return max(least, 1 << (n - 1).bit_length())
