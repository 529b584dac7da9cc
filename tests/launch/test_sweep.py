"""Sweeps: their space, what is refused, and that killed workers cost no trial. The experiment is stub.py beside this.

LMJAX_KILLS=10 kills two of four workers ten times over; the suite does it once.
"""

import base64
import contextlib
import dataclasses
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="the sweep extra is not installed")

from lmjax.errors import UserError
from lmjax.run import flags, sweep_space, sweep_study, sweep_worker, sweeping

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).with_name("stub.py")
KILLS = int(os.environ.get("LMJAX_KILLS", "1"))
PATIENCE = 10.0  # seconds that a killed worker's trial may lie


def command(*words, script=STUB):
    return [sys.executable, ROOT / "launch/sweep.py", *([script] if script else []), *words]


def call(folder, *words, script=STUB, timeout=120):
    ended = subprocess.run(
        command(*words, script=script), cwd=folder, capture_output=True, text=True, timeout=timeout
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


def trials_of(workdir, url=""):
    with contextlib.closing(sweep_study.join(Path(workdir), url)) as place:
        return sweep_study.load(place).get_trials()


def states(trials):
    return [trial.state.name for trial in trials]


# Its processes, from /proc.


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found


def trial_of(worker: int) -> int | None:
    for child in children(worker):
        try:
            words = Path(f"/proc/{child}/cmdline").read_text()
        except OSError:
            continue
        if match := re.search(r"--workdir=[^\0]*/trials/(\d+)", words):
            return int(match[1])
    return None


def starts(workdir, number: int) -> list[list[str]]:
    path = Path(workdir) / f"trials/{number:04}/starts.log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition, seconds=60.0, what=""):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def kill_two(launcher, rng, workdir) -> list[tuple[int, float]]:
    """Kills two workers that are at work: [(its trial, when)]."""
    busy = []

    def two_are_busy():
        busy[:] = [(w, t) for w in children(launcher.pid) if (t := trial_of(w)) is not None and starts(workdir, t)]
        return len(busy) >= 2 or launcher.poll() is not None

    wait_for(two_are_busy, what="two workers at work")
    time.sleep(rng.random() * 0.4)
    hit = []
    for worker, number in rng.sample(busy, min(2, len(busy))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
            hit.append((number, time.time()))
    return hit


def survives(workdir, url=""):
    """Kills workers, then the launcher, starts it again; what it took, in a line."""
    trials, pause = (8, 0.1) if KILLS == 1 else (40, 0.4)
    rng, hit = random.Random(0), []
    words = command("--space=x=-1..1 x layers=2,4", f"--trials={trials}", "--workers=4", f"--workdir={workdir}",
                    *([f"--storage={url}"] if url else []), "--", f"--pause={pause}")  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as launcher:
        try:
            for _ in range(KILLS):
                last = kill_two(launcher, rng, workdir)
                hit += last
                wait_for(lambda last=last: all(lies(workdir, n, when) is not None for n, when in last), what=str(last))
            assert launcher.poll() is None, "the sweep was long enough to be killed in"
        finally:
            orphans = children(launcher.pid)
            launcher.kill()
    began = time.monotonic()
    again = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert "best of" in again.stdout
    assert not any(Path(f"/proc/{pid}").exists() for pid in orphans), "workers leave with their launcher"
    found = trials_of(workdir, url)
    assert states(found) == ["COMPLETE"] * trials
    assert [trial.number for trial in found] == list(range(trials))
    for trial in found:
        log = starts(workdir, trial.number)
        assert [line[0] for line in log].count("end") == 1, (trial.number, log)
        assert log[-1][0] == "end"
        assert len({line[3] for line in log if line[0] == "start"}) == 1, "the same values at each start"
        assert trial.value == pytest.approx((float(log[0][3]) - 0.3) ** 2)
    resumed = [int(line[1]) for n, _ in hit for line in starts(workdir, n)[1:] if line[0] == "start"]
    assert resumed, "a killed trial started again"
    assert max(resumed) > 0, "and went on from where it was"
    lain = [lies(workdir, n, when) for n, when in hit]
    assert max(lain) < PATIENCE
    return (
        f"{len(hit)} workers killed, the longest wait {max(lain):.1f} s; started again {time.monotonic() - began:.0f} s"
    )


def lies(workdir, number, when) -> float | None:
    """Seconds until a trial whose worker was killed at `when` went on; 0 where it had ended, None: not yet."""
    log = starts(workdir, number)
    later = [float(line[2]) for line in log if float(line[2]) > when]
    ended = log[-1][0] == "end"
    return later[0] - when if later else 0.0 if ended else None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_killed_workers_and_a_killed_launcher_lose_no_trial(tmp_path):
    print(survives(tmp_path / "sweep"))


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The address of a PostgreSQL server of its own, on a socket in a new folder."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        pytest.skip("PostgreSQL's initdb and postgres are not installed")
    pytest.importorskip("psycopg", reason="the postgres extra is not installed")
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path is short
    who = {}
    if os.getuid() == 0:  # it refuses to run as root
        who = {"user": "nobody", "group": "nogroup" if _has_group("nogroup") else "nobody", "extra_groups": []}
        shutil.chown(folder, "nobody")
    trust = ["--auth=trust", "--username=tester", "--no-sync"]
    subprocess.run(["initdb", "-D", folder / "data", *trust], check=True, capture_output=True, cwd=folder, **who)
    settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    server = subprocess.Popen(
        ["postgres", "-D", folder / "data", *settings], cwd=folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, **who,
    )  # fmt: skip
    try:
        wait_for(lambda: (folder / ".s.PGSQL.5432").exists(), what="PostgreSQL to start")
        yield lambda name: _database(folder, name)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _has_group(name) -> bool:
    import grp

    return name in [group.gr_name for group in grp.getgrall()]


def _database(folder, name) -> str:
    """An empty database."""
    import psycopg

    for _ in range(100):
        with contextlib.suppress(psycopg.OperationalError):
            with psycopg.connect(f"host={folder} user=tester dbname=postgres", autocommit=True) as connection:
                connection.execute(f"create database {name}")
            return f"postgresql://tester:secret%21word@/{name}?host={folder}"
        time.sleep(0.1)
    raise AssertionError("PostgreSQL takes no connections")


def test_a_database_serves_as_the_journal_does(tmp_path, database):
    url = database("one")
    with contextlib.closing(begun(tmp_path / "sweep", url)) as place:
        put_back(place)
    with pytest.raises(UserError, match="holds a sweep with --storage=postgresql://tester@/one"):
        sweep_study.join(tmp_path / "sweep", "")
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert kept == []
    with pytest.raises(UserError, match=r"cannot be used: .*nowhere") as refused:
        begun(tmp_path / "other", url.replace("/one", "/nowhere"))
    assert "secret" not in str(refused.value)


def test_killed_workers_on_postgresql(tmp_path, database):
    if KILLS == 1:
        pytest.skip("takes half a minute: LMJAX_KILLS=10")
    print(survives(tmp_path / "sweep", database("killed")))


def test_eight_starts_at_one_instant_on_an_empty_database(tmp_path, database):
    if KILLS == 1:
        pytest.skip("takes half a minute: LMJAX_KILLS=10")
    url, workdir = database("empty"), tmp_path / "sweep"
    words = command("--space=x=0..1", "--trials=10", "--workers=8", f"--workdir={workdir}", f"--storage={url}")
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    found = trials_of(workdir, url)
    assert states(found) == ["COMPLETE"] * 10
    for log in workdir.glob("worker-*.log"):
        assert log.read_text() == ""
    kept = [path for path in workdir.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert (kept, "secret" in ended.stdout + ended.stderr) == ([], False)
