"""The folder of a run: locked while one process trains in it, with a config.json that says whose run it holds."""

import contextlib
import fcntl
import itertools
import json
import os
from pathlib import Path

from lmjax.errors import UserError
from lmjax.run.settings import defaults, flatten, from_json, text, to_json

# Between two starts of one run: where it is and what it shows, never what is trained.
MAY_CHANGE = ("workdir", "data_dir", "strategy", "mesh", "keep", "patience", "track", "profile", "dry_run", "quiet")

# What a start writes before it trains. Where it ends with no more than that, it leaves nothing: what it began with was
# refused, and the next start in the folder may come with other settings and data.
BEGINNING = ("config.json", "tokenizer.json", "source.json", "target.json", "vocabulary.json", "network.json",
             "classifier.json")  # fmt: skip


@contextlib.contextmanager
def workdir(path, experiment: str, config, may_change=MAY_CHANGE, may_grow=()):
    """Holds the folder of a run, made where it is missing: locked against other processes, with its config.json.

    Yields its Path. UserError where it cannot be had, or holds a run of another experiment or with other settings than
    `config` (those named in `may_change` apart, and those in `may_grow` where they are numbers that grew). A run that
    began before there was a setting has its default. A start that ends by an exception before it wrote more than
    BEGINNING to a folder of its own leaves it empty.
    """
    folder = _folder(path)
    with open(folder / ".lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--workdir={path} is in use by another process: wait for it or choose another") from None
        except OSError:
            pass  # a file system without locks
        if (folder / "weights.safetensors").exists():
            raise UserError(f"--workdir={path} holds a model made small by compress.py, no training: choose another")
        asked = {"experiment": experiment, "config": json.loads(json.dumps(to_json(config)))}
        if (folder / "config.json").exists():
            _same(path, stored(folder), asked, json.loads(json.dumps(defaults(type(config)))), may_change, may_grow)
        before = set(os.listdir(folder))
        write(folder / "config.json", asked)  # of the last start, where it may differ from the first
        try:
            yield folder
        except BaseException:
            if (new := set(os.listdir(folder)) - before) <= set(BEGINNING) and before == {".lock"}:
                for name in new:
                    (folder / name).unlink()
            raise


def fresh(experiment: str) -> Path:
    """A new folder under runs/, the first number that no run has taken."""
    for number in itertools.count(1):
        folder = Path("runs", experiment, f"{number:03}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def _folder(path) -> Path:
    folder = Path(path).expanduser()
    try:
        if folder.is_absolute() and not folder.parent.is_dir():  # more likely a slip than a wish
            raise UserError(f"--workdir={path}: there is no folder {folder.parent}: make it or choose another")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--workdir={path} is a file or lies in one: choose a folder") from None
    except OSError as error:
        raise UserError(f"--workdir={path} cannot be written ({error.strerror}): choose another folder") from None
    return folder


def _same(path, was: dict, asked: dict, default: dict, may_change, may_grow):
    if was["experiment"] != asked["experiment"]:
        raise UserError(f"--workdir={path} is a run of {was['experiment']}: choose another for {asked['experiment']}")
    old, new = default | flatten(was["config"]), flatten(asked["config"])
    for name, value in old.items():
        if name in may_change:
            continue
        if name not in new:
            raise UserError(f"--workdir={path} holds a run with {name}={text(value)}, which is no setting of this "
                            "version: choose another")  # fmt: skip
        if new[name] != value and not (name in may_grow and new[name] > value):
            raise UserError(f"--workdir={path} holds a run with {name}={text(value)}, not {text(new[name])}: set it so "
                            "or choose another")  # fmt: skip


def stored(folder, flag="--workdir") -> dict:
    """config.json of a workdir: {"experiment": name, "config": settings}. UserError where it is missing or damaged;
    flag: what named the folder."""
    path = Path(folder) / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data["experiment"], str) and isinstance(data["config"], dict):
            return data
    except OSError:
        raise UserError(f"{flag}={folder} holds no run: {path} cannot be read") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is damaged: expected the experiment and its config; remove it or choose another workdir")


def stored_network(folder, Config, flag="--workdir"):
    """The config of the network that a run wrote to network.json. UserError where it is missing or damaged."""
    path = Path(folder) / "network.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{flag}={folder} holds no network.json that can be read: train it again") from None
    return from_json(Config, kept, str(path))


def write(path: Path, data: dict):
    """JSON, complete or not at all."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(new, path)
