"""One training step as a pure function `step(state, batch, key, axis) -> (state, metrics)`.

The loss gives sums, `loss(params, batch, key, carry) -> (sum, (weight, metrics, carry))`, and the one division of the
program stands here, after the sums of all devices and all micro-batches are in: ragged batches weigh what they hold.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmjax.errors import UserError
from lmjax.nn.dropout import absent
from lmjax.train.state import count_bad


def gradient_sums(loss, params, batch, key, carry, accumulate: int = 1):
    """Sums over a batch [B, ...]: (loss, weight, metrics, gradient), and the carry. Nothing is divided yet.

    With `accumulate` = A the batch is taken in A micro-batches of B/A rows, one after the other: the memory of one,
    the gradient of all. Micro-batch i holds rows i, i+A, ..., so each device of a mesh keeps its own rows.
    """

    def one(batch, key, carry):
        (total, (weight, metrics, carry)), gradient = jax.value_and_grad(loss, has_aux=True)(params, batch, key, carry)
        return (total, weight, metrics, gradient), carry

    if accumulate == 1:
        return one(batch, key, carry)

    def split(x):
        if x.shape[0] % accumulate:
            raise UserError(f"a batch of {x.shape[0]} rows on each device is no multiple of accumulate={accumulate}")
        return x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1)

    def join(x):
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    def body(sums, piece):
        i, batch, carry = piece
        new, carry = one(batch, jax.random.fold_in(key, i), carry)
        return jax.tree.map(jnp.add, sums, new), carry

    pieces = (jnp.arange(accumulate), jax.tree.map(split, batch), jax.tree.map(split, carry))
    first = jax.tree.map(lambda x: x[0], pieces)
    like = jax.eval_shape(lambda p: one(p[1], key, p[2])[0], first)
    sums, carry = jax.lax.scan(body, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like), pieces)
    return sums, jax.tree.map(join, carry)


class Descent(NamedTuple):
    """What one update leaves: the weights, the optimizer's state and the carry, as they were where `finite` is False.

    metrics: the loss's divided by the weight, with loss, gradient_norm (unclipped) and weight.
    """

    params: Any
    opt: Any
    carry: Any
    finite: jax.Array
    metrics: dict


def descend(loss, tx, params, opt, batch, key, carry, axis, *, accumulate: int = 1, clip: float = 0.0, scale=None):
    """One update of `params` [tree] by `tx` down the gradient of `loss`: a step's middle, a GAN's half -> Descent.

    clip: the largest global norm of the mean gradient, a longer one is shortened to it; 0: none. scale: a factor on the
    update. A loss or gradient that is not finite changes nothing.
    """
    sums, new_carry = gradient_sums(loss, params, batch, key, carry, accumulate)
    total, weight, metrics, gradient = axis.psum(sums)
    mean = 1.0 / jnp.maximum(weight, 1e-12)
    with jax.named_scope("update"):
        # The norm of the sums, so that division and clipping are one factor and one pass over the gradient.
        norm = optax.tree.norm(gradient) * mean
        factor = mean if absent(clip) else mean * jnp.where(clip > 0, jnp.minimum(1.0, clip / norm), 1.0)
        gradient = jax.tree.map(lambda g: g * factor, gradient)
        finite = jnp.isfinite(total) & jnp.isfinite(norm)
        updates, new_opt = tx.update(gradient, opt, params)
        if scale is not None:
            updates = jax.tree.map(lambda u: u * scale, updates)
        new_params = optax.apply_updates(params, updates)
    report = {name: value * mean for name, value in metrics.items()}
    report |= {"loss": total * mean, "gradient_norm": norm, "weight": weight}
    return Descent(
        keep(finite, new_params, params), keep(finite, new_opt, opt), keep(finite, new_carry, carry), finite, report
    )


def keep(finite, new, old):
    """`new` [tree] where the update was finite, else `old`."""
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)


def make_step(
    loss, tx, *, accumulate: int = 1, clip: float = 0.0, averaging=None, learning_rate=None, update_scale=None
):
    """A step for a loss and an optax transformation.

    loss: see above. clip: the largest global norm of the mean gradient, a longer one is shortened to it; 0: none.
    averaging: keeps `state.average` (optim.py). learning_rate: a schedule, only to be reported. update_scale(batch): a
    factor on the update, for batches whose length varies.
    Metrics are the loss's divided by the weight, with loss, gradient_norm (unclipped), weight and bad (steps skipped in
    a row).
    A step whose loss or gradient is not finite changes nothing but the counts.
    """

    def step(state, batch, key, axis):
        key = axis.fold(jax.random.fold_in(key, state.step))
        scale = None if update_scale is None else update_scale(batch)
        new = descend(
            loss, tx, state.params, state.opt, batch, key, state.carry, axis,
            accumulate=accumulate, clip=clip, scale=scale,
        )  # fmt: skip
        average = state.average
        if averaging is not None:
            average = keep(new.finite, averaging.update(average, new.params, state.step), average)
        bad = count_bad(state.bad, new.finite)
        report = new.metrics | {"bad": bad[0]}
        if learning_rate is not None:
            report["learning_rate"] = learning_rate(state.step)
        new = state.replace(
            step=state.step + 1, params=new.params, opt=new.opt, carry=new.carry, average=average, bad=bad
        )
        return new, report

    return step


class Recipe(NamedTuple):
    """How the weights change, as an experiment makes it of its settings: see `make_step`, whose arguments these are.

    step: one of one's own in their place; tx.init then gives what stands in state.opt.
    """

    tx: Any
    loss: Any = None
    step: Any = None
    accumulate: int = 1
    clip: float = 0.0
    averaging: Any = None
    learning_rate: Any = None
    update_scale: Any = None

    def make_step(self):
        return self.step or make_step(
            self.loss, self.tx, accumulate=self.accumulate, clip=self.clip, averaging=self.averaging,
            learning_rate=self.learning_rate, update_scale=self.update_scale,
        )  # fmt: skip
