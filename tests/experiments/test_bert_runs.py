"""bert_pretrain and bert_finetune end to end on a language of a few words: what is learnt, gained, kept and refused."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.run import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import bert_finetune
import bert_pretrain
import classify

pytest.importorskip("tokenizers", reason="pip install 'lmjax[text]'")
WORDS = {"B-ANIMAL": ["cat", "dog", "cow"], "B-FOOD": ["rice", "bread", "fish"], "O": ["the", "eats", "sees", "a"]}
SMALL = ["--batch=16", "--strategy=local", "--quiet=true"]


def run(module, *arguments):
    config = flags.parse(module.Config, module.PRESETS, argv=["", *arguments, *SMALL])
    module.main(config)
    return json.loads((Path(config.workdir) / "result.json").read_text())


def sentence(rng):
    tags = [rng.choice(["B-ANIMAL", "O", "O", "B-FOOD"]) for _ in range(rng.randint(3, 7))]
    return [rng.choice(WORDS[tag]) for tag in tags], tags


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run of 30 steps, with a text of 40 documents."""
    folder, rng = tmp_path_factory.mktemp("bert"), random.Random(0)
    text = "\n\n".join(" ".join(" ".join(sentence(rng)[0]) + "." for _ in range(16)) for _ in range(40))
    (folder / "text.txt").write_text(text)
    record = run(
        bert_pretrain, f"--data={folder / 'text.txt'}", f"--workdir={folder / 'run'}", "--steps=30", "--vocab=100",
        "--model.context=32", "--model.layers=1", "--model.dim=32", "--lr=2e-3", "--warmup=5", "--validation=64",
    )  # fmt: skip
    return folder, record


def test_pretraining_learns_how_often_words_come(pretrained):
    metrics = {name: figure["mean"] for name, figure in pretrained[1]["metrics"].items()}
    assert metrics["validation_masked_loss"] < 0.8 * np.log(100)  # from 100 pieces to the twenty that there are
    assert metrics["validation_masked_accuracy"] > 10
    assert 40 < metrics["validation_next_accuracy"] < 75  # nothing tells whether one follows the other
    assert metrics["validation_loss"] > metrics["validation_masked_loss"]


@pytest.fixture(scope="module")
def data(pretrained):
    """Sentences labelled by whether there is an animal, and tagged."""
    folder, rng = pretrained[0], random.Random(1)
    for split, count in (("train", 200), ("test", 40)):
        found = [sentence(rng) for _ in range(count)]
        lines = [f"{'animal' if 'B-ANIMAL' in tags else 'none'}\t{' '.join(words)}" for words, tags in found]
        columns = ["\n".join(map(" ".join, zip(words, tags))) for words, tags in found]
        for name, content in (("texts", "\n".join(lines)), ("tags", "\n\n".join(columns))):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{split}.txt").write_text(content)
    return folder


def finetune(folder, workdir, *arguments):
    return run(
        bert_finetune, f"--start={folder / 'run'}", f"--workdir={workdir}", "--longest=32", "--epochs=4", *arguments
    )  # fmt: skip


def test_both_beginnings_are_trained_and_compared(data, tmp_path):
    record = finetune(data, tmp_path / "a", f"--data={data / 'texts'}", "--seeds=2", "--lr=1e-5,1e-2")
    values = {name: figure["values"] for name, figure in record["metrics"].items()}
    assert record["seeds"] == [0, 1]
    assert np.mean(values["random_test_accuracy"]) > 90  # 72.5: all are said to have an animal
    gains = np.subtract(values["test_accuracy"], values["random_test_accuracy"])
    np.testing.assert_allclose(values["gain_in_test_accuracy"], gains)
    lines = [json.loads(line) for line in (tmp_path / "a" / "scores.jsonl").read_text().splitlines()]
    assert [(line["from"], line["seed"]) for line in lines] == [
        ("start", 0), ("start", 0), ("start", 1), ("random", 0), ("random", 0), ("random", 1),
    ]  # fmt: skip
    for name in ("start", "random"):
        tried = [line for line in lines if line["from"] == name]
        best = max(tried[:2], key=lambda line: line["valid"])["lr"]
        assert tried[2]["lr"] == best  # chosen on validation, with the first seed
    # A kill after the fourth, in the middle of a line: the rest is trained again, to the same figures.
    path = tmp_path / "a" / "scores.jsonl"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:4]) + '{"from": "ran')
    again = finetune(data, tmp_path / "a", f"--data={data / 'texts'}", "--seeds=2", "--lr=1e-5,1e-2")
    now, before = ([{**json.loads(line), "seconds": 0} for line in text.splitlines()]
                   for text in (path.read_text(), whole))  # fmt: skip
    assert now == before
    assert again["metrics"] == record["metrics"]


def test_words_are_tagged(data, tmp_path):
    record = finetune(
        data, tmp_path / "b", f"--data={data / 'tags'}", "--task=tag", "--seeds=1", "--lr=5e-3", "--compare=false",
    )  # fmt: skip
    assert set(record["metrics"]) == {"test_f1", "validation_f1"}
    assert record["metrics"]["test_f1"]["mean"] > 95


def test_refusals(data, tmp_path):
    with pytest.raises(UserError, match="is more than the 32 positions of"):
        run(bert_finetune, f"--start={data / 'run'}", f"--workdir={tmp_path / 'c'}", f"--data={data / 'texts'}")
    with pytest.raises(UserError, match=r"longest=64 is more than --model.context=32"):
        run(bert_finetune, "--longest=64", "--model.context=32", f"--workdir={tmp_path / 'd'}")
    with pytest.raises(UserError, match="is neither"):
        run(bert_finetune, "--data=sst3", f"--workdir={tmp_path / 'e'}")


def test_classify_goes_on_from_a_run_and_keeps_what_predict_needs(data):
    record = run(classify, f"--data={data / 'texts'}", "--network=bert", f"--start={data / 'run'}",
                 f"--workdir={data / 'classified'}", "--epochs=3", "--lr=1e-3", "--longest=16")  # fmt: skip
    assert record["metrics"]["test_accuracy"]["mean"] > 70
    from lmjax.run.tasks import classifying

    found = classifying.load(str(data / "classified"))
    assert found.model.dim == 32
    assert classifying.classify(found, ["the cat eats", ""]).shape == (2, 2)
