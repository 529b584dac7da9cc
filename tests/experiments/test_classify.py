"""classify.py and predict.py end to end on made-up texts: what is learnt, recorded, kept and refused."""

import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.run import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import classify
import learning_curves
import predict

WORDS = {"animal": ["cat", "dog", "cow"], "food": ["rice", "bread", "fish"], "": ["the", "eats", "sees", "a"]}
SMALL = ["--batch=16", "--strategy=local", "--quiet=true", "--cnn.embed=16", "--cnn.maps=8", "--lstm.embed=16",
         "--lstm.dim=16"]  # fmt: skip


def text(rng):
    """Words among which one tells the class."""
    label = rng.choice(["animal", "food"])
    words = [rng.choice(WORDS[""]) for _ in range(rng.randint(2, 6))]
    words.insert(rng.randrange(len(words)), rng.choice(WORDS[label]))
    return label, " ".join(words)


def run(*arguments):
    config = flags.parse(classify.Config, classify.PRESETS, argv=["", *arguments, *SMALL])
    classify.main(config)
    return json.loads((Path(config.workdir) / "result.json").read_text())


def said(capsys, *arguments):
    predict.main(flags.parse(predict.Config, argv=["", *arguments]))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("texts"), random.Random(0)
    lines = [text(rng) for _ in range(200)]
    (folder / "all.csv").write_text("label,text\n" + "".join(f"{label},{words}\n" for label, words in lines))
    return folder


@pytest.fixture(scope="module")
def folds(data):
    return run(f"--data={data / 'all.csv'}", f"--workdir={data / 'cnn'}", "--runs=2", "--folds=2", "--epochs=12",
               "--lr=0.02", "--norm_limit=3")  # fmt: skip


def test_two_folds_test_every_text_once(data, folds, capsys):
    metrics = folds["metrics"]
    assert folds["seeds"] == [0, 1]
    assert len(metrics["test_accuracy"]["values"]) == 2
    assert metrics["test_accuracy"]["mean"] > 95
    tested = [json.loads(line)["text"] for n in (0, 1)
              for line in (data / f"cnn/run-{n}/test.jsonl").read_text().splitlines()]  # fmt: skip
    assert sorted(tested) == sorted(line.split(",")[1] for line in (data / "all.csv").read_text().splitlines()[1:])
    assert (data / "cnn/run-0/confusion.png").stat().st_size > 1000


def test_what_was_done_is_not_done_again(data, folds, monkeypatch):
    monkeypatch.setattr(classify, "once", None)
    again = run(f"--data={data / 'all.csv'}", f"--workdir={data / 'cnn'}", "--runs=2", "--folds=2", "--epochs=12",
                "--lr=0.02", "--norm_limit=3")  # fmt: skip
    assert again["metrics"] == folds["metrics"]


def test_a_run_predicts_line_by_line(data, folds, capsys, monkeypatch):
    (data / "new.txt").write_text("the cat eats\n\na bread sees the ünknown word\n", encoding="utf-8")
    found = said(capsys, f"--workdir={data / 'cnn'}", f"--input={data / 'new.txt'}")
    assert [line["label"] for line in found] == ["animal", None, "food"]
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert found[0]["probability"] == max(found[0]["probabilities"].values()) > 0.5
    monkeypatch.setattr(sys, "stdin", type("", (), {"buffer": io.BytesIO("\ufeffthe cow\r\n".encode())}))
    assert said(capsys, f"--workdir={data / 'cnn'}", "--batch=1")[0] == found[0] | {
        "text": "the cow", **said_of(data, "the cow")
    }


def said_of(data, line):
    """The same by the library alone."""
    from lmjax.run.tasks import classifying

    found = classifying.load(str(data / "cnn"))
    row = classifying.classify(found, [line])[0]
    shares = {name: round(float(p), 4) for name, p in zip(found.classes, row)}
    best = max(shares, key=shares.get)
    return {"label": best, "probability": shares[best], "probabilities": shares}


