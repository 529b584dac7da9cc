"""What is seen of attention and of layers: rollout, alignments, induction heads, the logit lens, probes, dropout's
spread, neighbours."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.explain import attention, lens, neighbours, probes, uncertainty
from lmjax.models import bert, cnn, gpt, rnnsearch, seq2seq

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 20, (2, 8), np.int32)
GPT = config.GPT(vocab=20, context=16, layers=2, heads=2, dim=16)
BERT = config.BERT(vocab=20, context=16, layers=2, heads=2, dim=16)


def lively(specs):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float32), param.shapes(specs))


def test_looking_at_a_bert_changes_nothing_and_padding_is_not_looked_at():
    params, valid = lively(bert.bert_params(BERT)), np.arange(8)[None] < np.array([[8], [5]])
    x, seen = jax.jit(partial(bert.bert, look=True), static_argnums=1)(params, BERT, TOKENS, valid)
    np.testing.assert_array_equal(x, jax.jit(bert.bert, static_argnums=1)(params, BERT, TOKENS, valid))
    np.testing.assert_array_equal(x, seen[-1].x)
    for layer in seen:
        assert layer.weights.shape == (2, 2, 8, 8)
        np.testing.assert_allclose(layer.weights.sum(-1), 1, rtol=1e-5)
        assert (layer.weights[1, :, :, 5:] == 0).all()
    assert abs(seen[0].x - seen[1].x).max() > 0.1


@pytest.mark.parametrize("scan", [False, True])
def test_looking_at_a_gpt_changes_nothing_and_nobody_looks_ahead(scan):
    model = config.GPT(**{**vars(GPT), "scan": scan})
    params = lively(gpt.gpt_params(model))
    x, seen = jax.jit(partial(gpt.hidden, look=True), static_argnums=1)(params, model, TOKENS)
    np.testing.assert_allclose(x, jax.jit(gpt.hidden, static_argnums=1)(params, model, TOKENS)[0], atol=1e-5)
    weights = seen.weights if scan else np.stack([layer.weights for layer in seen])
    assert weights.shape == (2, 2, 2, 8, 8)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert (np.asarray(weights)[..., np.triu_indices(8, 1)[0], np.triu_indices(8, 1)[1]] == 0).all()


def test_the_lens_ends_in_the_model_and_blocks_that_add_nothing_change_nothing():
    params = lively(gpt.gpt_params(GPT))
    found = jax.jit(lens.logit_lens, static_argnums=1)(params, GPT, TOKENS)
    assert found.shape == (3, 2, 8, 20)
    np.testing.assert_allclose(found[-1], gpt.gpt(params, GPT, TOKENS), atol=1e-5)
    assert abs(found[0] - found[2]).max() > 0.1
    best, p, mine, rank = lens.likeliest(found, found[-1].argmax(-1))
    np.testing.assert_array_equal(rank[-1], 1)
    np.testing.assert_allclose(p[-1], mine[-1])
    np.testing.assert_array_equal(best[-1], found[-1].argmax(-1))
    for block in params["blocks"]:
        for last in ("out", "down"):
            block[last] = jax.tree.map(jnp.zeros_like, block[last])
    still = lens.logit_lens(params, GPT, TOKENS)
    np.testing.assert_allclose(still[0], still[2], atol=1e-6)


def test_a_head_that_looks_behind_the_last_copy_is_an_induction_head():
    P = 6
    weights = np.full((3, 2, 2 * P, 2 * P), 0.0)
    for t in range(2 * P):
        weights[:, 0, t, t - P + 1 if t >= P else 0] = 1
        weights[:, 1, t, max(t - 1, 0)] = 1
    np.testing.assert_allclose(attention.prefix_matching(jnp.asarray(weights)), [1, 0])
    np.testing.assert_allclose(attention.previous_token(jnp.asarray(weights))[1], 1)


def test_a_translators_alignment_is_what_it_reads_with():
    source, tokens = RNG.integers(3, 30, (2, 6), np.int32), RNG.integers(3, 30, (2, 5), np.int32)
    seen = np.arange(6)[None] < np.array([[6], [4]])
    model = config.Seq2Seq(30, 30, layers=2, heads=2, dim=16, hidden=16, dropout=0.0)
    params = lively(seq2seq.seq2seq_params(model))

    @jax.jit
    def transformer(params):
        memory = seq2seq.encode(params, model, source, seen)
        both = (seq2seq.decode(params, model, tokens, memory, seen, look=look) for look in (True, False))
        return tuple(both)

    (x, layers), plain = transformer(params)
    np.testing.assert_allclose(x, plain, atol=1e-6)
    assert [layer.shape for layer in layers] == [(2, 2, 5, 6)] * 2
    np.testing.assert_allclose(layers[0].sum(-1), 1, rtol=1e-5)
    assert (layers[1][1, :, :, 4:] == 0).all()

    model = config.RNNSearch(30, 30, embed=8, dim=8, dropout=0.0)

    @jax.jit
    def rnn(params):
        memory, keys, first = rnnsearch.encode(params, model, source, seen)
        said = rnnsearch.decode(params, model, tokens, (memory, keys, first), seen)
        states = jnp.concatenate([first[:, None], said[:, :-1, :8]], axis=1)
        return rnnsearch.align(params, keys, seen, states) @ memory, said[:, :, 8:24]

    np.testing.assert_allclose(*rnn(lively(rnnsearch.rnnsearch_params(model))), atol=1e-5)  # the contexts it read


def test_probes_find_what_is_there_and_nothing_where_there_is_nothing():
    labels = RNG.integers(0, 3, 300)
    there = RNG.normal(size=(300, 6)) + 4 * np.eye(3, 6)[labels]
    nothing = RNG.normal(size=(300, 6))
    train, test = slice(200), slice(200, None)
    assert probes.probe(there[train], labels[train], there[test], labels[test], 3).accuracy > 95
    assert probes.probe(nothing[train], labels[train], nothing[test], labels[test], 3).accuracy < 50


def test_dropouts_spread_is_none_without_dropout_and_grows_with_it():
    batch = {"tokens": np.repeat(TOKENS[:1], 50, axis=0), "valid": np.ones((50, 8), bool)}
    found = []
    for rate in (0.0, 0.1, 0.6):
        model = config.CNN(vocab=20, embed=8, windows=(2,), maps=16, dropout=rate)
        params = lively(cnn.cnn_params(model, 3))
        found.append(uncertainty.mc_dropout(cnn.cnn(params, model, batch, jax.random.key(0))))
        np.testing.assert_allclose(found[-1].mean.sum(), 1, rtol=1e-5)
        assert 0 <= found[-1].mutual <= found[-1].entropy <= np.log(3)
    assert found[0].sd.max() < 1e-6
    assert found[0].mutual < 1e-6
    assert found[0].mutual < found[1].mutual < found[2].mutual


def test_neighbours_are_those_of_like_direction():
    vectors = np.array([[1.0, 0], [0, 5], [-2, 0], [3, 0.3]])
    assert [i for i, _ in neighbours.nearest(vectors, np.array([10.0, 0]), 3)] == [0, 3, 1]
    assert neighbours.nearest(vectors, np.array([10.0, 0]), 1)[0][1] == pytest.approx(1)
