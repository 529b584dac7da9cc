"""SIGTERM and SIGINT end a process within seconds in every phase, with its state saved where there is one."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from lmjax.train.checkpoint import Checkpoints
from lmjax.train.interrupt import interrupts

BEGIN = """
import hashlib, os, signal, sys, threading, time
from lmjax.train.interrupt import interrupts

def tell(word): os.write(1, word.encode() + b"\\n")
def save(): time.sleep(0.2); tell("saved")
def inside_c():  # minutes without a bytecode, so without a handler; "ready" is told when it is well inside
    threading.Timer(0.1, tell, ["ready"]).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
def nap(): time.sleep(0.02)
"""


class Run:
    """A child process of `body`; `read` gives the next line it told."""

    def __init__(self, body):
        command = [sys.executable, "-W", "error", "-c", BEGIN + body]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.read() == "ready"

    def read(self):
        return self.process.stdout.readline().strip()

    def send(self, signum):
        self.process.send_signal(signum)
        self.sent = time.monotonic()
        return self

    def end(self, status, within):
        """(what it told, what it wrote to stderr) from here to its end; seconds count from the last signal."""
        try:
            out, err = self.process.communicate(timeout=20)
        finally:
            self.process.kill()
        assert self.process.returncode == status, (out, err)
        assert time.monotonic() - self.sent < within
        return out.split(), err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_main_thread_saves_at_a_safe_point(signum):
    run = Run("""
with interrupts(grace=0.5) as interrupt:
    interrupt.withdraw()
    tell("ready")
    while not interrupt.requested: nap()
    interrupt.leaving()
    time.sleep(1)  # longer than the grace: nobody cuts this save short
    save()
    raise SystemExit(128 + interrupt.requested)
""")
    told, err = run.send(signum).end(128 + signum, 3)
    assert told == ["saved"]
    assert err == f"{signum.name}: saving at the next step; once more to leave at once\n"


def test_with_nothing_to_lose_it_ends_where_it_stands():
    run = Run("""
with interrupts() as interrupt:
    interrupt.publish(None)
    try: tell("ready"); time.sleep(60)
    except ValueError: pass
    finally: tell("unwound")
""")
    told, err = run.send(signal.SIGTERM).end(143, 2)
    assert told == ["unwound"]
    assert err == "SIGTERM: leaving; once more to leave at once\n"


@pytest.mark.parametrize(
    ("phase", "grace", "saves"),
    [("interrupt.publish(save)", 0.5, True), ("interrupt.publish(None)", 0.5, False), ("", 0.5, False),
     ("interrupt.publish(save); interrupt.withdraw()", 1.0, False)],
)  # fmt: skip
def test_a_main_thread_stuck_in_c_is_left_behind(phase, grace, saves):
    run = Run(f"""
with interrupts(grace=0.5) as interrupt:
    {phase}
    inside_c()
""").send(signal.SIGTERM)
    told, err = run.end(143, grace + 1.5)
    assert told == ["saved"] * saves
    assert time.monotonic() - run.sent > grace
    assert ("not saved: the step under way does not end" in err) == ("withdraw" in phase)


def test_a_step_that_takes_long_is_waited_for():
    """Steps of .7 s, which the grace of .1 s would not outlast."""
    run = Run("""
with interrupts(grace=0.1) as interrupt:
    interrupt.withdraw()
    for step in range(9):
        time.sleep(0.7)
        if interrupt.requested: break
        if step == 1: tell("ready")
    interrupt.leaving()
    save()
    raise SystemExit(128 + interrupt.requested)
""")
    told, err = run.send(signal.SIGTERM).end(143, 3)
    assert told == ["saved"]
    assert "not saved" not in err


def test_a_main_thread_that_comes_back_too_late_goes_no_further():
    """Neither on to the next step, whose buffers are being saved, nor out of the block."""
    for last in ("interrupt.withdraw()", "pass"):
        run = Run(f"""
def slow(): tell("begun"); time.sleep(0.8); tell("saved")
with interrupts(grace=0.2) as interrupt:
    interrupt.publish(slow)
    tell("ready")
    time.sleep(0.5)
    {last}
tell("went on")
""")
        assert run.send(signal.SIGTERM).end(143, 3)[0] == ["begun", "saved"]


def test_a_save_that_fails_still_ends():
    run = Run("""
def save(): raise OSError(28, "No space left on device")
with interrupts(grace=0.2) as interrupt:
    interrupt.publish(save)
    inside_c()
