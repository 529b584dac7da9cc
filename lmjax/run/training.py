"""What stands around a training: a workdir that is ours alone, its checkpoints, its log, and the loop between them."""

import itertools
import math
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax import param
from lmjax.errors import Interrupted, UserError
from lmjax.run import flags, grid, preflight, record
from lmjax.run import lanes as side_by_side
from lmjax.run.log import Log
from lmjax.run.options import Run
from lmjax.run.weights import trained
from lmjax.run.workdir import MAY_CHANGE, workdir, write
from lmjax.train import lanes as several
from lmjax.train import loop, parallel
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.interrupt import interrupts
from lmjax.train.state import new_state
from lmjax.train.step import Recipe


class Session(NamedTuple):
    """An experiment under way: its name, its Config (a run/options.Run), its folder, the signals that may end it."""

    experiment: str
    config: Any
    workdir: Any
    interrupt: Any

    def say(self, text: str):
        if not self.config.quiet:
            print(text, flush=True)

    def check(self):
        """Raises `Interrupted` where a signal came: called wherever the program may stay for more than seconds."""
        if self.interrupt.requested:
            raise Interrupted(
                "stopped by a signal; the same command goes on from the last checkpoint", self.interrupt.requested
            )


class Outcome(NamedTuple):
    """What `fit` leaves: the weights to evaluate with, the validations [{"step", metric: value}], seconds, FLOPs.

    lanes: run/lanes.py's Facts where there were several trainings; params are [N, ...] then, and the history has each
    lane's metrics behind its number. best: the lane that validated best. stopped: the lanes that failed.
    """

    params: Any
    history: list
    seconds: float
    flops: float
    parameters: int
    lanes: side_by_side.Facts | None = None
    best: int = 0
    stopped: tuple[int, ...] = ()


@contextmanager
def session(experiment: str, config, may_change=(), may_grow=()):
    """The workdir of a run, locked against a second process, and its signals.

    may_change: settings that decide what is done with the trained model alone, so that a finished run may be asked
    again with others. may_grow: how long it is trained, where more of it changes nothing of what was trained so far.
    """
    path, free = config.workdir or fresh(experiment), (*MAY_CHANGE, *may_change)
    with workdir(path, experiment, config, free, may_grow) as folder, interrupts() as interrupt:
        interrupt.publish(None)  # nothing to save yet
        run = Session(experiment, config, folder, interrupt)
        run.say(f"{experiment} in {folder}" + ("" if config.workdir else f" (--workdir={folder} goes on with it)"))
        yield run


def fresh(experiment: str) -> Path:
    """A new folder under runs/, the first number that no run has taken."""
    for number in itertools.count(1):
        folder = Path("runs", experiment, f"{number:03}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def finish(
    session: Session, presets: dict, outcome: Outcome, metrics: dict, published: dict | None = None, notes="",
    seeds=None, free=(), as_published=True,
):  # fmt: skip
    """Writes result.json and prints each metric beside the published one.

    metrics: name -> number, or one for each of `seeds` (default: the run's own, or its lanes'). published: name ->
    (value, source) or (value, source, mark), see record.Published. A run that changed a setting of its preset, other
    than where and how it ran and those named in `free`, is a partial one, as is one whose preset is not the paper's:
    `as_published` False.
    """
    config, lanes = session.config, outcome.lanes
    own = flags.parse(type(config), presets, argv=["", f"--preset={config.preset}"]) if config.preset else config
    names = (*(field.name for field in fields(Run)), *free, *(["seeds"] if hasattr(config, "seeds") else []))
    complete = as_published and replace(config, **{name: getattr(own, name) for name in names}) == own
    metrics = {name: value if isinstance(value, list) else [value] for name, value in metrics.items()}
    figures = {name: record.Published(*figure) for name, figure in (published or {}).items()}
    if seeds is None:
        seeds = [one.seed for one in lanes.lanes] if lanes else [config.seed]
    result = record.result(
        session.experiment, config.preset, seeds, metrics, figures,
        complete=complete, wall_seconds=outcome.seconds, flops=outcome.flops, notes=notes,
        lanes=[one.values for one in lanes.lanes] if lanes else (),
    )  # fmt: skip
    write(session.workdir / "result.json", result)
    if lanes and len(lanes.lanes) > 1:
        session.say(side_by_side.table(lanes, metrics, outcome.best, outcome.stopped) + "\n")
    for name, values in metrics.items():
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        beside = f"   published {figures[name].value:g} ({figures[name].source})" if name in figures else ""
        print(f"{name:24} {statistics.fmean(values):10.4f}{spread}{beside}")
    print(f"{result['verdict']}; the record is {session.workdir / 'result.json'}", flush=True)


