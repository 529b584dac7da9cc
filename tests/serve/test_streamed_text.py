"""The text of a row as it comes is the text of the whole row, without stop texts and half characters."""

import pytest

from lmjax.data.tokenizers import BPE, Character, Word
from lmjax.serve.text import Text

LETTERS = Character("abcdefghijklmnopqrstuvwxyz ")


def said(tokenizer, prompt, text, stops=()):
    """(what each token gives, what the end gives, whether a stop ended it)."""
    ids = tokenizer.encode(prompt + text)
    row = Text(tokenizer, ids[: len(tokenizer.encode(prompt))], stops)
    parts = []
    for token in ids[len(tokenizer.encode(prompt)) :]:
        parts.append(row.push(token))
        if row.stopped:
            break
    return parts, "" if row.stopped else row.finish(), row.stopped


def test_letters_come_one_by_one():
    assert said(LETTERS, "to ", "be or") == (list("be or"), "", False)


@pytest.mark.parametrize("stop", ["or", "e o", "xyz"])
def test_a_stop_ends_the_text_and_is_held_back(stop):
    parts, rest, stopped = said(LETTERS, "to ", "be or not", [stop])
    assert "".join(parts) + rest == "be or not".partition(stop)[0]
    assert stopped == (stop in "be or not")


def test_what_might_have_begun_a_stop_is_told_at_the_end():
    assert said(LETTERS, "a", "bcd", ["de"]) == (["b", "c", ""], "d", False)


def test_words_keep_the_spaces_between_them():
    words = Word.train("the cat sat\nthe dog ran\n")
    parts, rest, _ = said(words, "the cat", " sat\nthe dog")
    assert "".join(parts) + rest == " sat\nthe dog"


def test_half_a_character_waits_for_the_other_half():
    pytest.importorskip("tokenizers")
    bytes_alone = BPE.train("a b", 257)
    parts, rest, _ = said(bytes_alone, "a", "é€x" * 40)
    assert "".join(parts) + rest == "é€x" * 40
    assert parts[:2] == ["", "é"]
    row = Text(bytes_alone, bytes_alone.encode("a"))
    assert row.push(bytes_alone.encode("é")[0]) == ""
    assert row.finish() == "\ufffd"  # the model ended in the middle of it
