"""Several trainings side by side, as lanes: of seeds, and of numbers that shape no program, such as learning rates.

A lane is the training that its seed and its numbers alone would be: it begins with that one's weights and draws with
its keys. There are two ways to it: one program for all under `jax.vmap` (`Together`), and the program of one, compiled
once and called for each lane (`InTurn`), which costs nothing where a lane alone keeps the device busy and which batches
of several shapes need. A CPU may have several of those calls under way: steps of small arrays leave cores idle that
another lane can use. `Alone` is a training without lanes; all three have the same methods, over the state as it is
stepped ("running") and its canonical form, the one in checkpoints: arrays [N, ...], carry [B, N, ...]. A step of all
lanes is `turns` calls of a compiled step, `abreast` of them at a time.

N lanes, B batch.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.errors import UserError
from lmjax.train.state import State
from lmjax.train.step import keep

AXES = State(step=None, params=0, opt=0, carry=1, average=0, bad=0, best=0)  # where the lanes stand in a state


class Lane(NamedTuple):
    """A training of the several: its seed, and by name the numbers that it has in place of the settings'."""

    seed: int
    values: dict[str, float] = {}  # noqa: RUF012 (never written to)


def draws(lanes, key: Callable):
    """What a step draws with, for all lanes: (keys [N], {name: number [N]}). key(seed): of a training alone."""
    names = {name for lane in lanes for name in lane.values}
    if any(set(lane.values) != names for lane in lanes):
        raise UserError("lanes set different names: give each lane a value of every one")
    hyper = {name: jnp.asarray([lane.values[name] for lane in lanes], jnp.float32) for name in sorted(names)}
    return jax.vmap(key)(jnp.asarray([lane.seed for lane in lanes], jnp.uint32)), hyper


def of_lane(make: Callable, patience: int):
    """The step of one lane, `step(state, batch, (key, hyper), axis)`, from `make(hyper)`, the step of a training alone.

    A lane with `patience` non-finite steps in a row stays as it is, as its run alone would have stopped.
    """

    def one(state, batch, draw, axis):
        key, hyper = draw
        new, metrics = make(hyper)(state, batch, key, axis)
        going = state.bad[0] < patience
        new = keep(going, new, state).replace(step=state.step + 1)
        return new, metrics | {"bad": jnp.where(going, metrics["bad"], state.bad[0])}

    return one


def over_lanes(make: Callable, patience: int = 10, shared: bool = False):
    """A step for all lanes, `step(state, batch, draws, axis)`, over the canonical state.

    batch: [B, N, ...], or [B, ...] where all lanes share it. Metrics are those of `summary`.
    """
    one = of_lane(make, patience)

    def all_lanes(state, batch, draws, axis):
        new, metrics = jax.vmap(lambda *given: one(*given, axis), (AXES, None if shared else 1, 0), (AXES, 0))(
            state, batch, draws
        )
        return new, summary(axis.lanes(metrics))

    return all_lanes


def summary(metrics: dict) -> dict:
    """Of metrics [N]: means over the lanes that took this step; `bad` of the lane that has fewest, so that a failure of
    all lanes alone stops a run, and `lanes_bad`, how many skipped this step."""
    metrics = dict(metrics)
    bad = metrics.pop("bad")
    good = bad == 0
    some = jnp.where(good.any(), good, True)
    report = {name: jnp.where(some, values, 0).sum() / some.sum() for name, values in metrics.items()}
    return report | {"bad": bad.min(), "lanes_bad": (~good).sum()}


def start_lanes(begin: Callable, lanes):
    """start() gives the canonical state before the first step. begin(seed, hyper): the state of a training alone."""
    seeds, hyper = draws(lanes, lambda seed: seed)
    return lambda: jax.vmap(begin, out_axes=AXES)(seeds, hyper)


def stack(batches: list):
    """One batch of all lanes [B, N, ...] from each lane's own [B, ...], on the host."""
    return jax.tree.map(lambda *rows: np.stack(rows, axis=1), *batches)


def lane(tree, i: int):
    """The arrays of lane i out of a tree whose leaves are [N, ...]."""
    return jax.tree.map(lambda x: x[i], tree)


def one_of(state, i: int):
    """The state of lane i out of a canonical one."""
    parts = {name: lane(getattr(state, name), i) for name in ("params", "opt", "average", "bad", "best")}
    parts["step"] = state.step + 0  # a buffer of its own, for each lane gives its state away
    return state.replace(carry=jax.tree.map(lambda x: x[:, i], state.carry), **parts)


def split(state) -> list:
    """A canonical state, cut into the states of its lanes."""
    return [one_of(state, i) for i in range(len(state.bad))]


