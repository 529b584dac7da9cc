"""A sweep from its command line to its page: begins the study, keeps the workers alive, shows what they find."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

from lmjax.errors import Interrupted, UserError, install
from lmjax.run import flags, record, scripts
from lmjax.run.settings import flatten, to_json
from lmjax.run.sweeps import pages, spaces, studies
from lmjax.run.sweeps.tables import Table
from lmjax.run.sweeps.workers import GRACE, last_line
from lmjax.run.workdir import fresh, workdir

POLL = 0.25  # seconds between looks at the workers
SHOW = 1.0  # seconds between looks at the study
CRASHES = 5  # of workers that end by themselves in a row, and no trial between: the sweep ends
DEATHS = 100  # of workers that are killed, likewise


def sweep(config, script: str, rest: list[str]):
    """launch/sweep.py: config is its Config, `rest` the flags for every trial. UserError for what is wrong with it."""
    if config.join:
        joined(config, script, rest)
        return
    plan, terms, defaults = planned(config, script, rest)
    folder = config.workdir or fresh("sweep")
    with workdir(folder, "sweep", plan, may_change=("give_up",), may_grow=("trials",)) as folder:
        say(f"sweep in {folder}" + ("" if config.workdir else f" (--workdir={folder} goes on with it)"))
        place = studies.begin(folder.resolve(), plan, terms, config.storage, defaults)
        with contextlib.closing(place):
            for number in studies.reap(place):
                say(f"trial {number} was left by a worker that is gone: back in the queue")
            supervise(place, config)
            finished(place)


def joined(config, script, rest):
    if script or rest or config.space:
        raise UserError(
            "--join takes the experiment and its space from the sweep: give --workdir, --storage, --workers"
        )
    if not config.workdir:
        raise UserError("--join needs --workdir: the folder of the sweep, which this machine shares")
    place = studies.join(Path(config.workdir).expanduser().resolve(), config.storage)
    say(f"joins the sweep in {place.folder}")
    with contextlib.closing(place):
        supervise(place, config)


def planned(config, script: str, rest: list[str]):
    """(the Plan, its terms, the experiment's own values of them or {}). UserError for a bad flag, name or value."""
    if not script:
        raise UserError("no script is given: expected one such as experiments/gpt_char.py behind launch/sweep.py")
    experiment = scripts.load(script)
    Config, presets = experiment.Config, getattr(experiment, "PRESETS", {})
    terms = spaces.parse(config.space, Config, presets)
    own = flatten(to_json(flags.parse(Config, presets, argv=[script, *rest])))
    names = {word.lstrip("-").partition("=")[0] for word in rest if word.startswith("-")}
    for term in terms:
        if names & {term.name, "no" + term.name}:
            raise UserError(f"{term.name} is in --space and behind --: keep one")
    for name in spaces.OURS[:2]:
        if name in names:
            raise UserError(f"--{name} behind --: the sweep sets it for each trial; leave it out")
    if "test" in config.metric.split("_"):
        raise UserError(f"--metric={config.metric}: a sweep never chooses by test data; name a validation figure")
    studies.check(config.storage)
    trials = config.trials
    if config.sampler == "grid":
        trials = min(trials, len(spaces.grid(terms, config.seed)))
    if config.sampler == "cmaes":
        try:
            import cmaes  # noqa: F401
        except ImportError:
            raise UserError("--sampler=cmaes needs cmaes: " + install("sweep")) from None
    path = Path(script).resolve()
    mine = {
        field.name: getattr(config, field.name) for field in fields(studies.Plan) if hasattr(config, field.name)
    }
    plan = studies.Plan(**mine | {
        "script": str(path.relative_to(record.ROOT)) if path.is_relative_to(record.ROOT) else str(path),
        "flags": tuple(rest), "trials": trials, "direction": _direction(config),
    })  # fmt: skip
    first = config.default_first and config.sampler != "grid" and all(term.holds(own[term.name]) for term in terms)
    return plan, terms, {term.name: own[term.name] for term in terms} if first else {}


def _direction(config) -> str:
    if config.direction != "auto":
        return config.direction
    rule = next((rule for part, rule in record.RULES.items() if part in config.metric), ("lower", None))
    return "maximize" if rule[0] == "higher" else "minimize"


class Worker:
    """A worker's process, and the cores that it keeps to."""

    def __init__(self, place, url: str, number: int, cores):
        self.number, self.log = number, place.folder / f"worker-{os.uname().nodename}-{number}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lmjax.run.sweeps.workers"],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,  # ctrl-C is the launcher's alone
            )  # fmt: skip
        job = {"workdir": str(place.folder), "storage": url, "cores": cores, "launcher": os.getpid()}
        self.cores = cores
        try:
            self.process.stdin.write(json.dumps(job).encode())
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it is gone, which is seen soon enough


