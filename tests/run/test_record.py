"""Workdirs and records: who may have a folder, how a figure is judged, what is kept."""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmjax.config import GPT, setting
from lmjax.errors import UserError
from lmjax.run import record
from lmjax.run.log import Log
from lmjax.run.record import Published
from lmjax.run.settings import from_json
from lmjax.run.workdir import stored, workdir, write

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder")
    data_dir: str = setting("", "folder")
    data: str = setting("ptb", "name or path")
    mesh: tuple[int, ...] = setting((1, 2), "devices")
    beside: tuple[str, ...] = setting((), "folders")
    model: GPT = setting(GPT(), "the network")


def test_a_workdir_is_made_and_holds_its_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with workdir("runs/deep/a", "demo", Config(data="x")) as folder:
        assert stored(folder)["experiment"] == "demo"
        assert from_json(Config, stored(folder)["config"]) == Config(data="x")
    with workdir("runs/deep/a", "demo", Config(data="x", workdir="elsewhere", mesh=(8,))):  # the same run
        pass


def refused(path, experiment="demo", config=Config(), **may):
    with pytest.raises(UserError) as error, workdir(path, experiment, config, **may):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_workdir_of_another_run_is_refused(tmp_path):
    with workdir(tmp_path / "a", "demo", Config()):
        pass
    before = (tmp_path / "a/config.json").read_bytes()
    assert "is a run of demo: choose another for other" in refused(tmp_path / "a", "other")
    assert "holds a run with model.dim=128, not 256" in refused(tmp_path / "a", config=Config(model=GPT(dim=256)))
    assert (tmp_path / "a/config.json").read_bytes() == before


def test_a_run_may_be_given_more_of_what_may_grow_and_no_less(tmp_path):
    for vocab in (2, 2, 4):
        with workdir(tmp_path / "a", "demo", Config(model=GPT(vocab=vocab)), may_grow=("model.vocab",)):
            pass
    less = refused(tmp_path / "a", config=Config(model=GPT(vocab=3)), may_grow=("model.vocab",))
    assert "holds a run with model.vocab=4, not 3" in less


def test_a_run_that_began_before_a_setting_has_its_default(tmp_path):
    with workdir(tmp_path / "a", "demo", Config()) as folder:
        pass
    old = stored(folder)
    del old["config"]["data"], old["config"]["model"]["dim"]
    write(folder / "config.json", old)
    assert "holds a run with data=ptb, not x" in refused(folder, config=Config(data="x"))
    assert "holds a run with model.dim=128, not 256" in refused(folder, config=Config(model=GPT(dim=256)))
    with workdir(folder, "demo", Config()):
        assert stored(folder)["config"]["data"] == "ptb"


def test_what_has_no_default_is_compared_as_it_is(tmp_path):
    @dataclass(frozen=True)
    class Plan:
        script: str
        trials: int = 3

    for trials in (3, 4):
        with workdir(tmp_path, "sweep", Plan("a.py", trials), may_grow=("trials",)):
            pass
    assert "holds a run with script=a.py, not b.py" in refused(tmp_path, "sweep", Plan("b.py", 4))


def start(folder, config, *written):
    """A start that writes files and is then refused."""
    with suppress(UserError), workdir(folder, "demo", config):
        for name in written:
            (folder / name).write_text("x")
        raise UserError("no")


def test_a_start_that_was_refused_leaves_the_folder_to_other_settings(tmp_path):
    start(tmp_path, Config(data="x"), "tokenizer.json")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    start(tmp_path, Config(data="y"), "tokenizer.json", "metrics.jsonl")  # it trained: nothing is lost
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json", "tokenizer.json", "metrics.jsonl"}
    start(tmp_path, Config(data="y"))
    assert (tmp_path / "tokenizer.json").exists()
    assert "holds a run with data=y, not x" in refused(tmp_path, config=Config(data="x"))


def test_a_file_of_the_users_own_is_never_taken_away(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    start(tmp_path, Config())
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json", "notes.txt"}


def test_a_setting_that_is_no_more_is_named(tmp_path):
    with workdir(tmp_path / "a", "demo", Config()) as folder:
        pass
    old = stored(folder)
    old["config"]["gone"] = 3
    write(folder / "config.json", old)
    assert "holds a run with gone=3, which is no setting of this version" in refused(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"experiment": "demo"}', '{"experiment": 1, "config": {}}', "\ud800"]
)
def test_a_damaged_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert "config.json is damaged" in refused(tmp_path)


