"""experiments/explain.py on runs of made-up data: what it finds, what it writes, and what it refuses."""

import json
import random
import re
import sys
from pathlib import Path

import pytest

from lmjax.errors import UserError
from lmjax.run import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import classify
import explain
import gpt_char
import vit

ANIMALS, FOODS, OTHERS = ("cat", "dog", "cow"), ("rice", "bread", "fish"), ("the", "eats", "sees", "a", "<b>&co</b>")


def text(rng):
    """Words among which one tells the class."""
    label = rng.choice(["animal", "food"])
    words = [rng.choice(OTHERS) for _ in range(rng.randint(2, 6))]
    words.insert(rng.randrange(len(words)), rng.choice(ANIMALS if label == "animal" else FOODS))
    return label, " ".join(words)


def train(module, presets, folder, *words):
    module.main(flags.parse(module.Config, presets, argv=["", "--quiet=true", "--strategy=local", *words,
                                                          f"--workdir={folder}"]))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("runs"), random.Random(0)
    (folder / "all.txt").write_text("".join("\t".join(text(rng)) + "\n" for _ in range(200)))
    (folder / "text.txt").write_text("abcd efgh " * 300)
    (folder / "blank.txt").write_text("\n  \n")
    train(classify, classify.PRESETS, folder / "classify", f"--data={folder / 'all.txt'}", "--epochs=15", "--lr=0.02",
          "--batch=16", "--cnn.embed=16", "--cnn.maps=8", "--words=spaces")  # fmt: skip
    train(gpt_char, gpt_char.PRESETS, folder / "gpt", f"--data={folder / 'text.txt'}", "--steps=2", "--batch=2",
          "--model.layers=2", "--model.dim=16", "--model.heads=2", "--model.context=16", "--sample=0")  # fmt: skip
    train(vit, vit.PRESETS, folder / "vit", "--data=digits", "--epochs=0.1", "--model.layers=1", "--model.dim=16",
          "--model.heads=2", "--model.dropout=0.1", "--pictures=0")  # fmt: skip
    return folder


def explained(capsys, folder, *words):
    explain.main(flags.parse(explain.Config, argv=["", f"--workdir={folder}", *words]))
    kept = json.loads((folder / "explain" / "explain.json").read_text())
    return kept["parts"], capsys.readouterr().out


def test_the_word_that_tells_the_class_is_found_by_every_way(runs, capsys):
    rng, lines = random.Random(1), []
    lines = [text(rng) for _ in range(3)]
    (runs / "lines.txt").write_text("\n".join(line for _, line in lines))
    parts, said = explained(capsys, runs / "classify", f"--input={runs / 'lines.txt'}", "--examples=100", "--draws=20")
    for (label, line), part in zip(lines, parts):
        views = {view["title"]: view for view in part["views"]}
        word = next(word for word in line.split() if word in ANIMALS + FOODS)
        for name in ("gradient x input", "integrated gradients", "occlusion"):
            pieces, values = views[name]["pieces"], views[name]["values"]
            assert pieces[max(range(len(values)), key=values.__getitem__)].strip() == word, (name, line)
            assert views[name]["note"].startswith(f"for '{label}'")
        assert abs(float(views["integrated gradients"]["note"].partition("sum misses ")[2].split()[0])) < 1e-3
        assert views["probabilities with dropout"]["labels"][0] == label
        assert views["nearest training texts"]["rows"][0][1] == label
    (probed,) = parts[-1]["views"]
    assert float(probed["rows"][-1][1]) > 95  # the last layer, trained
    page = (runs / "classify" / "explain" / "explain.html").read_text()
    assert "<b>&co" not in page
    assert "&lt;b&gt;&amp;co" in page
    assert (runs / "classify" / "explain" / "00-01.png").stat().st_size > 1000
    assert "integrated gradients: " in said


def test_every_view_of_a_gpt_and_of_a_vit(runs, capsys):
    parts, said = explained(capsys, runs / "gpt", "--text=abcd ef", "--heads")
    titles = [view["title"] for part in parts for view in part["views"]]
    assert titles == ["gradient x input", "integrated gradients", "occlusion", "attention", "attention rollout",
                      "logit lens", "induction heads", "previous-token heads"]  # fmt: skip
    assert "no probes: give --probe=SET" in said
    assert len(parts[0]["views"][3]["panels"]) == 2 * 3
    parts, _ = explained(capsys, runs / "vit", "--count=1", "--examples=60", "--draws=4", "--views=occlusion,rollout,"
                         "attention,dropout,neighbours,probes,integrated,gradient")  # fmt: skip
    assert len(parts[0]["views"]) == 7
    assert len(parts[1]["views"][0]["rows"]) == 1


REFUSED = [
    ("classify", "--answer=plant", "--answer=plant is no class: expected one of animal, food"),
    ("classify", "--views=lens", "--views=lens: a run of classify has gradient, integrated, occlusion, dropout"),
    ("classify", "--input=blank.txt", "no text is given to explain"),
    ("gpt", "--text=ab --layers=7 --views=attention", "--layers=7: the model has layers 0 to 1"),
    ("gpt", "--text=ab --answer=ab", "--answer='ab' is 2 tokens of this model: expected one, the next"),
    ("gpt", "--views=probes", "--views=probes: give --probe=SET"),
    ("gpt", "--text=ab --baseline=unknown", "the model has no token for a word it does not know"),
    ("vit", "--input=none.txt", "none.txt"),
    ("vit", "--answer=12", "--answer=12 is no class: expected a number from 0 to 9"),
    ("vit", "--text=cat", "--input: 'cat' is no test image; expected a number from 0 to 359"),
    (".", "", "holds no run"),
]


@pytest.mark.parametrize(("folder", "words", "line"), REFUSED, ids=[" ".join(case[:2]) for case in REFUSED])
def test_what_cannot_be_explained_is_one_line(runs, folder, words, line, monkeypatch):
    monkeypatch.chdir(runs)
    with pytest.raises(UserError, match=re.escape(line)) as error:
        explain.main(flags.parse(explain.Config, argv=["", f"--workdir={runs / folder}", *words.split()]))
    assert "\n" not in str(error.value)


def test_a_run_without_a_checkpoint_is_one_line(runs, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((runs / "gpt" / name).read_bytes())
    with pytest.raises(UserError, match="holds no checkpoint yet"):
        explain.main(flags.parse(explain.Config, argv=["", f"--workdir={tmp_path}"]))
