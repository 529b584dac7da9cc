"""Co-occurrences: the counts against a double loop, whatever the pieces; every entry once an epoch."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from lmjax.data import cooccurrence
from lmjax.data.cooccurrence import cooccurrences, entries
from lmjax.errors import UserError

V = 12


def text(n, seed=0):
    p = np.arange(V, 0, -1) ** 2
    return np.random.default_rng(seed).choice(V, n, p=p / p.sum()).astype(np.int32)


def naive(ids, window):
    x = np.zeros((V, V))
    for i in range(len(ids)):
        for j in range(max(i - window, 0), min(i + window + 1, len(ids))):
            if i != j:
                x[ids[i], ids[j]] += 1 / abs(i - j)
    return x


@pytest.mark.parametrize("piece", [1 << 23, 60, 7], ids=["whole", "pieces", "small pieces"])
@pytest.mark.parametrize("window", [1, 4, 5, 300])
def test_counts_are_those_of_a_double_loop(window, piece, monkeypatch):
    monkeypatch.setattr(cooccurrence, "PIECE", piece)
    ids = text(200)
    x = cooccurrences(ids, V, window).toarray()
    np.testing.assert_array_equal(x, np.triu(x))
    np.testing.assert_allclose(x + np.triu(x, 1).T, naive(ids, window), rtol=1e-6)


def test_a_text_of_one_word_again_and_again_is_one_entry():
    x = cooccurrences(np.full(50, 3, np.int32), V, 2)
    assert x.nnz == 1
    assert x[3, 3] == 2 * (49 + 48 / 2)


def test_too_short_a_text_is_one_line():
    with pytest.raises(UserError, match="a text of 1 words"):
        cooccurrences(np.zeros(1, np.int32), V, 5)
    with pytest.raises(UserError, match="too many"):
        cooccurrences(text(9), 1 << 31, 5)


@pytest.mark.parametrize("piece", [1 << 23, 40])
def test_every_entry_is_read_once_an_epoch(piece, monkeypatch):
    x = cooccurrences(text(500), V, 3)
    monkeypatch.setattr(cooccurrence, "PIECE", piece)
    batch, steps = entries(x, group=3, rows=4, turns=2, seed=5)
    for epoch in range(2):
        read = np.zeros((V, V), np.float32)
        for i in range(steps):
            b = batch(epoch * steps + i)
            assert b["word"].shape == (4, 2)
            assert b["other"].shape == b["count"].shape == (4, 2, 3)
            np.add.at(read, (np.broadcast_to(b["word"][..., None], (4, 2, 3)), b["other"]), b["count"])
        np.testing.assert_array_equal(read, x.toarray())


def test_the_order_is_drawn_from_seed_and_epoch_alone():
    x = cooccurrences(text(500), V, 3)
    batch, steps = entries(x, group=3, rows=2, turns=2, seed=5)
    again, _ = entries(x, group=3, rows=2, turns=2, seed=5)
    other, _ = entries(x, group=3, rows=2, turns=2, seed=6)
    whole = [batch(i) for i in range(3 * steps)]
    for i in reversed(range(3 * steps)):
        np.testing.assert_array_equal(again(i)["other"], whole[i]["other"])
    assert any((whole[i]["word"] != whole[steps + i]["word"]).any() for i in range(steps))
    assert any((whole[i]["word"] != other(i)["word"]).any() for i in range(steps))


def test_frequent_and_rare_words_are_in_each_group():
    x = csr_array(np.triu(np.ones((V, V), np.float32)))
    batch, _ = entries(x, group=4, rows=1, turns=100, seed=0)
    first = batch(0)
    of_0 = first["other"][(first["word"] == 0) & (first["count"] > 0).any(-1)]
    assert sorted(of_0.tolist()) == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
