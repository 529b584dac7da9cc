"""Nothing restores in silence that is not bit by bit what was saved, whatever befalls the disk or the process."""

import hashlib
import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import struct

from lmjax.errors import UserError
from lmjax.train import checkpoint
from lmjax.train.checkpoint import Checkpoints, NonFinite


class Moments(NamedTuple):
    mu: dict
    count: jax.Array


@struct.dataclass
class State:
    params: dict
    opt: tuple
    carry: tuple = ()


def state_of(value, dim=4):
    """A state of every kind of leaf, all of which depend on `value`."""
    w = jnp.full((dim, 3), value, jnp.float32)
    params = {"embed": w, "layers": [{"w": w + 1, "b": np.full(3, value, ml_dtypes.bfloat16)}, {"w": w[:0]}]}
    counts = {"int64": np.int64(value), "uint32": np.array([7, value], np.uint32), "bool": np.array(value % 2 == 1)}
    return State(params, (Moments({"w": w * 2, **counts}, jnp.int32(value)), ()), (np.full((2, 0), value, np.float16),))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(y) is np.ndarray
        assert (np.shape(x), np.asarray(x).dtype) == (y.shape, y.dtype)
        assert np.asarray(x).tobytes() == y.tobytes()


def saved(folder, steps, **options):
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_of(step), {"step": step})
    return checkpoints


def fingerprint(folder):
    """Name and content of all there is under `folder`."""
    found = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*"))}
    return {name: hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else None for name, p in found.items()}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The checkpoints of steps 1 and 2, to be copied."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    saved(folder, [1, 2])
    return folder


@pytest.fixture
def folder(two, tmp_path):
    return Path(shutil.copytree(two, tmp_path / "checkpoints"))


LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), state_of(0))


def test_restores_every_kind_of_leaf_bitwise(folder):
    step, state, meta = Checkpoints(folder).restore(LIKE)
    assert (step, meta) == (2, {"step": 2})
    assert_same(state_of(2), state)
    assert_same(state_of(2), Checkpoints(folder).restore(state_of(0))[1])
    assert Checkpoints(folder).restore(LIKE, step=1)[2] == {"step": 1}
    assert Checkpoints(folder).read_meta() == (2, {"step": 2})


def test_restores_a_branch_alone(folder):
    step, params, _ = Checkpoints(folder).restore_params(LIKE.params)
    assert step == 2
    assert_same(state_of(2).params, params)
    assert_same(state_of(1).opt, Checkpoints(folder).restore(LIKE.opt, step=1, part="opt")[1])


def test_nothing_saved_is_none_and_makes_no_folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore(LIKE) is None
    assert checkpoints.read_meta() is None
    assert not (tmp_path / "checkpoints").exists()


def test_trees_without_arrays_or_with_empty_ones_only(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step, state in enumerate([(), {"a": np.zeros((0, 2), np.int8)}]):
            checkpoints.save(step, state)
            assert_same(state, checkpoints.restore(state)[1])


def test_the_buffers_are_free_when_save_returns(tmp_path, monkeypatch):
    """A step that donates them, and numpy arrays that are written to, change nothing of what is saved."""
    write = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda *a: (time.sleep(0.2), write(*a)))
    step = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    device, host, meta = jnp.full((1000,), 3.0), np.full(5, 3.0), {"history": [1]}
    with Checkpoints(tmp_path) as checkpoints:
        begun = time.monotonic()
        checkpoints.save(1, {"device": device, "host": host}, meta)
        assert time.monotonic() - begun < 0.15  # in the background
        step(device).block_until_ready()
        host[:] = -1
        meta["history"].append(2)
        assert device.is_deleted()
    _, state, meta = checkpoints.restore({"device": np.zeros(1000, np.float32), "host": np.zeros(5)})
    assert (state["device"] == 3).all()
    assert (state["host"] == 3).all()
    assert meta == {"history": [1]}
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoints.save(2, state, {"figure": np.float32(1)})


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.complex64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_never_saves_what_is_not_finite(folder, dtype):
    before = fingerprint(folder)
    bad = state_of(3)
    bad = bad.replace(opt=(bad.opt[0], np.array([1, np.nan]).astype(dtype)))
    with Checkpoints(folder) as checkpoints, pytest.raises(NonFinite, match="opt/1 not finite"):
        checkpoints.save(3, bad)
    assert fingerprint(folder) == before


