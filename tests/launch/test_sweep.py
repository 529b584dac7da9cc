"""Sweeps: their space, what is refused, and that killed workers cost no trial. The experiment is stub.py beside this.

LMJAX_KILLS=10 kills two of four workers ten times over; the suite does it once.
"""

import base64
import contextlib
import dataclasses
import fcntl
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
from lmjax.run import flags, scripts
from lmjax.run.sweeps import spaces, studies, sweeping, workers

# A worker's own process has no JAX; this one, which starts trials in its place, has it from other tests.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
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
    with contextlib.closing(studies.join(Path(workdir), url)) as place:
        return studies.load(place).get_trials()


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
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as again:
        wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in orphans), what="workers to leave")
        left = [n for n in range(trials) if not (workdir / f"trials/{n:04}/result.json").exists()]
        out, err = again.communicate(timeout=600)
    assert left, "they leave with their launcher, not when there is nothing left to do"
    assert (again.returncode, err) == (0, "")
    assert "best of" in out
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


# What is refused, before anything starts.

REFUSED = [
    ("", "no --space is given"),
    ("--space=x", "expected name=a,b,c or name=low..high"),
    ("--space=y=1..2", "no setting y"),
    ("--space=layer=1..2", "did you mean layers?"),
    ("--space=x=0..20", "x=20: expected a finite number from -10 to 10"),
    ("--space=layers=1.5..3", "layers=1.5: expected a whole number"),
    ("--space=layers=0,1", "layers=0: expected a whole number of at least 1"),
    ("--space=kind=a,c", "kind=c: expected one of"),
    ("--space=kind=a", "expected two or more different values"),
    ("--space=x=1..0", "expected the lower end first"),
    ("--space=x=0..1:log", ":log needs ends above 0"),
    ("--space=x=0..1:step=0.3", "expected a step that leads from 0 to 1"),
    ("--space=x=0..1:lin", "unknown :lin; expected :log or :step"),
    ("--space=x=0..1 x x=1..2", "--space has x twice"),
    ("--space=workdir=a,b", "workdir is set by the sweep"),
    ("--space=x=0..1 --sampler=grid", "has no end of values for --sampler=grid"),
    ("--space=x=0..1 --metric=test_loss", "never chooses by test data"),
    ("--space=x=0..1 --storage=mysql://me:secret@host/db", "expected postgresql://"),
    ("--space=x=0..1 --join", "--join takes the experiment and its space from the sweep"),
    ("--space=x=0..1 -- --x=0.5", "x is in --space and behind --"),
    ("--space=x=0..1 -- --workdir=b", "--workdir behind --"),
    ("--space=x=0..1 -- --stepz=3", "unknown flag --stepz; did you mean --steps?"),
    ("--space=x=0..1 other.py", "stray argument 'other.py'"),
    ("--space=x=0..1 --worker=2", "unknown flag --worker; did you mean --workers"),
]


