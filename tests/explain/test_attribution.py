"""Gradients, integrated gradients and occlusion: where they are known, complete, and on keywords that are planted."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.explain import attribution
from lmjax.models import bert, bilstm, cnn, gpt, lstm_lm
from lmjax.run import models
from lmjax.run.explaining import writers
from lmjax.run.explaining.texts import Text

VOCAB, T, K = 20, 7, 3
TOKENS = np.random.default_rng(0).permutation(VOCAB)[None, :T].astype(np.int32)  # each once
VALID = np.ones((1, T), bool)


def lively(specs):
    """Weights that are large enough for every part of a network to show."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float32), param.shapes(specs))


CNN = config.CNN(vocab=VOCAB, embed=8, windows=(2, 3), maps=6)
LSTM = config.BiLSTM(vocab=VOCAB, embed=8, dim=6)
BERT = config.BERT(vocab=VOCAB, context=16, layers=2, heads=2, dim=16)
KINDS = {
    "cnn": (cnn.cnn, lively(cnn.cnn_params(CNN, K)), CNN),
    "bilstm": (bilstm.bilstm, lively(bilstm.bilstm_params(LSTM, K)), LSTM),
    "bert": (bert.classify, lively(bert.classifier_params(BERT, K)), BERT),
}


def table_of(params):
    return params["bert"]["embed"]["token"] if "bert" in params else params["embed"]


def place(params, table):
    if "bert" not in params:
        return params | {"embed": table}
    return params | {"bert": params["bert"] | {"embed": params["bert"]["embed"] | {"token": table}}}


def scored(kind):
    """(score(vectors [N,T,E]) -> [N] of class 1, the vectors [T,E] of TOKENS)."""
    function, params, model = KINDS[kind]

    def logits(params, tokens, valid, key=None):
        return function(params, model, {"tokens": tokens, "valid": valid}, key)

    by_vectors = attribution.by_vectors(logits, place)

    def f(vectors):
        return attribution.log_odds(by_vectors(params, vectors, jnp.broadcast_to(VALID, vectors.shape[:2])), 1)

    return f, np.asarray(table_of(params))[TOKENS[0]]


def test_a_linear_score_is_shared_out_exactly():
    """There all three are w x, and a path's middle is as good as its ends."""
    w, x = np.random.default_rng(2).normal(size=(2, 5, 3)).astype(np.float32)

    def f(rows):
        return (rows * w[None]).sum((1, 2)) + 4.0

    by_word = (w * x).sum(1)
    at = jax.jit(attribution.with_gradient(f))
    np.testing.assert_allclose(attribution.gradient_input(at, x).sum(1), by_word, rtol=1e-5)
    found = attribution.integrated_gradients(at, x, np.zeros_like(x))
    np.testing.assert_allclose(found.attribution.sum(1), by_word, rtol=1e-5)
    assert abs(found.gap) < 1e-5
    lost = attribution.occlusion(at, x, np.zeros_like(x), np.eye(5, dtype=bool), batch=3)
    np.testing.assert_allclose(lost, by_word, rtol=1e-4)


