"""What `fit` trains: one training or several side by side, begun, compiled, stepped and validated in the same way."""

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax import param
from lmjax.run import grid, preflight
from lmjax.run import lanes as side_by_side
from lmjax.run.processes import distributed
from lmjax.train import lanes, parallel
from lmjax.train.state import new_state
from lmjax.train.step import Recipe


class Learner(NamedTuple):
    """A training as an experiment describes it, see `fit` in run/training.py; nothing of it is on a device yet.

    facts: its lanes, None for one training alone. begin(seed, hyper): the state of one before the first step; start():
    the canonical one. key(seed): what the steps draw with. batches: batch(step) of each distinct seed.
    """

    config: Any
    specs: Any
    recipe: Callable[[dict], Recipe]
    facts: side_by_side.Facts | None
    begin: Callable
    start: Callable
    key: Callable
    batches: list
    strategy: parallel.Strategy
    averagings: list
    best: bool
    alike: bool
    whole: bool

    @property
    def count(self) -> int:
        return len(self.facts.lanes) if self.facts else 1

    def weights(self, state, i: int = 0):
        """What lane i is judged by, of its own state."""
        averaging, near = self.averagings[i], self.strategy.near
        return near(state.params) if averaging is None else averaging.weights(near(state.average))

    def all_weights(self, state):
        """What remains of all lanes, [N, ...], of their canonical state."""
        if self.best:
            return self.strategy.near(state.best)
        each = [self.weights(lanes.one_of(state, i), i) for i in range(self.count)]
        return jax.tree.map(lambda *x: jnp.stack(x), *each)


def prepare(config, specs, recipe, batches, carry, *, best: bool, alike: bool, whole: bool) -> Learner:
    """A Learner from what `fit` is given."""
    facts = side_by_side.asked(config, whole)

    def keys(seed):
        return jax.random.split(jax.random.key(seed))  # of the steps, of the weights

    def of(hyper):
        return recipe(grid.with_values(config, hyper) if hyper else config)

    def begin(seed, hyper):
        mine = of(hyper)
        state = new_state(param.init(specs, keys(seed)[1]), mine.tx, carry, mine.averaging)
        return state.replace(best=state.params) if facts and best else state

    if facts:
        side_by_side.traced(facts, partial(begin, facts.seeds[0]))
        start, strategy = lanes.start_lanes(begin, facts.lanes), side_by_side.strategy_of(
            config, param.axes(specs), facts, alike
        )
    else:
        start = partial(begin, config.seed, {})
        strategy = parallel.choose(config.strategy, param.axes(specs), config.mesh)
    return Learner(
        config, specs, of, facts, begin, start, lambda seed: keys(seed)[0],
        [batches(seed) for seed in (facts.seeds if facts else [config.seed])], strategy,
        [of(one.values).averaging for one in (facts.lanes if facts else [lanes.Lane(config.seed)])], best, alike, whole,
    )  # fmt: skip


class Twin(NamedTuple):
    """A training as it would be, for planning: its parameters' specs, the state before the first step as shapes, its
    step(state, batch, key, axis), a batch, the key; micro-batches a batch, steps in all, tokens a step; that step as
    it was compiled for one device, or None. Of lanes: the first, alone."""

    specs: Any
    state: Any
    step: Callable
    batch: Any
    key: Any
    accumulate: int
    steps: int
    tokens: int
    compiled: Any = None


class Programs:
    """A compiled step for batches of each shape, and the work that was done: sentence pairs come in a few shapes."""

    def __init__(self, step):
        self.step, self.known, self.work, self.steps = step, {}, 0.0, 0
        self.lock = threading.Lock()  # lanes may be abreast

    def find(self, state, batch, draw):
        """(the compiled step, its FLOPs)."""
        shape = tuple(x.shape for x in jax.tree.leaves(batch))
        if shape not in self.known:
            distributed.pulse.beat("compiling")
            work = preflight.flops(self.step, state, batch, draw)
            self.known[shape] = self.step.lower(state, batch, draw).compile(), work
        return self.known[shape]

    def __call__(self, state, batch, draw):
        with self.lock:
            compiled, work = self.find(state, batch, draw)
            self.work += work
        return compiled(state, batch, draw)

    def launch(self, form):
        """The step of all lanes, for the loop."""

        def step(state, batch, _):
            self.steps += 1
            return form.launch(self, state, batch)

        return step

    def a_step(self) -> float:
        """FLOPs of a step of all lanes, the mean of those taken."""
        return self.work / self.steps if self.steps else next(iter(self.known.values()))[1]


