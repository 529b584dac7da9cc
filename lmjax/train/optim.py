"""Optimizers from optax, schedules as traced functions of the step, and averages of the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_map_with_path

from lmjax.nn.dropout import absent

NOT_DECAYED = ("b", "bias", "scale", "offset")


def decay_mask(params):
    """True where weight decay applies: all but biases and the scales of norms, told by the last name of the path."""
    return tree_map_with_path(lambda p, _: keystr(p[-1:], simple=True) not in NOT_DECAYED, params)


def adamw(learning_rate, *, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    """AdamW (Loshchilov & Hutter 2019), decaying what `decay_mask` says. `learning_rate`: a number or a schedule."""
    return optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=decay_mask)


def sgd(learning_rate, *, weight_decay=0.0, shrink=0.0):
    """Plain gradient descent. weight_decay: adds that multiple of the weights to the gradient. shrink: takes that share
    of the weights off at each step, whatever the learning rate (Gal & Ghahramani's code)."""
    steps = [optax.add_decayed_weights(weight_decay)] if not absent(weight_decay) else []
    steps += [optax.sgd(learning_rate)]
    steps += [optax.add_decayed_weights(-shrink)] if not absent(shrink) else []
    return optax.chain(*steps)


def adadelta(learning_rate=1.0, *, rho=0.95, eps=1e-6):
    """Adadelta (Zeiler 2012, algorithm 1, whose rate is 1)."""
    return optax.adadelta(learning_rate, rho, eps)


def norm_limit(tx, limit: float, place: tuple[str, ...]):
    """`tx`, after whose steps no column of the weights at `place` is longer than `limit` (Hinton et al. 2012).

    place: the path of a matrix [D,K] in the parameters; a column is what one unit reads.
    """

    def within(path, update, weights):
        if path != place:
            return update
        new = weights + update
        length = jnp.sqrt((new * new).sum(0, keepdims=True))
        return new * jnp.minimum(1.0, limit / jnp.maximum(length, 1e-12)) - weights

    def update(updates, state, params):
        updates, state = tx.update(updates, state, params)
        return tree_map_with_path(
            lambda path, u, p: within(tuple(keystr((part,), simple=True) for part in path), u, p), updates, params
        ), state

    return optax.GradientTransformation(tx.init, update)


def warmup_cosine(peak: float, steps: int, warmup: int = 0, end: float = 0.0):
    """Linear from 0 to `peak` over `warmup` steps, then a half cosine down to `end` at `steps` (nanoGPT's schedule)."""

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        rising = peak * (step + 1) / (warmup + 1)
        along = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        return jnp.where(step < warmup, rising, end + 0.5 * (1 + jnp.cos(jnp.pi * along)) * (peak - end))

    return schedule


def inverse_square_root(peak: float, warmup: int):
    """Linear from 0 to `peak` over `warmup` steps, then falling as 1 / sqrt(step) (Vaswani et al. 2017, eq. 3)."""

    def schedule(step):
        step = jnp.asarray(step, jnp.float32) + 1
        return peak * jnp.minimum(step / warmup, jnp.sqrt(warmup / step))

    return schedule


def epoch_decay(start: float, factor: float, steps_per_epoch: int, flat: int):
    """`start` for the first `flat` epochs, then multiplied by `factor` at each epoch (Zaremba et al. 2014)."""

    def schedule(step):
        epoch = jnp.asarray(step) // steps_per_epoch + 1
        return start * jnp.power(jnp.float32(factor), jnp.maximum(epoch - flat, 0))

    return schedule


class Averaging(NamedTuple):
    """init(params) -> average; update(average, params, step) -> average; weights(average) -> what to evaluate with."""

    init: Any
    update: Any
    weights: Any


def ema(decay: float) -> Averaging:
    """Exponential moving average of the weights, corrected for its start at zero."""

    def init(params):
        return {"mean": jax.tree.map(jnp.zeros_like, params), "steps": jnp.zeros((), jnp.int32)}

    def update(average, params, step):
        mean = jax.tree.map(lambda m, p: decay * m + (1 - decay) * p, average["mean"], params)
        return {"mean": mean, "steps": average["steps"] + 1}

    def weights(average):
        seen = 1.0 - jnp.power(jnp.float32(decay), average["steps"])
        return jax.tree.map(lambda m: m / seen, average["mean"])

    return Averaging(init, update, weights)


def polyak() -> Averaging:
    """The mean of the weights since step `since` (Polyak & Juditsky 1992); the weights themselves while `since` is -1.

    Merity et al. 2017 (NT-ASGD) set `since` once the validation loss stops falling; see `start_averaging`.
    """

    def init(params):
        return {"mean": jax.tree.map(jnp.copy, params), "since": jnp.full((), -1, jnp.int32)}

    def update(average, params, step):
        n = jnp.where(average["since"] < 0, 1, step - average["since"] + 1).astype(jnp.float32)
        mean = jax.tree.map(lambda m, p: m + (p - m) / n, average["mean"], params)
        return {"mean": mean, "since": average["since"]}

    return Averaging(init, update, lambda average: average["mean"])


def last_snapshots(count: int, every: int, steps: int) -> Averaging:
    """The mean of the weights after the last `count` multiples of `every` steps up to `steps`, the weights themselves
    before the first of them, also where what was trained until then had another end.

    What averaging the last checkpoints gives (Vaswani et al. 2017, section 6.1), in the memory of one.
    """

    def init(params):
        return {"mean": jax.tree.map(jnp.copy, params), "count": jnp.zeros((), jnp.int32)}

    def update(average, params, step):
        now = jnp.asarray(step, jnp.int32) + 1
        among = now > (steps // every - count) * every
        due, n = (now % every == 0) & among, jnp.where(among, average["count"], 0)
        share = jnp.where(due, 1 / (n + 1), 0.0)
        mean = jax.tree.map(lambda m, p: jnp.where(n == 0, p, m + (p - m) * share), average["mean"], params)
        return {"mean": mean, "count": n + due}

    return Averaging(init, update, lambda average: average["mean"])


def start_averaging(state):
    """The state with Polyak's mean beginning at its step."""
    return state.replace(average={**state.average, "since": jnp.array(state.step, copy=True)})
