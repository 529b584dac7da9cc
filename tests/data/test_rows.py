"""Rows of word pieces: labels on first pieces, batches of like length that take each row once, evaluation in order."""

import numpy as np
import pytest

from lmjax.data import rows
from lmjax.data.tagged import Sentence
from lmjax.data.tokenizers import MARKS


class Letters:
    """Pieces of two letters; a word of marks alone has none."""

    vocab = 5 + 26 * 27

    def id(self, mark):
        return MARKS.index(mark) if mark in MARKS else None

    def encode_lines(self, lines):
        def piece(two):
            return 5 + (ord(two[0]) - 97) * 27 + (ord(two[1]) - 96 if len(two) > 1 else 0)

        def pieces(word):
            word = "".join(c for c in word if c.isalpha())
            return [piece(word[i : i + 2]) for i in range(0, len(word), 2)]

        return [np.array([p for word in line.split() for p in pieces(word)], np.int32) for line in lines]


PAD, UNK, CLS, SEP, _ = range(5)


def test_a_tag_stands_on_the_first_piece_of_its_word():
    sentence = Sentence(("abcde", "f", "!!", "ghi"), ("B-X", "O", "I-X", "B-X"))
    found = rows.tagged([sentence], ("B-X", "I-X", "O"), Letters(), 16)
    assert found.labels[0].tolist() == [-1, 0, -1, -1, 2, 1, 0, -1, -1]
    ab, cd, e, f, gh, i = np.concatenate(Letters().encode_lines(["abcde f ghi"]))
    assert found.tokens[0].tolist() == [CLS, ab, cd, e, f, UNK, gh, i, SEP]
    cut = rows.tagged([sentence], ("B-X", "I-X", "O"), Letters(), 7)
    assert cut.tokens[0].tolist() == [CLS, ab, cd, e, f, UNK, SEP]
    assert cut.labels[0].tolist() == [-1, 0, -1, -1, 2, 1, -1]


def test_texts_are_cut_and_marked():
    found = rows.classified(["abcdef", "", "ab cd ef gh"], [2, 0, 1], Letters(), 5)
    assert [len(row) for row in found.tokens] == [5, 2, 5]
    assert all(row[0] == CLS and row[-1] == SEP for row in found.tokens)
    assert found.labels.tolist() == [2, 0, 1]


@pytest.fixture
def many():
    """55 texts, the n-th with the label n, of every length from 3 to 57 tokens."""
    return rows.classified([" ".join(["ab"] * (n + 1)) for n in range(55)], np.arange(55), Letters(), 64)


def test_each_row_comes_once_an_epoch_among_its_like(many):
    at, steps = rows.batches(many, 4, seed=0)
    assert steps == 14
    again = rows.batches(many, 4, seed=0)[0]
    orders = []
    for epoch in range(3):
        seen = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            batch = at(step)
            on = batch["weights"] > 0
            assert on.sum() in (3, 4)
            assert batch["tokens"].shape[1] % 16 == 0
            lengths = batch["valid"].sum(1)[on]
            assert (lengths == batch["labels"][on] + 3).all()
            assert batch["tokens"].shape[1] - lengths.max() < 16
            seen += batch["labels"][on].tolist()
            assert all((again(step)[name] == batch[name]).all() for name in batch)
        assert sorted(seen) == list(range(55))
        orders.append(seen)
    assert orders[0] != orders[1]
    spread = [np.ptp(orders[0][i : i + 4]) for i in range(0, 52, 4)]
    assert np.median(spread) <= 4  # all 55 are one pool: a batch holds neighbours in length


def test_evaluation_gives_each_row_and_its_place(many):
    seen = []
    for at, batch in rows.evaluation(many, 16):
        on = batch["weights"] > 0
        assert batch["labels"][on].tolist() == at.tolist()
        assert batch["tokens"].shape[0] == 16
        seen += at.tolist()
    assert sorted(seen) == list(range(55))


def test_tags_in_a_batch_weigh_where_they_stand():
    sentences = [Sentence(("abc", "d"), ("O", "B-X")), Sentence(("ef",), ("B-X",))]
    found = rows.tagged(sentences, ("B-X", "O"), Letters(), 16)
    batch = rows.padded(found, [1, 0], 3)
    assert batch["weights"].tolist()[0] == [0, 1] + [0] * 14
    assert np.flatnonzero(batch["weights"][1]).tolist() == [1, 3]
    assert batch["labels"][1, [1, 3]].tolist() == [1, 0]
    assert batch["weights"][2].sum() == 0
    assert not batch["valid"][2].any()


def test_rows_are_padded_to_the_first_length_that_holds_them():
    some = rows.Rows([np.ones(n, np.int32) for n in (3, 20, 70)], np.zeros(3, np.int32), 0)
    lengths = [batch["tokens"].shape[1] for _, batch in rows.evaluation(some, 1, (8, 64))]
    assert lengths == [8, 64, 80]  # the last is longer than all: a multiple of 16