def test_two_arrays_of_one_path_are_refused(tmp_path):
    with pytest.raises(ValueError, match="same path"):
        Checkpoints(tmp_path).save(1, {"a": {"b": np.ones(1)}, "a/b": np.zeros(1)})


# Which stay


def test_keeps_the_last_and_the_best(tmp_path):
    scores = {1: float("nan"), 2: 5.0, 3: 1.0, 4: 4.0, 5: 3.0, 6: None}
    for best, kept in [(None, [5, 6]), ("min", [3, 5, 6]), ("max", [2, 5, 6])]:
        folder = tmp_path / str(best)
        for step, score in scores.items():  # a process each
            with Checkpoints(folder, keep=2, best=best) as checkpoints:
                checkpoints.save(step, state_of(step), score=score)
                checkpoints.wait()
                assert checkpoints.steps()[-1] == step
        assert checkpoints.steps() == kept
        assert sorted(os.listdir(folder)) == [f"{step:08d}" for step in kept]
        reader = Checkpoints(folder)  # one that was not told the direction
        assert reader.restore(LIKE)[0] == 6
        assert reader.restore(LIKE, which="best")[0] == {None: 5, "min": 3, "max": 2}[best]


def test_a_damaged_best_falls_back_to_the_next_best(tmp_path):
    with Checkpoints(tmp_path, keep=3, best="min") as checkpoints:
        for step, score in {1: 2.0, 2: 1.0, 3: 3.0}.items():
            checkpoints.save(step, state_of(step), score=score)
    flip(next((tmp_path / "00000002/arrays/d").iterdir()), 9)
    assert Checkpoints(tmp_path).restore(LIKE, which="best")[0] == 1


def test_what_is_damaged_does_not_count_among_those_kept(folder):
    (folder / "00000002" / "arrays" / "_METADATA").unlink()
    saved(folder, [3], keep=2)
    assert Checkpoints(folder).steps() == [1, 2, 3]
    saved(folder, [4], keep=2)
    assert Checkpoints(folder).steps() == [3, 4]


