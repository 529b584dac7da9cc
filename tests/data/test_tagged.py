"""Tagged sentences in CoNLL's columns: read, put into BIO, and refused in one line; CoNLL-2000's published counts."""

import gzip
import itertools
import os
from collections import Counter

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
        (("EU", "rejects", "German"), ("B-ORG", "O", "B-MISC"), (("NNP", "VBZ", "JJ"),)),
        (("Peter", "Blackburn"), ("B-PER", "I-PER"), (("NNP", "NNP"),)),
    ]
    assert found.test == [(("Berlin",), ("B-LOC",), (("NNP",),))]
    assert found.valid is None
    assert (found.columns, found.chunks) == (1, True)
    assert found.tags == ("B-LOC", "B-MISC", "B-ORG", "B-PER", "I-PER", "O")


def test_a_chunk_begins_by_b_wherever_one_begins():
    for given, expected in (
        ("I-A I-A B-A I-A I-B O I-B", "B-A I-A B-A I-A B-B O B-B"),
        ("B-A O B-A I-A", "B-A O B-A I-A"),
        ("S-A B-A E-A I-A I-B", "B-A B-A I-A B-A B-B"),  # IOBES
        ("U-A B-A I-A L-A O", "B-A B-A I-A I-A O"),  # BILOU
        ("B-A M-A E-A S-A", "B-A I-A I-A B-A"),  # BMES
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
        ("a NN O\n" * 4710 + "b O\n", "line 4,711 has 2 columns, 'b O': expected a word and, last, its tag: O, B-… or "
         "I-…; 3 columns as in line 1"),
        ("a NN O\n\nb NN NOUN\n", "line 3 ends in 'NOUN'"),
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


def test_iobes_and_back():
    """Of all rows of BIO of five words."""
    assert tagged.iobes(()) == ()
    assert tagged.iobes(("B-A", "I-A", "B-A", "O", "B-B")) == ("B-A", "E-A", "S-A", "O", "S-B")
    for row in itertools.product(["O", "B-A", "I-A", "B-B", "I-B"], repeat=5):
        assert tagged.bio(tagged.iobes(tagged.bio(row))) == tagged.bio(row)


def test_tags_that_stand_for_themselves_and_words_that_are_spaces(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("the\tDET\n\u3000\tSYM\r\n \t\ndog\t-LRB-\n", encoding="utf-8")
    found = tagged.load_tagged(str(path), chunks=False)
    assert found.train == [(("the", "\u3000"), ("DET", "SYM"), ()), (("dog",), ("-LRB-",), ())]
    assert not found.chunks


CONLLU = """# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tvamos\tir\tVERB\t_\t_\t_\t_\t_\t_

# no words here

1\tdas kleine\tklein\tADJ\t_\t_\t0\troot\t_\t_
"""


def test_conllu(tmp_path):
    (tmp_path / "x-train.conllu").write_text(CONLLU, encoding="utf-8")
    found = tagged.load_tagged(str(tmp_path))
    assert found.train == [(("vamos", "nos"), ("VERB", "PRON"), ()), (("das kleine",), ("ADJ",), ())]
    assert (found.tags, found.chunks) == (("ADJ", "PRON", "VERB"), False)
    for bad, expected in (
        ("1\tvamos\tir\tVERB\n", "line 11 has 4 columns"),
        ("eins" + "\tx" * 9, "line 11 begins with 'eins'"),
        ("1\tx\tx\t_" + "\t_" * 6, "line 11 has no part of speech"),
    ):
        (tmp_path / "x-train.conllu").write_text(CONLLU + "\n" + bad, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            tagged.load_tagged(str(tmp_path))
        assert f"x-train.conllu, {expected}" in str(caught.value)
    (tmp_path / "test.txt").write_text("a O\n")
    with pytest.raises(UserError, match="has files in CoNLL-U"):
        tagged.load_tagged(str(tmp_path))


def test_splits_with_other_columns_are_refused(tmp_path):
    (tmp_path / "train.txt").write_text("a NN O\n\nb NN B-X\n")
    (tmp_path / "test.txt").write_text("a O\n")
    with pytest.raises(UserError, match=r"different numbers of columns \(test 2, train 3\)"):
        tagged.load_tagged(str(tmp_path))


def test_what_a_set_lacks_is_taken_from_training_once_and_for_all(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("".join(f"w{n} {'O' if n % 2 else 'B-X'}\n\n" for n in range(40)))
    data = tagged.load_tagged(str(path))
    one, other = tagged.splits(data), tagged.splits(data)
    assert one == other
    assert {name: len(part) for name, part in one.items()} == {"train": 32, "valid": 4, "test": 4}
    assert sorted(some.words for part in one.values() for some in part) == sorted(some.words for some in data.train)
    path.write_text("a O\n\nb B-X\n")
    with pytest.raises(UserError, match="has 2 training examples: expected 10 or more"):
        tagged.splits(tagged.load_tagged(str(path)))


def test_the_generated_corpus_is_the_same_each_time_and_new_in_its_splits():
    one, other = tagged.load_tagged("generated"), tagged.load_tagged("generated")
    assert (one.train, one.test) == (other.train, other.test)
    assert set(one.tags) == {"O", "B-PER", "I-PER", "B-LOC", "B-ORG", "I-ORG"}
    names = [{w for s in part for w, t in zip(s.words, s.tags) if t[0] == "B"} for part in (one.train, one.test)]
    assert len(names[1] & names[0]) < len(names[1]) / 3
    assert all(len(s.words) == len(s.tags) for s in one.train)


def _missing(name):
    source = tagged.OFFICIAL[name]
    return DATA is None or any(files.locate(one, source.name, files.own_dir(DATA)) is None for one in source.files)


@pytest.mark.skipif(_missing("conll2003"), reason=f"LMJAX_DATA={DATA or '(not set)'} has no CoNLL-2003")
def test_conll2003():
    """Tjong Kim Sang & De Meulder 2003, tables 1 and 2: words and names of each split."""
    found = tagged.load_tagged("conll2003", DATA)
    parts = (found.train, found.valid, found.test)
    assert [sum(len(one.words) for one in part) for part in parts] == [203_621, 51_362, 46_435]
    begins = Counter(tag for one in found.train for tag in one.tags if tag[0] == "B")
    assert begins == {"B-LOC": 7140, "B-MISC": 3438, "B-ORG": 6321, "B-PER": 6600}
    assert found.columns == 2


@pytest.mark.skipif(_missing("conll2000"), reason=f"LMJAX_DATA={DATA or '(not set)'} has no CoNLL-2000")
def test_conll2000():
    """Tjong Kim Sang & Buchholz 2000: sentences, words, and 11 kinds of chunks."""
    found = tagged.load_tagged("conll2000", DATA)
    assert (len(found.train), len(found.test)) == (8936, 2012)
    assert [sum(len(one.words) for one in part) for part in (found.train, found.test)] == [211_727, 47_377]
    assert len({tag[2:] for tag in found.tags if tag != "O"}) == 11
    kept = files.read(tagged.CONLL2000, DATA)["test"].decode().split()
    assert [tag for one in found.test for tag in one.tags] == kept[2::3]  # it is in BIO as it comes
