"""A training step for models whose batch touches few rows of large tables: word vectors.

What `step.make_step` is to a loss, this is to a function that gives the gradients of the touched rows themselves. Plain
SGD: only it needs no state for the rows that a batch does not touch.
"""

import jax
import jax.numpy as jnp

from lmjax.train.state import count_bad


def make_sparse_step(gradients, learning_rate, turns: int):
    """`step(state, batch, key, axis) -> (state, metrics)`: `turns` updates, one after the other, of state.params.

    gradients(params, tables, batch, key, report) -> ({name: (ids int [N], rows [N,D])}, (loss, weight)): sums over one
        update's batch for each table, where an id may come again; loss and weight where `report` is true. `tables` is
        state.opt, which no step changes.
    learning_rate(step): traced, asked for fractions of a step too. batch: leaves [rows, turns, ...], or [rows] for what
        all turns share.
    On several devices each gives the gradients of its rows, and all devices apply all of them, in one order.
    An update with a gradient that is not finite is skipped and counted in `bad`.
    """

    def step(state, batch, key, axis):
        key = jax.random.fold_in(key, state.step)
        each = {name: x.swapaxes(0, 1) for name, x in batch.items() if x.ndim > 1}
        shared = {name: x for name, x in batch.items() if x.ndim == 1}

        def turn(carry, item):
            params, bad = carry
            i, mine = item
            touched, report = gradients(params, state.opt, mine | shared, jax.random.fold_in(key, i), i == 0)
            touched = axis.all_gather(touched)
            rate = learning_rate(state.step + i / turns)
            # Sums of the columns first: XLA on CPU vectorizes these, and not the sum of a whole matrix.
            finite = jnp.isfinite(sum(rows.sum(0).sum() for _, rows in touched.values()))
            new = dict(params)
            with jax.named_scope("update"):
                for name, (ids, rows) in touched.items():
                    new[name] = new[name].at[ids].add(jnp.where(finite, -rate * rows, 0.0))
            return (new, count_bad(bad, finite)), report

        (params, bad), (loss, weight) = jax.lax.scan(turn, (state.params, state.bad), (jnp.arange(turns), each))
        loss, weight = axis.psum((loss.sum(), weight.sum()))
        report = {"loss": loss / jnp.maximum(weight, 1.0), "weight": weight, "bad": bad[0]}
        report["learning_rate"] = learning_rate(state.step)
        return state.replace(step=state.step + 1, params=params, bad=bad), report

    return step