def test_saving_a_step_again_replaces_it(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(2, state_of(9), {"again": True})
        step, state, meta = checkpoints.restore(LIKE)
    assert (step, meta) == (2, {"again": True})
    assert_same(state_of(9), state)
    assert sorted(os.listdir(folder)) == ["00000001", "00000002"]


# Damage


def flip(path, at, bit=0):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def damages(newest, older):
    """(name, function) of over a hundred ways to damage the folder `newest`."""
    rng = random.Random(0)
    files = [p for p in sorted(newest.rglob("*")) if p.is_file()]
    for p in files:
        name, size = p.relative_to(newest).as_posix(), p.stat().st_size
        for at in sorted({0, size // 2, size - 1, *rng.sample(range(size), 2)}):
            yield f"flip {name} {at}", lambda p=p, at=at: flip(p, at, rng.randrange(8))
        for length in sorted({0, size - 1}):
            yield f"truncate {name} {length}", lambda p=p, length=length: os.truncate(p, length)
        yield f"append {name}", lambda p=p: p.write_bytes(p.read_bytes() + b"\n")
        yield f"remove {name}", lambda p=p: p.unlink()
        if (twin := older / name).exists() and twin.read_bytes() != p.read_bytes():
            yield f"older {name}", lambda p=p, twin=twin: p.write_bytes(twin.read_bytes())
    for a, b in zip(files, files[1:] + files[:1]):
        if a.read_bytes() != b.read_bytes():
            yield f"swap {a.name} {b.name}", lambda a=a, b=b: swap(a, b)
    for where in (newest, newest / "arrays"):
        yield f"extra {where.name}", lambda where=where: (where / "extra").write_bytes(b"")
    yield "older arrays", lambda: mended(newest / "arrays", older / "arrays")
    yield "older all", lambda: mended(newest, older)
    yield "empty", lambda: (shutil.rmtree(newest), newest.mkdir())
    yield "a file", lambda: (shutil.rmtree(newest), newest.write_bytes(b"x"))


def swap(a, b):
    x, y = a.read_bytes(), b.read_bytes()
    a.write_bytes(y)
    b.write_bytes(x)


def mended(damaged, copy):
    shutil.rmtree(damaged) if damaged.is_dir() else damaged.unlink()
    shutil.copytree(copy, damaged)


def test_damage_of_the_newest_falls_back_to_the_one_before(two, folder, caplog):
    newest, older, cases = folder / "00000002", folder / "00000001", 0
    for name, damage in damages(newest, older):
        damage()
        caplog.clear()
        step, state, meta = Checkpoints(folder).restore(LIKE)
        assert (step, meta) == (1, {"step": 1}), name
        assert_same(state_of(1), state)
        assert [r.levelname for r in caplog.records] == ["WARNING"], name
        assert "00000002" in caplog.text
        mended(newest, two / "00000002")
        cases += 1
    assert cases >= 100
    assert Checkpoints(folder).restore(LIKE)[0] == 2  # mended, that is


def test_damage_of_all_stops_and_changes_nothing(two, folder, caplog):
    newest, older = folder / "00000002", folder / "00000001"
    flip(older / "manifest.json", 30)
    for name, damage in list(damages(newest, older))[::7]:
        damage()
        before = fingerprint(folder)
        for restore in (Checkpoints(folder).restore, Checkpoints(folder, keep=1, best="min").restore):
            with pytest.raises(UserError, match="no checkpoint can be restored") as error:
                restore(LIKE)
        assert "\n" not in str(error.value)
        assert "--workdir" in str(error.value)
        with pytest.raises(UserError, match="00000002"):
            Checkpoints(folder).restore_params(LIKE.params, step=2)
        assert fingerprint(folder) == before, name
        mended(newest, two / "00000002")


def test_what_orbax_returns_is_compared_with_what_was_handed_in(folder, monkeypatch, caplog):
    """A file that is as written, of an array that is not: the hashes of the arrays tell."""
    import orbax.checkpoint as ocp

    def wrong(self, folder, args):
        arrays = restore(self, folder, args=args)
        if "00000002" in str(folder):
            arrays["params/embed"][0, 0] += 1
        return arrays

    restore = ocp.Checkpointer.restore
    monkeypatch.setattr(ocp.Checkpointer, "restore", wrong)
    assert Checkpoints(folder).restore(LIKE)[0] == 1
    assert "params/embed does not come back as it was saved" in caplog.text


def test_warnings_go_to_the_log_handed_in(folder):
    class Log:
        warning = said = None

    Log.said = []
    Log.warning = Log.said.append
    flip(folder / "00000002" / "manifest.json", 50)
    assert Checkpoints(folder, log=Log).restore(LIKE)[0] == 1
    assert "manifest.json is not what was written" in Log.said[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace(params={**s.params, "embed": np.zeros((8, 3), np.float32)}),
         r"params/embed is \(4, 3\) float32 there and \(8, 3\) float32 here"),
        (lambda s: s.replace(params={**s.params, "embed": np.zeros((4, 3), np.float16)}),
         r"params/embed is \(4, 3\) float32 there and \(4, 3\) float16 here"),
        (lambda s: s.replace(params={**s.params, "head": np.zeros(2, np.float32)}),
         r"has no params/head, which here is \(2,\) float32"),
        (lambda s: s.replace(carry=()), r"has carry/0 \(2, 0\) float16, which is not in this model"),
    ],
)  # fmt: skip
def test_another_model_is_refused_with_the_remedy(folder, change, message):
    before = fingerprint(folder)
    with pytest.raises(UserError, match=message) as error:
        Checkpoints(folder).restore(change(state_of(0)))
    assert "--workdir" in str(error.value)
    assert fingerprint(folder) == before


def test_a_step_that_is_not_there_is_refused(folder):
    with pytest.raises(UserError, match=r"no checkpoint of step 7; there are \[1, 2\]"):
        Checkpoints(folder).restore(LIKE, step=7)
    with pytest.raises(ValueError, match="best"):
        Checkpoints(folder, best="least")


# A disk that refuses


def test_a_full_disk_is_one_line_and_loses_nothing(folder, caplog):
    before = fingerprint(folder)
    big = {"w": np.random.default_rng(0).standard_normal(100_000)}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # as a full disk: a write comes back short
    try:
        checkpoints.save(3, big)
        with pytest.raises(UserError, match="step 3 could not be saved: File too large") as error:
            checkpoints.save(4, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    checkpoints.wait()  # the error is raised once
    assert fingerprint(folder) == before
    assert not caplog.records  # none of orbax's tracebacks


def test_all_is_on_the_disk_before_it_bears_its_name(tmp_path, monkeypatch):
    """A power cut after the rename finds every file and folder written out."""
    synced, rename = [], os.rename

    def last_rename(a, b):
        if Path(b).name == "00000001":
            missing = {a, *Path(a).rglob("*")} - set(map(Path, synced))
            assert not missing
            synced.clear()
        rename(a, b)

    monkeypatch.setattr(checkpoint, "_fsync", synced.append)
    monkeypatch.setattr(os, "rename", last_rename)
    saved(tmp_path / "checkpoints", [1])
    assert [str(path) for path in synced] == [str(tmp_path / "checkpoints"), str(tmp_path)]


def test_an_error_is_not_hidden_by_the_one_that_closing_finds(folder, monkeypatch, caplog):
    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write", broken)

    def run():
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(3, state_of(3))
            raise KeyError("the first")

    with pytest.raises(KeyError, match="the first"):
        run()
    assert "No space left" in caplog.text


# A process that is killed

CHILD = """
import os, sys, time, shutil
import numpy as np
from lmjax.train import checkpoint
from lmjax.train.checkpoint import Checkpoints

folder, stage, start = sys.argv[1], sys.argv[2], int(sys.argv[3])

def stop(*_, **__):
    os.write(1, b"reached\\n")
    time.sleep(60)
    os._exit(1)

def arm():
    rename = os.rename
    def last_rename(a, b):
        if os.path.basename(b) == "00000002": stop()
        rename(a, b)
    def half_delete(path, **options):
        if ".tmp" in str(path) and os.path.exists(path):
            os.remove(os.path.join(path, "manifest.json"))
            stop()
    if stage == "files": checkpoint._digest = stop
    if stage == "arrays": checkpoint._files = stop
    if stage == "sync": checkpoint._sync = stop
    if stage == "between": os.rename = last_rename
    if stage == "deleted": shutil.rmtree = half_delete

checkpoints = Checkpoints(folder, keep=2)
state = lambda step: {"a": np.full((50, 100), step, np.int32), "b": [np.float32(step)]}
begun = checkpoints.restore(state(0))
if begun is not None:
    start = begun[0]
    assert all((x == start).all() for x in (begun[1]["a"], begun[1]["b"][0])), begun
os.write(1, f"start {start}\\n".encode())
for step in range(start + 1, start + 1000):
    if stage != "any" and step == 3: arm()
    step = 2 if stage == "between" and step == 3 else step
    checkpoints.save(step, state(step), {"step": step})
    if stage == "any" and step == start + 1:
        checkpoints.wait()
        os.write(1, b"saving\\n")
    if stage != "any": checkpoints.wait()
"""


def child(folder, stage):
    command = [sys.executable, "-W", "error", "-c", CHILD, str(folder), stage, "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def like(step):
    return {"a": np.full((50, 100), step, np.int32), "b": [np.asarray(np.float32(step))]}


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_kills_inside_a_save_leave_a_whole_checkpoint(tmp_path):
    """Proven inside: the child says where it stands and stays there."""
    newest = {"files": 2, "arrays": 2, "sync": 2, "between": 2, "deleted": 3}
    children = {stage: child(tmp_path / stage, stage) for stage in newest}
    try:
        for stage, process in children.items():
            assert process.stdout.readline() == "start 0\n"
            assert process.stdout.readline() == "reached\n", stage
            check_a_kill(tmp_path / stage, stage, process, newest[stage])
    finally:
        for process in children.values():
            kill(process)


def check_a_kill(folder, stage, process, newest):
    left = sorted(name for name in os.listdir(folder) if name.startswith("."))
    there = {"between": ["00000001"], "deleted": ["00000002", "00000003"]}.get(stage, ["00000001", "00000002"])
    assert left, stage
    assert sorted(os.listdir(folder)) == left + there, stage
    Checkpoints(folder)
    assert sorted(os.listdir(folder)) == left + there, "it took the files of a process that lives"
    kill(process)
    step, state, meta = Checkpoints(folder).restore(like(0))
    assert (step, meta) == (newest, {"step": step}), stage
    assert_same(like(step), state)
    there = ["00000001", "00000002"] if stage == "between" else there
    assert sorted(os.listdir(folder)) == there, stage
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(step + 1, like(step + 1))
    assert_same(like(step + 1), checkpoints.restore(like(0))[1])


def test_kills_at_random_moments_leave_a_whole_checkpoint(tmp_path):
    rng, last = random.Random(), 0
    for _ in range(3):
        process = child(tmp_path, "any")
        try:
            start = int(process.stdout.readline().split()[1])  # after it has checked what it restored
            assert start > last or last == 0
            last = start
            assert process.stdout.readline() == "saving\n"
            time.sleep(0.3 * rng.random())
            assert process.poll() is None
        finally:
            kill(process)
    step, state, meta = Checkpoints(tmp_path).restore(like(0))
    assert step > 1
    assert meta == {"step": step}
    assert_same(like(step), state)


def test_what_other_hosts_write_is_left_alone_for_a_day(tmp_path):
    name = ".tmp-00000007-"
    theirs, ours = tmp_path / f"{name}elsewhere.net-123-ab", tmp_path / f"{name}{os.uname().nodename}-1-ab"
    again = tmp_path / re.sub(r"-[0-9a-f]+$", "-0", f"{name}{checkpoint._LIFE}")  # this process id in an earlier life
    mine, foreign = tmp_path / f"{name}{checkpoint._LIFE}", tmp_path / ".tmp-mine"
    for path in (theirs, ours, again, mine, foreign):
        path.mkdir()
    Checkpoints(tmp_path)
    assert set(tmp_path.iterdir()) == {theirs, ours, mine, foreign}  # process 1 lives
    os.utime(theirs, (0, 0))
    Checkpoints(tmp_path)
    assert set(tmp_path.iterdir()) == {ours, mine, foreign}


def test_a_terminal_stays_clean_and_a_save_that_is_not_awaited_is_harmless(tmp_path):
    code = (
        "import sys, numpy as np; from lmjax.train.checkpoint import Checkpoints; c = Checkpoints(sys.argv[1]);"
        "c.save(1, {'w': np.ones(9)}); c.wait(); print(c.restore({'w': np.ones(9)})[0]); c.save(2, {'w': np.ones(9)})"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert Checkpoints(tmp_path).restore({"w": np.zeros(9)})[0] in (1, 2)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_orbax_is_silenced_without_silencing_absl(caplog):
    checkpoint._orbax()
    logging.getLogger("absl").warning("heard")
    assert "heard" in caplog.text
