"""Labelled texts: official files, own files, and one line for whatever is wrong with one."""

import gzip
import os
from pathlib import Path

import pytest

from lmjax.data import files, labelled
from lmjax.data.labelled import Documents, load_labelled
from lmjax.errors import UserError

DATA = os.environ.get("LMJAX_DATA", "")  # before the fixture that hides it
LINES = "ham\tsee you\nspam\tcall now\tfree\nham\tok\nspam\twin\n"


def refused(path, *says):
    with pytest.raises(UserError) as error:
        load_labelled(str(path))
    assert "\n" not in str(error.value)
    for part in says:
        assert part in str(error.value)


@pytest.mark.parametrize("pack", [False, True])
def test_a_file(tmp_path, pack):
    path = tmp_path / ("own.tsv.gz" if pack else "own.tsv")
    content = ("\ufeff" + LINES.replace("\n", "\r\n") + "\n").encode()
    path.write_bytes(gzip.compress(content) if pack else content)
    data = load_labelled(str(path))
    assert data.classes == ("ham", "spam")
    assert data.train.texts == ["see you", "call now\tfree", "ok", "win"]
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    assert data.test is data.valid is None


def test_a_folder_keeps_its_splits(tmp_path):
    (tmp_path / "my-train.txt").write_text(LINES)
    (tmp_path / "my-test.txt").write_text("spam\tlast\n")
    (tmp_path / "dev.tsv").write_text("ham\tmiddle\n")
    (tmp_path / "notes.md").write_text("no data")
    data = load_labelled(str(tmp_path))
    assert (data.test.texts, data.test.labels.tolist()) == (["last"], [1])
    assert (data.valid.texts, data.valid.labels.tolist()) == (["middle"], [0])


def test_other_line_ends_stay_within_a_text(tmp_path):
    (tmp_path / "a.txt").write_text("a\tone\x85two\u2028three\na\tx\nb\ty\nb\tz\n", encoding="utf-8")
    assert load_labelled(str(tmp_path / "a.txt")).train.texts[0] == "one\x85two\u2028three"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a\tx\n\nb y\n", ["own.txt, line 3 has no tab: 'b y'", "expected label<TAB>text"]),
        ("a\tx\n\ty\n", ["own.txt, line 2 has an empty label"]),
        ("a\tx\na\ty\n", ["one class alone, a"]),
        ("", ["own.txt is empty"]),
        (" \n\n", ["own.txt is empty"]),
        ("so good\t1\nso bad\t0\nfine\t1\n", ["3 classes on 3 lines", "the label first"]),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, content, says):
    (tmp_path / "own.txt").write_text(content)
    refused(tmp_path / "own.txt", *says)


def test_other_bad_input_is_one_line(tmp_path):
    refused("", "data is empty")
    refused("reuters-r9", "did you mean reuters-r8?")
    (tmp_path / "latin.txt").write_bytes("a\tcaf\xe9\n".encode("latin-1"))
    refused(tmp_path / "latin.txt", "is not UTF-8: byte 0xe9 at offset 5")
    (tmp_path / "latin.txt").unlink()
    refused(tmp_path, "no file named after train")
    (tmp_path / "train.txt").write_text(LINES)
    (tmp_path / "test.txt").write_text("ham\tx\neggs\ty\n")
    refused(tmp_path, "test, line 2: label eggs is not in train", "ham, spam")
    (tmp_path / "train.tsv").write_text(LINES)
    refused(tmp_path, "more than one file for a split")


def test_imdb_is_read_from_lines_or_from_its_archive(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"unpack .*aclImdb_v1\.tar\.gz there"):
        load_labelled("imdb", tmp_path)
    for split in ("train", "test"):
        for label in ("pos", "neg", "unsup"):
            (tmp_path / "aclImdb" / split / label).mkdir(parents=True)
            for number in (10, 9, 0):
                (tmp_path / "aclImdb" / split / label / f"{number}_7.txt").write_text(f"{label} {number}<br />end")
    with pytest.raises(UserError, match="has 3 reviews, expected 12,500"):
        load_labelled("imdb", tmp_path)
    monkeypatch.setattr(labelled, "REVIEWS", 3)
    data = load_labelled("imdb", tmp_path)
    assert data.classes == ("neg", "pos")
    assert data.test.texts == [f"{label} {n} end" for label in ("neg", "pos") for n in (0, 9, 10)]
    (tmp_path / "train.tsv").write_text("0\t3\t0\tanother file")
    (tmp_path / "test.tsv").write_text("0\t3\t0\tanother file")
    with pytest.raises(UserError, match=r"train\.tsv is not the official"):
        load_labelled("imdb", tmp_path)


def test_test_texts_that_training_has_seen():
    train, test = Documents(["a", "b", "b"], None), Documents(["b", "c", "b"], None)
    assert labelled.seen(train, test).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("source", "sizes", "classes"),
    [(labelled.R8, (5485, 2189), 8), (labelled.SMS, (5574, 0), 2)],
)
def test_official_counts(source, sizes, classes):
    """Yao et al. 2019, table 1; Almeida et al. 2011: 4,827 ham and 747 spam."""
    if not DATA or any(files.locate(file, source.name, Path(DATA)) is None for file in source.files):
        pytest.skip(f"LMJAX_DATA={DATA or '(not set)'} has no {source.name}")
    data = load_labelled(source.name, DATA)
    assert (len(data.train.texts), len(data.test.texts) if data.test else 0) == sizes
    assert len(data.classes) == classes
    assert (data.train.labels == 1).sum() == (747 if source is labelled.SMS else 253)


def test_sentence_sets_in_the_forms_they_come_in():
    """A label before a space, of TREC the coarse one; of mr a file for each class."""
    trec = labelled._sentence_lines("trec", {"train": b"DESC:manner How ?\nNUM:date When was it ?\n"})
    assert trec == {"train": [(1, "DESC", "How ?"), (2, "NUM", "When was it ?")]}
    sst = labelled._sentence_lines("sst2", {"test": "1 a fine\u2028film\n".encode()})
    assert sst == {"test": [(1, "1", "a fine\u2028film")]}
    both = labelled._sentence_lines("mr", {"pos": b"good \nbetter\n", "neg": b"bad\n"})
    assert both == {"train": [(1, "pos", "good"), (2, "pos", "better"), (1, "neg", "bad")]}


@pytest.mark.parametrize(
    ("name", "classes", "sizes"),
    [
        ("sst2", 2, (6920, 872, 1821)),
        ("sst1", 5, (8544, 1101, 2210)),
        ("trec", 6, (5452, 0, 500)),
        ("mr", 2, (10_662, 0, 0)),
    ],
)
def test_sentence_sets(name, classes, sizes):
    """Kim 2014, table 1; Socher et al. 2013 for SST's splits."""
    source = labelled.SENTENCES[name]
    if not DATA or any(files.locate(file, source.name, Path(DATA)) is None for file in source.files):
        pytest.skip(f"LMJAX_DATA={DATA or '(not set)'} has no {name}")
    data = load_labelled(name, DATA)
    parts = (data.train, data.valid, data.test)
    assert tuple(len(part.texts) if part else 0 for part in parts) == sizes
    assert len(data.classes) == classes
