"""Where a run's metrics go besides its own files: TensorBoard, and on demand Weights & Biases, MLflow and trackio.

A tracker is opened when a process writes its first line, and gets every line of metrics.jsonl from there on.
The three services are optional (pip install 'lmjax[wandb]', 'lmjax[mlflow]', 'lmjax[trackio]'), configured by their own
environment variables, and work offline: WANDB_MODE=offline; MLflow, without MLFLOW_TRACKING_URI, in WORKDIR/mlflow.db;
trackio locally. A run that goes on goes on in the same run of theirs: its name there is kept in WORKDIR/trackers.json.

Each of them lives in a thread of its own, so that a slow or dead service never holds up a training; one that fails is
said once and left alone. At the end they are given CLOSE seconds to send what is left.
"""

import contextlib
import importlib.util
import json
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lmjax.errors import UserError, install
from lmjax.run.workdir import write

NAMES = ("wandb", "mlflow", "trackio")
CLOSE = 60.0  # seconds; MLflow makes its database anew in ten, on a busy machine in fifty
WAITING = 10_000  # lines that may wait for a slow service, before it counts as dead


class Start(NamedTuple):
    """folder: the workdir. settings: {dotted name: value}. step: the first that will be written. run: the name that the
    service gave the run before, "" for a new one."""

    folder: Path
    experiment: str
    settings: dict
    step: int
    run: str = ""


class Tracker(Protocol):
    """run: what the service calls this run, to go on with it later."""

    run: str

    def write(self, step: int, values: dict[str, Any]):
        """values: {"train/loss": number}, none of them missing or infinite."""

    def close(self): ...


class TensorBoard:
    """Event files in WORKDIR/tensorboard, hiding what an earlier process wrote from `step` on."""

    run = ""

    def __init__(self, start: Start):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(start.folder / "tensorboard"), purge_step=start.step)

    def write(self, step, values):
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self):
        self.writer.close()


class Wandb:
    """Weights & Biases, project lmjax unless WANDB_PROJECT names one. Steps it has already are dropped there."""

    def __init__(self, start: Start):
        import wandb

        mode = os.environ.get("WANDB_MODE")
        if mode is None and not os.environ.get("WANDB_API_KEY") and not wandb.login(prompt=False):
            mode = "offline"  # it would ask for a key
        self.writer = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lmjax"), group=start.experiment, name=start.folder.name,
            config=start.settings, dir=str(start.folder), mode=mode, id=start.run or None, resume="allow",
            settings=wandb.Settings(silent=True, console="off", init_timeout=CLOSE),
        )  # fmt: skip
        self.run = self.writer.id

    def write(self, step, values):
        self.writer.log(values, step=step)

    def close(self):
        self.writer.finish()


class MLflow:
    """MLflow, experiment lmjax/NAME."""

    def __init__(self, start: Start):
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self.metric = Metric
        where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(start.folder / 'mlflow.db').resolve()}"
        self.client = MlflowClient(tracking_uri=where)
        if start.run:
            self.run = start.run
            self.client.set_terminated(self.run, "RUNNING")
            return
        name = f"lmjax/{start.experiment}"
        known = self.client.get_experiment_by_name(name)
        number = known.experiment_id if known else self.client.create_experiment(name)
        tags = {"mlflow.runName": start.folder.name}
        self.run = self.client.create_run(number, tags=tags).info.run_id
        settings = [Param(name, str(value)[:500]) for name, value in start.settings.items()]
        for n in range(0, len(settings), 100):  # as many as it takes at once
            self.client.log_batch(self.run, params=settings[n : n + 100])

    def write(self, step, values):
        import time

        now = int(time.time() * 1000)
        found = [self.metric(name, float(value), now, step) for name, value in values.items()]
        self.client.log_batch(self.run, metrics=found)

    def close(self):
        self.client.set_terminated(self.run, "FINISHED")


class Trackio:
    """trackio, project lmjax-NAME, on this machine unless its own variables say otherwise."""

    def __init__(self, start: Start):
        os.environ.setdefault("TRACKIO_DIR", str((start.folder / "trackio").resolve()))  # read as it is imported
        import trackio

        self.run = start.run or start.folder.resolve().name
        self.writer = trackio.init(
            project=f"lmjax-{start.experiment}", name=self.run, config=start.settings,
            resume="allow" if start.run else "never",
        )  # fmt: skip

    def write(self, step, values):
        self.writer.log(values, step=step)

    def close(self):
        self.writer.finish()


SERVICES: dict[str, Callable[[Start], Tracker]] = {"wandb": Wandb, "mlflow": MLflow, "trackio": Trackio}


class Guarded:
    """A tracker in a thread of its own. `say` gets one line where it fails; from then on it does nothing."""

    def __init__(self, name: str, open_: Callable[[Start], Tracker], start: Start, say):
        self.name, self.open, self.start, self.say = name, open_, start, say
        self.failed = threading.Event()
        self.lines: queue.Queue = queue.Queue(WAITING)
        self.thread = threading.Thread(target=self._work, name=f"lmjax {name}", daemon=True)
        self.thread.start()

    def write(self, step: int, values: dict):
        if self.failed.is_set():
            return
        try:
            self.lines.put_nowait((step, values))
        except queue.Full:
            self._fail(f"{WAITING:,} lines wait for it")

    def close(self):
        if self.failed.is_set():
            return
        with contextlib.suppress(queue.Full):
            self.lines.put_nowait(None)
        self.thread.join(CLOSE)
        if self.thread.is_alive() and not self.failed.is_set():
            self._fail(f"it took more than {CLOSE:g} s to take the last lines")

    def _fail(self, why: str):
        if not self.failed.is_set():
            self.failed.set()
            self.say(f"--track={self.name} is left alone from here on: {' '.join(why.split()):.300}")

    def _work(self):
        try:
            tracker = self.open(self.start)
            _remember(self.start.folder, self.name, tracker.run)
            while not self.failed.is_set() and (line := self.lines.get()) is not None:
                tracker.write(*line)
            tracker.close()
        except BaseException as error:  # SystemExit too: some of them end the program
            self._fail(f"{type(error).__name__}: {error}")


def check(names):
    """UserError where the library of one of `names` is missing."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--track={name} needs the package {name}: {install(name)}")


def opener(names, experiment: str, settings: dict, services=SERVICES):
    """A function (folder, step, say) -> the trackers of a run: TensorBoard where it is installed, and the named."""

    def open_all(folder: Path, step: int, say) -> list[Tracker]:
        start, known = Start(folder, experiment, settings, step), _remembered(folder)
        found: list[Tracker] = []
        if importlib.util.find_spec("tensorboardX") is not None:
            found.append(TensorBoard(start))
        return found + [Guarded(n, services[n], start._replace(run=known.get(n, "")), say) for n in names]

    return open_all


def _remembered(folder: Path) -> dict[str, str]:
    try:
        known = json.loads((folder / "trackers.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


_LOCK = threading.Lock()


def _remember(folder: Path, name: str, run: str):
    with _LOCK:
        known = _remembered(folder) | {name: run}
        write(folder / "trackers.json", known)
