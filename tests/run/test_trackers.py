"""Trackers: they get the lines, go on in the same run, and never hold up or end a training."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from lmjax.errors import UserError
from lmjax.run import trackers
from lmjax.run.log import Log

ROOT = Path(__file__).resolve().parents[2]


class Stub:
    """A service in memory."""

    runs: ClassVar[dict] = {}

    def __init__(self, start):
        self.run = start.run or f"run{len(self.runs)}"
        self.runs.setdefault(self.run, []).append(("open", start.experiment, start.settings, start.step))

    def write(self, step, values):
        self.runs[self.run].append((step, values))

    def close(self):
        self.runs[self.run].append("closed")


@pytest.fixture(autouse=True)
def empty():
    Stub.runs = {}


def track(folder, first, last, service=Stub, said=None):
    opener = trackers.opener(("stub",), "demo", {"model.dim": 8}, {"stub": service})
    with Log(folder, 10, quiet=True, trackers=opener) as log:
        if said is not None:
            log.say = said.append
        log.resume(first)
        for step in range(first + 1, last + 1):
            log.train(step, {"loss": 1 / step, "bad": float("nan")}, 0.1, 1)
        log.metrics(last, {"loss": 0.5})


def test_lines_go_to_the_service_and_a_run_goes_on_in_the_same(tmp_path):
    track(tmp_path, 0, 2)
    assert Stub.runs == {"run0": [
        ("open", "demo", {"model.dim": 8}, 1), (1, {"train/loss": 1.0}), (2, {"train/loss": 0.5}),
        (2, {"valid/loss": 0.5}), "closed",
    ]}  # fmt: skip
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"stub": "run0"}
    track(tmp_path, 2, 3)
    assert list(Stub.runs) == ["run0"]
    assert Stub.runs["run0"][5:] == [
        ("open", "demo", {"model.dim": 8}, 3), (3, {"train/loss": pytest.approx(1 / 3)}), (3, {"valid/loss": 0.5}),
        "closed",
    ]  # fmt: skip
    (tmp_path / "trackers.json").write_text("{")  # damaged: a new run, and the training goes on
    track(tmp_path, 3, 4)
    assert list(Stub.runs) == ["run0", "run1"]


@pytest.mark.parametrize("where", ["__init__", "write", "close"])
def test_a_service_that_fails_is_said_once(tmp_path, where):
    def fail(*_):
        raise SystemExit("the service\nis gone")  # as some of them do

    said = []
    track(tmp_path, 0, 3, type("Failing", (Stub,), {where: fail}), said)
    failures = [line for line in said if "--track=stub" in line]
    assert failures == ["--track=stub is left alone from here on: SystemExit: the service is gone"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_service_that_hangs_holds_nothing_up(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "CLOSE", 0.2)
    monkeypatch.setattr(trackers, "WAITING", 5)
    forever = threading.Event()

    class Hanging(Stub):
        def __init__(self, start):
            forever.wait(20)
            super().__init__(start)

    said, began = [], time.monotonic()
    for name in ("few", "many"):
        (tmp_path / name).mkdir()
    track(tmp_path / "few", 0, 2, Hanging, said)
    assert "took more than 0.2 s" in said[-1]
    track(tmp_path / "many", 0, 20, Hanging, said)
    assert "5 lines wait for it" in [line for line in said if "--track" in line][-1]
    assert time.monotonic() - began < 5
    forever.set()
    assert len((tmp_path / "many" / "metrics.jsonl").read_text().splitlines()) == 21


def test_a_missing_library_is_told_before_the_run(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = r"package mlflow: set LMJAX_EXTRAS=mlflow before launch/run\.sh, or pip install 'lmjax\[mlflow\]'$"
    with pytest.raises(UserError, match="^--track=mlflow needs the " + said):
        trackers.check(("mlflow",))


LOGGING = """
import sys
from pathlib import Path
from typing import ClassVar
from lmjax.run import trackers
from lmjax.run.log import Log
folder, name, first, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
folder.mkdir(exist_ok=True)
trackers.CLOSE = 300.0
opener = trackers.opener((name,), "demo", {"model.dim": 8, "data": "x"})
with Log(folder, 10, trackers=opener) as log:
    log.resume(first)
    for step in range(first + 1, last + 1):
        log.train(step, {"loss": 1 / step}, 0.1, 1)
    log.metrics(last, {"loss": 0.5})
"""


def log_with(name, folder):
    """Two processes of one run, offline; the second goes on."""
    environment = os.environ | {"WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)}
    for name_of in ("MLFLOW_TRACKING_URI", "TRACKIO_DIR"):
        environment.pop(name_of, None)
    for first, last in ((0, 3), (3, 5)):
        words = [sys.executable, "-c", LOGGING, str(folder), name, str(first), str(last)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, cwd=folder.parent)
        assert done.returncode == 0, done.stderr
        assert "is left alone" not in done.stdout, done.stdout
    return json.loads((folder / "trackers.json").read_text())[name]


def test_wandb_offline(tmp_path):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    run = log_with("wandb", tmp_path / "a")
    kept = list((tmp_path / "a/wandb").glob(f"offline-run-*-{run}"))
    assert len(kept) == 2
    assert all(list(folder.glob("*.wandb")) for folder in kept)


@pytest.mark.filterwarnings("ignore")  # of the library that reads it
def test_mlflow_in_the_workdir(tmp_path):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    run = log_with("mlflow", tmp_path / "a")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'a/mlflow.db'}")
    steps = [(point.step, point.value) for point in client.get_metric_history(run, "train/loss")]
    assert steps == [(n, pytest.approx(1 / n)) for n in range(1, 6)]
    assert client.get_run(run).data.params == {"model.dim": "8", "data": "x"}
    assert client.get_run(run).info.status == "FINISHED"


def test_trackio_in_the_workdir(tmp_path):
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    import sqlite3

    run = log_with("trackio", tmp_path / "a")
    (base,) = (tmp_path / "a/trackio").glob("*.db")
    rows = sqlite3.connect(base).execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert {row[0] for row in rows} == {run}
    told = [(step, json.loads(values)) for _, step, values in rows]
    assert [line for line in told if "train/loss" in line[1]] == [
        (n, {"train/loss": pytest.approx(1 / n)}) for n in range(1, 6)
    ]
