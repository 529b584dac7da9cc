# ruff: noqa: RUF001 (quotation marks and commas of other scripts are what is tested)
"""A text as ids: what is a word, in which order, in how much memory; phrases against word2phrase word by word."""

import gzip
import itertools
import json
import os
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lmjax.data import corpus
from lmjax.data.corpus import Corpus, phrases, read_corpus
from lmjax.errors import UserError

DATA = os.environ.get("LMJAX_DATA", "")  # before the fixture that hides it
ASCII = re.compile(r"[a-z]+(?:'[a-z]+)?")


def read(folder: Path, text: str, name="text.txt", **options) -> Corpus:
    path = folder / name
    content = text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return read_corpus(str(path), **{"min_count": 1, **options})


def stream(found: Corpus) -> list[str]:
    return [found.words[id] for id in found.ids]


def zipf(rng, N: int, V: int = 500) -> list[str]:
    p = 1 / np.arange(1, V + 1)
    return [f"w{'abcdefghij'[word % 10]}{'klmnopqrst'[word // 10 % 10]}{'uvwxy'[word // 100]}"
            for word in rng.choice(V, N, p=p / p.sum())]  # fmt: skip


def test_words_by_falling_count_and_the_first_seen_first(tmp_path):
    found = read(tmp_path, "b a c b A d, c! e\nf", min_count=1)
    assert found.words == ["b", "a", "c", "d", "e", "f"]
    assert found.counts.tolist() == [2, 2, 2, 1, 1, 1]
    assert stream(found) == ["b", "a", "c", "b", "a", "d", "c", "e", "f"]
    assert found.ids.dtype == np.int32
    assert found.counts.dtype == np.int64
    many = [chr(code) for code in range(0x4E00, 0x5200)]
    assert read(tmp_path, " ".join(many + many[::2])).words == many[::2] + many[1::2]
    found = read(tmp_path, "b a c b A d, c! e\nf", min_count=2)
    assert (found.words, found.total, stream(found)) == (["b", "a", "c"], 9, ["b", "a", "c", "b", "a", "c"])
    found = read(tmp_path, "b a c b A d, c! e\nf", limit=1)
    assert (found.words, found.total, stream(found)) == (["b"], 9, ["b", "b"])


def test_ascii_text_is_cut_as_by_the_plain_expression(tmp_path):
    rng = np.random.default_rng(0)
    letters = np.array(list("abcXYZ'''--_ \n\t.,;09\"()[]&@") + [chr(code) for code in range(1, 128)])
    text = "".join(letters[rng.integers(0, len(letters), 50_000)])
    expected = ASCII.findall(text.lower())
    for units in ("words", "ascii"):
        assert stream(read(tmp_path, text, units=units)) == expected


def test_other_scripts(tmp_path):
    def words(text, units="words"):
        return stream(read(tmp_path, text, units=units))

    assert words("L’été, où naïve FRÄULEIN Straße_2") == ["l'été", "où", "naïve", "fräulein", "straße"]
    assert words("naïve", "ascii") == ["na", "ve"]
    assert words("cafe\u0301s İstanbul") == ["cafe\u0301s", "i\u0307stanbul"]  # accents of their own
    assert words("हिन्दी में Привет, мир") == ["हिन्दी", "में", "привет", "мир"]
    assert words("春眠不覺曉，處處2聞Go", "characters") == list("春眠不覺曉處處聞go")


def test_chinese_words(tmp_path):
    pytest.importorskip("jieba")
    found = stream(read(tmp_path, "我来到北京清华大学。2014年", units="jieba"))
    assert found == ["我", "来到", "北京", "清华大学", "年"]


