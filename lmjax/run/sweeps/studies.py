"""A sweep's study in Optuna: where it is stored, who takes the next trial, and what becomes of a dead worker's.

Everything that must not happen twice (creating the tables and the study, taking a trial, putting one back) is done by
one process at a time, under a lock on a file of the sweep's workdir, which all workers share. The kernel holds these
locks (flock) and lets go the moment a process ends, however it ends: no heartbeat, and nobody waits for the dead.

A trial that is RUNNING is locked by its worker the same way, by the file .trial in its folder, and by the experiment
that the worker started, which inherits it. So a RUNNING trial whose file can be locked has nobody: it goes back in the
queue as the same trial, with its values and its folder, and whoever takes it next goes on from its checkpoint.
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import random
import re
import urllib.parse
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lmjax.errors import UserError, install
from lmjax.run import scripts
from lmjax.run.record import ROOT
from lmjax.run.sweeps import spaces
from lmjax.run.workdir import stored, write

DATABASES = ("postgresql://", "postgres://", "postgresql+psycopg://")
WAIT = "wait"  # all trials are taken, and one may yet come back


@dataclass(frozen=True)
class Plan:
    """What a sweep is: kept in its config.json, the same in every process. `script` may be relative to the project."""

    script: str
    flags: tuple[str, ...]
    space: str
    trials: int
    sampler: str
    pruner: str
    metric: str
    direction: str
    objective: str
    seed: int
    default_first: bool
    give_up: int


class Taken(NamedTuple):
    """A trial that this process holds: Optuna's, its folder, and the locked file that says so."""

    study: object
    trial: object
    folder: Path
    lock: object


class Place(NamedTuple):
    """A sweep's workdir, and the storage that is open."""

    folder: Path
    plan: Plan
    terms: tuple
    storage: object
    name: str

    def close(self):
        """Ends the connections of a database; a journal has none."""
        database = getattr(self.storage, "_backend", None)  # behind Optuna's cache of the trials that ended
        if engine := getattr(database, "engine", None):
            database.remove_session()
            engine.dispose()


@contextlib.contextmanager
def alone(folder: Path):
    """One process at a time in this sweep, on any machine that shares its workdir."""
    with open(folder / ".queue", "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"--workdir={folder}: its file system has no locks ({error.strerror}): choose a folder on another"
            ) from None
        yield


def hold(path: Path):
    """The file, locked by this process for as long as it is open; None where another has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115 closed by who asked, or by the process's end
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


class JournalLock:
    """Optuna's lock on its journal, as one that the kernel drops with its holder. Optuna's own are files that a dead
    holder leaves behind, to be waited for thirty seconds."""

    def __init__(self, journal: Path):
        self.journal, self.file = journal, None

    def acquire(self) -> bool:
        self.file = open(self.journal, "r+b")  # noqa: SIM115 closed by release
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self._mend()
        return True

    def release(self):
        self.file.close()

    def _mend(self):
        """A holder that was killed as it wrote left half a line, which would spoil the next one: it is cut off."""
        end = self.file.seek(0, os.SEEK_END)
        if end == 0:
            return
        back = min(end, 1 << 20)
        self.file.seek(end - back)
        tail = self.file.read()
        if not tail.endswith(b"\n"):
            self.file.truncate(end - back + tail.rfind(b"\n") + 1)


def public(url: str) -> str:
    """A database's address without its password."""
    return re.sub(r"(?<=://)([^/@:]*)(:[^/]*)?@", r"\1@", re.sub(r"(password=)[^&]*", r"\1***", url))


def check(url: str):
    """UserError where Optuna or psycopg is missing, or the address is of no database that serves here."""
    try:
        import optuna
    except ImportError:
        raise UserError("a sweep needs Optuna: " + install("sweep")) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url and not url.startswith(DATABASES):
        raise UserError(f"--storage={public(url)}: expected postgresql://USER@HOST/DATABASE, or nothing for a file")
    if url and importlib.util.find_spec("psycopg") is None:
        raise UserError("--storage=postgresql:// needs psycopg: " + install("postgres"))


def connect(folder: Path, url: str):
    """Optuna's storage: the journal in the sweep's folder, or the database at `url`. To be called `alone`: a database
    that is empty gets its tables, and two processes that both find it empty get in each other's way."""
    check(url)
    from optuna.storages import JournalStorage, RDBStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    if not url:
        path = folder / "journal.jsonl"
        path.touch()
        return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalLock(path)))
    try:
        rest = url.partition("://")[2]
        return get_storage(RDBStorage(f"postgresql+psycopg://{rest}"))
    except Exception as error:  # sqlalchemy's, psycopg's and what Optuna makes of them
        raise UserError(f"--storage={public(url)} cannot be used: {_reason(error, url)}") from None


def _reason(error: Exception, url: str) -> str:
    """The database's own words, in one line, without the password."""
    line = next((line for line in str(getattr(error, "orig", None) or error).splitlines() if line.strip()), "")
    found = re.search(r"://[^/@:]*:([^/]+)@", url)
    for secret in {found[1], urllib.parse.unquote(found[1])} if found else ():
        line = line.replace(secret, "***")
    return line


