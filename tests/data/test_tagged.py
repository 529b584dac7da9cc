"""Tagged sentences in CoNLL's columns: read, put into BIO, and refused in one line; CoNLL-2000's published counts."""

import gzip
import os

import pytest

from lmjax.data import files, tagged
from lmjax.errors import UserError

DATA = os.environ.get("LMJAX_DATA")
COLUMNS = """-DOCSTART- -X- O O

EU NNP I-ORG
rejects VBZ O
German JJ I-MISC

Peter NNP B-PER
Blackburn NNP I-PER
"""


def test_columns_are_read_and_put_into_bio(tmp_path):
    (tmp_path / "train.conll.gz").write_bytes(gzip.compress(COLUMNS.encode()))
    (tmp_path / "test.conll").write_text("Berlin NNP I-LOC")
    found = tagged.load_tagged(str(tmp_path))
    assert found.train == [
        (("EU", "rejects", "German"), ("B-ORG", "O", "B-MISC")),
        (("Peter", "Blackburn"), ("B-PER", "I-PER")),
    ]
    assert found.test == [(("Berlin",), ("B-LOC",))]
    assert found.valid is None
    assert found.tags == ("B-LOC", "B-MISC", "B-ORG", "B-PER", "I-PER", "O")


def test_a_chunk_begins_by_b_wherever_one_begins():
    for given, expected in (
        ("I-A I-A B-A I-A I-B O I-B", "B-A I-A B-A I-A B-B O B-B"),
        ("B-A O B-A I-A", "B-A O B-A I-A"),
    ):
        assert tagged.bio(given.split()) == tuple(expected.split())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a NN O\nb\n", "line 2 has one column"),
        ("a NN O\n\nb NN X-NP\n", "line 3 ends in 'X-NP'"),
        ("a NN B-\n", "line 1 ends in 'B-'"),
        ("-DOCSTART- -X- O O\n", "holds no sentence"),
        ("a NN O\n", "has one tag alone, O"),
    ],
)
def test_refusals(tmp_path, content, expected):
    path = tmp_path / "train.txt"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        tagged.load_tagged(str(path))
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_names_that_are_none(tmp_path):
    for data in ("conll2001", "", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match="neither a file or folder nor a known set"):
            tagged.load_tagged(data)
    with pytest.raises(UserError, match="has no file named after train"):
        tagged.load_tagged(str(tmp_path))


@pytest.mark.skipif(
    DATA is None or any(files.locate(one, "conll2000", files.own_dir(DATA)) is None for one in tagged.CONLL2000.files),
    reason=f"LMJAX_DATA={DATA or '(not set)'} has no CoNLL-2000",
)
def test_conll2000():
    """Tjong Kim Sang & Buchholz 2000: sentences, words, and 11 kinds of chunks."""
    found = tagged.load_tagged("conll2000", DATA)
    assert (len(found.train), len(found.test)) == (8936, 2012)
    assert [sum(len(one.words) for one in part) for part in (found.train, found.test)] == [211_727, 47_377]
    assert len({tag[2:] for tag in found.tags if tag != "O"}) == 11
    kept = files.read(tagged.CONLL2000, DATA)["test"].decode().split()
    assert [tag for one in found.test for tag in one.tags] == kept[2::3]  # it is in BIO as it comes