class Programs:
    """A compiled step for batches of each shape, and the work that was done: sentence pairs come in a few shapes."""

    def __init__(self, step):
        self.step, self.known, self.work, self.calls = step, {}, 0.0, 0

    def find(self, state, batch, draw):
        """(the compiled step, its FLOPs)."""
        shape = tuple(x.shape for x in jax.tree.leaves(batch))
        if shape not in self.known:
            work = preflight.flops(self.step, state, batch, draw)
            self.known[shape] = self.step.lower(state, batch, draw).compile(), work
        return self.known[shape]

    def __call__(self, state, batch, draw):
        compiled, work = self.find(state, batch, draw)
        self.work, self.calls = self.work + work, self.calls + 1
        return compiled(state, batch, draw)


def fit(
    session: Session,
    *,
    specs,
    recipe: Callable[[Any], Recipe],
    batches: Callable[[int], Callable[[int], dict]],
    steps: int,
    evaluate: Callable[[Any], dict],
    evaluate_every: int,
    tokens_per_step: int,
    carry=(),
    decide=lambda history, state: state,
    rank=lambda metrics: metrics["loss"],
    best=False,
    alike=True,
    whole=False,
    weights: dict | None = None,
) -> Outcome:
    """Trains, or goes on training, for `steps` steps: once, or in the lanes that --seeds and --lanes ask for.

    recipe(config): how the weights change (train/step.py), of the session's config, or of one in which the numbers of a
    lane stand. batches(seed)(i): host arrays of step i. evaluate(params) -> {"loss": ..., ...} on validation data.
    rank(its metrics): the lowest is best. decide(history, state) -> state: called after each validation.
    best: what is returned are the weights that validated best, else the last ones. alike: the batches of all seeds have
    one shape. whole: evaluate and decide get all lanes in one, [N, ...], also a single one; what decide gives is left.
    weights: parts of the parameters by name, [N, ...] for lanes, that a new training begins with in place of its draw.
    """
    config, folder = session.config, session.workdir
    facts = side_by_side.asked(config, whole)
    count = len(facts.lanes) if facts else 1

    def keys(seed):
        return jax.random.split(jax.random.key(seed))  # of the steps, of the weights

    def of(hyper):
        return recipe(grid.with_values(config, hyper) if hyper else config)

    def begin(seed, hyper):
        mine = of(hyper)
        state = new_state(param.init(specs, keys(seed)[1]), mine.tx, carry, mine.averaging)
        return state.replace(best=state.params) if facts and best else state

    rows = [batches(seed) for seed in (facts.seeds if facts else [config.seed])]
    if facts:
        start_anew = several.start_lanes(begin, facts.lanes)
        strategy = side_by_side.strategy_of(config, param.axes(specs), facts, alike)
    else:
        start_anew, strategy = partial(begin, config.seed, {}), parallel.choose(
            config.strategy, param.axes(specs), config.mesh
        )
    checkpoints = Checkpoints(folder / "checkpoints", keep=config.keep, best="min")
    like = jax.eval_shape(start_anew)
    if config.dry_run:  # shapes alone, so that a model larger than this machine can be planned
        begun, start, state, meta = None, 0, like, {}
    else:
        begun = checkpoints.restore(like)
        start, state, meta = begun or (0, jax.jit(start_anew)(), {})
        if weights and not begun:
            state = state.replace(params=state.params | weights)
    if start > steps:
        raise UserError(f"{folder} was trained for {start} steps, {steps} are asked for: choose another --workdir")
    history, before = list(meta.get("history", [])), meta.get("seconds", 0.0)

    began, first = time.perf_counter(), [batch(start) for batch in rows]
    if facts:
        form, programs = lanes_form(session, strategy, facts, alike, of, keys, state, first)
    else:
        form, programs = several.Alone(strategy, keys(config.seed)[0]), Programs(strategy.compile(of({}).make_step()))
    state = form.plan(state) if config.dry_run else form.place(state)
    one = state[0] if isinstance(state, list) else state
    placed = form.batch(first)
    compiled, work = programs.find(
        one, placed[0] if isinstance(placed, list) else placed,
        form.draws[0] if isinstance(form.draws, list) else form.draws,
    )  # fmt: skip
    seconds, others = time.perf_counter() - began, len(state) - 1 if isinstance(state, list) else 0
    session.say(preflight.preflight(compiled, param.count(specs), strategy.devices, strategy.name, seconds,
                                    work, lanes=count, beside=others * preflight.size(one)))  # fmt: skip
    if config.dry_run:
        raise SystemExit(0)
    programs.work, programs.calls, launches = 0.0, 0, 0
    began = time.perf_counter()

    def launch(state, batch, _):
        nonlocal launches
        launches += 1
        return form.launch(programs, state, batch)

    averagings = [of(one.values).averaging for one in facts.lanes] if facts else [of({}).averaging]
    with Log(folder, steps, tokens_per_step * (1 if whole else count), config.quiet) as log, checkpoints:
        log.resume(start)
        if begun:
            log.say(f"going on from step {start} of {steps}")
        trace = tracer(folder / "trace", start) if config.profile else lambda now: None

        def to_evaluate(state, i=0):
            return state.params if averagings[i] is None else averagings[i].weights(state.average)

        def validate(now, state):
            if whole or facts is None:
                at = form.joined(state)
                metrics = evaluate(to_evaluate(at))
                log.metrics(now, metrics)
                history.append({"step": now, **metrics})
                new = decide(history, at)
                return state if whole or new is at else form.put(state, {0: new})
            found = []
            for i in range(count):
                found.append(evaluate(to_evaluate(form.one(state, i), i)))
            metrics = side_by_side.mean_of(found)
            log.metrics(now, metrics)
            history.append({"step": now, **metrics})
            changed = {}
            for i in range(count):
                at = form.one(state, i)
                new = decide(side_by_side.own(history, i, count), at)
                changed |= {} if new is at else {i: new}
            state = form.put(state, changed) if changed else state
            if best:
                ranks = side_by_side.ranks(history, rank, count)
                improved = np.array([math.isfinite(r[-1]) and r[-1] < min(r[:-1], default=math.inf) for r in ranks])
                state = form.better(state, improved) if improved.any() else state
            return state

        def save(now, state, unfinished, wait):
            log.sync()
            seconds = before + time.perf_counter() - began
            facts = {"history": list(history), "seconds": seconds, "unfinished": unfinished}
            score = rank(history[-1]) if history and history[-1]["step"] == now else None
            checkpoints.save(now, form.host(state), facts, score=score)
            if wait:
                checkpoints.wait()

        def progress(now):
            log.progress(now)
            trace(now)

        hooks = loop.Hooks(log.train, validate, save, progress, session.interrupt)
        state = loop.train(
            launch,
            state,
            lambda i: form.batch([batch(i) for batch in rows]),
            None,
            hooks,
            start=start,
            steps=steps,
            log_every=config.log_every,
            evaluate_every=config.evaluate_every or evaluate_every,
            save_every=config.save_every or config.evaluate_every or evaluate_every,
            patience=config.patience,
            unfinished=meta.get("unfinished"),
        )
        checkpoints.wait()
        log.curves()
    seconds = before + (time.perf_counter() - began if start < steps else 0.0)
    work = programs.work / launches if launches else work * count
    outcome = Outcome(None, history, seconds, work * steps, param.count(specs))
    if facts is None:
        return outcome._replace(params=best_params(session, specs) if best else to_evaluate(form.one(state, 0)))
    final = form.joined(state)
    params = final.best if best else jax.tree.map(
        lambda *x: jnp.stack(x), *(to_evaluate(several.one_of(final, i), i) for i in range(count))
    )  # fmt: skip
    stopped = tuple(np.flatnonzero(np.asarray(final.bad)[:, 0] >= config.patience).tolist())
    winner = 0
    if not whole:
        ranks = [min(r) if best else r[-1] for r in side_by_side.ranks(history, rank, count)]
        winner = min(range(count), key=lambda i: (i in stopped, not math.isfinite(ranks[i]), ranks[i]))
    side_by_side.keep(folder, facts, form.name, best=winner, keeps_best=best)
    return outcome._replace(params=params, lanes=facts, best=winner, stopped=stopped)


