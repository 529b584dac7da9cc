"""What a process tells who watches it, and what it takes over of the first one's workdir."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lmjax.run.processes import distributed


def test_a_pulse_tells_where_the_program_is(monkeypatch):
    monkeypatch.setattr(distributed, "EVERY", 0.01)
    killed = []
    monkeypatch.setattr(os, "kill", lambda *given: killed.append(given))
    reading, writing = os.pipe()
    pulse = distributed.Pulse(writing)
    pulse.facts["process"] = 1
    pulse.beat("training", 7)
    pulse.came = lambda: 15
    time.sleep(0.1)
    lines = [json.loads(line) for line in os.read(reading, 65536).splitlines()]
    assert len(lines) > 3
    assert lines[-1] == {"phase": "training", "step": 7, "count": 1, "signal": 15, "process": 1}
    os.close(reading)  # who watches is gone: nobody would start this again
    until = time.monotonic() + 10
    while not killed and time.monotonic() < until:
        time.sleep(0.01)
    assert killed == [(os.getpid(), signal.SIGTERM)]
    os.close(writing)


def test_a_pulse_outlives_a_reader_that_is_late(monkeypatch):
    monkeypatch.setattr(distributed, "EVERY", 0.01)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, bytes(4096)):
            pass
    pulse = distributed.Pulse(writing)
    time.sleep(0.1)
    os.read(reading, 2**20)
    pulse.beat("training", 3)
    time.sleep(0.1)
    assert json.loads(os.read(reading, 2**20).splitlines()[-1])["step"] == 3
    monkeypatch.setattr(os, "kill", lambda *given: None)
    os.close(reading)
    time.sleep(0.1)
    os.close(writing)


def test_a_copy_of_a_workdir_has_all_but_what_the_first_process_alone_writes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for name in ("tokenizer.json", "run-0/figures.json", "frames/1.npy"):
        (one / name).parent.mkdir(parents=True, exist_ok=True)
        (one / name).write_bytes(name.encode())
    for name in ("checkpoints/1/x", "run-0/checkpoints/1/x", "metrics.jsonl", ".lock", "tensorboard/e"):
        (one / name).parent.mkdir(parents=True, exist_ok=True)
        (one / name).write_bytes(b"private")
    distributed.unpack(distributed.pack(one), other)
    found = {path.relative_to(other).as_posix(): path.read_text() for path in other.rglob("*") if path.is_file()}
    assert found == {name: name for name in ("tokenizer.json", "run-0/figures.json", "frames/1.npy")}


PROGRAM = """
import os, subprocess, sys
from lmjax.run.processes import distributed

distributed.join()
print("said by Python", flush=True)
os.write(1, b"said by C++")
assert not any(name.startswith("LMJAX_P") for name in os.environ)  # nor would a program that this one starts join
distributed.leave(5)
"""


def test_alone_it_joins_nobody_and_keeps_its_status():
    variables = distributed.environment(processes=1)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | variables, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, "said by Python\nsaid by C++", "")


@pytest.mark.parametrize(("speaks", "said"), [(True, "from Python\n"), (False, "")])
def test_what_is_not_python_is_not_heard(speaks, said):
    program = "import os; from lmjax.run.processes import distributed; distributed.print_alone({}); "
    program += "print('from Python'); os.write(1, b'from C++')"
    done = subprocess.run([sys.executable, "-c", program.format(speaks)], text=True, capture_output=True, check=True)
    assert done.stdout == said
