"""Continuous batching: rows that come and go between steps, over a fixed set of compiled shapes (Yu et al. 2022, Orca).

A batch of slots holds one row each. `join` reads a prompt into a free slot, `step` gives every slot its next token,
`fit` moves rows to a batch of other sizes, when there are more or fewer of them or one outgrows its slot. Each is a
pure function from `Slots` to `Slots`. A program is compiled for each length of prompt, and for each number of slots and
length of them: who keeps to a few of those (see `sizes`) compiles nothing later.

A row's draws hang on its own seed and on how many it has drawn, never on the rows beside it.

B slots, S tokens a slot has room for, P prompt tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.decode.sample import bucket, cut_tail


class Apart(NamedTuple):
    """A model whose rows are decoded apart from each other; every leaf of its cache has the rows in front.

    empty(rows, length) -> a cache of so many rows, each with room for `length` tokens.
    read(params, tokens [1,P], count) -> (logits [1,V] after the first `count` tokens, their cache: one row).
    step(params, cache, token [B]) -> (logits [B,V], cache).
    context: tokens that a row can hold; None: any number, in a cache of constant size.
    """

    empty: Callable
    read: Callable
    step: Callable
    context: int | None = None


class Draws(NamedTuple):
    """How each row draws, arrays [B]: uint32 seed and choice (one of several answers to a prompt), how many tokens it
    has drawn, and temperature, top_k and top_p as of decode/sample.py."""

    seed: np.ndarray
    choice: np.ndarray
    drawn: np.ndarray
    temperature: np.ndarray
    top_k: np.ndarray
    top_p: np.ndarray


class Slots(NamedTuple):
    """The cache of all rows on the device, and on the host each row's newest token int32 [B], not yet in the cache, and
    how it draws. What stands in a free slot means nothing."""

    cache: Any
    token: np.ndarray
    draws: Draws


def draws(seed=0, choice=0, drawn=0, temperature=1.0, top_k=0, top_p=1.0) -> Draws:
    """Of one row. A seed may be any whole number: its lowest 32 bits count. top_k as of any vocabulary."""
    return Draws(
        np.array([seed % 2**32], np.uint32), np.array([choice], np.uint32), np.array([drawn], np.int32),
        np.array([temperature], np.float32), np.array([min(top_k, 2**31 - 1)], np.int32),
        np.array([top_p], np.float32),
    )  # fmt: skip


def empty(model: Apart, rows: int, length: int) -> Slots:
    """`rows` free slots with room for `length` tokens each."""
    idle = jax.tree.map(lambda x: np.repeat(x, rows), draws(temperature=0.0))
    return Slots(_empty(model, rows, length), np.zeros(rows, np.int32), idle)


def join(model: Apart, params, slots: Slots, slot: int, length: int, prompt: Sequence[int], row: Draws):
    """A prompt of 1 to `length` tokens read into a slot of that length: (the token drawn after it, Slots)."""
    width = min(bucket(len(prompt)), length)
    tokens = np.zeros((1, width), np.int32)
    tokens[0, : len(prompt)] = prompt
    token, cache = _read(model, params, tokens, len(prompt), row)
    put = partial(_put, slot=slot)
    cache = jax.tree.map(put, slots.cache, cache)
    token = int(token[0])
    kept = jax.tree.map(lambda x, new: _changed(x, slot, new[0]), slots.draws, row._replace(drawn=row.drawn + 1))
    return token, Slots(cache, _changed(slots.token, slot, token), kept)


def step(model: Apart, params, slots: Slots) -> Slots:
    """Every row's newest token read, and the one behind it drawn; the cache of `slots` is given up."""
    token, cache = _step(model, params, slots.cache, slots.token, slots.draws)
    return Slots(cache, np.array(token), slots.draws._replace(drawn=slots.draws.drawn + 1))


def fit(model: Apart, slots: Slots, order: Sequence[int], length: int) -> Slots:
    """Slots of other sizes: the first hold the rows that `order` names, each with room for `length` tokens, no fewer
    than it holds; -1 names a free slot."""
    order = np.maximum(np.asarray(order, np.int32), 0)
    shapes = jax.eval_shape(lambda: model.empty(len(order), length))
    cache = jax.tree.map(lambda x, like: _fit(x, order, like.shape), slots.cache, shapes)
    return Slots(cache, slots.token[order], jax.tree.map(lambda x: x[order], slots.draws))


def sizes(least: int, most: int, times: int = 4) -> list[int]:
    """`least` and its multiples by powers of `times` below `most`, and `most`."""
    found = []
    while least < most:
        found.append(least)
        least *= times
    return [*found, most]


@partial(jax.jit, static_argnames=("model", "rows", "length"))
def _empty(model, rows: int, length: int):
    return model.empty(rows, length)


@partial(jax.jit, static_argnames="model")
def _read(model, params, tokens, count, row):
    logits, cache = model.read(params, tokens, count)
    return pick(logits, row), cache


@partial(jax.jit, static_argnames="model", donate_argnames="cache")
def _step(model, params, cache, token, draws):
    logits, cache = model.step(params, cache, token)
    return pick(logits, draws), cache


def pick(logits, draws: Draws):
    """The next token int32 [B] of each row of logits [B,V]: as of decode/sample.py, each row by its own settings.

    The logits of a row that cuts nothing stay as they are, whatever its neighbours cut.
    """
    logits = logits.astype(jnp.float32)

    def key(seed, choice, drawn):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), choice), drawn)

    def drawn():
        scaled = logits / jnp.maximum(draws.temperature, 1e-6)[:, None]
        cut = (draws.top_k > 0) | (draws.top_p < 1.0)

        def kept():
            tail = cut_tail(scaled, draws.top_k[:, None], draws.top_p[:, None])
            return jnp.where(cut[:, None], tail, scaled)

        keys = jax.vmap(key)(draws.seed, draws.choice, draws.drawn)
        return jax.vmap(jax.random.categorical)(keys, jax.lax.cond(cut.any(), kept, lambda: scaled))

    likeliest = jnp.argmax(logits, axis=-1)
    token = jax.lax.cond((draws.temperature > 0).any(), drawn, lambda: likeliest)
    return jnp.where(draws.temperature > 0, token, likeliest).astype(jnp.int32)


@partial(jax.jit, donate_argnums=0)
def _put(leaf, row, slot):
    """A leaf [B,...] with that of one row, [1,...] and no larger, from the start of a slot on."""
    return jax.lax.dynamic_update_slice(leaf, row.astype(leaf.dtype), (slot, *[0] * (leaf.ndim - 1)))


@partial(jax.jit, static_argnames="shape")
def _fit(leaf, order, shape):
    """The rows `order` of a leaf, cut off or filled with zeros to a shape."""
    leaf = leaf[(order, *[slice(size) for size in shape[1:]])]
    return jnp.pad(leaf, [(0, want - size) for want, size in zip(shape, leaf.shape)])


def _changed(x: np.ndarray, at: int, value) -> np.ndarray:
    x = x.copy()
    x[at] = value
    return x