def compile(made: Learner, state, start: int, folder, say):
    """(form, its Programs, the running state, the pre-flight line), of a canonical state or, for a plan, its shapes.

    start: the step that is to come. Of lanes the form is the one that a measurement finds faster, where it may be
    either; lanes.json in the workdir `folder` keeps it, for a run that goes on.
    """
    began, first = time.perf_counter(), [batch(start) for batch in made.batches]
    if made.facts:
        form, programs = _chosen(made, state, first, folder, say)
    else:
        form = lanes.Alone(made.strategy, made.strategy.share(made.key(made.config.seed)))
        programs = Programs(made.strategy.compile(made.recipe({}).make_step()))
    state = form.plan(state) if made.config.dry_run else form.place(state)
    one, batch, draw = form.sample(state, form.batch(first))
    compiled, work = programs.find(one, batch, draw)
    line = preflight.preflight(
        compiled, param.count(made.specs), made.strategy.devices, made.strategy.name, time.perf_counter() - began,
        work * form.turns, lanes=made.count, beside=_beside(form, compiled, one),
    )  # fmt: skip
    return form, programs, state, line


def twin(made: Learner, programs: Programs, steps: int, tokens: int) -> Twin:
    """Of a Learner that was compiled; of lanes the first, alone."""
    seed, mine, one_device = made.config.seed, made.recipe({}), made.facts is None and made.strategy.name == "local"
    state = jax.eval_shape(lambda: made.begin(seed, {}).replace(best=()))
    compiled = next(iter(programs.known.values()))[0] if one_device else None
    return Twin(made.specs, state, mine.make_step(), made.batches[0](0), made.key(seed), mine.accumulate, steps, tokens,
                compiled)  # fmt: skip


def _beside(form, compiled, state) -> int:
    """Bytes of a device that a form takes beside one call of its step: the states of the lanes that have another turn,
    and the scratch of those that are under way meanwhile. state: a call's."""
    return preflight.size(state) * (form.turns - 1) + preflight.scratch(compiled) * (form.abreast - 1)


def _chosen(made: Learner, state, first: list, folder, say):
    """(form, Programs) of lanes."""
    facts, config, strategy = made.facts, made.config, made.strategy

    def make(hyper):
        return made.recipe(hyper).make_step()

    shared_draws = strategy.share(lanes.draws(facts.lanes, made.key))
    single = jax.eval_shape(lambda s: lanes.one_of(s, 0), state)
    side_by_side.check_values(facts, make, single, first[0], made.key(0))

    def built(form):
        if form is lanes.Together:
            step = lanes.over_lanes(make, config.patience, shared=len(facts.seeds) == 1)
            return {form(strategy, shared_draws, facts.where): Programs(strategy.compile(step))}
        programs = Programs(strategy.compile(lanes.of_lane(make, config.patience)))
        wide = [1] if config.dry_run else side_by_side.widths(folder, strategy, facts)
        return {form(strategy, shared_draws, facts.where, width): programs for width in wide}

    known = side_by_side.known_form(config.form, folder, strategy, facts, made.alike)
    if known is None and config.dry_run:
        known = lanes.Together

    def fits(form, programs):
        compiled = next(iter(programs.known.values()))[0]
        have = preflight.device_memory(strategy.devices)
        return preflight.memory(compiled) + _beside(form, compiled, single) <= have or not have

    calls = built(known) if known is not None else built(lanes.InTurn) | built(lanes.Together)
    form = side_by_side.fastest(calls, state, first, fits, say) if len(calls) > 1 else next(iter(calls))
    programs = calls[form]
    programs.work = 0.0
    if not config.dry_run:
        side_by_side.keep(folder, facts, form)
    return form, programs


def validation(made: Learner, form, log: Callable, history: list, evaluate, decide, rank):
    """What the loop calls to validate: evaluates, logs, remembers, and lets `decide` change the state."""

    def remember(now, metrics):
        log(now, metrics)
        history.append({"step": now, **metrics})

    def all_in_one(now, state):
        at = form.joined(state)
        remember(now, evaluate(made.weights(at)))
        new = decide(history, at)
        return state if made.facts or new is at else form.put(state, {0: new})

    def lane_by_lane(now, state):
        count = made.count
        remember(now, side_by_side.mean_of([evaluate(made.weights(form.one(state, i), i)) for i in range(count)]))
        changed = {}
        for i in range(count):
            at = form.one(state, i)
            new = decide(side_by_side.own(history, i), at)
            changed |= {} if new is at else {i: new}
        state = form.put(state, changed) if changed else state
        if made.best:
            ranks = side_by_side.ranks(history, rank, count)
            better = np.array([math.isfinite(r[-1]) and r[-1] < min(r[:-1], default=math.inf) for r in ranks])
            state = form.better(state, better) if better.any() else state
        return state

    return all_in_one if made.whole or made.facts is None else lane_by_lane