def test_paths_that_cannot_be_a_workdir_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(tmp_path / "file")
    assert "there is no folder" in refused(tmp_path / "file/a")
    assert "there is no folder" in refused(tmp_path / "missing/a")
    assert "cannot be written" in refused("/proc/lmjax")
    with pytest.raises(UserError, match="holds no run"):
        stored(tmp_path)


def test_a_workdir_in_use_is_refused(tmp_path):
    code = (
        "import sys; from tests_config import Config; from lmjax.run.workdir import workdir\n"
        "with workdir(sys.argv[1], 'demo', Config()): print('held', flush=True); sys.stdin.read()"
    )
    (tmp_path / "tests_config.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Config:\n    seed: int = 0\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == "held\n"
        assert "in use by another process" in refused(tmp_path / "a")
        holder.kill()
    assert "holds a run with" in refused(tmp_path / "a")  # the lock went with the process


@pytest.mark.parametrize(
    ("values", "published", "better", "points", "expected"),
    [
        ([114.0, 115.0], 114.5, "lower", None, "reproduced"),
        ([100.0], 114.5, "lower", None, "reproduced"),
        ([115.6], 114.5, "lower", None, "reproduced"),
        ([115.7], 114.5, "lower", None, "short"),
        ([114.0, 118.0], 114.5, "lower", None, "short"),
        ([87.8], 88.2, "higher", 0.5, "reproduced"),
        ([87.6], 88.2, "higher", 0.5, "short"),
        ([95.0], 88.2, "higher", 0.5, "reproduced"),
        ([9.058], 9.038, "lower", 0.02, "reproduced"),
        ([9.06], 9.038, "lower", 0.02, "short"),
        ([float("nan")], 1.0, "lower", None, "short"),
        ([float("inf")], 1.0, "lower", None, "short"),
        ([float("nan")], 1.0, "higher", 0.5, "short"),
    ],
)
def test_verdicts(values, published, better, points, expected):
    assert record.verdict(values, published, better, points) == expected


def figures(**values):
    return {name: {"value": value} for name, value in values.items()}


def test_a_record_is_judged_by_its_worst_figure():
    metrics = {"test_perplexity": [114.0], "accuracy": [80.0], "nll_oracle": [9.05], "words_per_second": [3.0]}
    assert record.judge(metrics, {}) == "own"
    assert record.judge(metrics, figures(test_perplexity=114.5)) == "reproduced"
    assert record.judge(metrics, figures(test_perplexity=114.5, accuracy=85.0)) == "short"
    assert record.judge(metrics, figures(nll_oracle=9.038, accuracy=80.4)) == "reproduced"
    assert record.judge(metrics, figures(test_perplexity=114.5), complete=False) == "partial"
    with pytest.raises(ValueError, match="words_per_second is published: expected"):
        record.judge(metrics, figures(words_per_second=1.0))
    with pytest.raises(ValueError, match="bleu is published"):
        record.judge(metrics, figures(bleu=1.0))


def made(seed, value, **more):
    published = {"test_perplexity": Published(114.5, "Zaremba et al. 2014, table 1", "R")}
    return record.result("lstm_ptb", "small", [seed], {"test_perplexity": [value]}, published, **more)


def test_a_result_has_the_agreed_form(monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(ROOT / "experiments/lstm_ptb.py"), "--seed=3"])
    found = made(3, 114.0, wall_seconds=12.34, flops=1e9, notes="none")
    assert list(found) == ["experiment", "preset", "seeds", "metrics", "published", "verdict", "device", "wall_seconds",
                           "flops", "commit", "versions", "command", "notes"]  # fmt: skip
    assert found["metrics"] == {"test_perplexity": {"mean": 114.0, "sd": None, "values": [114.0]}}
    assert found["published"]["test_perplexity"] == {
        "value": 114.5,
        "source": "Zaremba et al. 2014, table 1",
        "mark": "R",
    }
    assert found["command"] == "launch/run.sh experiments/lstm_ptb.py --seed=3"
    assert {"python", "jax", "numpy"} <= set(found["versions"])
    assert "cores of" in found["device"] or " x " in found["device"]
    json.dumps(found, allow_nan=False)