""").send(signal.SIGTERM)
    assert "not saved: [Errno 28] No space left on device" in run.end(143, 2)[1]


@pytest.mark.parametrize(
    "phase",
    [
        "interrupt.publish(save); inside_c()",  # waiting for the grace
        "interrupt.leaving(); inside_c()",  # the main thread is saving
        "interrupt.publish(lambda: time.sleep(60)); interrupt._grace = 0.1; inside_c()",  # the watcher is
        "interrupt.publish(None); hang()",  # unwinding
    ],
)
def test_a_second_signal_ends_at_once(phase):
    run = Run(f"""
def hang():
    try: tell("ready"); time.sleep(60)
    finally: inside_c()
with interrupts(grace=60) as interrupt:
    {phase}
""").send(signal.SIGTERM)
    time.sleep(0.6)
    assert run.process.poll() is None
    told, _ = run.send(signal.SIGINT).end(130, 0.5)
    assert "saved" not in told


def test_an_echo_is_not_a_second_signal():
    """`timeout` sends the signal to the process and then to its group."""
    run = Run("""
with interrupts(grace=0.5) as interrupt:
    interrupt.publish(save)
    inside_c()
""").send(signal.SIGTERM)
    time.sleep(0.05)
    assert run.send(signal.SIGTERM).end(143, 3)[0] == ["saved"]


def test_forked_workers_die_alone():
    run = Run("""
import warnings
with interrupts(grace=0.2) as interrupt:
    warnings.simplefilter("ignore")  # of fork beside threads, which newer Pythons warn of
    worker = os.fork()
    if not worker:
        while True: nap()
    nap()
    os.kill(worker, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -15
    tell("ready")
    begun = time.monotonic()
    while not interrupt.requested: nap()
    tell("own" if time.monotonic() - begun > 0.3 else "worker's")
""")
    time.sleep(0.4)
    told, err = run.send(signal.SIGTERM).end(0, 2)
    assert told == ["own"]
    assert err.count("SIGTERM") == 1


def test_what_nohup_ignored_stays_ignored():
    run = Run("""
signal.signal(signal.SIGINT, signal.SIG_IGN)
with interrupts(grace=0.2) as interrupt:
    tell("ready")
    while not interrupt.requested: nap()
    raise SystemExit(128 + interrupt.requested)
""").send(signal.SIGINT)
    time.sleep(0.4)
    assert run.process.poll() is None
    assert run.send(signal.SIGTERM).end(143, 2)[1].startswith("SIGTERM")


def test_handlers_and_pipe_are_given_back():
    before, files = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)], len(os.listdir("/proc/self/fd"))
    with interrupts() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 5
        while not interrupt.requested and time.monotonic() < deadline:
            time.sleep(0.01)
        assert interrupt.requested == signal.SIGINT
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert len(os.listdir("/proc/self/fd")) == files
    assert not [t for t in threading.enumerate() if t.name == "interrupts"]


def test_outside_the_main_thread_it_does_nothing():
    found = []

    def inside():
        with interrupts() as interrupt:
            interrupt.publish(None)
            found.append((interrupt.requested, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [(None, before)]


def test_while_xla_compiles_the_state_is_saved(tmp_path):
    """With JAX, orbax and all: the step is at work on the device, the main thread in the compiler."""
    run = Run(f"""
import jax, jax.numpy as jnp
from lmjax.train.checkpoint import Checkpoints

def slow_to_compile(x):
    for i in range(120): x = jnp.tanh(x @ x + i) * jnp.sin(x)
    return x.sum()

checkpoints = Checkpoints({str(tmp_path)!r})
step = jax.jit(lambda w: jax.lax.fori_loop(0, 30, lambda i, w: jnp.sin(w @ w) + w, w) * 0 + 7, donate_argnums=0)
def save(): checkpoints.save(7, {{"w": state}}, {{"from": "interrupt"}}); checkpoints.wait()

with interrupts(grace=0.3) as interrupt:
    lowered = jax.jit(jax.grad(slow_to_compile)).lower(jnp.ones((64, 64)))
    state = jnp.ones((300, 300))
    interrupt.withdraw()
    state = step(state)
    interrupt.publish(save)
    tell("ready")
    lowered.compile()
    tell("compiled")
""").send(signal.SIGTERM)
    told, err = run.end(143, 6)
    assert told == []
    assert err.count("\n") == 1
    step, state, meta = Checkpoints(tmp_path).restore({"w": np.zeros((300, 300), np.float32)})
    assert (step, meta) == (7, {"from": "interrupt"})
    assert (state["w"] == 7).all()