@pytest.fixture
def launched(monkeypatch, capsys, tmp_path):
    """launched(*words) -> (status, stdout, stderr) of launch/sweep.py, in this process."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("launch_sweep", ROOT / "launch/sweep.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)

    def launched(*words):
        monkeypatch.setattr(sys, "argv", [str(ROOT / "launch/sweep.py"), *words])
        try:
            flags.run(module.main, module.Config, starts=True)
            status = 0
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return launched


@pytest.mark.parametrize(("words", "says"), REFUSED)
def test_what_a_user_gets_wrong_is_one_line_and_starts_nothing(launched, tmp_path, words, says):
    own, _, rest = words.partition(" -- ")
    own = re.findall(r"--space=.*?(?= --|$)|\S+", own.replace(" other.py", "")) + ["other.py"] * ("other" in own)
    status, out, err = launched(str(STUB), *own, *(["--", rest] if rest else []))
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert says in err
    assert "secret" not in err
    assert not [path for path in tmp_path.rglob("*") if "trials" in path.parts]


def test_a_script_that_is_none_is_refused(launched):
    assert "there is no script nope.py" in launched("nope.py", "--space=x=0..1")[2]
    assert "no script is given" in launched("--space=x=0..1")[2]
    assert "is no experiment" in launched(str(ROOT / "tests/conftest.py"), "--space=x=0..1")[2]


def test_help_is_a_page(launched):
    status, out, err = launched("--help")
    assert (status, err) == (0, "")
    assert out.startswith("Searches an experiment's settings with Optuna")
    assert "--space" in out


def test_a_space_is_read_by_the_types_of_the_settings():
    experiment = scripts.load(ROOT / "experiments/gpt_char.py")
    Config, presets = experiment.Config, experiment.PRESETS
    space = "lr=1e-4..1e-2:log x model.dropout=0..1:step=0.25 x model.layers=2..8 x model.bias=true,no x preset=gpt2,"
    space += "gpt3_xl"
    with pytest.raises(UserError, match=r"model.dropout=1: expected a finite number from 0 to 0.99"):
        spaces.parse(space, Config, presets)
    space = space.replace("0..1:", "0..0.75:")
    rate, dropout, layers, bias, preset = terms = spaces.parse(space, Config, presets)
    assert (rate.low, rate.high, rate.log, rate.type) == (1e-4, 1e-2, True, float)
    assert dropout.grid() == [0.0, 0.25, 0.5, 0.75]
    assert layers.grid() == [2, 3, 4, 5, 6, 7, 8]
    assert bias.choices == (True, False)
    assert preset.choices == ("gpt2", "gpt3_xl")
    assert rate.flag(0.00123456789) == "--lr=0.00123457"
    assert bias.flag(False) == "--model.bias=false"
    assert [term.holds(value) for term, value in zip(terms, (2e-3, 0.5, 4, True, ""))] == [
        True,
        True,
        True,
        True,
        False,
    ]
    assert [dropout.holds(0.3), layers.holds(4.0), layers.holds(9)] == [False, False, False]
    points = spaces.grid(terms[1:], 0)
    assert len({tuple(point.values()) for point in points}) == len(points) == 4 * 7 * 2 * 2


# One trial after another, in this process.


def plan_of(**changes):
    plan = studies.Plan(
        script=str(STUB), flags=(), space="x=-1..1 x layers=2,4", trials=3, sampler="tpe", pruner="none", metric="",
        direction="minimize", objective="mean", seed=0, default_first=False, give_up=0,
    )  # fmt: skip
    return dataclasses.replace(plan, **changes)


def begun(folder, url="", defaults=None, **changes):
    folder.mkdir(exist_ok=True)
    plan = plan_of(**changes)
    terms = spaces.parse(plan.space, scripts.load(plan.script).Config, {})
    (folder / "config.json").write_text(json.dumps({"experiment": "sweep", "config": dataclasses.asdict(plan)}))
    return studies.begin(folder, plan, terms, url, defaults or {})


def put_back(place):
    """A trial whose holder is gone, and one whose holder is not."""
    first, second = studies.take(place), studies.take(place)
    assert (first.trial.number, second.trial.number) == (0, 1)
    assert studies.reap(place) == []
    params = first.trial.params
    first.lock.close()  # as its process ends
    assert studies.reap(place) == [0]
    again = studies.take(place)
    assert (again.trial.number, again.trial.params, again.trial.user_attrs["starts"]) == (0, params, 2)
    again.study.tell(again.trial, 0.5)
    again.lock.close()
    third = studies.take(place)
    assert third.trial.number == 2
    assert studies.take(place) == studies.WAIT
    for taken in (second, third):
        taken.study.tell(taken.trial, 0.25)
        taken.lock.close()
    assert studies.take(place) is None
    assert states(studies.load(place).get_trials()) == ["COMPLETE"] * 3


def test_a_dead_worker_s_trial_goes_back_in_the_queue(tmp_path):
    put_back(begun(tmp_path / "sweep"))


def test_a_trial_that_ended_as_it_was_looked_at_stays_ended(tmp_path, monkeypatch):
    place = begun(tmp_path / "sweep")
    taken, hold = studies.take(place), studies.hold

    def ends(path):
        taken.study.tell(taken.trial, 1.0)
        taken.lock.close()
        return hold(path)

    monkeypatch.setattr(studies, "hold", ends)
    assert studies.reap(place) == []
    assert states(studies.load(place).get_trials()) == ["COMPLETE"]


def test_half_a_line_of_a_killed_writer_spoils_nothing(tmp_path):
    place = begun(tmp_path / "sweep")
    with open(tmp_path / "sweep/journal.jsonl", "ab") as journal:
        journal.write(b'{"op_code":4,"worker_')
    taken = studies.take(place)
    assert taken.trial.number == 0
    assert studies.load(studies.join(tmp_path / "sweep", "")).get_trials()[0].params == taken.trial.params
    taken.lock.close()


def test_the_journal_s_lock_goes_with_its_holder(tmp_path):
    (tmp_path / "journal").write_text("")
    holder = "import time; from pathlib import Path; from lmjax.run.sweeps.studies import JournalLock\n"
    holder += f"lock = JournalLock(Path({str(tmp_path / 'journal')!r})); lock.acquire(); print('held', flush=True)\n"
    holder += "time.sleep(20)"
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with open(tmp_path / "journal") as journal, pytest.raises(BlockingIOError):
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.kill()
        began = time.monotonic()
        lock = studies.JournalLock(tmp_path / "journal")
        lock.acquire()
        lock.release()
    assert time.monotonic() - began < 2


def test_the_draws_of_a_seed_are_the_same_again(tmp_path):
    def draws(name, seed):
        place, found = begun(tmp_path / name, seed=seed, trials=6), []
        for _ in range(6):
            taken = studies.take(place)
            taken.study.tell(taken.trial, taken.trial.params["x"] ** 2)
            taken.lock.close()
            found.append(tuple(taken.trial.params.values()))
        return found

    assert draws("a", 1) == draws("b", 1)
    assert draws("c", 2) != draws("a1", 1)
    assert len(set(draws("d", 3))) == 6


@pytest.mark.parametrize("sampler", ["grid", "cmaes", "random"])
def test_every_sampler_gives_values_of_the_space(tmp_path, sampler):
    if sampler == "cmaes":
        pytest.importorskip("cmaes", reason="the sweep extra is not installed")
    place = begun(tmp_path / "sweep", sampler=sampler, space="x=-1..1:step=1 x layers=2,4", trials=6)
    found = []
    for _ in range(6):
        taken = studies.take(place)
        taken.study.tell(taken.trial, taken.trial.params["x"])
        taken.lock.close()
        found.append((taken.trial.params["x"], taken.trial.params["layers"]))
    assert {x for x, _ in found} <= {-1.0, 0.0, 1.0}
    if sampler == "grid":
        assert sorted(found) == [(x, layers) for x in (-1.0, 0.0, 1.0) for layers in (2, 4)]
    assert studies.take(place) is None


def run_one(place):
    taken = studies.take(place)
    with taken.lock:
        workers.run(place, taken, stop=[])
    return studies.load(place).get_trials(deepcopy=False)[taken.trial.number]


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({}, 0.04),
        ({"objective": "best_lane"}, -0.06),
        ({"metric": "accuracy", "direction": "maximize"}, 99.96),
        ({"flags": ("--kind=silent",), "metric": "validation_loss"}, 0.5),
        ({"flags": ("--kind=silent",), "metric": "macro_f1"}, "validation figure macro_f1: set --metric to one of"),
        ({"metric": "test_accuracy"}, "figure test_accuracy: set --metric to one of accuracy, loss, loss_0"),
        ({"flags": ("--kind=bad",)}, "stub.py: kind=bad does not go with x=0.5"),
        ({"flags": ("--kind=diverge",)}, "stub.py: stopped at step 3: lower the learning rate"),
    ],
)  # fmt: skip
def test_what_a_trial_counts_for(tmp_path, changes, value):
    defaults = {"x": 0.5, "layers": 2}
    flags = (*changes.pop("flags", ()), "--pause=0", "--steps=2")
    trial = run_one(begun(tmp_path / "sweep", defaults=defaults, flags=flags, **changes))
    if isinstance(value, str):
        assert trial.state.name == "FAIL"
        assert value in trial.user_attrs["error"]
    else:
        assert trial.value == pytest.approx(value)
        assert trial.user_attrs["default"]


def test_a_pruned_trial_saves_and_a_finished_one_is_not_run_again(tmp_path, monkeypatch):
    place = begun(tmp_path / "sweep", flags=("--pause=0.05", "--steps=200"))
    pruned = studies.take(place)
    monkeypatch.setattr(pruned.trial, "should_prune", lambda: True)
    with pruned.lock:
        workers.run(place, pruned, stop=[])
    ended = studies.load(place).get_trials(deepcopy=False)[0]
    assert ended.state.name == "PRUNED"
    assert 0 < int((pruned.folder / "state").read_text()) < 200
    assert ended.intermediate_values[0] == pytest.approx((float(starts(place.folder, 0)[0][3]) - 0.3) ** 2 + 199 / 200)

    taken = studies.take(place)  # its worker dies between the experiment's end and telling of it
    (taken.folder / "result.json").write_text("{}")
    (taken.folder / "metrics.jsonl").write_text('{"step": 1, "kind": "valid", "loss": 0.125}\n')
    taken.lock.close()
    assert studies.reap(place) == [1]
    assert run_one(place).value == 0.125
    assert starts(place.folder, 1) == []


def test_trials_that_all_fail_alike_end_the_sweep(tmp_path):
    place = begun(tmp_path / "sweep", flags=("--kind=bad",), give_up=2, trials=9)
    run_one(place)
    run_one(place)
    assert studies.take(place) is None
    studies.begin(place.folder, place.plan, place.terms, "", {})  # started again
    run_one(place)
    taken = studies.take(place)
    assert taken.trial.number == 3
    taken.lock.close()


def test_a_password_is_not_shown():
    assert studies.public("postgresql://me:s3cret@host:5432/db") == "postgresql://me@host:5432/db"
    assert "s3cret" not in studies.public("postgresql://host/db?user=me&password=s3cret")
    assert studies.public("") == ""


def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4}, raising=False)
    assert sweeping.shares(2) == [[0, 1], [2, 3, 4]]
    assert sweeping.shares(6) == [None] * 6


def test_two_workers_prune_and_leave_a_page_and_the_same_command_goes_on(tmp_path):
    words = [
        "--space=x=-1..1 x layers=1..8:log x kind=a,b",
        "--workers=2",
        "--pruner=median",
        "--workdir=s",
        "--trials=7",
    ]
    words += ["--", "--steps=5", "--pause=0"]
    status, out, err = call(tmp_path, *words)
    assert (status, err) == (0, "")
    assert "the experiment's own settings: 0.04 (trial 0)" in out
    best = json.loads((tmp_path / "s/best.json").read_text())
    assert best["command"] in out
    assert f"--x={best['settings']['x']:.6g}" in best["command"]
    assert "--steps=5" in best["command"]
    assert best["value"] <= 0.04
    page = (tmp_path / "s/sweep.html").read_text()
    assert len((tmp_path / "s/trials.csv").read_text().splitlines()) == 8
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    names = ("history", "curves", "slices", "parallel", "importance")
    assert [base64.b64decode(data) for data in pictures] == [(tmp_path / f"s/{n}.png").read_bytes() for n in names]
    assert "http" not in re.sub(r'base64,[^"]*', "", page)
    kept = (tmp_path / "s/trials/0003/starts.log").read_bytes()
    status, out, err = call(tmp_path, *(word.replace("=7", "=8") for word in words))
    assert (status, err) == (0, "")
    assert "8/8  trial 7" in out
    assert (tmp_path / "s/trials/0003/starts.log").read_bytes() == kept
    status, _, err = call(tmp_path, *(word.replace("=median", "=none") for word in words))
    assert (status, err.count("\n")) == (2, 1)
    assert "holds a run with trials=8, not 7" in err or "holds a run with pruner=median, not none" in err


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
        studies.join(tmp_path / "sweep", "")
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