def test_seeds_merge_into_one_record():
    merged = record.merge([made(0, 114.0, wall_seconds=1, flops=5), made(1, 117.0, wall_seconds=2, flops=5)])
    assert merged["seeds"] == [0, 1]
    sd = pytest.approx(2.1213, abs=1e-4)
    assert merged["metrics"]["test_perplexity"] == {"mean": 115.5, "sd": sd, "values": [114, 117]}
    assert (merged["verdict"], merged["wall_seconds"], merged["flops"]) == ("reproduced", 3, 10)
    assert record.merge([made(0, 114.0), made(1, 120.0)])["verdict"] == "short"  # one by one: reproduced, short
    assert record.merge([made(0, 114.0), made(1, float("nan"))])["metrics"]["test_perplexity"]["mean"] is None
    assert record.merge([made(0, 114.0), made(1, 114.0, complete=False)])["verdict"] == "partial"
    with pytest.raises(UserError, match="repeat a seed: 0,0"):
        record.merge([made(0, 114.0), made(0, 117.0)])
    with pytest.raises(UserError, match="differ in preset"):
        record.merge([made(0, 114.0), made(1, 117.0) | {"preset": "medium"}])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--preset=small", "--workdir=/home/me/runs/a"], "--preset=small"),
        (["--workdir", "/home/me/runs/a", "--seed", "3"], "--seed 3"),
        (["-data_dir=~/data", "--quiet"], "--quiet"),
        (["--data=/home/me/my text.txt"], "'--data=my text.txt'"),
        (["--data", "/home/me/text.txt"], "--data text.txt"),
        (["--prompt=a b"], "'--prompt=a b'"),
        (["--beside=/home/me/runs/a,/home/me/runs/b"], "--beside=a,b"),
    ],
)
def test_a_command_names_no_path_of_this_machine(words, expected):
    script = str(ROOT / "experiments/x.py")
    assert record.command([script, *words]) == f"launch/run.sh experiments/x.py {expected}"
    assert record.command(["/elsewhere/x.py", *words]) == f"launch/run.sh x.py {expected}"


def test_what_is_kept(tmp_path):
    folders = []
    for seed in range(2):
        config = Config(data=str(tmp_path / "text.txt"), data_dir=str(tmp_path), workdir=str(tmp_path / str(seed)),
                        beside=(str(tmp_path / "other"), "b"))  # fmt: skip
        with workdir(config.workdir, "lstm_ptb", config) as folder, Log(folder, 5000, quiet=True) as log:
            for step in range(1, 5001):
                log.train(step, {"loss": 1 / step}, 0.1, 1)
                if step % 1000 == 0:
                    log.metrics(step, {"loss": 2 / step})
            record.save(folder, made(seed, 114.0 + seed))
        (folder / "sample.txt").write_text("x" * 9000)
        (folder / "sd.png").write_bytes(b"\x89PNG")
        (folder / "curves.png").write_bytes(b"\x89PNG")
        folders.append(folder)
    kept = record.keep(folders, tmp_path / "results")
    assert kept.parent == tmp_path / "results/lstm_ptb/small"
    assert sorted(path.name for path in kept.iterdir()) == [
        "config-1.json", "config.json", "metrics-1.jsonl", "metrics.jsonl", "result.json", "sample.txt", "sd.png",
    ]  # fmt: skip
    assert (kept / "sample.txt").read_text() == "x" * record.SAMPLE
    lines = [json.loads(line) for line in (kept / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["kind"] == "valid" for line in lines) == 5
    assert 300 < len(lines) <= 406
    assert lines[-1] == {"step": 5000, "kind": "result", "seed": 0, "complete": True, "test_perplexity": 114.0}
    assert json.loads((kept / "result.json").read_text())["seeds"] == [0, 1]
    assert json.loads((kept / "config.json").read_text())["config"]["data"] == "text.txt"
    for path in kept.glob("*.json*"):
        assert str(tmp_path) not in path.read_text()

    assert record.keep(folders[:1], tmp_path / "results").name == kept.name + "-2"  # nothing is overwritten


def test_an_unfinished_run_is_not_kept(tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        record.keep([tmp_path], tmp_path / "results")
    words = [sys.executable, "-m", "lmjax.run.record", f"--runs={tmp_path}"]
    done = subprocess.run(words, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
