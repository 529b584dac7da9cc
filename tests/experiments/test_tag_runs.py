"""tag.py end to end on the generated names and on parts of speech: learnt, kept, asked again, refused in a line."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lmjax import config
from lmjax.data import tag_rows
from lmjax.data.tagged import Sentence, generated
from lmjax.errors import UserError
from lmjax.interop.vectors import write_vectors
from lmjax.models.tagger import tagger_params
from lmjax.run import flags
from lmjax.run.tasks import predicting, tagging

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import explain
import tag

SMALL = ["--strategy=local", "--shapes=1", "--batch=16", "--lr=0.02", "--model.word_dim=16", "--model.letter_dim=8",
         "--model.letter_cells=8", "--model.cells=16", "--model.dropout=0.2"]  # fmt: skip


def run(*arguments):
    asked = flags.parse(tag.Config, tag.PRESETS, argv=["", *SMALL, *arguments])
    tag.main(asked)
    record = json.loads((Path(asked.workdir) / "result.json").read_text())
    return {name: figure["mean"] for name, figure in record["metrics"].items()}


def explained(workdir, *arguments) -> dict:
    """The views of explain.py by their titles."""
    explain.main(flags.parse(explain.Config, argv=["", f"--workdir={workdir}", *arguments]))
    kept = json.loads((workdir / "explain" / "explain.json").read_text())
    return {view["title"]: view for view in kept["parts"][0]["views"]}


def columns(sentences) -> str:
    return "\n\n\n".join("\n".join(map(" ".join, zip(one.words, *one.columns, one.tags))) for one in sentences)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Generated names with their words' lengths in a column; one tag stands in training once, one in the test alone."""
    folder = tmp_path_factory.mktemp("names")
    for seed, (split, count) in enumerate({"train": 240, "valid": 30, "test": 60}.items()):
        found = generated(count, seed)
        if split != "valid":
            found.append(Sentence(("odd",), ("B-ONCE",) if split == "train" else ("B-NEVER",)))
        found = [one._replace(columns=(tuple(str(len(w)) for w in one.words),)) for one in found]
        (folder / f"{split}.txt").write_text(columns(found) + "\n\n \n\n")
    return folder


@pytest.fixture(scope="module")
def trained(names):
    return run(f"--data={names}", f"--workdir={names / 'run'}", "--epochs=4", "--forget=0.3"), names / "run"


def test_names_are_learnt_and_what_is_kept_says_the_same(trained):
    metrics, workdir = trained
    assert metrics["test_f1"] > 70
    figures = ("f1", "precision", "recall", "accuracy")
    assert set(metrics) == {f"{split}_{name}" for split in ("validation", "test") for name in figures}
    kept = [block.split("\n") for block in (workdir / "test.txt").read_text().strip().split("\n\n")]
    rows = [[line.split(" ") for line in block] for block in kept]
    tagger = tagging.load(str(workdir))
    found = tagging.tag(tagger, [tuple(row[0] for row in block) for block in rows], batch=64)
    assert [list(tags) for tags, _ in found] == [[row[2] for row in block] for block in rows]
    probabilities = np.concatenate([p for _, p in found])
    assert ((probabilities > 0) & (probabilities <= 1 + 1e-5)).all()
    right = np.array([row[1] == row[2] for block in rows for row in block])
    assert probabilities[right].mean() > probabilities[~right].mean() + 0.1
    assert abs(100 * right.mean() - metrics["test_accuracy"]) < 1e-6


def test_it_takes_any_words(trained):
    """None, one, letters never seen, and two thousand."""
    tagger = tagging.load(str(trained[1]))
    many = ("Bob", "lives", "in", "Oville", ".") * 400
    found = tagging.tag(tagger, [(), ("漢字",), many, ("Bob", "lives", "in", "Oville", ".")])
    assert [len(tags) for tags, _ in found] == [0, 1, 2000, 5]
    assert all(len(p) == len(tags) for tags, p in found)
    assert found[2][0][:4] == found[3][0][:4]
    assert tagging.tag(tagger, []) == []


def test_vectors_of_ones_own(tmp_path):
    """They stand at their words, once each, as wide spread as the random ones of the others."""
    path, rng = tmp_path / "vectors.txt", np.random.default_rng(0)
    write_vectors(path, ["lives", "Lives", "1984", "elsewhere"], rng.normal(size=(4, 16)) * 9)
    words, table = tagging.vectors(str(path), 16)
    assert words == ["lives", "0000", "elsewhere"]
    known = tag_rows.vocabulary(generated(9, 0), "bio", more=words)
    spec = tagger_params(tagging.sized(config.Tagger(word_dim=16), known))["words"]
    key = jax.random.key(0)
    found, fresh = (s.init(key, s.shape, np.float32) for s in (tagging.begun(spec, known.words, words, table), spec))
    at = [known.words.index(word) for word in words]
    others = np.setdiff1d(np.arange(len(found)), at)
    np.testing.assert_array_equal(found[others], fresh[others])
    np.testing.assert_allclose(found[np.array(at)], table * (fresh.std() / table.std()), rtol=1e-5)
    with pytest.raises(UserError, match=r"set --model\.word_dim=16"):
        tagging.vectors(str(path), 20)


