"""What stands around a training: a workdir that is ours alone, its checkpoints, its log, and the loop between them."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax import param
from lmjax.data import tokenizers
from lmjax.errors import Interrupted, UserError
from lmjax.run import flags, learner, record, trackers
from lmjax.run import lanes as side_by_side
from lmjax.run.log import Log
from lmjax.run.options import Run
from lmjax.run.processes import distributed
from lmjax.run.settings import flatten, to_json
from lmjax.run.weights import trained
from lmjax.run.workdir import MAY_CHANGE, fresh, workdir
from lmjax.train import loop, processes
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.interrupt import interrupts
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
        """Raises `Interrupted` where a signal came: called wherever the program may stay for more than seconds.

        In several processes each has to call it as often.
        """
        distributed.pulse.beat("evaluating")
        if signal := self.interrupt.requested:
            raise Interrupted("stopped by a signal; the same command goes on from the last checkpoint", signal)

    def kept(self, name: str, tokenizer):
        """tokenizers.kept in the workdir; of several processes' own the first one's, which all take."""
        path = self.workdir / name

        def saved():
            found.append(tokenizers.kept(path, tokenizer))
            return path.read_bytes()

        found = []
        file = processes.from_first(saved)
        if not found:
            path.write_bytes(file)
            found.append(tokenizers.load(path))
        return found[0]


class Outcome(NamedTuple):
    """What `fit` leaves: the weights to evaluate with, the validations [{"step", metric: value}], seconds, FLOPs.

    lanes: run/lanes.py's Facts where there were several trainings; params are [N, ...] then, and the history has each
    lane's metrics behind its number. best: the lane that validated best, None where validation took all in one.
    stopped: the lanes that failed.
    """

    params: Any
    history: list
    seconds: float
    flops: float
    parameters: int
    lanes: side_by_side.Facts | None = None
    best: int | None = None
    stopped: tuple[int, ...] = ()


class Planned(SystemExit):
    """The end of a dry run, status 0."""

    def __init__(self, twin: learner.Twin):
        super().__init__(0)
        self.twin = twin


@contextmanager
def session(experiment: str, config, may_change=(), may_grow=()):
    """The workdir of a run, locked against a second process, and its signals.

    may_change: settings that decide what is done with the trained model alone, so that a finished run may be asked
    again with others. may_grow: how long it is trained, where more of it changes nothing of what was trained so far.
    """
    trackers.check(config.track)
    free = (*MAY_CHANGE, *may_change)
    with ExitStack() as stack:

        def locked():
            path = config.workdir or fresh(experiment)
            found.append(stack.enter_context(workdir(path, experiment, config, free, may_grow)))
            return distributed.pack(found[0]) if processes.several() else b""

        found, agree = [], processes.agreement() if processes.several() else None
        packed = processes.from_first(locked)
        if processes.first():
            folder = found[0]
            distributed.pulse.facts["workdir"] = str(folder.resolve())
        else:  # writes as the first one does, where nobody looks, and reads what that one read
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="lmjax-")))
            distributed.unpack(packed, folder)
        interrupt = stack.enter_context(interrupts(agree=agree))
        interrupt.publish(None)  # nothing to save yet
        distributed.pulse.came = lambda: interrupt.came
        run = Session(experiment, config, folder, interrupt)
        run.say(f"{experiment} in {folder}" + ("" if config.workdir else f" (--workdir={folder} goes on with it)"))
        yield run


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
    record.save(session.workdir, result)
    if lanes and len(lanes.lanes) > 1:
        session.say(side_by_side.table(lanes, metrics, outcome.best, outcome.stopped) + "\n")
    for name, values in metrics.items():
        mean, sd = side_by_side.spread(values)
        spread = f" ± {side_by_side.shown(sd)}" if len(values) > 1 else ""
        beside = f"   published {figures[name].value:g} ({figures[name].source})" if name in figures else ""
        print(f"{name:24} {side_by_side.shown(mean):>10}{spread}{beside}")
    if outcome.stopped:
        print(f"{len(outcome.stopped)} of {len(lanes.lanes)} lanes stopped: their steps were not finite")
    print(f"{result['verdict']}; the record is {session.workdir / 'result.json'}", flush=True)


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
    made = learner.prepare(config, specs, recipe, batches, carry, best=best, alike=alike, whole=whole)
    checkpoints = Checkpoints(folder / "checkpoints", keep=config.keep, best="min")
    like = jax.eval_shape(made.start)
    if config.dry_run:  # shapes alone, so that a model larger than this machine can be planned
        begun, start, state, meta = None, 0, like, {}
    else:
        begun = checkpoints.restore(like)
        start, state, meta = begun or (0, jax.jit(made.start)(), {})
        if weights and not begun:
            state = state.replace(params=state.params | weights)
    if start > steps:
        raise UserError(f"{folder} was trained for {start} steps, {steps} are asked for: choose another --workdir")
    history, before = list(meta.get("history", [])), meta.get("seconds", 0.0)
    if not config.dry_run:
        rows = [batch(start) for batch in made.batches] if processes.several() else ()
        processes.check_same([state, rows], "first batch or initial weights")
    form, programs, state, line = learner.compile(made, state, start, folder, session.say)
    session.say(line)
    if config.dry_run:
        raise Planned(learner.twin(made, programs, steps, tokens_per_step))
    began = time.perf_counter()
    board = trackers.opener(config.track, session.experiment, flatten(to_json(config)))
    writes = {"workdir": folder, "trackers": board} if processes.first() else {"workdir": None}
    with Log(
        total_steps=steps, tokens_per_step=tokens_per_step * made.count, quiet=config.quiet, **writes
    ) as log, checkpoints:
        log.resume(start)
        if begun:
            log.say(f"going on from step {start} of {steps}")
        trace = tracer(folder / "trace", start) if config.profile else lambda now: None
        validate = learner.validation(made, form, log.metrics, history, evaluate, decide, rank)

        def save(now, state, unfinished, wait):
            log.sync()
            seconds = before + time.perf_counter() - began
            facts = {"history": list(history), "seconds": seconds, "unfinished": unfinished}
            score = rank(history[-1]) if history and history[-1]["step"] == now else None
            if processes.several() and threading.current_thread() is not threading.main_thread():
                raise RuntimeError("the state of several processes is gathered between steps alone")
            checkpoints.save(now, form.host(state), facts, score=score)
            if wait:
                checkpoints.wait()

        def progress(now):
            distributed.pulse.beat("training", now)
            log.progress(now)
            trace(now)

        hooks = loop.Hooks(log.train, validate, save, progress, session.interrupt)
        state = loop.train(
            programs.launch(form),
            state,
            lambda i: form.batch([batch(i) for batch in made.batches]),
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
        distributed.pulse.beat("finishing")
        log.curves()
    seconds = before + (time.perf_counter() - began if start < steps else 0.0)
    outcome = Outcome(None, history, seconds, programs.a_step() * steps, param.count(specs))
    if made.facts is None:
        last = made.weights(form.one(state, 0))
        return outcome._replace(params=best_params(session, specs) if best else last)
    stopped = tuple(np.flatnonzero(np.asarray(form.joined(state).bad)[:, 0] >= config.patience).tolist())
    winner = None if whole else side_by_side.winner(history, rank, made.count, stopped, best)
    side_by_side.keep(folder, made.facts, form, best=winner or 0, keeps_best=best)
    params = made.all_weights(form.joined(state))
    return outcome._replace(params=params, lanes=made.facts, best=winner, stopped=stopped)


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