def join(states: list):
    """The canonical state of lanes' own: what `split` undoes. On the host where the states are, else on the device."""

    def along(axis):
        def one(*rows):
            return (np if isinstance(rows[0], np.ndarray) else jnp).stack(rows, axis)

        return one

    first = states[0]
    whole = jax.tree.map(along(0), *(s.replace(step=None, carry=()) for s in states))
    return whole.replace(step=first.step, carry=jax.tree.map(along(1), *(s.carry for s in states)))


class Alone:
    """One training: running and canonical state are the same, but for where they are."""

    name, turns, abreast = "", 1, 1

    def __init__(self, strategy, key):
        self.strategy, self.draws = strategy, key
        self.place, self.plan, self.host = strategy.place, strategy.plan, strategy.host

    def batch(self, rows: list):
        """On the devices, from the batches of each distinct seed."""
        return self.strategy.batch(rows[0])

    def launch(self, call: Callable, state, batch):
        """One step of all lanes: (state, metrics). call(state, batch, draw): a compiled step."""
        return call(state, batch, self.draws)

    def sample(self, state, batch):
        """What `launch` calls the first time: (state, batch, draw)."""
        return state, batch, self.draws

    def joined(self, state):
        """The canonical state on the devices, without the carry."""
        return state

    def one(self, state, i: int):
        """The state of lane i."""
        return state

    def put(self, state, changed: dict):
        """The running state with other states in place of some lanes' own, by their number."""
        return changed.get(0, state)


class Together:
    """All lanes in one program. strategy: its batches are [B, N, ...], or [B, ...] where one seed serves all lanes."""

    name, turns, abreast = "at once", 1, 1

    def __init__(self, strategy, draws, where: list[int]):
        """where: for each lane the place of its seed among the distinct ones."""
        self.strategy, self.draws, self.where = strategy, draws, where
        self.place, self.plan, self.host = strategy.place, strategy.plan, strategy.host

    def batch(self, rows):
        return self.strategy.batch(rows[0] if len(rows) == 1 else stack([rows[i] for i in self.where]))

    def launch(self, call, state, batch):
        return call(state, batch, self.draws)

    def sample(self, state, batch):
        return state, batch, self.draws

    def joined(self, state):
        return state.replace(carry=())  # which has another form where devices share it

    def one(self, state, i):
        return one_of(self.joined(state), i)

    def put(self, state, changed):
        states = split(self.host(state))
        for i, new in changed.items():
            states[i] = jax.device_get(new).replace(carry=states[i].carry)
        return self.place(join(states))

    def better(self, state, improved):
        """The running state in which the lanes that `improved`, bool [N], have their weights for the best."""

        def one(new, old):
            return jnp.where(improved.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        where = jax.tree.map(lambda x: x.sharding, state.best)
        choose = jax.jit(lambda new, old: jax.tree.map(one, new, old), out_shardings=where)
        return state.replace(best=choose(state.params, state.best))


class InTurn:
    """The lanes one after the other, each stepped by the program of one; running, they are a list of states.

    abreast: how many are under way at any time, each in a thread of its own. It changes no bit. More than one only
    where the program has no collectives, which would wait for each other crosswise.
    """

    name = "in turn"

    def __init__(self, strategy, draws, where: list[int], abreast: int = 1):
        self.strategy, self.where, self.turns, self.abreast = strategy, where, len(where), abreast
        self.threads = ThreadPoolExecutor(abreast, "lane") if abreast > 1 else None
        self.draws = [jax.tree.map(lambda x: x[i], draws) for i in range(len(where))]  # noqa: B023
        self.summary = jax.jit(lambda metrics: summary(jax.tree.map(lambda *x: jnp.stack(x), *metrics)))

    def place(self, state):
        return [self.strategy.place(one) for one in split(state)]

    def plan(self, state):
        first = jax.eval_shape(lambda s: split(s)[0], state)
        return [self.strategy.plan(first)] * len(self.where)

    def host(self, states):
        return join([self.strategy.host(one) for one in states])

    def batch(self, rows):
        return [self.strategy.batch(batch) for batch in rows]

    def launch(self, call, states, batches):
        def one(state, at, draw):
            stepped = call(state, batches[at], draw)
            return jax.block_until_ready(stepped) if self.threads else stepped  # the next has this one's place

        each = self.threads.map if self.threads else map
        new, metrics = zip(*each(one, states, self.where, self.draws))
        return list(new), self.summary(list(metrics))

    def sample(self, states, batches):
        return states[0], batches[self.where[0]], self.draws[0]

    def joined(self, states):
        return join([one.replace(carry=()) for one in states])

    def one(self, states, i):
        return states[i]

    def put(self, states, changed):
        return [changed.get(i, one) for i, one in enumerate(states)]

    def better(self, states, improved):
        return [
            one.replace(best=jax.tree.map(jnp.copy, one.params)) if now else one for one, now in zip(states, improved)
        ]