def test_a_tag_rests_on_its_word_and_on_those_beside(trained):
    _, workdir = trained
    words = ["Bob", "lives", "in", "Oville", "."]
    (tags, probabilities), = tagging.tag(tagging.load(str(workdir)), [tuple(words)])
    found = explained(workdir, "--text=" + " ".join(words))
    own = [n for n, tag in enumerate(tags) if tag != "O"]
    assert list(found) == [f"occlusion for word {n}" for n in own]
    view = found[f"occlusion for word {own[0]}"]
    assert f"of {words[own[0]]!r}, probability {probabilities[own[0]]:.4f}" in view["note"]
    assert view["own"] == own[0]
    assert max(view["values"]) > 0.1
    other = explained(workdir, f"--text={' '.join(words)}", "--at=1", "--answer=O")
    assert list(other) == ["occlusion for word 1"]
    for asked, line in (("--at=5", "the sentence has words 0 to 4"), ("--answer=B-FOO", "--answer=B-FOO is no tag")):
        with pytest.raises(UserError, match=line):
            explained(workdir, f"--text={' '.join(words)}", asked)


@pytest.mark.parametrize("network", ["features", "hmm"])
def test_columns_are_read_by_what_was_trained_with_them(network, names, tmp_path):
    metrics = run(f"--data={names}", f"--workdir={tmp_path / 'run'}", f"--network={network}", "--columns=1",
                  "--epochs=4", "--scheme=bio")  # fmt: skip
    assert metrics["test_f1"] > 50
    tagger = tagging.load(str(tmp_path / "run"))
    (tags, probabilities), = tagging.tag(tagger, [Sentence(("Bob", "left"), (), (("3", "4"),))])
    assert len(tags) == len(probabilities) == 2
    with pytest.raises(UserError, match="sentence 2, 'Bob left', is words alone"):
        tagging.tag(tagger, [(), ("Bob", "left")])
    # Lines have a word's column behind it, and that itself may hold the mark.
    found, = predicting.tagged(tagger, ["Bob|3 left|4"])
    assert (found["words"], found["tags"]) == (("Bob", "left"), tags)
    assert tagging.sentence(tagger, "a|b|3") == Sentence(("a|b",), (), (("3",),))
    for line in ("Bob|3 left", "|3"):
        with pytest.raises(UserError, match=r"is a word alone, .* 1 further column .*: write them behind .* cat\|NN"):
            tagging.sentence(tagger, line)
    if network == "features":
        column = explained(tmp_path / "run", "--text=Bob|3 lives|5 in|2 Oville|6")["occlusion for word 0, column 1"]
        assert column["pieces"] == ["3 ", "5 ", "2 ", "6 "]
        assert np.abs(column["values"]).max() > 0.1
        with pytest.raises(UserError, match="'lives' is a word alone"):
            explained(tmp_path / "run", "--text=Bob|3 lives")


def test_parts_of_speech_with_features_past_the_lstm(tmp_path):
    kinds = {"DET": ["the", "a"], "NOUN": ["dog", "cat", "run"], "VERB": ["sees", "run"]}
    rng = np.random.default_rng(0)
    lines = []
    for n in range(200):
        words = [str(rng.choice(kinds[kind])) for kind in ("DET", "NOUN", "VERB")]
        rows = [f"{i}\t{word}\t_\t{kind}" + "\t_" * 6 for i, (word, kind) in enumerate(zip(words, kinds), 1)]
        lines += [f"# sent_id = {n}", *rows, ""]
    (tmp_path / "own-train.conllu").write_text("\n".join(lines))
    metrics = run(f"--data={tmp_path}", f"--workdir={tmp_path / 'run'}", "--direct=true", "--epochs=6")
    assert metrics["test_accuracy"] == 100  # run is told by its place
    assert "test_f1" not in metrics
    (tags, _), = tagging.tag(tagging.load(str(tmp_path / "run")), [("the", "run", "run")])
    assert tags == ("DET", "NOUN", "VERB")


def test_refusals(trained, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        tagging.load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"experiment": "gpt_char", "config": {}}')
    with pytest.raises(UserError, match="is a run of gpt_char: expected one of tag"):
        tagging.load(str(tmp_path))
    path = tmp_path / "train.txt"
    path.write_text("a NN O\n\n" * 2355 + "a O\n")
    with pytest.raises(UserError) as caught:
        run(f"--data={path}", f"--workdir={tmp_path / 'run'}")
    assert f"{path}, line 4,711 has 2 columns" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bert_is_tuned_kept_and_refuses_what_is_longer_than_its_positions(names, tmp_path):
    small = ["--network=bert", "--bert.layers=1", "--bert.dim=32", "--bert.heads=2", "--bert.context=64",
             "--subwords=300", "--bert.dropout=0"]  # fmt: skip
    metrics = run(f"--data={names}", f"--workdir={tmp_path / 'run'}", "--epochs=4", *small)
    assert metrics["test_f1"] > 40
    tagger = tagging.load(str(tmp_path / "run"))
    assert "crf" in tagger.params
    kept = [block.split("\n") for block in (tmp_path / "run/test.txt").read_text().strip().split("\n\n")]
    rows = [[line.split(" ") for line in block] for block in kept]
    found = tagging.tag(tagger, [tuple(row[0] for row in block) for block in rows])
    assert [list(tags) for tags, _ in found] == [[row[2] for row in block] for block in rows]
    assert [len(tags) for tags, _ in tagging.tag(tagger, [(), ("漢字", "\u200b")])] == [0, 2]
    with pytest.raises(UserError, match="a sentence of 402 pieces, and the BERT has 64 positions"):
        tagging.tag(tagger, [(".",) * 400])


def test_a_start_without_bert_is_one_line():
    with pytest.raises(ValueError, match="set --network=bert"):
        tag.Config(start="somewhere")
    with pytest.raises(ValueError, match="reads words alone"):
        tag.Config(network="bert", columns=1)
