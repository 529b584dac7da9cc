"""A training step for models whose batch touches few rows of large tables: word vectors.

What `step.make_step` is to a loss, this is to a function that gives the gradients of the touched rows themselves. Plain
SGD or AdaGrad: other optimizers also change what stands in rows that a batch does not touch.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.nn.xla import written
from lmjax.train.state import count_bad

BEYOND = np.iinfo(np.int32).max  # an id that no table has: what is added there is dropped


def sgd(params, opt, touched, rate):
    """Steps down `touched`, {name: (ids [N], rows [N,D], factor [N] on each row)}, and leaves `opt` alone."""
    new = dict(params)
    for name, (ids, rows, factor) in touched.items():
        new[name] = new[name].at[ids].add((-rate * factor)[:, None] * rows)
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


def make_sparse_step(draw, gradients, loss, learning_rate, turns: int, update=sgd):
    """`step(state, batch, key, axis) -> (state, metrics)`: `turns` updates, one after the other, of state.params.

    draw(opt, batch, key) -> drawn, leaves [turns, ...]: what each update reads, from the batch, with whatever is random
        in it. All of a step's are drawn before its first update: they do not wait for each other there.
    gradients(params, opt, drawn) -> (touched, finite bool [1]): sums over one update's part as `update` takes them,
        `sgd` or `adagrad`, ids int32, any of which may come again; and whether all are finite.
    loss(params, opt, drawn) -> (loss, weight): sums too, which are taken of a step's first update.
    opt: state.opt, the tables that `sgd` never changes, the accumulators of `adagrad`.
    learning_rate(step): traced, asked for fractions of a step too.
    On several devices each gives the gradients of its rows of the batch, and all devices apply all of them, in one
    order. An update with a gradient that is not finite is skipped and counted in `bad`.
    """

    def step(state, batch, key, axis):
        drawn = draw(state.opt, batch, jax.random.fold_in(key, state.step))
        first = loss(state.params, state.opt, jax.tree.map(lambda x: x[0], drawn))

        def rate(i):
            return jnp.asarray(learning_rate(state.step + i / turns), jnp.float32)

        def turn(carry, item):
            params, opt, bad, now = carry
            i, mine = item
            touched, finite = axis.all_gather(gradients(params, opt, mine))
            finite = finite.all()
            # No id rather than no gradient: that would be another pass over the rows.
            touched = jax.tree.map(lambda x: jnp.where(finite, x, BEYOND) if x.dtype == jnp.int32 else x, touched)
            with jax.named_scope("update"):
                params, opt = update(params, opt, touched, now)
            # The next rate is carried there, or XLA on CPU computes it anew for every element of the rows.
            return (params, opt, count_bad(bad, finite), rate(i + 1)), None

        begin = (state.params, state.opt, state.bad, rate(0))
        (params, opt, bad, _), _ = jax.lax.scan(turn, begin, (jnp.arange(turns), drawn))
        total, weight = axis.psum(first)
        report = {"loss": total / jnp.maximum(weight, 1.0), "weight": weight, "bad": bad[0]}
        report["learning_rate"] = rate(0)
        return state.replace(step=state.step + 1, params=params, opt=opt, bad=bad), report

    return step
