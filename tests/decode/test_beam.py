"""Beam search: greedy at width 1, exhaustive search's answer on a toy, the length penalty, limits, one program."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.decode.beam import BeamDecoder, beam, largest, length_penalty

B, V, N, BEGIN, END = 3, 5, 4, 0, 1


def start(params, tables, width, room):
    """The toy: what comes next depends on the token and the one before it. tables [B,V,V,V] are logits."""
    return {"tables": tables, "before": jnp.zeros((tables.shape[0], width), jnp.int32)}


def step(params, cache, tokens):
    rows = jnp.arange(tokens.shape[0])[:, None]
    return cache["tables"][rows, cache["before"], tokens], cache | {"before": tokens}


def select(cache, rows):
    return cache | {"before": jnp.take_along_axis(cache["before"], rows, axis=1)}


TOY = BeamDecoder(start, step, select)
TABLES = 2.0 * np.random.default_rng(0).normal(size=(B, V, V, V)).astype(np.float32)


def search(width, tables=TABLES, limit=(N,) * B, alpha=0.0, room=N):
    found = beam(TOY, None, jnp.asarray(tables), jnp.array(limit), width=width, room=room, begin=BEGIN, end=END,
                 alpha=alpha)  # fmt: skip
    return jax.device_get(found)


def log_probability(table, sentence):
    total, before, token = 0.0, 0, BEGIN
    for following in sentence:
        row = table[before, token].astype(np.float64)
        total += row[following] - np.log(np.exp(row).sum())
        before, token = token, following
    return total


def exhaustive(table, alpha):
    """Every sentence of up to N tokens with its end, best first."""
    others = [token for token in range(V) if token != END]
    ended = [(*words, END) for n in range(N) for words in itertools.product(others, repeat=n)]
    scored = [(log_probability(table, s) / length_penalty(len(s), alpha), s) for s in ended]
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_what_exhaustive_search_finds(alpha):
    found = search(width=V**N, alpha=alpha)
    for row in range(B):
        for rank, (score, sentence) in enumerate(exhaustive(TABLES[row], alpha)[:8]):
            np.testing.assert_allclose(found.score[row, rank], score, rtol=1e-5)
            assert tuple(found.tokens[row, rank][: len(sentence)]) == sentence
            assert found.length[row, rank] == len(sentence)
            assert (found.tokens[row, rank][len(sentence) :] == END).all()


def greedy(table, limit):
    sentence, before, token = [], 0, BEGIN
    while len(sentence) < limit and token != END:
        before, token = token, int(table[before, token].argmax())
        sentence.append(token)
    return sentence


@pytest.mark.parametrize("limit", [(N, N, N), (1, 4, 2)])
def test_width_one_is_greedy_whatever_the_penalty(limit):
    for seed, alpha in itertools.product(range(6), (0.0, 1.0)):
        tables = 2.0 * np.random.default_rng(seed).normal(size=(B, V, V, V)).astype(np.float32)
        found = search(1, tables, limit, alpha)
        for row in range(B):
            expected = greedy(tables[row], limit[row])
            assert found.tokens[row, 0][: len(expected)].tolist() == expected
            assert (found.tokens[row, 0][len(expected) :] == END).all()
            assert found.length[row, 0] == len(expected)
            penalty = length_penalty(len(expected), alpha)
            np.testing.assert_allclose(found.score[row, 0], log_probability(tables[row], expected) / penalty, rtol=1e-5)


def test_a_wider_beam_is_no_worse_on_the_toy_and_scores_are_of_the_sentences_they_stand_by():
    best = [search(width).score[:, 0] for width in (1, 4, 64)]
    assert (best[2] >= best[0] - 1e-6).all()
    found = search(4)
    for row, rank in itertools.product(range(B), range(4)):
        sentence = found.tokens[row, rank][: found.length[row, rank]]
        np.testing.assert_allclose(found.score[row, rank], log_probability(TABLES[row], sentence), rtol=1e-5)
    assert (np.diff(found.score, axis=1) <= 1e-6).all()  # the best first
    assert len({tuple(s) for s in found.tokens[0]}) == 4  # and none twice


def test_the_penalty_is_gnmts_and_favours_longer_sentences():
    assert length_penalty(7, 1.0) == 2.0
    assert length_penalty(7, 0.0) == 1.0
    assert math.isclose(length_penalty(1, 0.6), 1.0)
    assert length_penalty(7, 1.0, offset=0.0) == 7.0  # fairseq's
    lengths = [search(V**N, alpha=alpha).length[:, 0].sum() for alpha in (0.0, 5.0)]
    assert lengths[1] > lengths[0]


def test_a_sentence_without_an_end_stands_behind_those_with_one():
    tables = np.zeros((B, V, V, V), np.float32)
    tables[:, :, :, END] = -4.0  # an end is unlikely, but among the first W of a wide beam
    found = search(V, tables)
    ended = (found.tokens == END).any(-1) & (found.length <= N)
    at = np.take_along_axis(found.tokens, found.length[:, :, None] - 1, axis=2)[:, :, 0] == END
    assert ended.any()
    for row in at:
        assert (np.diff(row.astype(int)) <= 0).all()  # first those with an end, then those without


def test_limits_and_penalties_compile_nothing_anew():
    search(2)
    before = beam._cache_size()
    for alpha, limit in ((0.3, (1, 2, 3)), (1.0, (4, 4, 4))):
        search(2, limit=limit, alpha=alpha)
    assert beam._cache_size() == before


@pytest.mark.parametrize("V", [5, 96, 1000, 1024])
def test_the_largest_of_many_are_top_k(V):
    x = jax.random.normal(jax.random.key(V), (3, 2, V))
    for found, expected in zip(largest(x, 3, 16), jax.lax.top_k(x, 3), strict=True):
        np.testing.assert_array_equal(found, expected)