def test_pieces_are_cut_between_words(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    words = [word + "éß東"[at % 3] for at, word in enumerate(zipf(rng, 3000))]
    chinese = "".join(rng.choice(list("天地玄黃宇宙洪荒"), 3000))
    clauses = [chinese[at : at + 7] for at in range(0, 3000, 7)]
    for piece in (50, 61, 1 << 21):  # bytes: characters are cut in two as well
        monkeypatch.setattr(corpus, "PIECE", piece)
        for name in ("text.txt", "text.txt.gz"):
            assert stream(read(tmp_path, "\ufeff" + " ".join(words), name)) == words
            assert stream(read(tmp_path, "，".join(clauses), name)) == clauses
            assert stream(read(tmp_path, chinese, name, units="characters")) == list(chinese)
        table = "".join(f"1\tno\t{word} text {word}<br />\n" for word in words[:300])
        expected = [part for word in words[:300] for part in (word, "text", word)]
        assert stream(read(tmp_path, table, "rows.tsv.gz")) == expected


def test_memory_is_that_of_the_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "PIECE", 1 << 16)
    block = (" ".join(zipf(np.random.default_rng(0), 50_000)) + "\n").encode()
    path = tmp_path / "big.txt.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(20):
            file.write(block)
    tracemalloc.start()
    found = read_corpus(str(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.total, len(found.words)) == (1_000_000, 500)
    # The ids twice while they are renumbered, and the words of one piece; the text alone would be 5 MB, its words 60.
    assert peak < 2 * found.ids.nbytes + 2e6


def test_several_sources_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("LMJAX_DATA", str(tmp_path / "sets"))
    for name, text in {"novels/b.txt": "two", "novels/a.txt.gz": "one", "novels/README.md": "about",
                       "novels/class.txt": "label", "novels/rows.tsv": "no\tnever", "reviews/r.tsv": "label\ttext here",
                       "poems/p.json": json.dumps([{"title": "no", "paragraphs": ["three", "four"]}]),
                       "lines/l.jsonl": '{"id": "no", "text": "five"}\n{"text": "six"}\n'}.items():  # fmt: skip
        path = tmp_path / "sets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    (tmp_path / "a+b.txt").write_text("seven")
    found = read_corpus("poems+novels+reviews+lines", min_count=1)
    assert stream(found) == ["three", "four", "one", "two", "text", "here", "five", "six"]
    assert found.name == "poems+novels+reviews+lines"
    assert stream(read_corpus(str(tmp_path / "a+b.txt"), min_count=1)) == ["seven"]
    assert read_corpus("pydoc").words[0] == "the"
    assert read_corpus("pydoc+novels", min_count=1).total == read_corpus("pydoc").total + 2


def test_official_sets_are_their_training_split(tmp_path, twin, web, contents, monkeypatch):
    monkeypatch.setattr(corpus.files, "OFFICIAL", (twin,))
    expected = re.findall(r"[^\W\d_]+", contents["train"].decode().lower().replace("<unk>", ""))
    assert stream(read_corpus("twin", min_count=1)) == expected
    from lmjax.data import builders

    monkeypatch.setattr(builders, "read", lambda spec, _: {"train": contents["train"].decode() if spec == "x" else ""})
    assert stream(read_corpus("tfds:x", min_count=1)) == expected


def word2phrase(found: Corpus, threshold: float, min_count: int) -> list[str]:
    """word2phrase.c, word by word."""
    words, count = stream(found), Counter(stream(found))
    pairs, out, free = Counter(itertools.pairwise(words)), words[:1], True
    for a, b in itertools.pairwise(words):
        score = (pairs[a, b] - min_count) / count[a] / count[b] * found.total
        if free and score > threshold and min(count[a], count[b]) >= min_count:
            out[-1] += "_" + b
            free = False
        else:
            out.append(b)
            free = True
    return out


def test_phrases_as_word2phrase(tmp_path, monkeypatch):
    words = zipf(np.random.default_rng(0), 20_000, 30)
    text = " ".join(words).replace("waku", "new york times")
    found = read(tmp_path, text, min_count=5)
    for piece in (1 << 21, 97):
        monkeypatch.setattr(corpus, "PIECE", piece)
        for threshold in (1.05, 3.0):
            joined, expected = phrases(found, threshold=threshold, min_count=5), word2phrase(found, threshold, 5)
            frequent = {word for word, times in Counter(expected).items() if times >= 5}
            assert stream(joined) == [word for word in expected if word in frequent]
            assert joined.total == len(expected)
            assert joined.counts.tolist() == sorted(joined.counts, reverse=True)
            assert np.array_equal(np.bincount(joined.ids), joined.counts)
    assert "new_york" in joined.words
    twice = phrases(found, threshold=3.0, passes=2)
    assert "new_york_times" in twice.words
    assert len(set(twice.words)) == len(twice.words)


def test_two_ways_to_one_phrase_are_one_word():
    parts = [[0, 1], [2, 3], [4], [5], [6]]
    ids = np.concatenate([parts[part] for part in np.random.default_rng(0).integers(0, 5, 1000)]).astype(np.int32)
    words = ["a_b", "c", "a", "b_c", "d", "e", "f"]
    joined = phrases(Corpus(ids, words, np.bincount(ids), len(ids), ""), threshold=3.0)
    assert sorted(joined.words) == ["a_b_c", "d", "e", "f"]
    assert joined.counts[joined.words.index("a_b_c")] == (ids < 4).sum() / 2


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (b"", {}, "holds no word"),
        (b"12 34 --", {}, "holds no word"),
        (b"one two two", {}, "the most frequent, two, occurs 2 times"),
        ("春眠不覺曉".encode(), {}, "leaves no word"),
        (b"abc \xff\xfe", {}, "byte 0xff at offset 4"),
        (b"\xef\xbb\xbfabc \xff", {}, "byte 0xff at offset 7"),
        (b"abc \xe6\x9d", {}, "byte 0xe6 at offset 4"),
        (b"ab\xe6\x9d(", {}, "byte 0xe6 at offset 2"),
        (b"abc\0def", {}, "zero byte"),
        (b"abc", {"units": "letters"}, "units=letters: expected one of words"),
        (b"abc", {"limit": -1}, "limit=-1"),
    ],
)
@pytest.mark.parametrize("piece", [3, 1 << 21])
def test_bad_text_is_one_line(tmp_path, content, options, says, piece, monkeypatch):
    monkeypatch.setattr(corpus, "PIECE", piece)
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(says)) as error:
        read_corpus(str(tmp_path / "text.txt"), **options)
    assert "\n" not in str(error.value)


