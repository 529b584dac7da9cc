"""Labelled texts as CSV, tables with a header, JSON lines and trees; what is none of them is one line."""

import numpy as np
import pytest

from lmjax.data.labelled import load_labelled
from lmjax.data.labelled_files import read_labelled, read_trees
from lmjax.errors import UserError

FORMS = {
    "a.csv": '"1","Fears, and ""hopes"" rise"\n2,Race\n',
    "b.csv": 'text,id,label\n"Fears, and ""hopes"" rise",7,1\nRace,8,2\n',
    "c.tsv": 'label\ttext_a\n1\tFears, and "hopes" rise\n2\tRace\n',
    "d.jsonl": '{"label": 1, "text": "Fears, and \\"hopes\\" rise", "more": []}\n\n{"text": "Race", "label": "2"}\n',
    "e.txt": '1\tFears, and "hopes" rise\n2\tRace\n',
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same(name):
    found = read_labelled(FORMS[name].encode(), name)
    assert [example[1:] for example in found] == [("1", 'Fears, and "hopes" rise'), ("2", "Race")]


def test_columns_without_a_name_for_the_text_are_joined():
    assert read_labelled(b"1,Title,Story\n2,Other,\n", "a.csv")[0] == (1, "1", "Title Story")
    assert read_labelled(b"title,label,story\nT,x,S\n", "a.csv") == [(2, "x", "T S")]


def test_a_line_of_a_quoted_text_over_two_lines_is_counted():
    assert [row[0] for row in read_labelled(b'1,"two\nlines"\n2,one\n', "a.csv")] == [2, 3]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "1,x\n" * 4710 + "2\n", ["a.csv, line 4,711 has 1 columns: expected 2"]),
        ("a.csv", '1,x\n2,"y\n', ["a.csv, line 2 is no CSV"]),
        ("a.csv", "x\ny\n", ["line 1 has 1 columns: expected a label and a text"]),
        ("a.csv", "1,x\n,y\n", ["line 2 has an empty label"]),
        ("a.jsonl", '{"label": 1, "text": "x"}\n{"label": 2}\n', ["line 2", 'expected {"label": ..., "text": "..."}']),
        ("a.jsonl", "[1, 2]\n", ["line 1"]),
        ("a.jsonl", "{x}\n", ["line 1 is no JSON"]),
        ("a.jsonl", "[" * 100_000 + "\n", ["line 1"]),
        ("c.tsv", "label\ttext\n1\tx\n2\n", ["c.tsv, line 3 has 1 columns: expected 2"]),
    ],
)
def test_what_is_wrong_is_one_line(name, content, says):
    with pytest.raises(UserError) as error:
        read_labelled(content.encode(), name)
    assert "\n" not in str(error.value)
    for part in says:
        assert part in str(error.value)


TREES = b"(3 (2 It) (4 (2 's) (4 (3 lovely) (1 ,))))\n(2 (2 So) (0 Bad))\n(1 (2 So) (0 Bad))\n"


def test_trees_give_sentences_or_every_phrase():
    assert [row[1:] for row in read_trees(TREES, "t", phrases=False, binary=False)] == [
        ("3", "it 's lovely ,"), ("2", "so bad"), ("1", "so bad")]  # fmt: skip
    assert [row[1:] for row in read_trees(TREES, "t", phrases=False, binary=True)] == [
        ("1", "it 's lovely ,"), ("0", "so bad")]  # fmt: skip
    phrases = [row[1:] for row in read_trees(TREES, "t", phrases=True, binary=True)]
    assert phrases == [("1", "lovely"), ("0", ","), ("1", "lovely ,"), ("1", "'s lovely ,"), ("1", "it 's lovely ,"),
                       ("0", "bad"), ("0", "so bad")]  # fmt: skip


@pytest.mark.parametrize("line", ["(3 (2 a)", "(3 a))", "a b", "(9 a)", "(3 a) (2 b"])
def test_what_is_no_tree_is_named(line):
    with pytest.raises(UserError, match="t, line 2 is no tree"):
        read_trees(f"(3 a)\n{line}\n".encode(), "t", phrases=True, binary=False)


def test_chapters_of_the_documentation():
    data = load_labelled("pydoc")
    assert len(data.classes) == 8
    assert np.bincount(data.train.labels).min() >= 20
    assert all(len(text.split()) >= 8 for text in data.train.texts)
