"""Word vectors to the bit through every format, other tools' variants of them, and one line for each kind of damage."""

import gzip
import os
import re

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.interop.vectors import FORMS, read_vectors, table, write_vectors

WORDS = ["the", "naïve", "東京", "new_york", "don't", "3", "1e5"]


def some(V=7, D=5, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((V, D)) * 10.0 ** rng.integers(-30, 30, (V, D))).astype(np.float32)


@pytest.mark.parametrize("end", ["vec", "vec.gz"])
@pytest.mark.parametrize("form", FORMS)
def test_there_and_back(tmp_path, form, end, monkeypatch):
    monkeypatch.setattr("lmjax.interop.vectors._BLOCK", 1000)
    path = tmp_path / f"w.{end}"
    for V, D in ((7, 5), (3, 1), (5000, 2)):
        words = [*WORDS, *(f"w{number}" for number in range(V))][:V]
        vectors = some(V, D)
        write_vectors(path, words, vectors, form)
        read, found = read_vectors(path)
        assert read == words
        assert found.dtype == np.float32
        assert np.array_equal(found, vectors)
        read, found = read_vectors(path, 2)
        assert (read, found.tolist()) == (words[:2], vectors[:2].tolist())
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == end.endswith("gz")
    assert os.listdir(tmp_path) == [path.name]


def test_binary_is_known_from_text_whatever_its_bytes(tmp_path):
    rng = np.random.default_rng(0)
    signs = np.frombuffer(b" 15\n\t.-e\xffa", np.uint8)  # spaces and digits where they mislead
    for _ in range(200):
        values = rng.choice(signs, (6, 80))
        values[:, ::40] = rng.integers(
            0, 8, (6, 2)
        )  # and what a text has not, which 80 bytes are most unlikely to lack
        values = values.view("<f4").astype(np.float32)
        values = np.where(np.isfinite(values), values, 1)
        write_vectors(tmp_path / "w.bin", WORDS[:6], values, "binary")
        words, found = read_vectors(tmp_path / "w.bin")
        assert words == WORDS[:6]
        assert np.array_equal(found, values)


def test_what_other_tools_write(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"2 3\nab 1 2.50 -3e-2 \ncd 4 5 6 \n")  # word2vec.c and fastText: a space at the end
    assert read_vectors(path)[0] == ["ab", "cd"]
    assert np.allclose(read_vectors(path)[1], [[1, 2.5, -0.03], [4, 5, 6]])
    path.write_bytes(b"".join(word + b" " + some(1, 3).tobytes() + b"\n" for word in (b"2 3\nab", b"cd")))
    assert read_vectors(path)[0] == ["ab", "cd"]  # word2vec.c: a line end behind each vector
    path.write_bytes(b". . . 1 2 3\nthe 4 5 6\nat a@b.c 7 8 9\n")  # GloVe's common crawl
    words, vectors = read_vectors(path)
    assert words == [". . .", "the", "at a@b.c"]
    assert vectors.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    path.write_bytes("\u2028x 1 2\r\n\xa0 3 4\r\n".encode())
    assert read_vectors(path)[0] == ["\u2028x", "\xa0"]


