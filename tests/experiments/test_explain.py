"""experiments/explain.py on runs of made-up data: what it finds, what it writes, and what it refuses."""

import json
import random
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lmjax import config, param
from lmjax.data import reading, tokenizers
from lmjax.data.squad import Answer, Example
from lmjax.data.tokenizers import Character, Word
from lmjax.errors import UserError
from lmjax.models import cnn, gpt, vit
from lmjax.run import flags
from lmjax.run.settings import to_json
from lmjax.run.tasks import answering, classifying
from lmjax.train.checkpoint import Checkpoints

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import explain

ANIMALS, FOODS, OTHERS = ("cat", "dog", "cow"), ("rice", "bread", "fish"), ("the", "eats", "sees", "a", "<b>&co</b>")


def text(rng):
    """Words among which one tells the class."""
    label = rng.choice(["animal", "food"])
    words = [rng.choice(OTHERS) for _ in range(rng.randint(2, 6))]
    words.insert(rng.randrange(len(words)), rng.choice(ANIMALS if label == "animal" else FOODS))
    return label, " ".join(words)


def untrained(folder, experiment, settings, params):
    """A workdir as training leaves it, but for the training."""
    with Checkpoints(folder / "checkpoints", best="min") as checkpoints:
        checkpoints.save(1, {"params": params}, score=1.0)
    (folder / "config.json").write_text(json.dumps({"experiment": experiment, "config": settings}))


def lively(specs):
    rng = np.random.default_rng(0)
    return param.map_params(lambda _, spec: 0.3 * rng.normal(size=spec.shape).astype(np.float32), specs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("runs"), random.Random(0)
    (folder / "all.txt").write_text("".join("\t".join(text(rng)) + "\n" for _ in range(200)))
    with open(folder / "all.txt", "a") as more:
        more.write("animal\t!!!\n" * 20)  # no word: such a text counts as one that is not known
    (folder / "blank.txt").write_text("\n  \n")

    # A CNN whose two features answer to animals and to foods, and to nothing else.
    words = Word(("<unk>", *OTHERS, *ANIMALS, *FOODS))
    model = config.CNN(vocab=words.vocab, embed=4, windows=(1, 2), maps=2, dropout=0.2)
    params = lively(cnn.cnn_params(model, 2))
    params["embed"] *= 0.3
    for n, some in enumerate((ANIMALS, FOODS)):
        params["embed"][:, n] = [5.0 * (word in some) for word in words.words]
        params["classify"]["w"][n] = 3 * np.eye(2)[n]
    params["windows"]["1"]["w"][0, :2] = np.eye(2)
    (folder / "classify").mkdir()
    words.save(folder / "classify" / "tokenizer.json")
    reading = classifying.Reading(words, "words", True, 50)
    classifying.save(folder / "classify", "cnn", model, ("animal", "food"), reading)
    untrained(folder / "classify", "classify", {"data": str(folder / "all.txt")}, params)

    letters = Character.train("abcd efgh")
    model = config.GPT(context=10, layers=2, heads=2, dim=16)  # no multiple of what texts are padded to
    (folder / "gpt").mkdir()
    letters.save(folder / "gpt" / "tokenizer.json")
    untrained(folder / "gpt", "gpt_char", {"model": to_json(model)},
              lively(gpt.gpt_params(config.sized(model, letters.vocab))))  # fmt: skip

    model = config.ViT(size=8, patch=4, classes=10, layers=1, heads=2, dim=16, dropout=0.1)
    untrained(folder / "vit", "vit", {"data": "digits"}, lively(vit.vit_params(model)))
    (folder / "vit" / "network.json").write_text(json.dumps(to_json(model)))
    return folder


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """Readers of words and of pieces that have learnt nothing."""
    folder = tmp_path_factory.mktemp("readers")
    texts = ["who eats rice the cow sees dog a cat bread ? ."] * 2
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *texts[0].split()]))
    words, pieces = reading.vocabulary(texts, 1), tokenizers.load(folder / "vocab.txt")
    kinds = {"reader": (config.Reader(vocab=words.vocab, embed=6, filters=4, highway=1, dim=4), words),
             "bert": (config.BERT(layers=1, heads=2, dim=8, context=64, vocab=17), pieces)}  # fmt: skip
    settings = {"window": 24, "stride": 8, "question_length": 8, "answer_length": 3}
    for kind, (model, tokenizer) in kinds.items():
        (folder / kind).mkdir()
        tokenizer.save(folder / kind / "tokenizer.json")
        (folder / kind / "network.json").write_text(json.dumps(to_json(model)))
        untrained(folder / kind, "answer", settings | {"network": kind}, lively(answering.family(model).params(model)))
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
    parts, _ = explained(capsys, runs / "vit", "--count=1", "--examples=100", "--draws=4", "--views=occlusion,rollout,"
                         "attention,dropout,neighbours,probes,integrated,gradient")  # fmt: skip
    assert len(parts[0]["views"]) == 7
    assert len(parts[1]["views"][0]["rows"]) == 1


