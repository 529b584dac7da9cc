"""experiments/linear_text.py from its flags to its record: on generated texts, and on the real sets where at hand."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import linear_text
from lmjax.data import files, labelled
from lmjax.errors import UserError
from lmjax.run import flags

DATA = os.environ.get("LMJAX_DATA", "")


def run(*words: str):
    linear_text.main(flags.parse(linear_text.Config, linear_text.PRESETS, argv=["linear_text.py", *words]))


def figures(workdir: Path) -> tuple[dict, dict]:
    result = json.loads((workdir / "result.json").read_text())
    return {name: spread["mean"] for name, spread in result["metrics"].items()}, result


def write_lines(path: Path, rng, lines: int, classes: str = "xyz"):
    """Words that all classes share, one of the class's own in most texts."""
    with open(path, "w") as file:
        for _ in range(lines):
            label = rng.choice(list(classes))
            words = [f"w{n}" for n in rng.integers(0, 20, rng.integers(3, 9))]
            if rng.random() < 0.95:
                words.insert(rng.integers(0, len(words)), f"only{label}{rng.integers(0, 2)}")
            file.write(f"{label}\t{' '.join(words)}\n")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    write_lines(tmp_path / "set/train.txt", rng, 200)
    write_lines(tmp_path / "set/test.txt", rng, 100)
    return tmp_path / "set"


@pytest.mark.parametrize("model", ["nb", "nbsvm", "fasttext"])
def test_every_model_on_generated_texts(folder, tmp_path, capsys, model):
    few = ["--c=1", "--rate=1", "--epochs=20", "--dim=8"]
    run(f"--data={folder}", f"--model={model}", f"--workdir={tmp_path / 'run'}", "--show=2", *few)
    metrics, result = figures(tmp_path / "run")
    assert metrics["test_accuracy"] > 85  # 5 % of the texts do not tell
    assert metrics["macro_f1"] > 85
    assert (result["verdict"], result["published"]) == ("own", {})
    shown = capsys.readouterr().out
    assert "200 training and 100 test documents, 3 classes" in shown
    assert any(f"y          onlyy{n}, onlyy{1 - n}" in shown for n in (0, 1))  # the most indicative words
    assert "most confident mistakes" in shown


def test_spam_over_random_splits(tmp_path, capsys):
    write_lines(tmp_path / "spam.txt", np.random.default_rng(1), 150, "xy")
    words = [f"--data={tmp_path / 'spam.txt'}", "--target=y", "--model=nb", "--share=0.4", "--folds=3"]
    run(*words, "--seeds=3", f"--workdir={tmp_path / 'run'}")
    metrics, result = figures(tmp_path / "run")
    assert {"matthews", "y_caught", "x_blocked"} <= set(metrics)
    assert "unseen_accuracy" not in metrics  # as no text stands in both
    assert result["seeds"] == [0, 1, 2]
    assert result["metrics"]["y_caught"]["sd"] > 0
    assert "60 training and 90 test documents" in capsys.readouterr().out
    run(*words, "--split=first", "--seeds=2", f"--workdir={tmp_path / 'first'}")
    assert len(set(figures(tmp_path / "first")[1]["metrics"]["test_accuracy"]["values"])) == 1


def test_nothing_is_chosen_on_the_test_documents(folder, tmp_path):
    run(f"--data={folder}", f"--workdir={tmp_path / 'a'}", "--c=0.001,1,100")
    lines = (folder / "test.txt").read_text().split("\n")
    turned = {"x": "y", "y": "z", "z": "x"}
    (folder / "test.txt").write_text("\n".join(turned[line[0]] + line[1:] if line else "" for line in lines))
    run(f"--data={folder}", f"--workdir={tmp_path / 'b'}", "--c=0.001,1,100")
    one, other = figures(tmp_path / "a"), figures(tmp_path / "b")
    assert one[1]["notes"] == other[1]["notes"]
    assert one[0]["validation_accuracy"] == other[0]["validation_accuracy"]
    assert one[0]["test_accuracy"] > 50 > other[0]["test_accuracy"]