def test_chinese_without_spaces_is_told_of_its_units(tmp_path):
    with pytest.raises(UserError, match="by units=characters"):
        read(tmp_path, "春眠不覺曉，處處聞啼鳥。", min_count=5)


def test_what_is_not_there(tmp_path):
    (tmp_path / "english-novels").mkdir()
    (tmp_path / "broken.txt.gz").write_bytes(gzip.compress(b"word " * 1000)[:-10])
    (tmp_path / "x.json").write_text("{")
    for data, says in {
        "english-novel": "did you mean english-novels?", "pydoc+nowhere": "data=nowhere is neither", "": "data= is",
        "english-novels": "holds no text", str(tmp_path / "broken.txt.gz"): "cannot be read", "x" * 300: "is neither",
        str(tmp_path / "x.json"): "is no JSON",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=re.escape(says)):
            read_corpus(data, tmp_path)
    with pytest.raises(UserError, match="LMJAX_DATA names"):
        read_corpus("english-novels")


def test_a_path_needs_no_data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("LMJAX_DATA", str(tmp_path / "gone"))
    assert read(tmp_path, "one").words == ["one"]
    assert read_corpus("pydoc").words[0] == "the"
    with pytest.raises(UserError, match="is not a folder"):
        read_corpus("novels")


@pytest.mark.skipif(not (DATA and Path(DATA, "english-novels").is_dir()), reason="LMJAX_DATA has no english-novels")
def test_english_novels():
    """Both units read the same but for words with a letter, an apostrophe or a dash beyond ASCII."""
    path = Path(DATA) / "english-novels" / "Lawrence_Serpent_1926.txt.gz"
    text = gzip.decompress(path.read_bytes()).decode("utf-8-sig").lower()
    letters, ascii = (read_corpus(str(path), min_count=1, units=units) for units in ("words", "ascii"))
    assert stream(ascii) == ASCII.findall(text)
    plain, other = Counter(), Counter()
    for part in text.split():
        (plain if part.isascii() else other).update(ASCII.findall(part))
    assert Counter(dict(zip(letters.words, letters.counts.tolist()))) >= plain
    assert 0 < abs(letters.total - ascii.total) <= other.total() < 1000