BINARY = b"2 3\nab " + some(1, 3).tobytes() + b"cd " + some(1, 3).tobytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello world\n", "line 1: 'hello world'"),
        (b"0 3\n", "line 1: 0 words"),
        (b"2 3\nab 1 2 3\n", "holds 1 words, and its first line says 2"),
        (b"1 3\nab 1 2 3\ncd 1 2 3\n", "holds 2 words, and its first line says 1"),
        (b"2 3\nab 1 2 3\ncd 1 2\n", "line 3: 'cd' has 2 numbers: expected 3"),
        (b"2 3\nab 1 2 3 4\ncd 1 2 3\n", "line 2: 'ab' has 4 numbers: expected 3"),
        (b"2 3\nab 1 2  3\ncd 1 2 3\n", "line 2: 'ab' has 4 numbers: expected 3, with one space between"),
        (b"ab 1 2 3\ncd 1 2\n", "line 2: 'cd' has 2 numbers"),
        (b"ab 1 2 3\ncd 1 2 3 4\n", "line 2: 'cd' has 4 numbers"),
        (b"ab 1 2 3\n\ncd 1 2 3\n", "line 2: an empty line"),
        (b"2 3\nab 1 2 3\ncd 1 x 3\n", "line 3: 'x' is not a number: expected 3 numbers behind cd"),
        (b"2 3\nab 1 x 3\ncd 1 2 3\n", "line 2: 'x' is not a number"),
        (b"2 3\nab 1 2 3\nab 4 5 6\n", "line 3: ab a second time, first in line 2"),
        (b"2 3\nab 1 2 3\n 4 5 6\n", "line 3: no word"),
        (b"2 3\nab 1 2 3\n\xff 4 5 6\n", "line 3: the word '\\ufffd' is not UTF-8"),
        (b"2 3\nab 1 2 3\ncd 4 nan 6\n", "line 3: the vector of cd is not finite"),
        (BINARY[:-1], "ends within word 2 of 2"),
        (BINARY[:12], "ends within word 1 of 2"),
        (b"1" + BINARY[1:], "goes on behind its 1 words"),
        (BINARY.replace(b"cd", b"ab"), "word 2: ab a second time, first in word 1"),
        (BINARY.replace(b"cd", b"\xff"), "word 2: the word '\\ufffd' is not UTF-8"),
        (b"999999999999 300\nab " + bytes(1200), "ends within word 2"),
    ],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_damage_is_one_line(tmp_path, content, says, end):
    path = tmp_path / f"w{end}"
    path.write_bytes(gzip.compress(content) if end else content)
    with pytest.raises(UserError, match=re.escape(says)) as error:
        read_vectors(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_vectors(tmp_path / "nowhere.txt")
    write_vectors(tmp_path / "w.gz", WORDS, some())
    (tmp_path / "w.gz").write_bytes((tmp_path / "w.gz").read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read"):
        read_vectors(tmp_path / "w.gz")


@pytest.mark.parametrize(
    ("words", "vectors", "form", "says"),
    [
        (["new york"], [[1]], "word2vec", "'new york' is empty or has white space in it"),
        (["a\n"], [[1]], "glove", "white space"),
        ([""], [[1]], "binary", "is empty"),
        (["a", "b", "a"], [[1], [2], [3]], "word2vec", "the word a has two vectors"),
        (["a", "b"], [[1], [np.inf]], "word2vec", "the vector of b is not finite"),
        (["a", "b"], [[1]], "word2vec", "2 words and vectors of shape (1, 1)"),
        (["a"], [[1]], "pickle", "form=pickle: expected one of word2vec, binary, glove"),
    ],
)
def test_what_is_not_written(tmp_path, words, vectors, form, says):
    with pytest.raises(UserError, match=re.escape(says)):
        write_vectors(tmp_path / "w", words, vectors, form)
    assert not os.listdir(tmp_path)


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    write_vectors(tmp_path / "w", WORDS, some())
    before = (tmp_path / "w").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_vectors(tmp_path / "w", WORDS, some(seed=1))
    assert (tmp_path / "w").read_bytes() == before
    assert os.listdir(tmp_path) == ["w"]


@pytest.mark.filterwarnings("ignore")  # it leaves files open
@pytest.mark.parametrize("form", FORMS)
def test_gensim_reads_ours_and_we_gensims(tmp_path, form):
    gensim = pytest.importorskip("gensim.models", reason="gensim, the peer, is not installed")
    options = {"binary": form == "binary", "no_header": form == "glove"}
    vectors = some()
    write_vectors(tmp_path / "ours", WORDS, vectors, form)
    theirs = gensim.KeyedVectors.load_word2vec_format(str(tmp_path / "ours"), **options)
    assert theirs.index_to_key == WORDS
    assert np.array_equal(theirs.vectors, vectors)
    for end in ("", ".gz"):
        theirs.save_word2vec_format(
            str(tmp_path / f"theirs{end}"), binary=form == "binary", write_header=form != "glove", sort_attr="-"
        )
        words, found = read_vectors(tmp_path / f"theirs{end}")
        assert words == WORDS
        assert np.array_equal(found, vectors)


def test_a_table_for_ones_own_words(tmp_path):
    known = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    write_vectors(tmp_path / "v.txt", [f"w{n}" for n in range(40)], known, "word2vec")
    found, count = table(*read_vectors(tmp_path / "v.txt"), ["<unk>", "w7", "other", "w0"])
    assert count == 2
    np.testing.assert_allclose(found[[1, 3]], known[[7, 0]], rtol=1e-5)
    wide, _ = table(*read_vectors(tmp_path / "v.txt"), [f"x{n}" for n in range(2000)])
    assert wide.std() == pytest.approx(known.std(), rel=0.05)
