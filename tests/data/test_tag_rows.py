"""Sentences as numbers and their batches: what is unknown, what comes when, and where each word's letters lie."""

import numpy as np
import pytest

from lmjax.data import tag_features, tag_rows
from lmjax.data.tagged import Sentence
from lmjax.errors import UserError

SENTENCES = [
    Sentence(tuple(f"Word{n}" for n in range(length)), ("O",) * (length - 1) + ("B-X",), (("N",) * length,))
    for length in (1, 2, 3, 5, 8, 13, 13, 2, 1, 1, 4)
]


def letters_of(batch, row, t):
    line = np.flatnonzero(batch["lanes"] == batch["lane"][row, t])[0]
    return batch["letters"][line, batch["first"][row, t] : batch["last"][row, t] + 1]


def test_numbers_and_what_is_unknown(tmp_path):
    known = tag_rows.vocabulary([Sentence(("The", "the", "A1"), ("O", "O", "B-X"), (("D", "D", "N"),))], "iobes", 1)
    assert known.words == ("", "the", "a0")
    assert known.once == (False, False, True)
    assert known.tags == ("O", "S-X")
    assert known.columns == (("", "D", "N"),)
    new = Sentence(("THE", "a9", "zoo"), ("B-Y", "O", "B-X"), (("N", "V", "D"),))
    rows = tag_rows.rows([new], known)
    assert [rows.each[name][0].tolist() for name in ("words", "tags", "columns")] == [
        [1, 2, 0], [-1, 0, 1], [[2], [0], [1]],
    ]  # fmt: skip
    assert (rows.letters[2, :3] == 1).all()  # letters that training lacks; 0 stands between words
    known.save(tmp_path / "vocabulary.json")
    assert tag_rows.load_vocabulary(tmp_path / "vocabulary.json") == known
    (tmp_path / "vocabulary.json").write_text("[1]")
    with pytest.raises(UserError, match="is damaged"):
        tag_rows.load_vocabulary(tmp_path / "vocabulary.json")
    with pytest.raises(UserError, match="--columns=2, and the data has 1"):
        tag_rows.vocabulary(SENTENCES, "bio", 2)


@pytest.mark.parametrize("parts", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_each_words_letters_lie_in_its_own_part(parts):
    known = tag_rows.vocabulary(SENTENCES, "bio")
    rows = tag_rows.rows(SENTENCES, known)
    batch = tag_rows.padded(rows, range(4, 11), 8, 13, parts)
    devices, accumulate = parts
    per_device, lanes = 8 // devices, len(batch["lanes"]) // devices
    for row, i in enumerate(range(4, 11)):
        for t in range(rows.sizes[i]):
            spelling = rows.spelling[i][t]
            np.testing.assert_array_equal(letters_of(batch, row, t), rows.letters[spelling, : rows.counts[spelling]])
            lane = batch["lane"][row, t]
            assert (row // per_device, row % accumulate) == (lane // lanes, lane % accumulate)
    read = sum((batch["letters"][n] > 0).sum() for n in range(len(batch["letters"])))
    if parts == (1, 1):  # each distinct word once
        assert read == sum(len(word) for word in {word for s in SENTENCES[4:] for word in s.words})


def test_each_sentence_comes_once_an_epoch_and_order_is_a_function_of_the_step():
    known = tag_rows.vocabulary(SENTENCES, "bio")
    rows = tag_rows.rows(SENTENCES, known)
    at, steps = tag_rows.batches(rows, 2, seed=3, shapes=3)
    again, _ = tag_rows.batches(rows, 2, seed=3, shapes=3)
    epochs = []
    for epoch in range(2):
        made = [at(epoch * steps + i) for i in range(steps)]
        seen = np.concatenate([batch["seen"].sum(1) for batch in made])
        assert sorted(seen) == sorted([*rows.sizes, *[0] * (2 * steps - 11)])
        epochs.append([b["seen"].sum(1).tolist() for b in made])
    assert epochs[0] != epochs[1]
    assert len({b.shape[1] for b in (at(i)["seen"] for i in range(steps))}) <= 3
    for i in (steps + 1, 0):
        for name, x in again(i).items():
            np.testing.assert_array_equal(x, at(i)[name])


def test_words_seen_once_are_forgotten_now_and_then():
    known = tag_rows.vocabulary(SENTENCES, "bio")  # Word4 ... all become word0
    often = np.array([False, *[True] * (len(known.words) - 1)])
    rows = tag_rows.rows(SENTENCES, known)
    at, steps = tag_rows.batches(rows, 4, 0, once=often, forget=0.5)
    words = np.concatenate([at(i)["words"][at(i)["seen"]] for i in range(steps * 20)])
    assert 0.4 < (words == 0).mean() < 0.6
    never, _ = tag_rows.batches(rows, 4, 0, once=~often & False, forget=0.5)
    assert all(never(i)["words"][never(i)["seen"]].all() for i in range(steps))


def test_a_very_long_sentence_goes_alone_and_in_training_in_pieces():
    long = Sentence(("a",) * 20_000, ("O",) * 20_000)
    known = tag_rows.vocabulary([long, *SENTENCES], "bio")
    rows = tag_rows.rows([SENTENCES[0], long], known)
    sizes = {int(who[0]): batch["seen"].shape for who, batch in tag_rows.evaluation(rows, 64)}
    assert sizes == {0: (64, 16), 1: (1, 32768)}
    pieces = tag_rows.split_long([SENTENCES[4], SENTENCES[5]], 10)
    assert [len(one.words) for one in pieces] == [8, 10, 3]
    assert sum((one.words for one in pieces[1:]), ()) == SENTENCES[5].words
    assert pieces[2].columns == (("N",) * 3,)


def test_features_and_evidence():
    sentence = Sentence(("The", "U.S.", "rose"), ("O",) * 3, (("D", "N", "V"),))
    rows = tag_features.features(sentence, 1)
    assert len({len(row) for row in rows}) == 1
    assert {"w0=u.s.", "w-1=the", "w-1,0=the u.s.", "s0=X.X.", "S.>", "<U.", "c0,-1=D N V", "c0,0=N V", "c0,1=V"} <= {
        *rows[1]
    }
    assert tag_features.feature_list([sentence, sentence, SENTENCES[0]], 1, 2)[1:] == tuple(
        sorted({name for row in rows for name in row if name})
    )
    numbers = tag_features.feature_numbers([sentence], ("", "w0=the", "w0=rose"), 1)[0]
    assert sorted(numbers[0])[-1] == 1
    assert not numbers[1].any()
    known, unknown = tag_features.evidence(sentence, 1)[1]
    assert known == ["cN", "wN U.S."]
    assert unknown[1:3] == ["nN", "sN X.X."]
    shapes = [tag_features.shape(word) for word in ("Anna", "IBM", "1,234.50", "e-mail", "")]
    assert shapes == ["Xxx", "XX", "0,00.00", "x-xx", ""]
