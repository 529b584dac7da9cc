"""Sentences to write more of: cut into words, divided without a line on two sides, numbered and back."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from lmjax.data import captions, files
from lmjax.data.captions import END, UNKNOWN, load_sentences, quatrains, rows, tokens, until_end, vocabulary
from lmjax.errors import UserError

DATA = os.environ.get("LMJAX_DATA", "/nowhere")  # before the fixture that hides it


def test_words_are_cut_as_nltk_cuts_them():
    cut = {
        "A black Honda, parked.": "a black honda , parked .",
        "a dog's bed; it isn't at 11:59, or 1,000!": "a dog 's bed ; it is n't at 11:59 , or 1,000 !",
        "a u.s. air force plane...": "a u.s. air force plane ...",
        "床前明月光、疑是地上霜。": "床 前 明 月 光 、 疑 是 地 上 霜 。",
    }
    for text, expected in cut.items():
        assert " ".join(tokens(text)) == expected
        assert " ".join(tokens(expected)) == expected  # tokenised text stays


def test_own_lines_are_divided_once_and_for_all(tmp_path):
    path = tmp_path / "own.txt.gz"
    lines = [f"line {n} of many , says {n % 7}" for n in range(300)] + ["said twice"] * 2 + ["long " * 12, "", "  "]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    found = load_sentences(str(path), longest=10)
    parts = [{tuple(line) for line in part} for part in (found.train, found.valid, found.test)]
    assert [len(found.train), len(found.valid), len(found.test)] == [len(part) for part in parts]  # none twice
    assert not (parts[0] | parts[1]) & parts[2]
    assert not parts[0] & parts[1]
    assert len(set.union(*parts) | {("long",) * 12}) == 302
    assert len(found.test) == 30
    assert "1 repeated lines left out" in found.notes
    assert load_sentences(str(path), longest=10) == found
    assert max(map(len, found.train)) <= 10


def test_numbers_and_back():
    words = vocabulary([["b", "a", "b"], ["c"], ["<unk>"]])
    assert words == ("</s>", "<unk>", "b", "a", "c")
    found = rows([["a", "b"], ["new"], []], words)
    np.testing.assert_array_equal(found.tokens, [[3, 2, END], [UNKNOWN, END, END], [END, END, END]])
    assert found.lengths.tolist() == [3, 2, 1]
    assert until_end(found.tokens) == [[3, 2], [UNKNOWN], []]
    assert until_end([[3, 2, 2], [3, END, 2]]) == [[3, 2, 2], [3]]  # one never ends; nothing counts behind an end


def test_an_official_set_keeps_its_parts(tmp_path, monkeypatch):
    parts = {"train": "".join(f"a cat {n}.\n" for n in range(100)), "test": "a cat 3.\n" * 9}
    (tmp_path / "text-gan").mkdir()
    registered = []
    for split, text in parts.items():
        (tmp_path / "text-gan" / f"{split}.txt").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        registered.append(files.File(split, f"{split}.txt", "https://example.org", len(text), digest))
    monkeypatch.setitem(captions.SETS, "twin", files.Source("text-gan", "", tuple(registered)))
    found = load_sentences("twin", tmp_path)
    assert (len(found.train), len(found.valid), len(found.test)) == (95, 5, 9)
    (tmp_path / "text-gan" / "test.txt").write_text("a dog.\n")
    with pytest.raises(UserError, match="is not the official"):
        load_sentences("twin", tmp_path)


def test_the_embedded_corpus():
    found = load_sentences("pydoc", longest=30)
    assert len(found.train) > 800
    assert all(line[-1][-1] in ".!?" for line in found.train + found.test)


@pytest.mark.parametrize(("content", "said"), [
    (b"a b\n" * 3 + b"w " * 501, "line 4 has 501 tokens: expected one sentence a line"),
    (b"a b\n\xff c\n", "is not UTF-8"),
    (b"\n \n", "is empty"),
    (b"".join(b"%d\n" % n for n in range(20)), "expected at least 40"),
])  # fmt: skip
def test_refusals(tmp_path, content, said):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        load_sentences(str(tmp_path / "bad.txt"))
    assert "bad.txt" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="did you mean coco"):
        load_sentences("cocoo")


def test_batches_by_length():
    """Each sentence once an epoch, whole, in shapes that seeds share."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, 100)
    numbered = captions.Rows(np.full((100, 29), END, np.int32), lengths)
    for row, length in enumerate(lengths):
        numbered.tokens[row, : length - 1] = row + 1
    at, steps = captions.by_length(numbered, 8, seed=5, shapes=3)
    other, _ = captions.by_length(numbered, 8, seed=2, shapes=3)
    for epoch in (0, 1):
        batches = [at(epoch * steps + i) for i in range(steps)]
        assert sum(b["weights"].sum() for b in batches) == lengths.sum()
        firsts = np.sort(np.concatenate([b["tokens"][:, 0] for b in batches]))
        assert firsts[firsts > 0].tolist() == (1 + np.flatnonzero(lengths > 1)).tolist()
        others = [other(epoch * steps + i) for i in range(steps)]
        assert [b["tokens"].shape for b in batches] == [b["tokens"].shape for b in others]
        assert any((b["tokens"] != o["tokens"]).any() for b, o in zip(batches, others))
    assert len({b["tokens"].shape for b in batches}) == 3
    orders = [np.concatenate([at(epoch * steps + i)["tokens"][:, 0] for i in range(steps)]) for epoch in (0, 1)]
    assert (orders[0] != orders[1]).any()
    every = list(captions.whole(numbered, 16))
    assert sum(b["weights"].sum() for b in every) == lengths.sum()
    assert {b["tokens"].shape[1] % 8 for b in every} == {0}


def test_quatrains_are_two_couplets_of_lines_of_five():
    five, other = "秦川雄帝宅\uff0c函谷壯皇居。", "綺殿千尋起\uff0c離宮百雉餘。"
    seven = "一二三四五六七\uff0c一二三四五六七。"
    poems = [[five, other, other], [five, seven], [seven, five, five, other], [five, other, other, five], []]
    content = json.dumps([{"paragraphs": poem, "author": "x"} for poem in poems]).encode()
    assert quatrains(content, "twin") == [five + other, five + other, five + other, other + five]
    assert len(tokens(five + other)) == 24
    for broken in (b"{", b'[{"title": ""}]', b"[3]"):
        with pytest.raises(UserError, match="twin is no JSON list of poems"):
            quatrains(broken, "twin")


@pytest.mark.skipif(
    any(files.locate(file, "chinese-poetry", Path(DATA)) is None for file in captions.SETS["quan-tang"].files),
    reason=f"LMJAX_DATA={DATA} has no chinese-poetry",
)
def test_the_quan_tang_shi():
    """19,145 quatrains of lines of five, 428 of them repeated."""
    found = load_sentences("quan-tang", DATA)
    assert len(found.train) + len(found.valid) + len(found.test) == 19_145 - 428
    assert {len(line) for line in found.train} == {24}
