"""BiDAF: its equations written out in numpy, padding that no place sees, and that it learns to read."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.data import reading, squad
from lmjax.models import reader
from lmjax.train import optim
from lmjax.train.parallel import ONE
from lmjax.train.state import new_state
from lmjax.train.step import make_step

MODEL = config.Reader(vocab=64, embed=12, filters=6, letter_dim=4, dim=8, dropout=0.0, dropout_word=0.0)


def batch(B=3, T=9, Q=5, rng=None):
    rng = rng or np.random.default_rng(0)
    lengths, asked = rng.integers(2, T + 1, B), rng.integers(1, Q + 1, B)
    start = np.array([rng.integers(0, n) for n in lengths])
    return {
        "words": rng.integers(0, 64, (B, T)).astype(np.int32),
        "match": rng.integers(0, 2, (B, T, 2)).astype(np.float32),
        "letters": rng.integers(0, 256, (B, T, reading.LETTERS)).astype(np.uint8),
        "valid": np.arange(T)[None] < lengths[:, None], "question": rng.integers(0, 64, (B, Q)).astype(np.int32),
        "question_letters": rng.integers(0, 256, (B, Q, reading.LETTERS)).astype(np.uint8),
        "asked": np.arange(Q)[None] < asked[:, None], "start": start.astype(np.int32),
        "end": np.minimum(start + 1, lengths - 1).astype(np.int32), "weights": np.ones(B, np.float32),
    }  # fmt: skip


@pytest.fixture(scope="module")
def params():
    return drawn(MODEL, 0.3)


@pytest.fixture(scope="module")
def scores():
    return jax.jit(lambda params, batch: reader.reader(params, MODEL, batch))


def drawn(model, scale):
    """Parameters by numpy: forty programs of jax.random take longer to compile than the rest of this file."""
    rng = np.random.default_rng(0)
    return param.map_params(
        lambda _, spec: (scale * rng.normal(size=spec.shape)).astype(np.float32), reader.reader_params(model)
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def lstm(p, x):
    """One direction over x [T,D], a step at a time."""
    h = c = np.zeros(p["u"].shape[0])
    out = []
    for row in x:
        i, f, g, o = (row @ p["w"][:, n] + h @ p["u"][:, n] + p["b"][n] for n in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.array(out)


def both(p, x):
    return np.concatenate([lstm(p["forward"], x), lstm(p["backward"], x[::-1])[::-1]], axis=1)


def vectors(p, tokens, letters, match):
    found = []
    for token, word, same in zip(tokens, letters, match):
        x = p["letters"][word]
        seen = [sum(x[i + k] @ p["filters"]["w"][k] for k in range(reader.WIDE)) + p["filters"]["b"]
                for i in range(len(word) - reader.WIDE + 1)]  # fmt: skip
        x = np.concatenate([p["words"][token], np.maximum(np.max(seen, axis=0), 0), same])
        for layer in p["highway"]:
            gate = sigmoid(x @ layer["gate"]["w"] + layer["gate"]["b"])
            x = gate * np.maximum(x @ layer["new"]["w"] + layer["new"]["b"], 0) + (1 - gate) * x
        found.append(x)
    return np.array(found)


def oracle(p, b, n):
    """The scores of row n, from the paper's equations, without a place of padding."""
    T, Q = b["valid"][n].sum(), b["asked"][n].sum()
    x = vectors(p, b["words"][n, :T], b["letters"][n, :T], b["match"][n, :T])
    q = vectors(p, b["question"][n, :Q], b["question_letters"][n, :Q], np.zeros((Q, 2)))
    h, u = both(p["contextual"], x), both(p["contextual"], q)
    w = np.concatenate([p["similar"][name] for name in ("text", "ask", "both")])
    s = np.array([[w @ np.concatenate([a, b, a * b]) for b in u] for a in h])
    v = np.array([softmax(row) @ u for row in s])
    z = softmax(s.max(1)) @ h
    g = np.concatenate([h, v, h * v, h * z], axis=1)
    m = both(p["modelling"][1], both(p["modelling"][0], g))
    scores = [np.concatenate([g, y], axis=1) @ p[name]["w"] for name, y in
              (("first", m), ("last", both(p["ending"], m)))]  # fmt: skip
    return [score[:, 0] for score in scores]


def test_scores_are_those_of_the_equations(params, scores):
    b = batch()
    found = scores(params, b)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for n in range(3):
        T = b["valid"][n].sum()
        for got, want in zip(found, oracle(p, b, n)):
            np.testing.assert_allclose(got[n, :T], want, rtol=1e-4, atol=1e-5)
            assert (got[n, T:] < -1e29).all()


def test_what_stands_in_the_padding_changes_nothing(params, scores):
    clean, junk = batch(), batch(rng=np.random.default_rng(1))
    dirty = dict(clean)
    for name, seen in (("words", "valid"), ("letters", "valid"), ("match", "valid"), ("question", "asked"),
                       ("question_letters", "asked")):  # fmt: skip
        assert not clean[seen].all()
        dirty[name] = np.where(clean[seen].reshape(*clean[seen].shape, *[1] * (clean[name].ndim - 2)), clean[name],
                               junk[name])  # fmt: skip
    assert (dirty["words"] != clean["words"]).any()

    for one, other in zip(scores(params, clean), scores(params, dirty)):
        np.testing.assert_array_equal(one, other)


def test_dropout_needs_a_key_and_makes_words_unknown_everywhere_at_once():
    model = replace(MODEL, dropout_word=0.5)
    tokens = jnp.arange(64)
    assert (reader.known_words(model, None)(tokens) == tokens).all()
    known = reader.known_words(model, jax.random.key(0))
    said = np.asarray(known(tokens))
    assert set(said[said != tokens]) == {reader.UNKNOWN}
    assert said[:2].tolist() == [0, 1]
    assert 15 < (said == tokens).sum() < 50
    assert (known(tokens[::-1])[::-1] == said).all()


def test_letters_are_an_option():
    model = replace(MODEL, filters=0)
    shapes = param.shapes(reader.reader_params(model))
    assert "letters" not in shapes
    found = jax.eval_shape(lambda p: reader.reader(p, model, batch()), shapes)
    assert [x.shape for x in found] == [(3, 9)] * 2


def test_the_papers_size_has_its_parameters():
    """2.6 million, they say, and with word vectors that stay; ours learn on top of these."""
    count = param.count(reader.reader_params(config.Reader(vocab=1, filters=100, dim=100)))
    assert 1.6e6 < count < 2.7e6


def test_it_learns_to_read_facts():
    examples = squad.facts(articles=2, seed=0, paragraphs=4)
    cutter = reading.word_cutter(reading.vocabulary([e.context for e in examples], 1))
    data = reading.training(reading.windows(examples, cutter, 96, 32, 16), 16, 0, shapes=1)
    model = replace(MODEL, vocab=256, embed=24, filters=0, highway=0, dim=16)
    step = jax.jit(partial(make_step(lambda p, b, k, c: reader.reader_loss(p, model, b, k, c), optim.adamw(1e-2)),
                           axis=ONE))  # fmt: skip
    state = new_state(drawn(model, 0.2), optim.adamw(1e-2))
    losses = []
    for i in range(60):
        state, metrics = step(state, data.batch(i), jax.random.key(1))
        losses.append(metrics["loss"])
    assert losses[0] > 2.5
    assert losses[-1] < 0.3
    assert float(metrics["exact_match"]) > 0.9