@pytest.mark.parametrize("model", ["nb", "nbsvm", "fasttext"])
def test_the_held_out_documents_are_not_trained_on(tmp_path, model):
    rng = np.random.default_rng(0)  # a word of its own for each text: who has seen a text knows its class, others not
    for split in ("train", "test"):
        lines = [f"{rng.choice(['x', 'y'])}\t{split}{n}\n" for n in range(100)]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    few = ["--c=100", "--rate=5", "--epochs=30", "--dim=8", "--folds=2"]
    run(f"--data={tmp_path}", f"--model={model}", f"--workdir={tmp_path / 'run'}", *few)
    assert figures(tmp_path / "run")[0]["validation_accuracy"] < 80


def test_a_validation_file_is_what_is_chosen_on(folder):
    write_lines(folder / "valid.txt", np.random.default_rng(3), 30)
    data = labelled.load_labelled(str(folder))
    train, test, (held,) = linear_text.divide(data, linear_text.Config(), 0)
    assert (len(train.texts), len(test.texts), held.sum()) == (230, 100, 30)
    assert [text for text, out in zip(train.texts, held) if out] == data.valid.texts


def test_texts_that_training_has_seen_are_told_apart(folder, tmp_path, capsys):
    copied = (folder / "train.txt").read_text().split("\n")[:50]
    own = (folder / "test.txt").read_text()
    run(f"--data={folder}", "--model=nb", f"--workdir={tmp_path / 'own'}")
    (folder / "test.txt").write_text(own + "\n".join(copied) + "\n")
    run(f"--data={folder}", "--model=nb", f"--workdir={tmp_path / 'more'}")
    one, more = figures(tmp_path / "own")[0], figures(tmp_path / "more")[0]
    assert more["unseen_accuracy"] == one["test_accuracy"]
    assert "50 test texts stand in training too" in capsys.readouterr().out


def test_published_figures_stand_only_beside_the_presets_settings():
    def asked(*words):
        config = flags.parse(linear_text.Config, linear_text.PRESETS, argv=["", *words])
        return {name: value for name, (value, _) in linear_text.published(config).items()}

    assert asked("--preset=imdb_nbsvm", "--seeds=3", "--show=0") == {"test_accuracy": 91.22}
    assert asked("--preset=sms_spam")["spam_caught"] == 83.1
    assert asked("--preset=imdb_nbsvm", "--ngrams=1") == asked("--preset=r8_tfidf", "--data=x") == asked() == {}


@pytest.mark.parametrize(
    "words",
    [["--model=forest"], ["--data=nowhere"], ["--c="], ["--c=0"], ["--ngrams=0"], ["--share=1"], ["--rate=x"],
     ["--data=FOLDER", "--target=spam"], ["--data=FOLDER", "--min_count=9999"], ["--data=SMALL"]],
)  # fmt: skip
def test_bad_settings_are_one_line(folder, tmp_path, words):
    (tmp_path / "small.txt").write_text("a\tone\nb\ttwo\na\tthree\na\tfour\n")
    places = {"FOLDER": str(folder), "SMALL": str(tmp_path / "small.txt")}
    with pytest.raises(UserError) as error:
        run(*(word.replace("FOLDER", places["FOLDER"]).replace("SMALL", places["SMALL"]) for word in words))
    assert "\n" not in str(error.value)


def test_a_malformed_file_ends_in_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    (tmp_path / "own.txt").write_text("a\tx\nb y\n")
    monkeypatch.setattr(sys, "argv", ["linear_text.py", f"--data={tmp_path / 'own.txt'}"])
    with pytest.raises(SystemExit) as ended:
        flags.run(linear_text.main, linear_text.Config, linear_text.PRESETS)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert "own.txt, line 2 has no tab" in err


@pytest.mark.parametrize(
    ("source", "words", "floor"),
    [
        (labelled.R8, ["--preset=r8_fasttext", "--rate=1", "--epochs=6", "--dim=10"], 95.0),
        (labelled.SMS, ["--preset=sms_spam", "--c=1", "--folds=1"], 97.5),
    ],
)
def test_real_texts(source, words, floor, tmp_path):
    if not DATA or any(files.locate(file, source.name, Path(DATA)) is None for file in source.files):
        pytest.skip(f"LMJAX_DATA={DATA or '(not set)'} has no {source.name}")
    run(*words, f"--workdir={tmp_path / 'run'}")
    assert figures(tmp_path / "run")[0]["test_accuracy"] > floor