def lanes_form(session: Session, strategy, facts, alike: bool, of, keys, state, first):
    """(how the lanes are held and stepped, its compiled steps): see run/lanes.py.

    of(hyper): the Recipe of a lane; state: the canonical one, or its shapes; first: a batch of each distinct seed.
    """
    config = session.config

    def make(hyper):
        return of(hyper).make_step()

    draws = several.draws(facts.lanes, lambda seed: keys(seed)[0])
    single = jax.eval_shape(lambda s: several.one_of(s, 0), state)
    side_by_side.check_values(facts, make, single, first[0], keys(0)[0])

    def built(form):
        if form is several.InTurn:
            step = several.of_lane(make, config.patience)
            return form(strategy, draws, facts.where), Programs(strategy.compile(step))
        step = several.over_lanes(make, config.patience, shared=len(facts.seeds) == 1)
        return form(strategy, draws, facts.where), Programs(strategy.compile(step))

    known = side_by_side.known_form(session.workdir, strategy, facts, alike)
    if known is None and config.dry_run:
        known = several.Together
    if known is None:
        calls = dict(map(built, (several.InTurn, several.Together)))
        form = side_by_side.fastest(calls, state, first, session.say)
        form, programs = form, calls[form]
    else:
        form, programs = built(known)
    if not config.dry_run:
        side_by_side.keep(session.workdir, facts, form.name)
    return form, programs


def best_params(session: Session, specs):
    """The weights of the best checkpoint by validation loss, of a run that averages none."""
    return trained(session.workdir, specs)


def tracer(folder, start: int, first=20, last=25):
    """A hook that writes a profile of the run's 20th to 25th step to `folder`."""

    def trace(now):
        if now - start == first:
            jax.profiler.start_trace(str(folder))
        if now - start == last:
            jax.block_until_ready(jnp.zeros(()))
            jax.profiler.stop_trace()

    return trace
