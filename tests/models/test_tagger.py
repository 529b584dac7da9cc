"""Taggers: letters packed in rows are read as if each word stood alone, padding is invisible, a batch can be learnt."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.data import tag_rows, tokenizers
from lmjax.data.tagged import Sentence
from lmjax.errors import UserError
from lmjax.models import bert, crf, tagger
from lmjax.nn.recurrent import lstm_layer
from lmjax.run.tasks import tagging
from lmjax.train import optim, parallel
from lmjax.train.state import new_state
from lmjax.train.step import make_step

SENTENCES = [
    Sentence(("Anna", "visited", "New", "York", "."), ("B-PER", "O", "B-LOC", "I-LOC", "O"), (tuple("NVNN."),)),
    Sentence(("Bob", "met", "Anna"), ("B-PER", "O", "B-PER"), (tuple("NVN"),)),
    Sentence(("York",), ("B-LOC",), (("N",),)),
    Sentence(("An-extraordinarily-long-word-of-many-letters", "a"), ("O", "O"), (tuple("NN"),)),
]
SMALL = config.Tagger(word_dim=16, letter_dim=4, letter_cells=6, column_dim=4, cells=16, dropout=0.0)


def given(columns=1, model=SMALL, sentences=SENTENCES):
    """(parameters, sized config, vocabulary, rows)."""
    known = tag_rows.vocabulary(sentences, "iobes", columns)
    model = tagging.sized(model, known)
    params = param.init(tagger.tagger_params(model), jax.random.key(0))
    return params, model, known, tag_rows.rows(sentences, known)


def test_packed_letters_are_read_word_by_word():
    params, model, _, rows = given()
    batch = tag_rows.padded(rows, range(4), 4, 6)
    said = jax.jit(lambda params, batch: tagger.spelled(params, model, batch))(params, batch)
    zero = jnp.zeros((1, model.letter_cells))

    @jax.jit
    def alone(letters):
        ends = []
        for layer, some in zip(params["letter_lstm"], (letters, letters[::-1])):
            ends.append(lstm_layer(layer, params["letters"][some][:, None], (zero, zero))[0][-1, 0])
        return jnp.concatenate(ends)

    for n, t in ((0, 0), (0, 3), (1, 1), (3, 0), (3, 1)):
        spelling = rows.spelling[n][t]
        letters = jnp.asarray(rows.letters[spelling, : rows.counts[spelling]])
        np.testing.assert_allclose(said[t, n], alone(letters), atol=1e-6)


@pytest.mark.parametrize("encoder", ["lstm", "transformer"])
def test_padding_and_the_rest_of_the_batch_are_invisible(encoder):
    params, model, _, rows = given(model=dataclasses.replace(SMALL, encoder=encoder))
    read = jax.jit(lambda params, batch: tagger.emissions(params, model, batch))
    together = read(params, tag_rows.padded(rows, range(4), 4, 8))
    for n in (0, 3):
        length = rows.sizes[n]
        alone = read(params, tag_rows.padded(rows, [n], 1, int(length)))
        np.testing.assert_allclose(together[:length, n], alone[:, 0], atol=1e-5)


def test_words_see_both_sides():
    params, model, _, rows = given()
    batch = tag_rows.padded(rows, [0], 1, 5)
    read = jax.jit(lambda params, batch: tagger.emissions(params, model, batch))
    for t in (0, 4):
        other = batch | {"columns": batch["columns"].copy()}
        other["columns"][0, t] = 1 + batch["columns"][0, t] % 3
        assert (np.abs(read(params, batch) - read(params, other)).max(-1) > 1e-7).all()


def test_parts_of_a_batch_have_their_own_letters():
    """What a device or a micro-batch sees of a batch is as good as the whole."""
    params, model, _, rows = given()
    read = jax.jit(lambda params, batch: tagger.emissions(params, model, batch))
    batch = tag_rows.padded(rows, range(4), 4, 6, parts=(2, 1))
    whole = read(params, batch)
    for part in range(2):
        mine = jax.tree.map(lambda x, part=part: x.reshape(2, -1, *x.shape[1:])[part], batch)
        np.testing.assert_allclose(read(params, mine), whole[:, 2 * part : 2 * part + 2], atol=1e-6)


def test_dropout_needs_a_key_and_follows_it():
    params, model, _, rows = given(model=dataclasses.replace(SMALL, dropout=0.5, dropout_output=0.5))
    batch = tag_rows.padded(rows, range(4), 4, 6)
    read = jax.jit(lambda params, batch, key: tagger.emissions(params, model, batch, key))
    one, other, again = (read(params, batch, jax.random.key(seed)) for seed in (0, 1, 0))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("kind", ["lstm", "transformer", "features"])
def test_a_batch_is_learnt(kind):
    """To a loss near 0, and then said, in BIO and in place, with probabilities near 1."""
    if kind == "features":
        known = tag_rows.feature_vocabulary(SENTENCES, "bio", 1)
        model, rows = tagging.sized(config.FeatureCRF(), known), tag_rows.rows(SENTENCES, known)
        lr = 0.3
    else:
        encoder = "transformer" if kind == "transformer" else "lstm"
        model = dataclasses.replace(SMALL, encoder=encoder)
        _, model, known, rows = given(model=model)
        lr = 0.03
    family, legal = tagging.FAMILIES[type(model)], crf.allowed(known.tags, known.scheme)
    params, tx = param.init(family.params(model), jax.random.key(0)), optim.adamw(lr)

    def loss(params, batch, key, carry):
        return tagger.tag_loss(params, batch, family.emissions(params, model, batch, key), legal)

    strategy = parallel.local()
    step, state = strategy.compile(make_step(loss, tx)), strategy.place(new_state(params, tx))
    batch = strategy.batch(tag_rows.padded(rows, range(4), 8, 6))  # half of it empty
    for _ in range(60):
        state, metrics = step(state, batch, jax.random.key(0))
    assert float(metrics["loss"]) < 0.05
    assert float(metrics["weight"]) == 11
    found = tagging.tag(tagging.Tagger(state.params, model, known), [*SENTENCES, Sentence((), ())])
    assert [tags for tags, _ in found] == [*(one.tags for one in SENTENCES), ()]
    assert min(float(p.min()) for _, p in found[:-1]) > 0.8
    assert max(float(p.max()) for _, p in found[:-1]) <= 1 + 1e-5


def test_a_transformer_refuses_what_is_too_long():
    params, model, _, _ = given(model=dataclasses.replace(SMALL, encoder="transformer"))
    with pytest.raises(UserError, match="a Transformer reads 4,096"):
        tagger.attended(params, model, jnp.zeros((5000, 1, 3)), jnp.ones((1, 5000), bool))


def test_a_bert_tags_a_word_on_its_first_piece_and_padding_is_invisible():
    tokenizer = tokenizers.wordpiece("visited visit An extraordinary word of letters Bob New York . Anna " * 9, 100)
    known = tag_rows.counted(SENTENCES, "bio")
    model = config.BertTagger(
        vocab=tokenizer.vocab, context=64, layers=2, heads=2, dim=16, dropout=0.0, tags=len(known.tags)
    )
    params = param.init(tagger.bert_tagger_params(model), jax.random.key(0))
    rows = tag_rows.rows(SENTENCES, known, tokenizer)
    read = jax.jit(lambda params, batch: tagger.bert_emissions(params, model, batch))
    together = read(params, tag_rows.padded(rows, range(4), 4, 8))
    for n in (0, 3):
        alone = bert.tag(params, model, {"tokens": rows.pieces[n][None]})[0]
        pieces = [tokenizer.encode(word) for word in SENTENCES[n].words]
        assert [rows.pieces[n][at] for at in rows.each["piece"][n]] == [some[0] for some in pieces]
        assert sum(map(len, pieces)) == len(rows.pieces[n]) - 2
        np.testing.assert_allclose(together[: rows.sizes[n], n], alone[rows.each["piece"][n]], atol=1e-5)


def test_a_softmax_says_no_row_that_is_not_legal():
    rng = np.random.default_rng(0)
    legal = crf.allowed(("O", "B-A", "I-A"), "bio")
    scores, seen = jnp.asarray(rng.normal(size=(9, 16, 3)) * 9, jnp.float32), jnp.ones((16, 9), bool)
    tags, probabilities = tagger.best_tags(tagger.links({}, legal), scores, seen)
    before = np.concatenate([np.zeros((16, 1), int), tags[:, :-1]], axis=1)
    assert not ((np.asarray(tags) == 2) & (before == 0)).any()
    assert ((probabilities >= 0) & (probabilities <= 1 + 1e-5)).all()


def test_lample_has_its_number_of_parameters():
    """Words and letters apart: the two LSTMs either way, the emissions, and the transitions."""
    model = config.Tagger(words=10, letters=10, tags=17)
    size = param.count(tagger.tagger_params(model))
    letters, words = 2 * 4 * 25 * (25 + 25 + 1), 2 * 4 * 100 * (150 + 100 + 1)
    assert size == 10 * 100 + 10 * 25 + letters + words + 200 * 17 + 17 + 17 * 17 + 2 * 17
