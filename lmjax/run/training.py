"""What stands around a training: a workdir that is ours alone, its checkpoints, its log, and the loop between them."""

import itertools
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

from lmjax import param
from lmjax.errors import Interrupted, UserError
from lmjax.run import flags, preflight, record
from lmjax.run.log import Log
from lmjax.run.options import Run
from lmjax.run.weights import trained
from lmjax.run.workdir import MAY_CHANGE, workdir, write
from lmjax.train import lanes as several
from lmjax.train import loop, parallel
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.interrupt import interrupts
from lmjax.train.state import new_state
from lmjax.train.step import make_step


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
    """What `fit` leaves: the weights to evaluate with, the validations [{"step", metric: value}], seconds, FLOPs."""

    params: Any
    history: list
    seconds: float
    flops: float
    parameters: int


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

    metrics: name -> number, or one for each of `seeds` (default: the run's own). published: name -> (value, source) or
    (value, source, mark), see record.Published. A run that changed a setting of its preset, other than where and how it
    ran and those named in `free`, is a partial one, as is one whose preset is not the paper's: `as_published` False.
    """
    config = session.config
    own = flags.parse(type(config), presets, argv=["", f"--preset={config.preset}"]) if config.preset else config
    names = (*(field.name for field in fields(Run)), *free)
    complete = as_published and replace(config, **{name: getattr(own, name) for name in names}) == own
    metrics = {name: value if isinstance(value, list) else [value] for name, value in metrics.items()}
    figures = {name: record.Published(*figure) for name, figure in (published or {}).items()}
    result = record.result(
        session.experiment, config.preset, [config.seed] if seeds is None else seeds, metrics, figures,
        complete=complete, wall_seconds=outcome.seconds, flops=outcome.flops, notes=notes,
    )  # fmt: skip
    write(session.workdir / "result.json", result)
    for name, values in metrics.items():
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        beside = f"   published {figures[name].value:g} ({figures[name].source})" if name in figures else ""
        print(f"{name:24} {statistics.fmean(values):10.4f}{spread}{beside}")
    print(f"{result['verdict']}; the record is {session.workdir / 'result.json'}", flush=True)


def fit(
    session: Session,
    *,
    specs,
    loss=None,
    tx,
    step=None,
    batch: Callable[[int], dict],
    steps: int,
    evaluate: Callable[[Any], dict],
    evaluate_every: int,
    tokens_per_step: int,
    carry=(),
    accumulate=1,
    clip=0.0,
    averaging=None,
    learning_rate=None,
    update_scale=None,
    decide=lambda history, state: state,
    rank=lambda metrics: metrics["loss"],
    lanes: several.Lanes | None = None,
    weights: dict | None = None,
) -> Outcome:
    """Trains, or goes on training, for `steps` steps.

    loss, tx, accumulate, clip, averaging, learning_rate, update_scale: see train/step.py. step: a step of one's own in
    place of what make_step makes of these; tx.init then gives what stands in state.opt.
    batch(i): host arrays of step i. evaluate(params) -> {"loss": ..., ...} on validation data. rank(its metrics): the
    lowest is the best checkpoint. decide(history, state) -> state: called after each validation.
    lanes: trainings beside each other in one program, see train/lanes.py: the step is still that of one, batches are
    [B, N, ...], and the weights that `evaluate` gets and that are returned [N, ...].
    weights: parts of the parameters by name, [N, ...] for lanes, that a new training begins with in place of its draw.
    """
    config = session.config
    strategy = parallel.choose(config.strategy, param.axes(specs), config.mesh)

    def keys(seed):
        return jax.random.split(jax.random.key(seed))  # of the steps, of the weights

    def begin(seed):
        return new_state(param.init(specs, keys(seed)[1]), tx, carry, averaging)

    if lanes is None:
        start_anew, key = partial(begin, config.seed), keys(config.seed)[0]
    else:
        start_anew, key = several.start_lanes(begin, keys, lanes)

    checkpoints = Checkpoints(session.workdir / "checkpoints", keep=config.keep, best="min")
    like = jax.eval_shape(start_anew)
    if config.dry_run:  # shapes alone, so that a model larger than this machine can be planned
        begun, start, state, meta = None, 0, strategy.plan(like), {}
    else:
        begun = checkpoints.restore(like)
        start, state, meta = begun or (0, jax.jit(start_anew)(), {})
        if weights and not begun:
            state = state.replace(params=state.params | weights)
    if start > steps:
        raise UserError(
            f"{session.workdir} was trained for {start} steps, {steps} are asked for: choose another --workdir"
        )
    history, before = list(meta.get("history", [])), meta.get("seconds", 0.0)
    state = state if config.dry_run else strategy.place(state)
    step = step or make_step(
        loss, tx, accumulate=accumulate, clip=clip, averaging=averaging,
        learning_rate=learning_rate, update_scale=update_scale,
    )  # fmt: skip
    step = step if lanes is None else several.over_lanes(step, lanes)
    began = time.perf_counter()
    train_step, first = strategy.compile(step), strategy.batch(batch(start))
    programs, taken = {}, []

    def program(batch):
        """(compiled step, its FLOPs) for batches of this shape: sentence pairs come in a few."""
        shape = tuple(x.shape for x in jax.tree.leaves(batch))
        if shape not in programs:
            work = preflight.flops(train_step, state, batch, key)
            programs[shape] = train_step.lower(state, batch, key).compile(), work
        return programs[shape]

    compiled, work = program(first)
    seconds = time.perf_counter() - began
    session.say(preflight.preflight(compiled, param.count(specs), strategy.devices, strategy.name, seconds, work))
    if config.dry_run:
        raise SystemExit(0)
    began = time.perf_counter()

    def launch(state, batch, key):
        compiled, work = program(batch)
        taken.append(work)
        return compiled(state, batch, key)

    with Log(session.workdir, steps, tokens_per_step, config.quiet) as log, checkpoints:
        log.resume(start)
        if begun:
            log.say(f"going on from step {start} of {steps}")
        trace = tracer(session.workdir / "trace", start) if config.profile else lambda now: None

        def to_evaluate(state):
            return state.params if averaging is None else averaging.weights(state.average)

        def validate(now, state):
            metrics = evaluate(to_evaluate(state))
            log.metrics(now, metrics)
            history.append({"step": now, **metrics})
            return decide(history, state)

        def save(now, state, unfinished, wait):
            log.sync()
            seconds = before + time.perf_counter() - began
            facts = {"history": list(history), "seconds": seconds, "unfinished": unfinished}
            score = rank(history[-1]) if history and history[-1]["step"] == now else None
            checkpoints.save(now, strategy.host(state), facts, score=score)
            if wait:
                checkpoints.wait()

        def progress(now):
            log.progress(now)
            trace(now)

        hooks = loop.Hooks(log.train, validate, save, progress, session.interrupt)
        state = loop.train(
            launch,
            state,
            lambda i: strategy.batch(batch(i)),
            key,
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
    work = sum(taken) / len(taken) if taken else work
    return Outcome(to_evaluate(state), history, seconds, work * steps, param.count(specs))


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
