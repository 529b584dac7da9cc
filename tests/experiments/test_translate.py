"""translate_multi30k.py and translate.py on a toy language, whose sentences are another's turned round."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from xla_flags import QUICK

pytest.importorskip("sacrebleu", reason="the translate extra is absent")
ROOT = Path(__file__).resolve().parents[2]
WORDS = ["ein", "mann", "hund", "läuft", "schläft", "im", "park", "und"]
SMALL = ["--source=aa", "--target=bb", "--tokens=spaces", "--rows=32", "--shapes=2", "--quiet=true"]
TRANSFORMER = ["--model.layers=1", "--model.dim=32", "--model.heads=4", "--model.hidden=64", "--model.dropout=0"]


def run(script, *flags, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": QUICK}
    return subprocess.run([sys.executable, str(ROOT / "experiments" / script), *flags], cwd=folder, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("toy") / "data", random.Random(0)
    folder.mkdir()
    for split, size in (("train", 800), ("valid", 60), ("test_a", 40)):
        lines = [rng.choices(WORDS, k=rng.randint(2, 6)) for _ in range(size)]
        (folder / f"{split}.aa").write_text("".join(" ".join(line) + "\n" for line in lines))
        (folder / f"{split}.bb").write_text("".join(" ".join(line[::-1]).upper() + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def trained(corpus):
    done = run("translate_multi30k.py", f"--data={corpus}", *SMALL, *TRANSFORMER, "--epochs=16", "--lr=5e-3",
               "--beam=3", "--average=2", "--workdir=run", folder=corpus.parent)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return corpus.parent / "run"


def test_it_learns_the_language_and_the_record_says_how_bleu_was_taken(trained, corpus):
    result = json.loads((trained / "result.json").read_text())
    assert result["metrics"]["bleu_a"]["mean"] > 80
    assert result["metrics"]["test_perplexity"]["mean"] < 1.5
    assert "tok:none" in result["notes"]
    said, asked = ((folder / name).read_text().splitlines() for folder, name in
                   ((trained, "test_a.txt"), (corpus, "test_a.bb")))  # fmt: skip
    assert len(said) == len(asked) == 40


def test_lines_of_ones_own(trained):
    (trained.parent / "lines.txt").write_text("ein mann läuft\nhund und mann im park\n")
    done = run("translate.py", "--workdir=run", "--input=lines.txt", "--output=said.txt", folder=trained.parent)
    assert done.returncode == 0, done.stderr
    assert len((trained.parent / "said.txt").read_text().splitlines()) == 2
    done = run("translate.py", "--workdir=run", "--text=ein mann läuft", "--checkpoint=last", folder=trained.parent)
    assert done.stdout.strip() == "LÄUFT MANN EIN"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--workdir=run"], "give a line as --text or a file as --input, one of the two"),
        (["--text=a"], "no --workdir: give the folder of a run"),
        (["--workdir=run", "--input=nowhere.txt"], "nowhere.txt cannot be read"),
        (["--workdir=nothing", "--text=a"], "--workdir=nothing holds no run"),
    ],
)
def test_a_wrong_request_is_one_line(trained, flags, says):
    done = run("translate.py", *flags, folder=trained.parent)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_sentence_longer_than_the_positions_is_one_line(corpus):
    done = run("translate_multi30k.py", f"--data={corpus}", *SMALL, *TRANSFORMER, "--model.positions=learned",
               "--model.context=4", "--workdir=short", folder=corpus.parent)  # fmt: skip
    assert done.returncode == 2
    assert "and the model has 4 positions: split it, or train with a larger --model.context" in done.stderr
