"""Chunks and their F1 as conlleval has them, on cases worked by hand."""

import numpy as np
import pytest

from lmjax.evaluate.tagging import accuracy, chunk_f1, chunk_scores, chunks, report


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
        ("B-A I-A E-A S-A S-B", [("A", 0, 3), ("A", 3, 4), ("B", 4, 5)]),  # IOBES
        ("E-A E-A I-A O S-A I-A", [("A", 0, 1), ("A", 1, 2), ("A", 2, 3), ("A", 4, 5), ("A", 5, 6)]),
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


def conlleval(true, called):
    """(right, there, called), counted word by word as the script does, which keeps no list of chunks."""

    def parts(tag):
        return (tag[0], tag[2:]) if tag != "O" else ("O", "")

    def ends(before, now):
        (mark, kind), (new, other) = before, now
        return mark != "O" and (new in "BSO" or kind != other or mark in "ES")

    def begins(before, now):
        (mark, kind), (new, other) = before, now
        return new != "O" and (new in "BS" or mark in "OES" or kind != other)

    right = there = found = 0
    for one, other in zip(true, called):
        open_ = False
        last, last_called = ("O", ""), ("O", "")
        for tag, said in zip(map(parts, [*one, "O"]), map(parts, [*other, "O"])):
            if open_:
                a, b = ends(last, tag), ends(last_called, said)
                if a and b:
                    right += 1
                if a or b or tag[1] != said[1]:
                    open_ = False
            first, first_called = begins(last, tag), begins(last_called, said)
            open_ = open_ or (first and first_called and tag[1] == said[1])
            there += first
            found += first_called
            last, last_called = tag, said
    return right, there, found


TAGS = ["O", "B-A", "I-A", "B-B", "I-B"]


def cases(tags, count=1000):
    rng = np.random.default_rng(0)
    for _ in range(count):
        true = [[tags[i] for i in rng.integers(0, len(tags), rng.integers(1, 9))] for _ in range(3)]
        yield true, [[tag if rng.random() < 0.6 else tags[rng.integers(len(tags))] for tag in row] for row in true]


@pytest.mark.parametrize("tags", [TAGS, [*TAGS, "E-A", "S-A", "S-B"]])
def test_it_is_conllevals_in_a_thousand_random_cases(tags):
    for true, called in cases(tags):
        right, there, found = conlleval(true, called)
        expected = (right / max(found, 1), right / max(there, 1), 2 * right / max(there + found, 1))
        assert chunk_scores(true, called)[""] == expected


def test_it_is_seqevals_in_a_thousand_random_cases():
    sequence_labeling = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="pip install seqeval")
    for true, called in cases(TAGS):
        for one in (*true, *called):
            entities = [(kind, begin, end - 1) for kind, begin, end in chunks(one)]
            assert entities == sequence_labeling.get_entities(one)
    seqeval = pytest.importorskip("seqeval.metrics", reason="pip install seqeval")
    with np.errstate(all="ignore"):
        for true, called in cases(TAGS, 20):
            np.testing.assert_allclose(chunk_f1(true, called), seqeval.f1_score(true, called, zero_division=0))


def test_report_and_accuracy():
    true, called = [["B-NP", "I-NP", "O", "B-VP"]], [["B-NP", "I-NP", "B-VP", "O"]]
    lines = [line.split() for line in report(true, called).splitlines()]
    assert lines[1:] == [
        ["NP", "100.00", "100.00", "100.00", "1", "1"],
        ["VP", "0.00", "0.00", "0.00", "1", "1"],
        ["all", "50.00", "50.00", "50.00", "2", "2"],
    ]
    assert accuracy(true, called) == 0.5
    assert accuracy([], []) == 0
