"""Every experiment at the command line: its help page, and one line and status 2 for what a user may get wrong."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmjax.run import flags

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(path for path in (ROOT / "experiments").glob("*.py") if "flags.run(" in path.read_text())


def load(path: Path):
    spec = importlib.util.spec_from_file_location("experiment_" + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where flags.run looks for the docstring
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """call(experiment's name, *words) -> (status, stdout, stderr); runs in an empty folder, offline."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMJAX_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def call(name, *words):
        module = load(ROOT / "experiments" / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [str(ROOT / "experiments" / f"{name}.py"), *words])
        try:
            flags.run(module.main, module.Config, getattr(module, "PRESETS", None))
            status = 0
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return call


@pytest.mark.parametrize("name", [path.stem for path in EXPERIMENTS])
def test_help_is_a_page(call, name):
    status, out, err = call(name, "--help")
    module = sys.modules[f"experiment_{name}"]
    assert (status, err) == (0, "")
    assert out.startswith(module.__doc__[:40])
    assert f"launch/run.sh experiments/{name}.py" in module.__doc__, "the docstring gives the command"
    for preset, settings in getattr(module, "PRESETS", {}).items():
        assert f"\n  {preset} " in out
        assert settings.get("help"), f"preset {preset} says what it is"
    for line in out.splitlines():
        assert len(line) <= 100 or line in module.__doc__  # a command stays in one piece
        assert not (line.startswith("  --") and len(line.split()) == 1 and "=" not in line)
    for name, leaf in flags.leaves(module.Config).items():
        assert name == "preset" or leaf.help, f"--{name} is not explained"


@pytest.mark.parametrize("name", [path.stem for path in EXPERIMENTS])
def test_presets_can_be_had(name):
    module = load(ROOT / "experiments" / f"{name}.py")
    presets = getattr(module, "PRESETS", {})
    for preset in presets:
        config = flags.parse(module.Config, presets, argv=["", f"--preset={preset}"])
        assert getattr(config, "preset", preset) == preset


@pytest.mark.parametrize("name", [path.stem for path in EXPERIMENTS])
def test_a_bad_flag_is_refused_before_anything_is_loaded(name):
    code = (
        "import runpy, sys, atexit; atexit.register(lambda: print('jax' in sys.modules));"
        f"sys.argv = ['experiments/{name}.py', '--sede=1']; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    began = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
                          env={"PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    ended = os.times()
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr.startswith(f"{name}.py: unknown flag --sede")
    assert done.stderr.count("\n") == 1
    # The processor's time: the wall's would also measure what else the machine does.
    assert ended.children_user + ended.children_system - began.children_user - began.children_system < 0.5


TINY = "--data=text.txt --model.layers=1 --model.dim=8 --model.heads=2 --model.context=8 --batch=2 --steps=1 --quiet"
TINY += " --sample=0"

REFUSED = [
    ("gpt_char --data=nope.txt", "data=nope.txt is neither a file or folder nor a known set"),
    ("gpt_char --data=tinyshakespear", "did you mean tinyshakespeare?"),
    ("gpt_char --data=", "data is empty"),
    ("gpt_char --data=empty.txt", "empty.txt is empty: expected UTF-8 text"),
    ("gpt_char --data=blank.txt", "blank.txt is empty"),
    ("gpt_char --data=short.txt", "short.txt has 2 characters"),
    ("gpt_char --data=binary", "binary is not UTF-8: byte 0x80 at offset 127"),
    ("gpt_char --data=latin.txt", "latin.txt is not UTF-8: byte 0xe9 at offset 3"),
    ("gpt_char --data=zeros.txt", "zeros.txt is not text: a zero byte"),
    ("gpt_char --data=bad.gz", "bad.gz cannot be read"),
    ("gpt_char --data=folder", "folder holds no text"),
    ("gpt_char --data=tinyshakespeare --data_dir=nope", "data_dir=nope is not a folder"),
    ("gpt_char --data=text.txt --tokenizer=bp", "tokenizer=bp: expected character"),
    ("gpt_char --data=text.txt --tokenizer=tokenizer.json", "tokenizer.json is no tokenizer"),
    ("lstm_ptb --data_dir=sets", "ptb.train.txt is not the official ptb.train.txt"),
    ("lstm_ptb --data_dir=nope", "data_dir=nope is not a folder"),
    ("ngram_ptb --data_dir=sets", "ptb.train.txt is not the official ptb.train.txt"),
    (f"gpt_char {TINY} --workdir=text.txt", "--workdir=text.txt is a file"),
    (f"gpt_char {TINY} --workdir=text.txt/a", "--workdir=text.txt/a is a file or lies in one"),
    (f"gpt_char {TINY} --workdir=/no/such/folder", "there is no folder /no/such"),
    (f"gpt_char {TINY} --workdir=another", "--workdir=another is a run of other: choose another for gpt_char"),
    (f"gpt_char {TINY} --workdir=damaged", "damaged/config.json is damaged"),
    ("gpt_char --data=text.txt --workdir=a --quiet --model.context=9999", "context=9999"),
    (f"gpt_char {TINY} --workdir=a --strategy=mesh --mesh=4,4", "needs 16 devices, here are 8"),
    ("lstm_ptb --data=text.txt --workdir=a --quiet --batch=100000", "batch=100000"),
    ("generate", "expected one of --workdir, the folder of a run"),
    ("generate --workdir=nope", "--workdir=nope holds no run"),
    ("generate --workdir=text.txt", "--workdir=text.txt holds no run"),
    ("generate --workdir=another", "--workdir=another is a run of other"),
    ("generate --workdir=damaged", "damaged/config.json is damaged"),
    ("generate --temperature=-1", "--temperature=-1: expected a finite number of at least 0"),
    ("generate --top_p=2", "--top_p=2: expected a finite number from 0 to 1"),
    ("generate --checkpoint=newest", "expected one of best, last"),
    ("gpt_char --preset=nanogpt", "did you mean nanogpt_"),
    ("gpt_char --model.dim=10 --model.heads=4", "model.dim=10 is not a multiple of model.heads=4"),
    ("gpt_char --dim=10", "did you mean --model.dim?"),
    ("gpt_char --mesh=4,", "--mesh=4,: expected a whole number"),
    ("gpt_char --flagfile=nope", "cannot read --flagfile=nope"),
    ("gpt_char --flagfile=binary", "cannot read --flagfile=binary"),
    ("lstm_ptb --epochs=1.5", "--epochs=1.5: expected a whole number"),
    ("lstm_ptb --lr=1e400", "--lr=1e400: expected a finite number"),
    ("lstm_ptb zaremba_small", "stray argument 'zaremba_small'"),
    ("ngram_ptb --data_dir", "--data_dir has no value"),
    ("word2vec --data=blank.txt", "blank.txt"),
    ("word2vec --data=nope", "nope is neither"),
    ("word2vec --data=text.txt --min_count=100000", "min_count"),
    ("word2vec --data=text.txt --min_count=1 --strategy=pmap --workdir=a --quiet", "does not divide over 8 devices"),
    ("word2vec --model.block=10", "model.positions=256 is not a multiple"),
    ("glove --data=nope", "nope is neither"),
    ("glove --model.x_max=0", "--model.x_max=0: expected a finite number of at least 1e-06"),
    ("glove --data=text.txt --accumulate=2", "accumulate"),
    ("word2vec --model.hierarchical=both", "model.hierarchical"),
    ("subword --model.hierarchical", "learn from noise words only"),
    ("glove --data=text.txt --model.rows=4 --strategy=pmap --workdir=a --quiet", "does not divide over 8 devices"),
    ("subword --data=nope", "nope is neither"),
    ("subword --model.min_n=7", "model.min_n=7 is more than model.max_n=6"),
    ("subword --model.buckets=0", "--model.buckets=0: expected"),
    ("neighbours --vectors=cut.bin --words=a", "cut.bin is damaged or cut off"),
    ("linear_text --data=nope", "neither a file or folder nor a known set"),
    ("linear_text --data=text.txt", "line 1 has no tab"),
    ("linear_text --data=imdb", "unpack"),
    ("neighbours --vectors=text.txt --words=a", "text.txt"),
    ("neighbours --words=a", "--vectors"),
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question.\n" * 200)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "short.txt").write_text("ab")
    (tmp_path / "binary").write_bytes(bytes(range(1, 256)) + b"\0")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "zeros.txt").write_bytes(b"text\0text")
    (tmp_path / "bad.gz").write_bytes(b"not compressed")
    (tmp_path / "cut.bin").write_bytes(b"\xba\x16\x4f\x2f\x0c\0\0\0")  # fastText's first eight bytes
    (tmp_path / "folder").mkdir()
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "sets/ptb").mkdir(parents=True)
    (tmp_path / "sets/ptb/ptb.train.txt").write_text("the cat\n")
    for name, content in {"another": '{"experiment": "other", "config": {}}', "damaged": '{"exp'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    return tmp_path


@pytest.mark.parametrize(("line", "says"), REFUSED)
def test_what_a_user_gets_wrong_is_one_line(call, files, line, says):
    before = sorted(files.rglob("*.*"))
    status, out, err = call(*line.split())
    assert (status, err.count("\n")) == (2, 1), err
    assert says in err
    assert out in ("", "\n")
    kept = [path for path in sorted(files.rglob("*.*")) if path.name not in (".lock", "config.json", "tokenizer.json")]
    assert [path for path in kept if path not in before] == []  # nothing was begun


def test_a_run_ends_with_a_record_and_the_same_command_again_changes_nothing(call, files):
    words = [*TINY.split(), "--strategy=local", "--workdir=runs/a"]
    status, out, err = call("gpt_char", *words)
    assert (status, err) == (0, "")
    assert "validation_loss" in out
    names = {path.name for path in (files / "runs/a").iterdir()}
    assert {"config.json", "tokenizer.json", "metrics.jsonl", "speed.jsonl", "checkpoints", "result.json"} <= names
    metrics = (files / "runs/a/metrics.jsonl").read_bytes()
    status, again, err = call("gpt_char", *words)
    assert (status, err) == (0, "")
    assert again == out
    assert (files / "runs/a/metrics.jsonl").read_bytes() == metrics
    status, _, err = call("gpt_char", *words, "--lr=0.5")
    assert status == 2
    assert "holds a run with lr=0.002, not 0.5" in err
