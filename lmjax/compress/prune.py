"""Magnitude pruning: the smallest weights become 0 and stay 0 (Han et al. 2015; Zhu & Gupta 2017).

`pruned(tx, ...)` is an optax transformation around another. Its masks stand in the optimizer's state by the weights'
paths, so that a checkpoint holds them, a run that goes on keeps them to the bit, and weights that are 0 in training are
0 in what is exported.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmjax.compress.select import flat, replaced


class Schedule(NamedTuple):
    """sparsity(step, final) -> share of weights that are 0; due(step) -> bool, the masks are chosen anew at this step.
    Steps and shares may be traced."""

    sparsity: Callable
    due: Callable


def gradual(begin: int, every: int, times: int, first: float = 0.0) -> Schedule:
    """Zhu & Gupta 2017, eq. 1: s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3, from t_0 = `begin` on, each
    dt = `every` steps, n = `times` times; s_i = `first`."""

    def sparsity(step, final):
        along = jnp.clip((step - begin) / (times * every), 0.0, 1.0)
        return jnp.where(step < begin, 0.0, final + (first - final) * (1 - along) ** 3)

    def due(step):
        return (step >= begin) & (step <= begin + times * every) & ((step - begin) % every == 0)

    return Schedule(sparsity, due)


def rounds(begin: int, every: int, times: int) -> Schedule:
    """Han et al. 2015, section 3: prune, retrain for `every` steps, prune again, `times` times.

    Each round keeps the same share of what the one before left, so that the last one leaves 1 - `final`.
    """

    def sparsity(step, final):
        done = jnp.clip((step - begin) // every + 1, 0, times)
        return 1 - jnp.power(1 - jnp.asarray(final, jnp.float32), done / times)

    def due(step):
        return (step >= begin) & (step < begin + times * every) & ((step - begin) % every == 0)

    return Schedule(sparsity, due)


@jax.jit
def mask(weights, sparsity):
    """bool, of the shape of `weights`: False at the round(sparsity x size) that are smallest in magnitude.

    Weights of one magnitude go together, so that zeros never count twice. sparsity may be traced.
    """
    size = jnp.abs(weights).reshape(-1)
    count = jnp.round(sparsity * size.size).astype(jnp.int32)
    limit = jnp.sort(size)[jnp.clip(count - 1, 0, size.size - 1)]
    return jnp.where(count > 0, jnp.abs(weights) > limit, True)


def magnitude(params, shares: dict):
    """The tree with the smallest weights 0. shares: {path: share of them}."""
    leaves = flat(params)
    return replaced(params, {p: jnp.where(mask(leaves[p], s), leaves[p], 0) for p, s in shares.items()})


class Pruned(NamedTuple):
    """The optimizer's state: steps taken, {path: bool mask}, and the state of what it is around."""

    step: jax.Array
    masks: dict
    inner: Any


def pruned(tx, schedule: Schedule, shares: dict):
    """`tx`, under which weights that are masked away are 0 after every update.

    shares: {path: its final sparsity}. Masks are chosen by the magnitudes that the update of a due step leaves. What it
    gives has to reach the weights as it is: it goes around all other transformations, and make_step's update_scale is
    none for it.
    Departure from Zhu & Gupta's code: what was masked away is forgotten and not kept beside its mask; it could come
    back only if weights that are trained fell below it.
    """

    def init(params):
        leaves = flat(params)
        masks = {path: jnp.ones(leaves[path].shape, bool) for path in shares}
        return Pruned(jnp.zeros((), jnp.int32), masks, tx.init(params))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("pruning needs the weights: call update(updates, state, params)")
        updates, inner = tx.update(updates, state.inner, params)
        new, old = flat(optax.apply_updates(params, updates)), flat(params)

        def anew(masks):
            """What is gone counts as 0, whatever the update would make of it."""
            left = {path: jnp.where(kept, new[path], 0) for path, kept in masks.items()}
            return {p: mask(w, schedule.sparsity(state.step, shares[p])) & masks[p] for p, w in left.items()}

        masks = jax.lax.cond(schedule.due(state.step), anew, lambda masks: masks, state.masks)
        changes = flat(updates)
        changes |= {path: jnp.where(kept, changes[path], -old[path]) for path, kept in masks.items()}
        return replaced(updates, changes), Pruned(state.step + 1, masks, inner)

    return optax.GradientTransformation(init, update)


def over_training(tx, config, steps: int, paths):
    """`tx` with Zhu & Gupta's gradual pruning of the weights at `paths` as a config.Pruning has it, in a training of
    `steps`. Its sparsity may be traced, so that several are lanes of one program."""
    begin = round(config.begin * steps)
    times = max((round(config.end * steps) - begin) // config.every, 1)
    return pruned(tx, gradual(begin, config.every, times), dict.fromkeys(paths, config.sparsity))
