"""text_gan.py end to end on made-up sentences: learnt by likelihood, played on, judged, drawn, refused in a line."""

import json
import random
import sys
from itertools import zip_longest
from pathlib import Path

import jax
import numpy as np
import pytest

from lmjax.config import Generator
from lmjax.data import captions
from lmjax.errors import UserError
from lmjax.models.seqgan import generator_params, nll
from lmjax.run import flags
from lmjax.run.tasks import generating
from lmjax.run.weights import all_trained

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import text_gan

SMALL = ["--strategy=local", "--quiet=true", "--batch=16", "--samples=100", "--judge_cells=16",
         "--judge_epochs=1", "--judge_lr=0.02", "--model.embed=16", "--model.cells=16", "--lr=0.03",
         "--shapes=1"]  # fmt: skip
SLOTS = ("a the", "red blue green old", "cat dog cow hen pig", "sees eats likes", "a the", "red blue green old",
         "cat dog cow hen pig")  # fmt: skip


def sentence(rng):
    return [rng.choice(slot.split()) for slot in SLOTS]


def run(*arguments):
    config = flags.parse(text_gan.Config, text_gan.PRESETS, argv=["", *SMALL, *arguments])
    text_gan.main(config)
    record = json.loads((Path(config.workdir) / "result.json").read_text())
    return record["metrics"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("lines"), random.Random(0)
    lines = [" ".join(sentence(rng)) for _ in range(400)]
    (folder / "lines.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def learnt(data):
    return run(f"--data={data / 'lines.txt'}", f"--workdir={data / 'mle'}", "--seeds=2", "--epochs=20",
               "--temperatures=0.2,1")


def grammatical(sentences):
    """Share of the places that hold a word of theirs."""
    places = [word in slot.split() for words in sentences for word, slot in zip_longest(words, SLOTS, fillvalue="")]
    return sum(places) / len(places)


def test_what_is_written_reads_like_what_was_read(data, learnt):
    blocks = (data / "mle" / "samples.txt").read_text().split("# ")[1:]
    assert [block.splitlines()[0] for block in blocks] == ["temperature 0.2, seed 0", "temperature 1, seed 0"]
    cold, warm = ([line.split() for line in block.splitlines()[1:]] for block in blocks)
    assert len(cold) == len(warm) == 100
    assert grammatical(cold) > 0.95
    assert grammatical(cold) > grammatical(warm)
    figures = json.loads((data / "mle" / "curve.json").read_text())["figures"]
    assert np.shape(figures["test_bleu_2"]) == (2, 2)  # temperatures, lanes
    for name, higher in (("self_bleu_4", 1), ("distinct_2", -1)):
        cold, warm = np.mean(figures[name], axis=1)
        assert higher * (cold - warm) > 0, name
    assert (data / "mle" / "curve.png").stat().st_size > 1000
    assert learnt["nll_gen"]["mean"] < 1.3  # of 0.97, the grammar's own entropy
    assert learnt["nll_gen"]["mean"] < learnt["reverse_nll"]["mean"]  # whose judge has one epoch
    assert len(learnt["nll_gen"]["values"]) == 2


def test_judges_know_real_text_from_made_up():
    rng = random.Random(1)
    text = captions.Sentences("", *([sentence(rng) for _ in range(n)] for n in (60, 60, 300)))
    words = captions.vocabulary(text.train)
    model = Generator(vocab=len(words), length=8, embed=16, cells=16)
    judges = generating.judges(text, words, model, 10, 0.02)
    real, wrong, narrow = [sentence(rng) for _ in range(300)], [], []
    for one in real:
        wrong.append(rng.sample(one, len(one)))
        narrow.append([*one[:1], "red", "cat", "sees", *one[4:]])
    found = [judges.scores(sentences) for sentences in (real, wrong, narrow)]
    nll, bleu, same, distinct = ([one[name] for one in found] for name in ("nll_real", "test_bleu_3", "self_bleu_3",
                                                                          "distinct_2"))  # fmt: skip
    assert nll[0] < 1.3 < 2 < nll[1]
    assert bleu[1] < bleu[0]
    assert same[2] > same[0]
    assert distinct[2] < distinct[0]
    reverse = [judges.reverse(sentences) for sentences in (real, wrong, narrow)]
    assert reverse[0] < 1.3
    assert min(reverse[1:]) > reverse[0] + 0.3


def test_temperature_0_is_the_likeliest_word(data, learnt):
    text = captions.load_sentences(str(data / "lines.txt"))
    words = captions.vocabulary(text.train)
    V, T = len(words), 8
    model = Generator(vocab=V, length=T, embed=16, cells=16)
    params = jax.tree.map(lambda x: x[0], all_trained(data / "mle", generator_params(model), 2))
    said = generating.writer(model, words)(params, jax.random.key(0), 3, 1e-3)
    assert said[0] == said[1] == said[2]
    at = np.array([words.index(word) for word in said[0]] + [captions.END] * (T - len(said[0])))
    # No other word in its place is likelier, after the same words, than the one that stands there.
    others = np.tile(at.astype(np.int32), (T, V, 1))
    others[np.arange(T), :, np.arange(T)] = np.arange(V)
    upto = np.tri(T, dtype=np.float32)
    total = jax.vmap(lambda rows, weights: jax.vmap(lambda row: nll(params, model, row[None], weights[None])[0])(rows))
    likeliest = np.asarray(jax.jit(total)(others, upto)).argmin(1)
    np.testing.assert_array_equal(likeliest[: len(said[0]) + 1], at[: len(said[0]) + 1])


def test_a_game_goes_on_from_it(data, learnt, monkeypatch):
    """What begins is what likelihood left, and three rounds change it a little."""
    played = []
    monkeypatch.setattr(text_gan, "judged", lambda run, outcome, *given: played.append((outcome, *given[4:6])))
    config = flags.parse(text_gan.Config, text_gan.PRESETS, argv=[
        "", *SMALL, f"--data={data / 'lines.txt'}", f"--workdir={data / 'gan'}", f"--start={data / 'mle'}",
        f"--beside={data / 'mle'}", "--seeds=2", "--rounds=3", "--evaluate_every=1", "--game.length=8",
        "--game.epochs=0", "--game.first=0", "--game.each=1", "--game.rollouts=2", "--game.sequences=32",
        "--select=last"])  # fmt: skip
    text_gan.main(config)
    (outcome, generators, beside), = played
    assert beside[0].name == "likelihood (mle)"
    assert len(generators) == 2
    specs = generator_params(Generator(vocab=len(generators[0]["softmax"]["b"]), embed=16, cells=16))
    begun = all_trained(data / "mle", specs, 2, "last")
    for n, generator in enumerate(generators):
        change = jax.tree.map(lambda new, old, n=n: abs(new - old[n]).max(), generator, begun)
        assert 0 < max(jax.tree.leaves(change)) < 0.05
    assert [line["step"] for line in outcome.history] == [1, 2, 3]
    assert {"judged_0", "judged_1", "self_bleu_4", "bleu_4", "loss_1", "distinct_0"} <= outcome.history[-1].keys()
    assert outcome.history[-1]["loss"] < 1.5
    two = [generating.read(data / "mle", str(data / "lines.txt"))] * 2
    assert generating.draw(two, {"others": (90.0, 40.0)}, data / "two.png", "two").stat().st_size > 10_000


def test_refusals(data, learnt, tmp_path):
    lines = f"--data={data / 'lines.txt'}"
    refused = {
        "--rounds and --start go together": ["--rounds=2"],
        "is a run of text_gan with seeds=2: expected": ["--rounds=2", f"--start={data / 'mle'}"],
        "holds no finished run": [f"--beside={tmp_path}"],
        "expected numbers of at least 0.05": ["--temperatures=0,1"],
    }
    for message, arguments in refused.items():
        with pytest.raises(UserError, match=message) as caught:
            run(lines, f"--workdir={tmp_path / 'run'}", *arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="this one is on pydoc"):
        run("--data=pydoc", f"--workdir={tmp_path / 'run'}", f"--beside={data / 'mle'}")
