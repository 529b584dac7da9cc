"""Several trainings as the lanes of one program: seeds, and numbers that no shape depends on, such as learning rates.

A lane's step is the step of a training alone, under `jax.vmap` or one after the other; it begins with the weights and
draws with the keys that the training alone has with its seed. Under pmap and on a mesh each lane's batch is spread, not
the lanes.

N lanes, B batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.errors import UserError
from lmjax.train.state import State

AXES = State(step=None, params=0, opt=0, carry=1, average=0, bad=0)  # where the lanes stand in a state


class Lanes(NamedTuple):
    """seeds: one a lane. hyper: name -> one number a lane, which the step gets as its last argument. at_once: in
    parallel; else one after the other within the step, which is faster on CPU where a lane alone keeps it busy."""

    seeds: tuple[int, ...]
    hyper: dict[str, tuple] = {}  # noqa: RUF012 (never written to)
    at_once: bool = True


def large(seeds) -> Lanes:
    """Lanes of a model whose products alone keep a CPU busy: there one after the other, elsewhere at once."""
    return Lanes(tuple(seeds), at_once=jax.default_backend() != "cpu")


def check(lanes: Lanes):
    """Raises UserError where a hyper-parameter has another number of values than there are seeds."""
    if not lanes.seeds:
        raise UserError("lanes without a seed: give one seed a lane")
    for name, values in lanes.hyper.items():
        if len(values) != len(lanes.seeds):
            raise UserError(f"{len(values)} values of {name} for {len(lanes.seeds)} seeds: give one a lane")


def over_lanes(step, lanes: Lanes):
    """A step for all lanes from the step of one, `step(state, batch, key, axis)`, with `hyper` behind where it is set.

    The state's arrays are [N, ...], but for `state.step`, which is one for all, and `state.carry` [B, N, ...], whose
    first axis devices share, as is the batch's [B, N, ...]; key [N]. Metrics are means over the lanes; `bad` is the
    smallest, so that only a failure of all lanes stops a run, and `lanes_bad` says how many skipped this step.
    """
    hyper = {name: jnp.asarray(values) for name, values in lanes.hyper.items()}

    def all_lanes(state, batch, key, axis):
        def one(state, batch, key, hyper):
            given = (hyper,) if lanes.hyper else ()
            return step(state, batch, key, axis, *given)

        if lanes.at_once:
            new, metrics = jax.vmap(one, (AXES, 1, 0, 0), (AXES, 0))(state, batch, key, hyper)
        else:
            new, metrics = in_turn(one, state, batch, key, hyper)
        bad = metrics.pop("bad")
        report = {name: values.mean(axis=0) for name, values in metrics.items()}
        return new, report | {"bad": bad.min(), "lanes_bad": (bad > 0).sum()}

    return all_lanes


def in_turn(one, state, batch, key, hyper):
    """`one(state, batch, key, hyper)` of each lane, one after the other: what jax.vmap of it gives."""

    def move(tree, a, b):
        return jax.tree.map(lambda x: jnp.moveaxis(x, a, b), tree)

    def a_lane(own):
        of_lane, *rest = own
        return one(of_lane.replace(step=state.step), *rest)

    first = state.replace(step=None, carry=move(state.carry, 1, 0))
    new, metrics = jax.lax.map(a_lane, (first, move(batch, 1, 0), key, hyper))
    return new.replace(step=new.step[0], carry=move(new.carry, 0, 1)), metrics


def start_lanes(begin, keys, lanes: Lanes):
    """`(start, key)`: start() gives the state of all lanes before the first step, key [N] what their steps draw with.

    begin(seed) is the state of a training alone, keys(seed) its keys, of which the first is the steps'.
    """
    check(lanes)
    seeds = jnp.asarray(lanes.seeds, jnp.uint32)
    return (lambda: jax.vmap(begin, out_axes=AXES)(seeds)), jax.vmap(lambda seed: keys(seed)[0])(seeds)


def stack(batches: list):
    """One batch of all lanes [B, N, ...] from each lane's own [B, ...], on the host."""
    return jax.tree.map(lambda *rows: np.stack(rows, axis=1), *batches)


def lane(tree, i: int):
    """The arrays of lane i out of a tree whose leaves are [N, ...]."""
    return jax.tree.map(lambda x: x[i], tree)