def test_integrated_gradients_of_a_kink_and_a_curve_are_known():
    """f = relu(x_0 - 0.3) + x_1² x_2 from 0 to 1: 0.7, and by hand 2/3 and 1/3. Evenly spaced nodes would meet the kink
    nowhere."""

    def f(rows):
        return jax.nn.relu(rows[:, 0] - 0.3) + rows[:, 1] ** 2 * rows[:, 2]

    at = jax.jit(attribution.with_gradient(f))
    found = attribution.integrated_gradients(at, np.ones(3), np.zeros(3), tolerance=1e-5)
    np.testing.assert_allclose(found.attribution, [0.7, 2 / 3, 1 / 3], atol=1e-5)
    np.testing.assert_allclose(found.whole, 1.7, rtol=1e-6)
    rough = attribution.integrated_gradients(at, np.ones(3), np.zeros(3), tolerance=1e-5, most=40)
    assert rough.points <= 40
    assert abs(rough.gap) > abs(found.gap)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_give_what_tokens_give_and_gradients_are_the_tables(kind):
    f, x = scored(kind)
    function, params, model = KINDS[kind]

    def by_table(table):
        said = function(place(params, table), model, {"tokens": TOKENS, "valid": VALID})
        return attribution.log_odds(said, 1)[0], jax.nn.softmax(said)[0]

    @jax.jit
    def both(table):
        return f(jnp.stack([x, 2 * x]))[0], jax.value_and_grad(by_table, has_aux=True)(table)

    table = table_of(params)
    mine, ((there, p), gradient) = both(table)
    np.testing.assert_allclose(mine, there, rtol=1e-4)
    np.testing.assert_allclose(there, np.log(p[1] / (1 - p[1])), rtol=1e-3)
    mine = attribution.gradient_input(jax.jit(attribution.with_gradient(f)), x, batch=1)
    np.testing.assert_allclose(mine, (table * gradient)[TOKENS[0]], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_integrated_gradients_are_complete(kind):
    f, x = scored(kind)
    found = attribution.integrated_gradients(jax.jit(attribution.with_gradient(f)), x, np.zeros_like(x))
    assert np.abs(found.attribution).sum() > 0.01  # there is something to add up
    assert abs(found.gap) < 1e-3
    np.testing.assert_allclose(found.attribution.sum() - found.whole, found.gap, atol=1e-12)


def test_all_agree_on_a_planted_keyword():
    """A CNN one of whose windows answers to word 3, wherever it stands, and to nothing else."""
    model = replace(CNN, windows=(1,), maps=2)
    params = jax.tree.map(jnp.zeros_like, param.init(cnn.cnn_params(model, 2), jax.random.key(0)))
    embed = np.random.default_rng(3).normal(0, 0.1, (VOCAB, 8)).astype(np.float32)
    embed[:, 0], embed[3, 0] = 0, 1
    params["embed"] = jnp.asarray(embed)
    params["windows"]["1"]["w"] = params["windows"]["1"]["w"].at[0, 0, 0].set(2.0)
    params["classify"]["w"] = params["classify"]["w"].at[0, 1].set(3.0)
    valid = np.ones((1, 5), bool)
    by_vectors = attribution.by_vectors(
        lambda p, tokens, valid: cnn.cnn(p, model, {"tokens": tokens, "valid": valid}), place
    )

    @jax.jit
    @attribution.with_gradient
    def at(vectors):
        return attribution.log_odds(by_vectors(params, vectors, jnp.broadcast_to(valid, vectors.shape[:2])), 1)

    for place_of_it in (0, 4):
        tokens = np.array([5, 6, 7, 8, 9])
        tokens[place_of_it] = 3
        x = embed[tokens]
        zero, expected = np.zeros_like(x), 6.0 * (np.arange(5) == place_of_it)
        for values in (
            attribution.gradient_input(at, x).sum(1),
            attribution.integrated_gradients(at, x, zero).attribution.sum(1),
            attribution.occlusion(at, x, zero, np.eye(5, dtype=bool)),
        ):
            np.testing.assert_allclose(values, expected, atol=1e-3)


class Letters:
    vocab = VOCAB

    def encode(self, text):
        return np.array([ord(letter) - 97 for letter in text], np.int32)

    def decode(self, ids):
        return "".join(chr(97 + int(i)) for i in ids)


@pytest.mark.parametrize("kind", ["gpt, tied", "gpt, stacked", "lstm, tied", "lstm"])
def test_a_language_models_next_token_is_shared_out_among_those_before(kind):
    """What it says of vectors is what it says of tokens, though softmax and embedding share a matrix; the last token's
    own share is the model's."""
    if kind.startswith("gpt"):
        model = config.GPT(vocab=VOCAB, context=16, layers=2, heads=2, dim=16, scan=kind == "gpt, stacked")
        params = lively(gpt.gpt_params(model))
        whole = jax.jit(lambda: gpt.gpt(params, model, TOKENS))()[:, -1]
    else:
        model = config.LSTM(vocab=VOCAB, dim=12, tied=kind == "lstm, tied")
        params = lively(lstm_lm.lstm_params(model))
        whole = jax.jit(lambda: lstm_lm.lstm_lm(params, model, TOKENS, lstm_lm.lstm_carry(model, 1))[0])()[:, -1]
    subject = writers.of_writer("some", models.Trained(params, model, Letters()))
    asked = Asked()
    text = Text(TOKENS[0], [chr(97 + i) for i in TOKENS[0]], np.ones(T, bool))
    (shown,) = subject.views["occlusion"](text, asked)
    p = jax.nn.softmax(whole)[0]
    assert shown.note.startswith(f"for {chr(97 + int(p.argmax()))!r}, probability {p.max():.4f}")
    (shown,) = subject.views["integrated"](text, asked)
    assert abs(float(shown.note.partition("sum misses ")[2].split()[0])) < 1e-3
    assert len(shown.values) == T


class Asked:
    answer, baseline, tolerance, points, window = "", "zero", 1e-3, 2000, 1
