"""The supervisor, over stand-ins for an experiment that tell their pulse and do nothing else."""

import io
import os
import re
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from lmjax.errors import UserError
from lmjax.run import flags
from lmjax.run.processes import ranks, supervisor

# Steps that a file counts, as a checkpoint would: the ranks of all starts together make --steps of them, each waiting
# for the others as in a collective. What disturbs them happens once, in the rank and at the step that are given.
RANK = """
import json, os, signal, sys, time
from pathlib import Path

what, rank, at, steps, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
me, count = int(os.environ["LMJAX_PROCESS"]), int(os.environ["LMJAX_PROCESSES"])
start = os.environ["LMJAX_COORDINATOR"].replace(":", "_")
told, beats, came, twice = 0.0, 0, None, 0

def tell(phase, step, moved=True):
    global told, beats
    beats += moved
    if moved or time.monotonic() - told > 0.05:
        told = time.monotonic()
        said = {"phase": phase, "step": step, "count": beats, "signal": came, "process": me}
        os.write(int(os.environ["LMJAX_PULSE"]), json.dumps(said).encode() + b"\\n")

def handle(signum, frame):
    global came, twice
    came, twice = signum, twice + 1
signal.signal(signal.SIGTERM, handle)

tell("starting", 0)
done = folder / f"{me}.done"
now = min(int(p.read_text() or 0) if p.exists() else 0 for p in (folder / f"{i}.done" for i in range(count)))
while now < steps:
    now += 1
    phase, mark = "training", folder / "disturbed"
    if what == "doze" and now == at:
        phase = "evaluating"
        tell(phase, now - 1)
    if me == rank and now >= at and (what == "always" or not mark.exists()):
        mark.touch()
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what in ("freeze", "doze"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "hang":
            while True:
                tell("training", now - 1, False)
                time.sleep(0.02)
        if what in ("fail", "always"):
            print("Traceback (most recent call last):\\n  more of it", file=sys.stderr, flush=True)
            time.sleep(0.8)  # JAX takes its time to end
            sys.exit("ValueError: a bad day")
    if what == "refuse" and now == at:
        print("x.py: --lr=0 is too low", file=sys.stderr)
        sys.exit(2)
    (folder / f"{me}-{start}-{now}").touch()
    tell(phase, now)  # that it is under way, as the loop does
    while not all((folder / f"{i}-{start}-{now}").exists() for i in range(count)):
        tell(phase, now, False)
        time.sleep(0.002)
        if came:
            break
    done.write_text(str(now))
    if came and (what != "ask" or now > 0):
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            tell("saving", now, False)
            time.sleep(0.01)
        (folder / f"{me}.asked").write_text(str(twice))
        sys.exit(128 + came)
    time.sleep(0.005)
print("ended", flush=True)
"""


class Play:
    """A supervised run of stand-ins, and what it said."""

    def __init__(self, folder, what, rank=0, at=12, steps=30, ask=None, **options):
        (folder / "rank.py").write_text(RANK)
        command = [str(folder / "rank.py"), what, str(rank), str(at), str(steps), str(folder)]
        settings = {"processes": 2, "heartbeat": 1.0, "startup": 20.0} | options
        self.out, self.folder = io.StringIO(), folder
        one = supervisor.Supervisor(supervisor.Options(**settings), command, self.out)
        began = time.monotonic()
        if ask:
            threading.Thread(target=ask, args=(one, folder), daemon=True).start()
        self.status = one.run()
        self.seconds = time.monotonic() - began
        self.lines = self.out.getvalue().splitlines()


pause = supervisor.pause


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    monkeypatch.setattr(supervisor, "pause", lambda failed: 0.1 * failed)
    kept = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    yield
    for s, handler in kept.items():
        signal.signal(s, handler)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("kill", r"rank {} was killed by SIGKILL at step 1[012]"),
        ("fail", r"rank {} ended with status 1 at step 1[012] \(ValueError: a bad day\)"),
        ("freeze", r"rank {} is frozen \(it is stopped\) at step 1[012]: no (sign of life|progress) for [12] s.*"),
        ("doze", r"rank {} is frozen \(it is stopped\) while evaluating: no sign of life for [12] s"),
        ("hang", r"rank {} hangs at step 11: no progress for [12] s, others are at step 12"),
    ],
)
def test_one_line_names_the_rank_and_all_go_on(tmp_path, what, rank, says):
    play = Play(tmp_path, what, rank)
    (line,) = play.lines
    again = r"; all go on from the last checkpoint in 0.1 s \(1 of 3\)"
    assert re.fullmatch("multiprocess: " + says.format(rank) + again, line), line
    assert play.status == 0
    assert (tmp_path / "0.done").read_text() == (tmp_path / "1.done").read_text() == "30"
    assert play.seconds < 1.0 + 5.0 + 2.0  # heartbeat + 5, and two starts


