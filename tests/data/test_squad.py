"""SQuAD's form read and refused, windows by strides against the rule written out, pieces that know their characters."""

import json
import re

import numpy as np
import pytest

from lmjax.data import reading, squad
from lmjax.data.squad import Answer, Example
from lmjax.data.tokenizers import wordpiece

pytest.importorskip("tokenizers", reason="pip install 'lmjax[text]'")
CONTEXT = "Ada  Lovelace wrote the first program in 1843. The machine was never built."


def tree(**changes):
    """One question in SQuAD's form; `changes` replace keys of the question, None takes one away."""
    item = {"id": "q1", "question": "Who wrote?", "answers": [{"text": "Ada  Lovelace", "answer_start": 0}]} | changes
    item = {key: value for key, value in item.items() if value is not None}
    return {"version": "1.1", "data": [{"title": "Engine", "paragraphs": [{"context": CONTEXT, "qas": [item]}]}]}


def read(content):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return squad.read_squad(content, "mine.json")


def test_what_is_written_is_read_again(tmp_path):
    examples = squad.facts(articles=3, seed=1)
    for name in ("f.json", "f.json.gz"):
        squad.write_squad(tmp_path / name, examples)
        found = squad.load_squad(str(tmp_path / name))
        assert sorted(found.examples) == sorted(examples)
        assert (found.mended, found.impossible) == (0, 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "mine.json is not JSON"),
        (b"[]", "mine.json is []: expected an object with 'data'"),
        ({"version": "1.1"}, "mine.json has no 'data'"),
        ({"data": []}, "holds no question"),
        ({"data": [{"title": "Engine"}]}, "article 1 (Engine) has no 'paragraphs'"),
        (tree(id=None), "question 1 has no 'id'"),
        (tree(question=None), "question q1 has no 'question'"),
        (tree(question=7), "'question' is 7: expected text"),
        (tree(answers=None), "mine.json, article 1 (Engine), question q1 has no 'answers'"),
        (tree(answers=[]), "question q1 has no answer"),
        (tree(answers=[{"text": "Ada"}]), "question q1 has no 'answer_start'"),
        (tree(answers=[{"text": "Babbage", "answer_start": 3}]), "question q1: the answer 'Babbage' is not in its"),
        (tree(answers=[{"text": " ", "answer_start": 3}]), "is not in its context"),
    ],
)
def test_what_is_wrong_is_one_line(content, says):
    with pytest.raises(ValueError, match=re.escape(says)) as found:
        read(content)
    assert "\n" not in str(found.value)


def test_an_id_that_comes_twice_is_one_line():
    twice = tree()
    twice["data"] *= 2
    with pytest.raises(ValueError, match="question q1: its id stands in the file twice"):
        read(twice)


@pytest.mark.parametrize(
    ("text", "start", "span"),
    [
        ("1843", 40, (41, 45)),  # off by one
        ("the", 60, (20, 23)),  # the one that is so written
        ("The", 0, (47, 50)),
        ("ada lovelace", 2, (0, 13)),  # other spaces, other capitals
        ("Ada  Lovelace", -5, (0, 13)),
    ],
)
def test_an_answer_is_moved_to_where_it_stands(text, start, span):
    found = read(tree(answers=[{"text": text, "answer_start": start}]))
    assert found.examples[0].answers == (Answer(text, *span),)
    assert found.mended == 1
    assert "1 answers moved" in found.said()


def test_of_several_places_the_nearest_is_taken():
    assert squad.locate("in", 19, "in a box in a house in town") == (20, 22)
    assert squad.locate("in", 2, "in a box in a house in town") == (0, 2)


def test_questions_without_an_answer_are_left_out_and_counted():
    both = tree()
    both["data"][0]["paragraphs"][0]["qas"].append({"id": "q2", "question": "?", "is_impossible": True, "answers": []})
    found = read(both)
    assert [example.id for example in found.examples] == ["q1"]
    assert found.impossible == 1


def test_squad_is_looked_for_and_the_line_says_where_it_is_to_be_had(tmp_path):
    with pytest.raises(ValueError, match="rajpurkar"):
        squad.load_squad("squad")
    with pytest.raises(ValueError, match=r"no file and no set of ours"):
        squad.load_squad(str(tmp_path / "none.json"))
    (tmp_path / "squad-v1.1").mkdir()
    squad.write_squad(tmp_path / "squad-v1.1" / "dev-v1.1.json.gz", squad.facts(2, 0))
    found = squad.load_squad("squad", tmp_path)
    assert found.name == "SQuAD v1.1 dev"  # not the one that is known to be rebuilt
    assert len(found.examples) == 40


