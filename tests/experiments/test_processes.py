"""Two processes over loopback: the numbers of one process with as many devices, whatever is done to them on the way.

LMJAX_TEST_PROCESSES=1 takes every family, and every disturbance of each rank; the suite takes one of each.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from test_resume import CACHE, COMMON, ROOT, RUNS, material, steps_saved, what_is_left
from xla_flags import QUICK

ALL = os.environ.get("LMJAX_TEST_PROCESSES") == "1"
HEARTBEAT = 8
GPT = "gpt with accumulation"
# Without --strategy a run takes pmap. Word vectors of one row cannot be shared.
AS_PAIRS = ("--strategy=pmap", "--form=at_once")  # lanes: in one process devices would share these out
FAMILIES = [name for name in RUNS if not name.startswith(("word vectors", "subword"))]


def environment(folder, devices):
    return os.environ | CACHE | {
        "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "XLA_FLAGS": f"{QUICK} --xla_force_host_platform_device_count={devices}",
    }  # fmt: skip


def words(name, workdir, *more):
    script, *flags = RUNS[name]
    own = script == "seqgan.py" or any(flag.startswith("--data=") for flag in flags)
    flags = [*flags, *([] if own else ["--data=text.txt"]), *COMMON, f"--workdir={workdir}", *more]
    last = {flag.partition("=")[0]: flag for flag in flags}  # a flag may be given once
    return [str(ROOT / "experiments" / script), *last.values()]


def alone(folder, name, devices, *more):
    """The workdir of a run in one process."""
    command = [sys.executable, *words(name, "alone", *more)]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder, devices), text=True, capture_output=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "alone"


class Pair:
    """The same in two processes under the supervisor."""

    def __init__(self, folder, name, devices, *more):
        self.work, self.lines = folder / "pair", []
        command = [sys.executable, str(ROOT / "launch" / "multiprocess.py"), "--processes=2",
                   f"--heartbeat={HEARTBEAT}", *words(name, "pair", *more)]  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment(folder, devices), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        with self.process.stdout as out:
            for line in out:
                self.lines.append((time.monotonic(), line.rstrip()))

    def ranks(self):
        """Process ids by rank."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                variables = (folder / "environ").read_bytes().split(b"\0") if parent == self.process.pid else []
            except OSError:
                continue
            found |= {int(v[14:]): int(folder.name) for v in variables if v.startswith(b"LMJAX_PROCESS=")}
        return found

    def reach(self, steps):
        while self.process.poll() is None and steps_saved(self.work) < steps:
            time.sleep(0.01)
        assert self.process.poll() is None, self.said()

    def disturb(self, steps, what, rank):
        """Sends a rank a signal once a checkpoint of so many steps is there; what is said of it, in time."""
        self.reach(steps)
        seen, now = len(self.lines), time.monotonic()
        os.kill(self.ranks()[rank], what)
        while not (new := [pair for pair in self.lines[seen:] if pair[1].startswith("multiprocess:")]):
            assert time.monotonic() - now < HEARTBEAT + 5, self.said()
            time.sleep(0.05)
        (when, line), *more = new
        assert when - now < HEARTBEAT + 5
        assert not more
        did = "was killed by SIGKILL" if what == signal.SIGKILL else r"is frozen \(it is stopped\)"
        assert re.match(rf"multiprocess: rank {rank} {did} .*; all go on from the last checkpoint in \d+ s", line), line
        print(f"{when - now:.1f} s: {line}")

    def end(self, status=0):
        assert self.process.wait(timeout=600) == status, self.said()
        self.reader.join()
        return self.said().splitlines()

    def said(self):
        return "\n".join(line for _, line in self.lines)


@pytest.fixture
def folder(tmp_path):
    material(tmp_path, random.Random(0))
    return tmp_path


def test_ranks_that_die_or_freeze_are_named_and_all_ends_in_the_bits_of_one_process(folder):
    whole = alone(folder, GPT, 2)
    pair = Pair(folder, GPT, 1)
    disturbances = [(6, signal.SIGKILL, 1), (16, signal.SIGSTOP, 0)]
    if ALL:
        disturbances += [(24, signal.SIGKILL, 0), (32, signal.SIGSTOP, 1)]
    for steps, what, rank in disturbances:
        pair.disturb(steps, what, rank)
    lines = pair.end()
    assert what_is_left(whole) == what_is_left(pair.work)
    named = [line for line in lines if line.startswith("multiprocess:")]
    assert len(named) == len(disturbances)
    results = [line for line in lines if "the record is" in line]
    assert len(results) == 1  # one prints
    record = json.loads((pair.work / "result.json").read_text())
    assert record["command"].startswith("launch/run.sh launch/multiprocess.py --processes=2 experiments/gpt_char.py")
    assert record["metrics"] == json.loads((whole / "result.json").read_text())["metrics"]


@pytest.mark.skipif(not ALL, reason="LMJAX_TEST_PROCESSES=1 asks for it")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_the_bits_of_one_process(folder, name):
    more = AS_PAIRS if any(flag.startswith(("--seeds", "--lanes")) for flag in RUNS[name]) else ()
    whole, pair = alone(folder, name, 2, *more), folder / "pair"
    if (whole / "tokenizer.json").exists():  # two trainings of a tokenizer may differ; a run keeps its own
        pair.mkdir()
        shutil.copy(whole / "tokenizer.json", pair)
    pair = Pair(folder, name, 1, *more)
    pair.end()
    assert what_is_left(whole) == what_is_left(pair.work)


@pytest.mark.skipif(not ALL, reason="LMJAX_TEST_PROCESSES=1 asks for it")
def test_a_signal_to_any_rank_stops_all_at_one_step(folder):
    whole = alone(folder, GPT, 2)
    for rank in (0, 1):
        pair = Pair(folder, GPT, 1)
        pair.reach(8 + 16 * rank)
        os.kill(pair.ranks()[rank], signal.SIGTERM)
        lines = pair.end(128 + signal.SIGTERM)
        assert re.search(r"SIGTERM: saved at step \d+ of 48", lines[-1])
    Pair(folder, GPT, 1).end()
    assert what_is_left(whole) == what_is_left(folder / "pair")


def numbers(work):
    """Every number of the log and of the last checkpoint's hand-over, in order, and what they are called."""
    lines = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    return [tuple(line) for line in lines], [v for line in lines for v in line.values() if not isinstance(v, str)]


@pytest.mark.parametrize(
    ("devices", "flags"),
    [(1, ("--strategy=mesh",)), (2, ("--strategy=mesh", "--mesh=2,2")), (2, ("--strategy=pmap",))][: 3 if ALL else 1],
)
def test_a_mesh_over_processes_has_the_numbers_of_one_process(folder, devices, flags):
    """Sums between four devices may come in another order, so to 1e-5; of two to the bit, but for evaluation."""
    flags = (*flags, "--steps=8", "--evaluate_every=4", "--ema=0", "--batch=8")
    whole = alone(folder, GPT, 2 * devices, *flags)
    pair = Pair(folder, GPT, devices, *flags)
    pair.end()
    (names, mine), (_, theirs) = numbers(whole), numbers(pair.work)
    assert names == numbers(pair.work)[0]
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)
