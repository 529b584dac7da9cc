"""A sweep's worker: takes one trial after another, each a process of its own with its own workdir.

Started by run/sweeping.py, which writes {"workdir", "storage", "cores", "launcher"} to its standard input: an address
may hold a password, and a command line can be read by others.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lmjax.errors import UserError
from lmjax.run.log import read
from lmjax.run.sweeps import studies

POLL = 0.2  # seconds
QUEUE = 1.0  # seconds between looks for a trial that may come back
GRACE = 120.0  # seconds in which an experiment may save before it is killed
CRASHES = 3  # starts of a trial whose process is killed by others (memory, say) before it counts as failed
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1


class Stop:
    """Whether this worker is to leave: a signal came, or its launcher is gone."""

    def __init__(self, launcher: int):
        self.signal, self.launcher = None, launcher
        for s in (signal.SIGTERM, signal.SIGINT):
            signal.signal(s, self._handle)

    def _handle(self, signum, frame):
        self.signal = self.signal or signum

    def __bool__(self):
        return self.signal is not None or os.getppid() != self.launcher


def work(place, stop) -> None:
    """Trials until there is none left, or `stop`."""
    while not stop:
        taken = studies.take(place)
        if taken is None:
            return
        if taken == studies.WAIT:
            time.sleep(QUEUE)
            continue
        with taken.lock:
            run(place, taken, stop)


def run(place, taken, stop) -> None:
    """One trial to its end, its state told to the study. Where `stop` came it stays RUNNING, held by nobody."""
    from optuna.trial import TrialState

    study, trial, plan = taken.study, taken.trial, place.plan
    log = Tail(taken.folder / "metrics.jsonl", plan)
    for attempt in range(CRASHES):
        status, pruned = 0, False
        if not (taken.folder / "result.json").exists():  # else its worker died between its end and telling of it
            status, pruned = attend(place, taken, log, stop)
        if stop and status:
            return
        if status >= 0 or pruned or attempt == CRASHES - 1:
            break
    if pruned and status:
        study.tell(trial, state=TrialState.PRUNED)
        return
    line = last_line(taken.folder / "output.log") if status else ""
    if status == 0:
        log.more()
        try:
            study.tell(trial, best(log, taken.folder, plan))
            return
        except UserError as error:
            line = str(error)
    elif status < 0:
        line = f"killed by {signal.Signals(-status).name} {CRASHES} times"
    trial.set_user_attr("error", line or f"ended with status {status}")
    trial.set_user_attr("status", status)
    study.tell(trial, state=TrialState.FAIL)
    if plan.give_up:
        studies.give_up(place, study, line)


def attend(place, taken, log, stop) -> tuple[int, bool]:
    """Starts the experiment and reports its validations: (exit status, whether the pruner ended it)."""
    known = set(place.storage.get_trial(taken.trial._trial_id).intermediate_values)
    process = start(place, taken)
    try:
        while True:
            ended = process.poll() is not None
            fresh = log.more()
            for n, value in fresh:
                if n not in known:  # those before are a resumed trial's
                    taken.trial.report(value, n)
                    known.add(n)
            if ended:
                return process.returncode, False
            if fresh and taken.trial.should_prune():
                return end(process), True
            if stop:
                return end(process), False
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def start(place, taken):
    """The experiment's process. It holds the trial's file too, and dies with this one where the kernel can see to it:
    so no orphan ever trains beside its own retry."""
    plan, mine = place.plan, os.getpid()
    swept = [term.flag(taken.trial.params[term.name]) for term in place.terms]
    command = [sys.executable, studies.script_of(plan), *plan.flags, *swept, f"--workdir={taken.folder}"]

    def die_with_parent():
        if LIBC is not None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != mine:  # it died before
                os._exit(1)

    with open(taken.folder / "output.log", "ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            pass_fds=(taken.lock.fileno(),), preexec_fn=die_with_parent,
        )  # fmt: skip


def end(process) -> int:
    """SIGTERM, at which an experiment saves and leaves; its status."""
    process.terminate()
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class Tail:
    """The validations of a metrics.jsonl that is being written, and that a resumed run replaces."""

    def __init__(self, path: Path, plan):
        self.path, self.plan, self.values, self.names, self._seen = path, plan, [], set(), None

    def more(self) -> list[tuple[int, float]]:
        """[(how many validations there were before it, its value)] of those not handed out yet."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return []
        seen = stat.st_ino, stat.st_size, stat.st_mtime_ns
        if seen == self._seen:
            return []
        self._seen = seen
        lines = [line for line in read(self.path) if line.get("kind") == "valid"]
        self.names |= {name for line in lines for name in line} - {"step", "kind"}
        before, self.values = self.values, [value_of(line, self.plan) for line in lines]
        return [(n, v) for n, v in enumerate(self.values) if v is not None and n >= len(before)]


def value_of(line: dict, plan) -> float | None:
    """What a validation counts for: the metric, or its best lane. None where it has none or it was not finite."""
    name = plan.metric or "loss"
    if plan.objective == "mean":
        return line.get(name)
    lanes = [v for k, v in line.items() if v is not None and k.startswith(name + "_") and k[len(name) + 1 :].isdigit()]
    return _best(lanes, plan) if lanes else line.get(name)


def _best(values, plan):
    return (max if plan.direction == "maximize" else min)(values)


def best(log: Tail, folder: Path, plan) -> float:
    """A finished trial's value: its best validation, or a validation figure of result.json. Never a test figure."""
    values = [value for value in log.values if value is not None]
    if values:
        return _best(values, plan)
    name, figures = plan.metric or "loss", {}
    with contextlib.suppress(OSError, ValueError, KeyError):
        figures = json.loads((folder / "result.json").read_text(encoding="utf-8"))["metrics"]
    figures = {key: figure for key, figure in figures.items() if "valid" in key}
    if figures.get(name, {}).get("mean") is not None:
        found = figures[name]
        return found["mean"] if plan.objective == "mean" else _best([v for v in found["values"] if v is not None], plan)
    if name in log.names:
        raise UserError(f"no validation had a finite {name}")
    there = sorted(log.names) + sorted(figures)
    raise UserError(f"the run gave no validation figure {name}: set --metric to one of {', '.join(there) or 'none'}")


def last_line(path: Path) -> str:
    """The last line that a process wrote: its one line of error, where it ended with one."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def main():
    job = json.load(sys.stdin)
    stop = Stop(job["launcher"])
    if job["cores"]:
        os.sched_setaffinity(0, job["cores"])
    try:
        with contextlib.closing(studies.join(Path(job["workdir"]), job["storage"])) as place:
            work(place, stop)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.status)
    sys.exit(128 + stop.signal if stop.signal else 0)


if __name__ == "__main__":
    main()