def test_articles_are_split_whole_and_in_the_order_of_titles():
    train, valid, test = squad.split_articles(squad.Squad("f", squad.facts(9, 0)), 2, 3)
    parts = [squad.titles(part) for part in (train, valid, test)]
    assert [len(part) for part in parts] == [4, 2, 3]
    names = [title for part in parts for title in sorted(part)]
    assert names == sorted(names)
    with pytest.raises(ValueError, match="has 4 articles: expected more than the 4 of validation and the 10 of the"):
        squad.split_articles(squad.Squad("f", squad.facts(4, 0)), 4, 10)


def test_facts_say_their_answer_once_at_its_place():
    for example in squad.facts(5, 3):
        (answer,) = example.answers
        assert example.context[answer.start : answer.end] == answer.text
        assert answer.text not in example.question


def test_predictions_that_are_none_are_one_line(tmp_path):
    path = tmp_path / "p.json"
    for content, says in (("[", "not JSON"), ("[1]", "expected one object"), ('{"a": 1}', "the answer to a is 1")):
        path.write_text(content)
        with pytest.raises(ValueError, match=says):
            squad.read_predictions(path)


# Pieces and windows.


def words(*texts):
    return reading.word_cutter(reading.vocabulary(texts, 1))


def pieces():
    return reading.bert_cutter(wordpiece("Ada Lovelace wrote the first program in 1843 naïve " * 9, 100))


@pytest.mark.parametrize("cutter", [words("ada wrote"), pieces()], ids=["words", "pieces"])
def test_pieces_know_their_characters(cutter):
    text = "Naïve ADA\twrote—first; 東京 in 1843."
    (found,) = cutter.cut([text])
    said = [text[a:b] for a, b in found.spans]
    assert "".join(said) == text.replace(" ", "").replace("\t", "")
    assert len(found.ids) == len(found.spans)
    assert [(a, b) for a, b in found.spans.tolist() if text[a:b] in "東京"] == [(23, 24), (24, 25)]
    assert len(cutter.cut([""])[0].ids) == 0


def test_an_answer_is_all_pieces_it_touches():
    spans = np.array([[0, 3], [5, 13], [14, 19]])
    assert reading.places(spans, Answer("x", 0, 3)) == (0, 0)
    assert reading.places(spans, Answer("x", 6, 15)) == (1, 2)
    assert reading.places(spans, Answer("x", 3, 5)) == (-1, -1)


@pytest.mark.parametrize(("length", "size", "stride"), [(0, 8, 4), (7, 8, 4), (8, 8, 4), (9, 8, 4), (50, 8, 3),
                                                        (50, 8, 8), (51, 20, 2), (200, 31, 7)])  # fmt: skip
def test_each_piece_counts_where_it_has_most_on_both_sides(length, size, stride):
    firsts, mine = reading.strides(length, size, stride)
    assert firsts[-1] + size >= length
    assert all(0 < step <= stride for step in np.diff(firsts))
    assert mine[0, 0] == 0
    assert mine[-1, 1] == length
    assert mine[1:, 0].tolist() == mine[:-1, 1].tolist()  # each piece in one
    lasts = np.minimum(firsts + size, length) - 1
    for place in range(length):
        poorer = [min(place - a, b - place) for a, b in zip(firsts, lasts)]
        (here,) = [n for n, (a, b) in enumerate(mine) if a <= place < b]
        inner = [n for n in range(len(firsts)) if firsts[n] <= place <= lasts[n]]
        assert here in inner
        if lasts[0] < place < firsts[-1]:  # between the text's own ends the rule is plain
            assert poorer[here] == max(poorer[n] for n in inner)


def example(n, context, answer, question="what is it?", title="t"):
    at = context.index(answer)
    return Example(str(n), title, context, question, (Answer(answer, at, at + len(answer)),))


LONG = " ".join(f"w{n}" for n in range(100))


