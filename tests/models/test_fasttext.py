"""fastText: the sparse step against the gradient of its loss, and planted classes that only some features tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import param
from lmjax.models import fasttext as ft

WORDS = {"a": 0, "b": 1, "c": 2}


def sizes(**changes):
    return ft.FastText(**{"words": 3, "classes": 2, "dim": 4} | changes)


def start(config, seed=0):
    return param.init(ft.fasttext_params(config), jax.random.key(seed))


def test_features():
    plain = ft.features([["a", "z", "a"], [], ["c"]], WORDS, sizes())
    assert plain.rows.tolist() == [0, 0, 2]
    assert plain.start.tolist() == [0, 2, 2, 3]
    config = sizes(ngrams=3, buckets=1000)
    hashed = ft.features([["a", "b", "c"], ["b", "a"], ["z", "z", "a", "b"], ["a"]], WORDS, config)
    parts = [hashed.rows[i:j].tolist() for i, j in zip(hashed.start[:-1], hashed.start[1:])]
    assert [len(part) for part in parts] == [3 + 2 + 1, 2 + 1, 2 + 3 + 2, 1]
    assert parts[0][:3] == [0, 1, 2]
    assert all(3 <= row < 1003 for row in parts[0][3:])
    assert parts[0][3] == parts[2][4]  # "a b" in both, after the words and "z z", "z a"
    assert parts[1][2] != parts[0][3]  # "b a" is another


def test_scores_are_the_softmax_of_the_mean_vector():
    params = start(sizes())
    params["softmax"] = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)
    data = ft.features([["a", "a", "b"], [], ["c"]], WORDS, sizes())
    mean = (2 * params["embed"][0] + params["embed"][1]) / 3
    found = ft.scores(params, data, np.array([0, 1, 2]), size=2)
    np.testing.assert_allclose(found[0], mean @ params["softmax"], rtol=1e-5)
    assert found[1].tolist() == [0, 0]
    assert found.shape == (3, 2)


def test_a_step_is_the_gradient_of_the_loss_also_of_a_word_that_stands_twice():
    config = sizes()
    params = start(config)
    params["softmax"] = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)
    data = ft.features([["a", "a", "b"], ["b", "a"], ["c"]], WORDS, config)
    stacked = ft.batches(data, np.array([0, 1, 1]), np.array([0, 1, 2]), 4, 64)  # one text and 58 rows are padding
    batch = {name: jnp.asarray(value[0]) for name, value in stacked.items()}
    gradient, (weight, metrics, _) = jax.jit(jax.grad(ft.fasttext_loss, has_aux=True))(params, batch)
    assert weight == 3
    assert 0 <= metrics["accuracy"] <= 3
    after, total = jax.jit(ft.sgd_step)(params, batch, 0.1)
    assert total == pytest.approx(float(jax.jit(ft.fasttext_loss)(params, batch)[0]))
    for name in params:
        np.testing.assert_allclose(after[name], params[name] - 0.1 * gradient[name], rtol=1e-5, atol=1e-7)
    assert np.abs(gradient["embed"][0]).max() > 0


def planted(rng, n):
    """Texts of class 1 have "a b" where those of class 0 have "b a": their words are the same."""
    labels = rng.integers(0, 2, n)
    pairs = [["a", "b"] if label else ["b", "a"] for label in labels]
    return [["c"] * rng.integers(0, 3) + pair + ["c"] * rng.integers(0, 3) for pair in pairs], labels


@pytest.mark.parametrize(("ngrams", "learnt"), [(1, False), (2, True)])
def test_word_order_is_learnt_by_hashed_ngrams_alone(ngrams, learnt):
    texts, labels = planted(np.random.default_rng(0), 200)
    config = sizes(ngrams=ngrams, buckets=50 * (ngrams > 1))
    data = ft.features(texts, WORDS, config)
    trained, losses = ft.train(start(config), data, labels, np.arange(150), epochs=20, rate=0.5, size=8, seed=0)
    right = (ft.scores(trained, data, np.arange(150, 200)).argmax(1) == labels[150:]).mean()
    assert (right == 1) if learnt else (0.3 < right < 0.7)
    assert (losses[-1] < 0.1) == learnt


def test_the_same_seed_trains_to_the_same_bits():
    texts, labels = planted(np.random.default_rng(1), 40)
    data = ft.features(texts, WORDS, sizes())

    def run(seed):
        options = {"epochs": 2, "rate": 0.1, "size": 8, "seed": seed}
        return np.asarray(ft.train(start(sizes()), data, labels, np.arange(40), **options)[0]["embed"])

    assert (run(0) == run(0)).all()
    assert (run(0) != run(1)).any()


def test_batches_hold_each_text_once_and_fit():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 90, 37)
    data = ft.Features(np.arange(lengths.sum(), dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)]))
    order = rng.permutation(37)
    width = ft.width_for(data, [order], 5)
    found = ft.batches(data, np.arange(37), order, 5, width)
    real = found["document"] < 5
    assert sorted(found["rows"][real].tolist()) == list(range(lengths.sum()))
    assert found["labels"][found["weights"] > 0].tolist() == order.tolist()
    assert real.sum(1).max() > width - 64