def test_pauses_grow_and_are_bounded():
    assert [pause(n) for n in (1, 2, 3, 6, 7, 100)] == [1, 2, 4, 32, 60, 60]


def test_bad_input_is_said_once_and_not_tried_again(tmp_path):
    play = Play(tmp_path, "refuse", at=1)
    assert (play.status, play.lines) == (2, ["x.py: --lr=0 is too low"])


def test_a_fault_that_comes_back_ends_it(tmp_path):
    play = Play(tmp_path, "always", rank=1, restarts=2)
    assert play.status == 1
    first, second, *trace, last = play.lines
    assert "(1 of 2)" in first
    assert "(2 of 2)" in second
    assert trace == ["[1] Traceback (most recent call last):", "[1]   more of it", "[1] ValueError: a bad day"]
    assert "rank 1 ended with status 1" in last
    assert "given up after 2 starts without progress" in last


def test_a_signal_goes_to_each_rank_once(tmp_path):
    def ask(one, folder):
        while not (folder / "1.done").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    play = Play(tmp_path, "ask", steps=100_000, ask=ask)
    assert (play.status, play.lines) == (128 + signal.SIGTERM, [])
    assert [(tmp_path / f"{i}.asked").read_text() for i in range(2)] == ["1", "1"]


def test_a_rank_that_was_signalled_itself_hears_of_it_once(tmp_path):
    """A batch system signals all processes of a job, ranks and supervisor: twice would mean to leave at once."""

    def ask(one, folder):
        while not (folder / "1.done").exists():
            time.sleep(0.01)
        one.ranks[0].process.send_signal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    play = Play(tmp_path, "ask", steps=100_000, ask=ask, heartbeat=10.0)
    assert play.status == 128 + signal.SIGTERM
    assert [(tmp_path / f"{i}.asked").read_text() for i in range(2)] == ["1", "1"]


def test_the_first_rank_alone_prints(tmp_path, capfd):
    play = Play(tmp_path, "nothing")
    assert play.status == 0
    assert capfd.readouterr().out == "ended\n"


def rank(**said):
    one = ranks.Rank(0, None, -1, 0.0, 0.0)
    for now, (phase, step) in said.pop("heard"):
        line = {"phase": phase, "step": step, "count": one.said["count"] + 1, "signal": None}
        one.hear(str(line).replace("'", '"').replace("None", "null").encode() + b"\n", now)
    return one


def test_who_is_behind_is_named_even_if_all_have_waited_too_long():
    running = SimpleNamespace(poll=lambda: None, pid=os.getpid())
    one = supervisor.Supervisor(supervisor.Options(heartbeat=30), [])
    for name, steps in enumerate((12, 11, 12)):
        one.ranks.append(rank(heard=[(i, ("training", i)) for i in range(steps + 1)]))
        one.ranks[-1].name, one.ranks[-1].process, one.ranks[-1].alive = name, running, 100.0
    assert one.stuck(40.0) is None
    assert one.stuck(101.0).line == "rank 1 hangs at step 11: no progress for 90 s, others are at step 12"
    one.ranks.pop(1)
    assert one.stuck(101.0).line == "every rank hangs at step 12: no progress for 89 s"


def test_slow_steps_and_compilation_have_longer_limits():
    options = supervisor.Options(heartbeat=30, startup=600)
    quick = rank(heard=[(i, ("training", i)) for i in range(10)])
    slow = rank(heard=[(60 * i, ("training", i)) for i in range(10)])
    compiling = rank(heard=[*((i, ("training", i)) for i in range(10)), (11, ("compiling", 9))])
    begun = rank(heard=[(0, ("training", 1)), (1, ("training", 2))])
    limits = [one.limit(options.heartbeat, options.startup) for one in (quick, slow, compiling, begun)]
    assert limits == [30, 300, 600, 600]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--hosts=2"], "needs --coordinator"),
        (["--hosts=2", "--host=2", "--coordinator=a:1"], "below --hosts=2"),
        (["--coordinator=a"], "ADDRESS:PORT"),
        (["--detect=true", "--processes=2"], "leave --processes"),
        (["--proceses=2"], "did you mean --processes"),
    ],
)
def test_impossible_settings_are_refused(words, complaint):
    with pytest.raises(UserError, match=complaint):
        flags.parse(supervisor.Options, argv=["multiprocess.py", *words])


@pytest.mark.parametrize("words", [[], ["--processes=2"], ["nowhere.py"]])
def test_an_experiment_has_to_be_named(words, capsys):
    assert supervisor.main(["multiprocess.py", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_words_behind_the_script_are_its_own():
    words = ["--processes=2", "experiments/x.py", "--seed=3", "y"]
    assert supervisor.split(words) == (words[:1], words[1:])