@pytest.mark.parametrize("kind", [words, lambda *texts: pieces()], ids=["words", "pieces"])
def test_a_window_and_its_row_hold_the_answer_at_its_place(kind):
    cutter = kind(LONG)
    examples = [example(0, LONG, "w57 w58"), example(1, "it is w3", "w3"), example(2, LONG, "w99", "where?")]
    found = reading.windows(examples, cutter, window=64, stride=16, question=9)
    counted = np.zeros((3, 400), int)
    for _, batch in reading.evaluation(found, 4):
        assert batch["start"].dtype == np.int32
    for w in range(len(found.first)):
        batch = reading.padded(found.take(np.array([w])), 2, 64)
        n = found.question[w]
        spans = found.texts[found.text[w]].spans
        places = np.flatnonzero(batch["context"][0])
        assert len(places) == found.size[w]
        assert not batch["context"][1].any()
        assert batch["weights"].tolist() == [1, 0]
        counted[n, found.first[w] + np.flatnonzero(batch["mine"][0][places])] += 1
        start, end = batch["start"][0], batch["end"][0]
        if found.answer[w, 0] < 0:
            assert (start, end) == (0, 0)
        else:
            a, b = (spans[found.first[w] + place - places[0]] for place in (start, end))
            assert examples[n].context[a[0] : b[1]] == examples[n].answers[0].text
    for n, example_ in enumerate(examples):
        length = len(cutter.cut([example_.context])[0].ids)
        assert counted[n, :length].tolist() == [1] * length
    assert (found.answer[:, 0] >= 0).sum() >= 3


def test_an_answer_across_a_windows_edge_is_not_in_it():
    found = reading.windows([example(0, LONG, "w20 w21 w22 w23 w24 w25")], words(LONG), window=24, stride=6, question=9)
    whole = (found.first <= 20) & (found.first + found.size > 25)
    touched = (found.first <= 25) & (found.first + found.size > 20)
    assert (found.answer[:, 0] >= 0).tolist() == whole.tolist()
    assert 0 < whole.sum() < touched.sum()


def test_a_question_that_leaves_no_room_is_one_line():
    with pytest.raises(ValueError, match=r"--window=20 leaves room for 8 pieces .* fewer than --stride=16"):
        reading.windows([example(0, LONG, "w5", "a " * 30)], pieces(), window=20, stride=16, question=9)


def test_a_batch_is_a_function_of_seed_and_step_and_an_epoch_takes_each_window_once():
    examples = [example(n, LONG[: 40 + 11 * n], "w1 w2", f"q{n}", f"t{n % 2}") for n in range(20)]
    found = reading.windows(examples, words(LONG), window=64, stride=16, question=9)

    def data(negatives=0.5):
        titles = [e.title for e in examples]
        return reading.training(found, 4, 3, crop=12, negatives=negatives, titles=titles, shapes=2)

    one, two = data(), data()
    for step in (0, one.steps + 1, 1):
        again = two.batch(step)
        assert all(np.array_equal(value, again[name]) for name, value in one.batch(step).items())
    plain = data(negatives=0.0)
    without = sum(((plain.batch(i)["start"] == 0) * plain.batch(i)["weights"]).sum() for i in range(plain.steps))
    assert without == (found.answer[:, 0] < 0).sum()
    epochs = [[one.batch(step) for step in range(e * one.steps, (e + 1) * one.steps)] for e in (0, 1)]
    for epoch in epochs:
        assert sum(batch["weights"].sum() for batch in epoch) == len(found.first)
        assert len({batch["words"].shape for batch in epoch}) <= 2
        assert all(batch["context"].sum(1).max() <= 12 for batch in epoch)
        assert without < sum(((batch["start"] == 0) * batch["weights"]).sum() for batch in epoch) < len(found.first)
    firsts = [sorted(str(row) for batch in epoch for row in batch["words"]) for epoch in epochs]
    assert firsts[0] != firsts[1]  # what is cropped and swapped is drawn anew


def test_a_cropped_text_keeps_the_answer():
    examples = [example(n, LONG, f"w{n} w{n + 1} w{n + 2}") for n in range(0, 90, 7)]
    found = reading.windows(examples, words(LONG), window=64, stride=16, question=9)
    known = {}
    for batch in (reading.training(found, 4, 0, crop=6).batch(step) for step in range(40)):
        for row in range(4):
            if batch["start"][row]:
                seen = batch["words"][row, batch["start"][row] : batch["end"][row] + 1]
                assert len(seen) == 3
                known.setdefault(tuple(seen), set()).add(int(batch["start"][row]))
    assert len(known) == len(examples)
    assert max(len(places) for places in known.values()) > 1  # not always at the same place


def test_a_word_that_stands_in_the_question_is_marked():
    cutter = words("lives")
    found = reading.windows([example(0, "Anna lives , in Rome", "Rome", "Where does anna live ,?")], cutter, 32, 8, 9)
    ((_, batch),) = reading.evaluation(found, 1)
    assert batch["match"][0, 1:6].tolist() == [[1, 1], [0, 1], [0, 0], [0, 0], [0, 0]]
