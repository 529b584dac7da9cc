"""Chunks and their F1 as conlleval has them, on cases worked by hand."""

import numpy as np
import pytest

from lmjax.evaluate.tagging import chunk_f1, chunk_scores, chunks


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-NP I-NP O B-VP", [("NP", 0, 2), ("VP", 3, 4)]),
        ("B-NP B-NP I-NP", [("NP", 0, 1), ("NP", 1, 3)]),  # two of a kind side by side
        ("O I-NP I-NP O", [("NP", 1, 3)]),  # an I- begins a chunk where none is open
        ("B-NP I-VP I-VP", [("NP", 0, 1), ("VP", 1, 3)]),  # and where another kind is
        ("I-NP B-NP", [("NP", 0, 1), ("NP", 1, 2)]),
        ("O O", []),
        ("", []),
        ("B-A-1 I-A-1 I-A-2", [("A-1", 0, 2), ("A-2", 2, 3)]),  # a kind may hold a hyphen
    ],
)
def test_chunks(tags, expected):
    assert chunks(tags.split()) == expected


def test_scores_by_hand():
    """True: NP(0,2) VP(2,3) NP(3,5), PP(0,1). Called: NP(0,2) VP(2,3) NP(3,4) NP(4,5), nothing.

    2 of 4 called are right, 2 of 4 there are found. Of NP 1 of 3 and 1 of 2.
    """
    true = [["B-NP", "I-NP", "B-VP", "B-NP", "I-NP"], ["B-PP"]]
    called = [["B-NP", "I-NP", "B-VP", "B-NP", "B-NP"], ["O"]]
    found = chunk_scores(true, called)
    assert found[""] == (2 / 4, 2 / 4, 2 / 4)
    assert found["NP"] == (1 / 3, 1 / 2, 2 / 5)
    assert found["VP"] == (1, 1, 1)
    assert found["PP"] == (0, 0, 0)
    assert chunk_f1(true, called) == 0.5


def test_a_right_place_of_another_kind_is_wrong():
    assert chunk_f1([["B-A", "I-A"]], [["B-B", "I-B"]]) == 0
    assert chunk_f1([["B-A", "O"]], [["B-A", "O"]]) == 1
    assert chunk_f1([["O"]], [["O"]]) == 0


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a sentence of 2 words has 1 tags"):
        chunk_f1([["O", "O"]], [["O"]])


def test_it_is_seqevals():
    seqeval = pytest.importorskip("seqeval.metrics", reason="pip install seqeval")
    rng = np.random.default_rng(0)
    tags = ["O", "B-A", "I-A", "B-B", "I-B"]
    true, called = ([[tags[i] for i in rng.integers(0, 5, 12)] for _ in range(50)] for _ in range(2))
    np.testing.assert_allclose(chunk_f1(true, called), seqeval.f1_score(true, called))
