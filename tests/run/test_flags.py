"""Flags: what they accept, what they refuse and in which words, the help page, config.json."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmjax.config import GPT, setting
from lmjax.errors import Interrupted, UserError
from lmjax.run import flags
from lmjax.run.settings import from_json, to_json


@dataclass(frozen=True)
class Optim:
    """Adam with warm-up."""

    lr: float = setting(1e-3, "peak learning rate", low=0.0)
    betas: tuple[float, ...] = setting((0.9, 0.99), "decay rates of the moments", low=0.0, high=1.0)
    clip: float | None = setting(1.0, "largest norm of the gradient", low=0.0)


@dataclass(frozen=True)
class Config:
    preset: str = setting("", "the preset this was")
    seed: int = setting(0, "start of all randomness", low=0)
    name: str = setting("run", "free text")
    quiet: bool = setting(False, "print little")
    mesh: tuple[int, ...] = setting((), "devices a side", low=1)
    gate_masks: int = setting(1, "masks", choices=(1, 4))
    model: GPT = setting(GPT(dim=64), "the network")
    optim: Optim = setting(Optim(), None)


PRESETS = {
    "small": {"help": "row 1", "model.dim": 32, "optim.lr": 1, "optim.clip": None},
    "medium": {"model.dim": 96, "mesh": [4, 2]},
}


def parse(*args, presets=PRESETS):
    return flags.parse(Config, presets, "A docstring.", ["demo.py", *args])


def test_defaults_are_the_dataclass_s_own():
    assert parse() == Config()
    assert parse().model.dim == 64


def test_every_type_is_read():
    config = parse("--seed=7", "--name=a b=c", "--quiet", "--mesh=4,2", "--gate_masks=4", "--optim.lr=1e-4",
                   "--optim.betas=.5", "--optim.clip=none", "--model.dim", "128", "--nomodel.bias")  # fmt: skip
    assert (config.seed, config.name, config.quiet, config.mesh, config.gate_masks) == (7, "a b=c", True, (4, 2), 4)
    assert (config.optim.lr, config.optim.betas, config.optim.clip) == (1e-4, (0.5,), None)
    assert (config.model.dim, config.model.bias) == (128, False)


@pytest.mark.parametrize("word", ["true", "True", "1", "yes"])
def test_a_switch_can_be_spelled_out(word):
    assert parse(f"--quiet={word}").quiet is True


def test_the_command_line_wins_over_flagfile_over_preset_over_default(tmp_path):
    file = tmp_path / "flags"
    file.write_text("# a comment\n\n--preset=small\n--seed=3\n--model.heads=2\n")
    config = parse("--model.heads=8", f"--flagfile={file}")
    assert (config.preset, config.model.dim, config.seed, config.model.heads) == ("small", 32, 3, 8)
    assert config.optim == Optim(lr=1.0, clip=None)
    assert isinstance(config.optim.lr, float)
    assert parse("--preset=medium").mesh == (4, 2)


REFUSED = {
    "--model.dimm=3": "unknown flag --model.dimm; did you mean --model.dim?",
    "--lr=3": "unknown flag --lr; did you mean --optim.lr?",
    "--nomodel.bia": "did you mean --model.bias?",
    "--xyzzy": "unknown flag --xyzzy; --help lists all flags",
    "---seed=3": "unknown flag",
    "--help=3": "unknown flag --help",
    "--model.dim=abc": "--model.dim=abc: expected a whole number of at least 1",
    "--model.dim=": "--model.dim=: expected a whole number",
    "--model.dim": "--model.dim has no value; write --model.dim=VALUE",
    "--model.dim=0": "of at least 1",
    "--model.dim=-64": "of at least 1",
    "--model.dim=63": "model.dim=63 is not a multiple of model.heads=4",
    "--model.heads=5": "not a multiple",
    "--seed=1.5": "a whole number",
    "--seed=1e3": "a whole number",
    "--seed=1_000": "a whole number",
    "--seed=0x10": "a whole number",
    "--seed=٣": "a whole number",
    "--seed=-1": "of at least 0",
    "--seed=true": "a whole number",
    "--seed=99999999999999999999": "a whole number",
    "--seed=" + "9" * 5000: "...: expected a whole number",
    "--seed --quiet": "--seed=--quiet: expected",
    "--optim.lr=nan": "a finite number",
    "--optim.lr=inf": "a finite number",
    "--optim.lr=-inf": "a finite number",
    "--optim.lr=1e400": "a finite number",
    "--optim.lr=fast": "a finite number of at least 0",
    "--optim.lr=-1": "of at least 0",
    "--optim.lr=1,5": "a finite number",
    "--model.dropout=1": "from 0 to 0.99",
    "--model.dtype=bfloat": "expected one of float32, bfloat16; did you mean bfloat16",
    "--model.dtype=": "one of float32, bfloat16",
    "--gate_masks=2": "one of 1, 4",
    "--quiet=maybe": "true or false",
    "--quiet=tru": "true or false",
    "--quiet=": "true or false",
    "--noquiet=1": "write --name=true or --name=false",
    "--quiet false": "stray argument 'false': write --quiet=false",
    "stray": "stray argument 'stray'",
    "--seed 3 4": "stray argument '4'",
    "-- a": "stray argument 'a'",
    "-": "stray argument '-'",
    "--=3": "stray argument '--=3'",
    "--seed=1 --seed=2": "--seed is given twice",
    "--quiet --noquiet": "--quiet is given twice",
    "--preset=small --preset=small": "--preset is given twice",
    "--preset=smal": "expected one of small, medium; did you mean small?",
    "--preset=": "expected one of small, medium",
    "--preset": "--preset has no value",
    "--mesh=4,x": "a whole number of at least 1, or several with commas between",
    "--mesh=4,,2": "a whole number",
    "--mesh=0": "of at least 1",
    "--optim.betas=0.9,2": "from 0 to 1",
    "--optim.clip=None": "a finite number of at least 0, or none",
    "--flagfile": "--flagfile=: expected a text file",
    "--flagfile=": "cannot read --flagfile=: expected a text file",
    "--flagfile=/no/such/file": "cannot read --flagfile=/no/such/file",
    "--flagfile=/": "cannot read --flagfile=/",
}


@pytest.mark.parametrize("line", REFUSED)
def test_bad_input_is_one_line_that_says_what_was_expected(line):
    with pytest.raises(UserError) as error:
        parse(*line.split(" "))
    assert REFUSED[line] in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"--seed=1\n--seed=2\n", "--seed is given twice"),
        (b"--sed=1\n", "did you mean --seed?"),
        (b"seed=1\n", "stray argument 'seed=1'"),
        (b"\xff\xfe\x00", "expected a text file"),
        (b"--flagfile=/no/such/file\n", "cannot read --flagfile="),
    ],
)
def test_bad_flagfiles(tmp_path, content, says):
    (tmp_path / "flags").write_bytes(content)
    with pytest.raises(UserError) as error:
        parse(f"--flagfile={tmp_path / 'flags'}")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("preset", "says"),
    [
        ({"model.dmi": 3}, "preset bad sets model.dmi, which is no setting; did you mean model.dim?"),
        ({"model.dim": 0}, "preset bad: --model.dim=0: expected a whole number of at least 1"),
        ({"model.dim": 3.0}, "preset bad: --model.dim=3: expected a whole number"),
        ({"model.dim": True}, "preset bad: --model.dim=true: expected a whole number"),
        ({"quiet": 1}, "preset bad: --quiet=1: expected true or false"),
        ({"optim.lr": float("nan")}, "preset bad: --optim.lr=nan: expected a finite number"),
        ({"mesh": 4}, "preset bad: --mesh=4: expected a whole number of at least 1, or several"),
    ],
)
def test_presets_are_checked_before_they_are_asked_for(preset, says):
    with pytest.raises(UserError) as error:
        parse(presets={"bad": preset})
    assert says in str(error.value)


def test_the_help_page_reads_from_top_to_bottom(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as ended:
        parse("--help", "--no_such_flag")
    page = capsys.readouterr().out
    assert ended.value.code == 0
    parts = ["A docstring.", "Usage:", "row 1 [--model.dim=32 --optim.lr=1 --optim.clip=none]", "--seed=0",
             "--model.*: the network", "--model.dim=64", "--model.bias=true", "(float32 | bfloat16)",
             "--optim.*: Adam with warm-up", "--optim.betas=0.9,0.99"]  # fmt: skip
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert max(map(len, page.splitlines())) <= 90
    assert "--preset=  " not in page
    assert "logtostderr" not in page


def test_the_help_page_shows_inherited_settings_last(capsys):
    @dataclass(frozen=True)
    class Child(Optim):
        depth: int = setting(3, "its own")
        model: GPT = setting(GPT(), "the network")

    with pytest.raises(SystemExit):
        flags.parse(Child, {}, "", ["demo.py", "-h"])
    page = capsys.readouterr().out
    assert page.index("--depth=3") < page.index("--model.dim=128") < page.index("--lr=0.001")
    assert "preset" not in page


def test_a_config_survives_json():
    import json

    config = parse("--preset=medium", "--optim.clip=none")
    assert from_json(Config, json.loads(json.dumps(to_json(config)))) == config


def changed(**changes):
    data = to_json(Config())
    for name, value in changes.items():
        group, _, last = name.rpartition("__")
        place = data[group] if group else data
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    return data


def test_settings_that_a_config_was_written_before_have_their_defaults():
    assert from_json(Config, changed(seed=KeyError, model__dim=KeyError)) == Config()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed(sed=1), "config.json: unknown setting sed; did you mean seed?"),
        (changed(model__width=1), "unknown setting model.width"),
        (changed(seed="3"), "seed='3': expected a whole number of at least 0, not a string"),
        (changed(seed=-3), "seed=-3"),
        (changed(mesh="4"), "not a string"),
        (changed(model=3), "unknown setting model"),
        (changed(model__dim=63), "not a multiple"),
        ([], "config.json holds list, expected an object"),
    ],
)
def test_a_foreign_config_is_refused(data, says):
    with pytest.raises(UserError) as error:
        from_json(Config, data)
    assert says in str(error.value)


SCRIPT = '''"""A demonstration."""
from dataclasses import dataclass
from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags

@dataclass(frozen=True)
class Config:
    seed: int = setting(0, "seed", low=0)

def main(config):
    if config.seed == 1:
        raise UserError("no such\\nfile")
    if config.seed == 2:
        raise KeyboardInterrupt
    import sys
    assert "jax" not in sys.modules and "numpy" not in sys.modules
    print("ran", config.seed)

if __name__ == "__main__":
    flags.run(main, Config)
'''


def start(tmp_path, *args):
    script = tmp_path / "demo.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        [sys.executable, script, *args], capture_output=True, text=True, env={"PYTHONPATH": root}, check=False
    )


@pytest.mark.parametrize(
    ("flag", "status", "out", "err"),
    [
        ("--seed=3", 0, "ran 3\n", ""),
        ("--sed=3", 2, "", "demo.py: unknown flag --sed; did you mean --seed?\n"),
        ("--seed=1", 2, "", "demo.py: no such file\n"),
        ("--seed=2", 130, "", "demo.py: interrupted\n"),
    ],
)
def test_a_run_ends_in_a_line_and_a_status(tmp_path, flag, status, out, err):
    done = start(tmp_path, flag)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


def test_an_error_carries_its_own_status(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo.py"])

    def main(config):
        raise Interrupted("stopped", 15)

    with pytest.raises(SystemExit) as ended:
        flags.run(main, Config)
    assert ended.value.code == 143
    assert capsys.readouterr().err == "demo.py: stopped\n"


def test_a_command_that_starts_another_script():
    words = ["launch/sweep.py", "--trials=4", "experiments/x.py", "--seed=1", "--", "--steps=3", "y.py", "--"]
    own = ["launch/sweep.py", "--trials=4", "--seed=1"]
    assert flags.split(words) == (own, "experiments/x.py", ["--steps=3", "y.py", "--"])
    assert flags.split(["a.py", "--join"]) == (["a.py", "--join"], "", [])