def shares(workers: int) -> list:
    """The cores of each worker, None where there are fewer than workers: then all share all."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < workers:
        return [None] * workers
    return [cores[i * len(cores) // workers : (i + 1) * len(cores) // workers] for i in range(workers)]


def supervise(place, config):
    """Runs the workers until there is nothing left to do. A worker that dies is replaced and its trial put back."""
    signals, handlers = [], {}
    for s in (signal.SIGTERM, signal.SIGINT):
        handlers[s] = signal.signal(s, lambda signum, frame: signals.append(signum))
    cores = shares(config.workers) if config.pin else [None] * config.workers
    workers = [Worker(place, config.storage, n, cores[n]) for n in range(config.workers)]
    deaths, crashes, ended, shown = 0, 0, 0, 0.0
    try:
        with Table(place.plan, place.terms) as table:
            while workers:
                if signals:
                    leave(workers, signals)
                    studies.reap(place)
                    raise Interrupted(
                        f"{signal.Signals(signals[0]).name}: the trials are saved; the same command goes on", signals[0]
                    )
                for worker in list(workers):
                    status = worker.process.poll()
                    if status is None:
                        continue
                    workers.remove(worker)
                    if status == 0:
                        continue
                    deaths, crashes = deaths + (status < 0), crashes + (status > 0)
                    how = signal.Signals(-status).name if status < 0 else last_line(worker.log) or f"status {status}"
                    if crashes > CRASHES or deaths > DEATHS:
                        raise UserError(f"workers end as soon as they begin, the last with: {how}; see {worker.log}")
                    back = studies.reap(place)
                    table.say(
                        f"worker {worker.number} ended ({how}): another takes its place"
                        + (f"; back in the queue: {', '.join(f'trial {n}' for n in back)}" if back else "")
                    )
                    if status > 0:  # a database that is away for a moment, say
                        time.sleep(min(5.0, 0.5 * crashes))
                    workers.append(Worker(place, config.storage, worker.number, worker.cores))
                if time.monotonic() - shown > SHOW:
                    trials = studies.load(place).get_trials(deepcopy=False)
                    table.show(trials)
                    before, ended = ended, sum(trial.state.is_finished() for trial in trials)
                    if ended > before:
                        deaths = crashes = 0
                    shown = time.monotonic()
                time.sleep(POLL)
            table.show(studies.load(place).get_trials(deepcopy=False))
    finally:
        leave(workers, [signal.SIGTERM, signal.SIGTERM])
        for s, handler in handlers.items():
            signal.signal(s, handler)


def leave(workers, signals):
    """SIGTERM to the workers, who pass it on to their experiments and wait; a second signal kills them."""
    until = time.monotonic() + GRACE
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.terminate()
    while any(worker.process.poll() is None for worker in workers):
        if len(signals) > 1 or time.monotonic() > until:
            for worker in workers:
                worker.process.kill()
        time.sleep(0.05)


def finished(place):
    """The pictures and tables, and what was best. UserError where the sweep gave up."""
    study = studies.load(place)
    trials = study.get_trials(deepcopy=False)
    for path in pages.write(place, study, trials):
        say(f"wrote {path}")
    done = pages.complete(trials)
    if stopped := study.user_attrs.get("stopped"):
        raise UserError(f"the sweep stopped: {place.plan.give_up} trials in a row ended with: {stopped}")
    if not done:
        raise UserError("no trial gave a validation figure; see the output.log in the folders under trials/")
    best = pages.best_of(done, place.plan)
    say(f"best of {len(trials)} trials: {pages.metric_of(place.plan)} {best.value:.6g} in trial {best.number}")
    own = next((trial for trial in done if trial.user_attrs.get("default")), None)
    if own is not None:
        say(f"the experiment's own settings: {own.value:.6g} (trial {own.number})")
    say("again: " + pages.command(place, best))
    say("validation chose it: give it and the default other seeds before believing the difference")


def say(line: str):
    print(line, flush=True)