def begin(folder: Path, plan: Plan, terms, url: str, defaults: dict) -> Place:
    """The study of this workdir, made where it is missing, before any worker starts.

    defaults: name -> the experiment's own value, where the space has all of them: the first trial.
    """
    with alone(folder):
        storage, path = connect(folder, url), folder / "study.json"
        if not path.exists():
            name = f"{Path(plan.script).stem}-{uuid.uuid4().hex[:8]}"  # a database may hold many sweeps
            write(path, {"name": name, "storage": public(url)})
        name = _name(folder, url)
        import optuna

        study = optuna.create_study(storage=storage, study_name=name, direction=plan.direction, load_if_exists=True)
        trials = study.get_trials(deepcopy=False)
        if not trials and defaults:
            study.enqueue_trial(defaults, user_attrs={"default": True})
        if (
            plan.sampler == "grid"
        ):  # Optuna's GridSampler gives a point to two workers, and ends in study.optimize alone
            for point in spaces.grid(terms, plan.seed)[len(trials) : plan.trials]:
                study.enqueue_trial(point)
        study.set_user_attr("since", len(trials))  # failures before this start are not counted again
        study.set_user_attr("stopped", "")
        return Place(folder, plan, terms, storage, name)


def join(folder: Path, url: str) -> Place:
    """The study that `begin` made, here or on another machine."""
    config = stored(folder)
    if config["experiment"] != "sweep":
        raise UserError(f"--workdir={folder} is a run of {config['experiment']}, no sweep")
    plan = Plan(**config["config"] | {"flags": tuple(config["config"]["flags"])})
    name = _name(folder, url)
    with alone(folder):
        storage = connect(folder, url)
    experiment = scripts.load(script_of(plan))
    terms = spaces.parse(plan.space, experiment.Config, getattr(experiment, "PRESETS", {}))
    return Place(folder, plan, terms, storage, name)


def script_of(plan: Plan) -> str:
    return str(ROOT / plan.script)


def _name(folder: Path, url: str) -> str:
    try:
        kept = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"--workdir={folder} holds no sweep that has begun: start it without --join first") from None
    if kept["storage"] != public(url):
        was = f"--storage={kept['storage']}" if kept["storage"] else "no --storage"
        raise UserError(f"--workdir={folder} holds a sweep with {was}: set it so or choose another")
    return kept["name"]


def load(place: Place):
    """The study with its pruner."""
    import optuna

    pruner = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
    }[place.plan.pruner]()
    return optuna.load_study(study_name=place.name, storage=place.storage, pruner=pruner)


def sampler(plan: Plan, trials_so_far: int):
    """Its draws are decided by the seed and the trials there are."""
    import optuna

    seed = random.Random(f"{plan.seed} {trials_so_far}").randrange(2**31)
    if plan.sampler in ("random", "grid"):  # a grid's trials are in the queue, with their values
        return optuna.samplers.RandomSampler(seed=seed)
    if plan.sampler == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(4, plan.trials // 4)))


def folder_of(place: Place, number: int) -> Path:
    return place.folder / "trials" / f"{number:04}"


def requeue(place: Place, study) -> list[int]:
    """Puts the trials that nobody holds back in the queue; their numbers. To be called `alone`."""
    from optuna.trial import TrialState

    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lock = hold(folder_of(place, trial.number) / ".trial")
        if lock is None:
            continue
        with lock:  # its worker may have ended it and let go since the list was read
            if place.storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
                place.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                found.append(trial.number)
    return found


def reap(place: Place) -> list[int]:
    with alone(place.folder):
        return requeue(place, load(place))


def take(place: Place) -> Taken | str | None:
    """The next trial, held by this process; WAIT, or None where the sweep has no more."""
    from optuna.trial import TrialState

    with alone(place.folder):
        study = load(place)
        requeue(place, study)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        if study.user_attrs.get("stopped"):
            return None
        if TrialState.WAITING not in states and len(states) >= place.plan.trials:
            return WAIT if TrialState.RUNNING in states else None
        study.sampler = sampler(place.plan, len(states))
        trial = study.ask({term.name: term.distribution() for term in place.terms})
        folder = folder_of(place, trial.number)
        lock = hold(folder / ".trial")
        trial.set_user_attr("starts", trial.user_attrs.get("starts", 0) + 1)
        return Taken(study, trial, folder, lock)


def give_up(place: Place, study, line: str):
    """Ends the sweep where the last trials all failed with this line, but for its numbers."""
    from optuna.trial import TrialState

    with alone(place.folder):
        done = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and t.datetime_complete]
        done = [t for t in done if t.number >= study.user_attrs.get("since", 0)]
        last = sorted(done, key=lambda t: t.datetime_complete)[-place.plan.give_up :]
        same = [t.state == TrialState.FAIL and _kind(t.user_attrs.get("error", "")) == _kind(line) for t in last]
        if len(last) == place.plan.give_up and all(same):
            study.set_user_attr("stopped", line)


def _kind(line: str) -> str:
    return re.sub(r"[-+]?[\d.]+(e[-+]?\d+)?", "#", line)
