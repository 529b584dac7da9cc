"""A training step for models whose batch touches few rows of large tables: word vectors.

What `step.make_step` is to a loss, this is to a function that gives the gradients of the touched rows themselves. Plain
SGD or AdaGrad: other optimizers also change what stands in rows that a batch does not touch.
"""

import jax
import jax.numpy as jnp

from lmjax.nn.xla import written
from lmjax.train.state import count_bad


def sgd(params, opt, touched, rate):
    """Steps down `touched`, {name: (ids, rows)}, and leaves `opt` alone. An update may also be `adagrad`."""
    new = dict(params)
    for name, (ids, rows) in touched.items():
        new[name] = new[name].at[ids].add(-rate * rows)
    return new, opt


def adagrad(params, opt, touched, rate):
    """AdaGrad as GloVe's program has it: w -= s / sqrt(G), then G += s^2, with s = rate * gradient.

    opt: the accumulators G, of the shapes of `params`; `ones` to begin with. touched: {name: (ids, rows, squares)},
    gradients and the squares that the accumulators get.
    Where an id comes again in a batch all its gradients are divided by what G was before the batch, and each one's
    square is added to it, so that the sum of the accumulators is that of one update after another. Squaring the sum of
    n gradients instead would add up to n times as much, and the steps of frequent words would fade.
    """
    new, accumulators = dict(params), dict(opt)
    for name, (ids, rows, squares) in touched.items():
        G = written(opt[name][ids])
        new[name] = new[name].at[ids].add(-rate * rows * jax.lax.rsqrt(G))
        # G > 0 always: it tells the compiler that G was read before it changes, or it would change a copy.
        accumulators[name] = accumulators[name].at[ids].add(jnp.where(G > 0, rate * rate * squares, 0.0))
    return new, accumulators


def ones(params):
    """Accumulators for `adagrad`: the first step of a gradient of 1 is the learning rate."""
    return jax.tree.map(jnp.ones_like, params)


def make_sparse_step(gradients, learning_rate, turns: int, update=sgd, by_loss=False):
    """`step(state, batch, key, axis) -> (state, metrics)`: `turns` updates, one after the other, of state.params.

    gradients(params, opt, batch, key, report) -> (touched, (loss, weight)): sums over one update's batch, as `update`
        takes them, where an id may come again; loss and weight where `report` is true. `opt` is state.opt: tables that
        `sgd` never changes, the accumulators of `adagrad`.
    learning_rate(step): traced, asked for fractions of a step too. batch: leaves [rows, turns, ...], or [rows] for what
        all turns share.
    On several devices each gives the gradients of its rows, and all devices apply all of them, in one order.
    An update with a gradient that is not finite is skipped and counted in `bad`. by_loss: one whose loss is not finite,
        for gradients that always report it; so the gradients need not be written out to be looked at.
    """

    def step(state, batch, key, axis):
        key = jax.random.fold_in(key, state.step)
        each = {name: x.swapaxes(0, 1) for name, x in batch.items() if x.ndim > 1}
        shared = {name: x for name, x in batch.items() if x.ndim == 1}

        def turn(carry, item):
            params, opt, bad = carry
            i, mine = item
            touched, report = gradients(params, opt, mine | shared, jax.random.fold_in(key, i), i == 0)
            touched = axis.all_gather(touched)
            if by_loss:
                finite = jnp.isfinite(axis.psum(report[0]))
            else:
                # Sums of the columns first: XLA on CPU vectorizes these, and not the sum of a whole matrix.
                finite = jnp.isfinite(sum(x.sum(0).sum() for x in jax.tree.leaves(touched) if is_float(x)))
            touched = jax.tree.map(lambda x: jnp.where(finite, x, 0.0) if is_float(x) else x, touched)
            with jax.named_scope("update"):
                params, opt = update(params, opt, touched, learning_rate(state.step + i / turns))
            return (params, opt, count_bad(bad, finite)), report

        begin = (state.params, state.opt, state.bad)
        (params, opt, bad), (loss, weight) = jax.lax.scan(turn, begin, (jnp.arange(turns), each))
        loss, weight = axis.psum((loss.sum(), weight.sum()))
        report = {"loss": loss / jnp.maximum(weight, 1.0), "weight": weight, "bad": bad[0]}
        report["learning_rate"] = learning_rate(state.step)
        return state.replace(step=state.step + 1, params=params, opt=opt, bad=bad), report

    return step


def is_float(x):
    return jnp.issubdtype(x.dtype, jnp.floating)