def test_lstms_learn_it_and_begin_with_vectors(data):
    known = ("cat", "rice")
    vectors = "".join(f"{word} {' '.join(str(len(word) * n % 7 - 3) for n in range(16))}\n" for word in known)
    (data / "vectors.txt").write_text(vectors)
    record = run(f"--data={data / 'all.csv'}", f"--workdir={data / 'lstm'}", "--network=lstm", "--epochs=8",
                 "--lr=0.02", f"--vectors={data / 'vectors.txt'}")  # fmt: skip
    assert record["metrics"]["test_accuracy"]["mean"] > 90
    assert (record["verdict"], len(record["seeds"])) == ("own", 1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["--network=cnn", "--start=x"], "set --network=bert"),
        (["--folds=1"], "--folds=1 leaves nothing to train on"),
        (["--network=bert", "--vectors=x"], "leave one out"),
        (["--cnn.windows=3,3"], "each once"),
    ],
)
def test_settings_that_do_not_go_together(line, says):
    with pytest.raises(UserError, match=says):
        flags.parse(classify.Config, classify.PRESETS, argv=["", *line])


def test_prediction_says_what_is_wrong(data, folds, tmp_path):
    def refused(*arguments):
        with pytest.raises(UserError) as error:
            predict.main(flags.parse(predict.Config, argv=["", *arguments]))
        return str(error.value)

    assert "one of --workdir" in refused()
    assert "holds no run" in refused(f"--workdir={tmp_path}")
    (tmp_path / "latin.txt").write_bytes(b"fine\n caf\xe9\n")
    line = refused(f"--workdir={data / 'cnn'}", f"--input={tmp_path / 'latin.txt'}")
    assert "latin.txt, line 2 is not UTF-8: byte 0xe9" in line
    (tmp_path / "config.json").write_text((data / "cnn/config.json").read_text())
    assert "holds no classifier" in refused(f"--workdir={tmp_path}")
    damaged = json.loads((data / "cnn/run-0/classifier.json").read_text()) | {"kind": "os.system"}
    (tmp_path / "classifier.json").write_text(json.dumps(damaged))
    assert "classifier.json is damaged" in refused(f"--workdir={tmp_path}")


def test_a_teacher_is_believed_where_labels_are_wrong(data, folds, tmp_path):
    rng = random.Random(1)
    for split, lines in {"train": 300, "valid": 60, "test": 60}.items():
        drawn = [text(rng) for _ in range(lines)]
        labels = [label for label, _ in drawn]
        if split == "train":
            rng.shuffle(labels)
        (tmp_path / f"{split}.csv").write_text(
            "label,text\n" + "".join(f"{label},{words}\n" for label, (_, words) in zip(labels, drawn, strict=True))
        )
    given = [f"--data={tmp_path}", "--epochs=12", "--lr=0.02", f"--teacher={data / 'cnn'}"]
    taught = run(*given, f"--workdir={tmp_path / 'taught'}", "--hard=0")
    assert taught["metrics"]["test_accuracy"]["mean"] > 95
    labelled = run(*given, f"--workdir={tmp_path / 'labelled'}", "--hard=1")
    assert labelled["metrics"]["test_accuracy"]["mean"] < 90


def test_a_teacher_of_other_classes_is_refused(data, folds, tmp_path):
    lines = [(label.replace("food", "meal"), words) for label, words in (text(random.Random(n)) for n in range(50))]
    (tmp_path / "meals.csv").write_text("label,text\n" + "".join(f"{label},{words}\n" for label, words in lines))
    with pytest.raises(UserError, match="animal, food apart, and the data has animal, meal: choose a run on the same"):
        run(f"--data={tmp_path / 'meals.csv'}", f"--workdir={tmp_path / 'run'}", f"--teacher={data / 'cnn'}")


def test_learning_curves_draw_the_classes_in_turn_and_keep_a_table(data, tmp_path):
    labels = np.array([0] * 90 + [1] * 10)
    at = learning_curves.draw(labels, 8, 0)
    assert np.bincount(labels[at]).tolist() == [4, 4]
    assert np.bincount(labels[learning_curves.draw(labels, 30, 0)]).tolist() == [20, 10]
    assert not np.array_equal(at, learning_curves.draw(labels, 8, 1))
    config = flags.parse(learning_curves.Config, argv=[
        "", f"--data={data / 'all.csv'}", f"--workdir={tmp_path / 'curves'}", "--models=nbsvm",
        "--sizes=10,100", "--seeds=2",
    ])  # fmt: skip
    learning_curves.main(config)
    kept = json.loads((tmp_path / "curves/curves.json").read_text())
    assert np.shape(kept["accuracy"]["nbsvm"]) == (2, 2)
    assert np.mean(kept["accuracy"]["nbsvm"][1]) > 95  # every word that tells a class is seen in a hundred texts
    assert (tmp_path / "curves/curves.png").stat().st_size > 1000