def test_of_many_questions_the_first_are_read(readers, tmp_path, capsys):
    lines = [f"Who eats {what}?\tThe cow eats {what}.\n" for what in ("rice", "bread")]
    (tmp_path / "asks.txt").write_text("\n".join(lines))
    parts, _ = explained(capsys, readers / "bert", f"--input={tmp_path / 'asks.txt'}", "--count=1")
    assert [part["heading"] for part in parts] == ["Who eats rice?"]


def tell(reader, batch, *ends):
    """The log-odds of a row's answer, from the scores and the places of its ends."""
    p = 1.0
    for scores, at in zip(answering.family(reader.model).scores(reader.params, reader.model, batch), ends):
        p *= float(jax.nn.softmax(scores[0])[at])
    return np.log(p) - np.log1p(-p)


@pytest.mark.parametrize("kind", ["reader", "bert"])
def test_words_of_a_question_and_a_text_are_worth_what_the_answer_loses_without_them(kind, readers, capsys):
    folder = readers / kind
    question, text = "Who eats bread?", "The cow sees. The dog eats rice. " + "A cat sees bread. " * 8
    parts, said = explained(capsys, folder, f"--text={question}\t{text}")
    (view,) = parts[0]["views"]
    shown, values = view["pieces"], view["values"]
    assert [one.strip() for one in shown[:5]] == ["Who", "eats", "bread", "?", "|"]
    at = next(n for n, one in enumerate(shown) if "«" in one)
    assert values[4] is None
    assert values[at] is None
    assert "occlusion: " in said

    # The same by hand: one row, in which the question's "bread" is not known, and one without the last word that
    # is no part of the answer.
    reader = answering.load(str(folder))
    found = answering.answer(reader, [(question, text)])[0]
    example = Example("", "", text, question, (Answer(found.text, found.start, found.end),))
    windows = reading.windows([example], reader.cutter, reader.window, reader.stride, reader.question_length)
    (first, last), mine = windows.answer.T, windows.mine
    k = next(k for k in range(1, len(values)) if values[-k] is not None)
    (w,) = np.flatnonzero((first >= mine[:, 0]) & (last < mine[:, 1]))
    whole, asked, read = (reading.padded(windows.take(np.array([w])), 1, 64) for _ in range(3))
    if kind == "reader":
        asked["match"][0, asked["words"][0] == asked["question"][0, 2]] = 0
        asked["question"][0, 2], asked["question_letters"][0, 2] = 2, 0
        end = int(windows.size[w]) - k + 1
        read["words"][0, end], read["letters"][0, end], read["match"][0, end] = 2, 0, 0
    else:
        asked["tokens"][0, 3] = read["tokens"][0, int(read["valid"].sum()) - 1 - k] = 1
    ends = int(whole["start"][0]), int(whole["end"][0])
    odds = tell(reader, whole, *ends)
    assert values[2] == pytest.approx(odds - tell(reader, asked, *ends), abs=1e-4)
    assert values[-k] == pytest.approx(odds - tell(reader, read, *ends), abs=1e-4)


REFUSED = [
    ("classify", "--text=cat --answer=plant", "--answer=plant is no class: expected one of animal, food"),
    ("classify", "--views=lens", "--views=lens: a run of classify has gradient, integrated, occlusion, dropout"),
    ("classify", "--text=!!!", "a text without words, '!!!'"),
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
