"""Tokenizers: the papers' vocabularies, there and back, saved and loaded to the same, and refusals in one line."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from lmjax.data import tokenizers
from lmjax.data.text import Splits
from lmjax.data.tokenizers import BPE, Character, Word
from lmjax.errors import UserError

DATA = os.environ.get("LMJAX_DATA", "")  # before the fixture that hides it
TEXT = "To be, or not to be:\n\n  that is the question — naïve 東京 🙂.\n" * 20


def trained(kind):
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    return tokenizers.choose(kind, Splits("text", TEXT, TEXT[:30]), 300)


@pytest.mark.parametrize("kind", ["character", "word", "bpe"])
def test_there_and_back_and_saved(kind, tmp_path):
    tokenizer = trained(kind)
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert ids.min() >= 0
    assert ids.max() < tokenizer.vocab
    if kind == "word":  # keeps words and lines, not the spacing
        there, back = ([line.split() for line in text.split("\n")] for text in (TEXT, tokenizer.decode(ids)))
        assert there == back
    else:
        assert tokenizer.decode(ids) == TEXT
    tokenizer.save(tmp_path / "tokenizer.json")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    for path in (tmp_path / "tokenizer.json", tmp_path):
        loaded = tokenizers.load(path)
        assert loaded == tokenizer
        assert loaded.vocab == tokenizer.vocab
        assert loaded.eos == tokenizer.eos
        np.testing.assert_array_equal(loaded.encode(TEXT), ids)
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode([]) == tokenizer.decode(np.zeros(0, np.int32)) == ""


def test_characters_are_numbered_in_their_order():
    tokenizer = Character.train("hello\n🙂")
    assert tokenizer.characters == "\nehlo🙂"
    assert tokenizer.vocab == 6
    assert tokenizer.encode("hole🙂").tolist() == [2, 4, 3, 1, 5]


@pytest.mark.parametrize("unknown", ["é", "\x00", "\U0010ffff", "\ud800"])
def test_unknown_character_is_named(unknown):
    tokenizer = Character.train("hello\n")
    with pytest.raises(UserError) as caught:
        tokenizer.encode("hell" + unknown + unknown)
    assert repr(unknown) in str(caught.value)
    assert "position 4" in str(caught.value)


def test_characters_come_from_every_split():
    tokenizer = tokenizers.choose("character", Splits("text", "ab", "c", "d"), 0)
    assert tokenizer.characters == "abcd"


def test_words_by_frequency_then_alphabet():
    tokenizer = Word.train(" b a a \n c <unk> \n")
    assert tokenizer.words == ("<eos>", "a", "<unk>", "b", "c")
    assert tokenizer.eos == 0
    assert tokenizer.encode("a zebra\nb").tolist() == [1, 2, 0, 3]
    assert tokenizer.encode(" a \n").tolist() == [1, 0]  # one <eos> a line
    assert tokenizer.encode("\n \n").tolist() == [0, 0]  # blank lines too, as WikiText counts
    assert tokenizer.decode([1, 3, 0, 0, 4]) == "a b\n\nc"


def test_words_up_to_a_size_leave_room_for_unknown():
    tokenizer = Word.train("a a a b b c\n", size=3)
    assert tokenizer.words == ("a", "b", "<unk>")
    assert tokenizer.encode("c b").tolist() == [2, 1]
    assert Word.train("a b\n").words[-1] == "<unk>"  # there even where the text has none


def test_bpe_has_every_byte_and_is_the_same_each_time():
    tokenizer = trained("bpe")
    assert tokenizer.vocab == 300
    assert tokenizer.eos == tokenizer.encode("<|endoftext|>")[0]
    other = "ÿ\x00\t Ελληνικά"
    assert tokenizer.decode(tokenizer.encode(other)) == other
    assert trained("bpe") == tokenizer


def test_bpe_in_pieces_is_bpe_in_one():
    """Long texts are cut for speed: where a cut falls must not show, whatever the spaces around it."""
    tokenizer = trained("bpe")
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(["be", " to", "\n", "\n\n", "  ", " \n", "\t", ",", "'s", "é"], size=20_000))
    pieces = tokenizers._pieces(text, least=50)
    assert len(pieces) > 100
    assert "".join(pieces) == text
    whole = tokenizer._tokenizer.encode(text).ids
    in_pieces = [number for piece in pieces for number in tokenizer._tokenizer.encode(piece).ids]
    assert in_pieces == whole
    long = text * 4
    assert len(tokenizers._pieces(long)) > 1
    assert tokenizer.encode(long).tolist() == tokenizer._tokenizer.encode(long).ids


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2_files(names, tmp_path):
    pytest.importorskip("tokenizers")
    vocabulary = {token: number for number, token in enumerate(["a", "b", "Ġ", "Ċ", "ab", "Ġab", "<|endoftext|>"])}
    (tmp_path / names[0]).write_text(json.dumps(vocabulary))
    (tmp_path / names[1]).write_text("#version: 0.2\na b\nĠ ab\n", encoding="utf-8")
    for path in (tmp_path, tmp_path / names[0]):
        tokenizer = tokenizers.load(path)
        assert tokenizer.vocab == 7
        assert tokenizer.eos == 6
        assert tokenizer.encode("ab ab\nb<|endoftext|>a").tolist() == [4, 5, 3, 1, 6, 0]
    tokenizer.save(tmp_path / "tokenizer.json")
    assert tokenizers.load(tmp_path).encode("ab ab").tolist() == [4, 5]
    (tmp_path / names[1]).unlink()
    with pytest.raises(UserError, match=f"needs {names[1]} beside it"):
        tokenizers.load(tmp_path / names[0])


def test_a_tokenizer_json_of_another_kind(tmp_path):
    """It may add marks around a text and prefix a space: the marks are left away, and the text is not cut."""
    library = pytest.importorskip("tokenizers")
    other = library.Tokenizer(library.models.WordLevel({"[UNK]": 0, "[CLS]": 1, "to": 2, "be": 3}, unk_token="[UNK]"))
    other.pre_tokenizer = library.pre_tokenizers.Whitespace()
    other.post_processor = library.processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 1)])
    other.save(str(tmp_path / "tokenizer.json"))
    tokenizer = tokenizers.choose(str(tmp_path), None, 0)
    assert tokenizer.encode("to be\nxx").tolist() == [2, 3, 0]
    assert tokenizer.eos is None


def test_refusals(tmp_path):
    def refused(function, *expected):
        with pytest.raises(UserError) as caught:
            function()
        assert "\n" not in str(caught.value)
        for part in expected:
            assert part in str(caught.value), str(caught.value)

    def file(content, name="tokenizer.json"):
        (tmp_path / name).write_bytes(content)
        return lambda: tokenizers.load(tmp_path / name)

    refused(lambda: Character.train("aaaa"), "1 distinct characters", "at least 2")
    refused(lambda: Character.train(""), "0 distinct characters")
    refused(lambda: Word.train("word"), "1 distinct words")
    refused(lambda: BPE.train(TEXT, 100), "100", "at least 257")
    refused(lambda: tokenizers.choose("chars", Splits("", TEXT, TEXT), 0), "tokenizer=chars", "character, word, bpe")
    refused(lambda: tokenizers.load(tmp_path / "nope.json"), "nope.json", "cannot be read")
    (tmp_path / "bare").mkdir()
    refused(lambda: tokenizers.load(tmp_path / "bare"), "holds no tokenizer", "tokenizer.json", "vocab.json")
    refused(file(b""), "tokenizer.json", "damaged")
    refused(file(b"\xff\xfe"), "tokenizer.json", "damaged")
    refused(file(b'{"kind": "character", "charac'), "tokenizer.json", "damaged")
    for content in ('[]', '{}', '{"kind": "morse"}', '{"kind": "character"}', '{"kind": "word", "words": ["a"]}',
                    '{"kind": "character", "characters": "aa"}', '{"kind": "word", "words": ["<unk>", 3]}'):
        refused(file(content.encode()), "tokenizer.json", "no tokenizer")
    refused(file(b"[" * 100_000), "tokenizer.json")
    pytest.importorskip("tokenizers")
    refused(file(b'{"kind": "bpe", "tokenizer": {"model": {"type": "none"}}}'), "tokenizer.json", "damaged")
    file(b"no merges at all", "merges.txt")
    refused(file(b'{"a": 0}', "vocab.json"), "vocab.json", "damaged")


def test_the_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"pip install 'lmjax\[text\]'"):
        BPE.train(TEXT)


def test_word_pieces_are_berts(tmp_path):
    """Lower case without accents, marks first and taken as they stand, ## inside a word; saved and read again."""
    pytest.importorskip("tokenizers")
    words = tokenizers.wordpiece(TEXT, 100)
    assert [words.id(mark) for mark in tokenizers.MARKS] == [0, 1, 2, 3, 4]
    assert words.encode("[MASK] Naïve").tolist() == [4, *words.encode("naive")]
    assert words.decode(words.encode("To BE, question")) == "to be, question"
    assert words.encode("xyz").tolist() == [1]  # letters it has never seen: one [UNK] a word
    cut = tokenizers.choose("wordpiece", Splits("text", "abab abba baba " * 9, ""), 100)
    assert next(cut.decode([i]) for i in cut.encode("ababab")) in ("ab", "aba", "abab")
    assert len(cut.encode_lines(["abba", "", "ababab abba"])) == 3
    words.save(tmp_path / "tokenizer.json")
    assert tokenizers.load(tmp_path) == words
    with pytest.raises(UserError, match="a vocabulary of 99 is too small"):
        tokenizers.wordpiece(TEXT, 99)


def test_berts_vocabulary_file(tmp_path):
    """The longest piece that fits goes first; a list with capitals keeps them."""
    pytest.importorskip("tokenizers")
    path = tmp_path / "vocab.txt"
    listed = [*tokenizers.MARKS, "un", "##aff", "##able", "a", "##ff", ","]
    path.write_text("\n".join(listed) + "\n")
    words = tokenizers.load(tmp_path)
    assert words.vocab == len(listed)
    assert words.encode("Unaffable, [SEP] aable").tolist() == [5, 6, 7, 10, 3, 8, 7]
    path.write_text("\n".join([*listed, "Un"]))
    assert tokenizers.load(path).encode("Unaff unaff").tolist() == [11, 6, 5, 6]
    path.write_text("\n".join([*listed, "un"]))
    with pytest.raises(UserError, match="a token stands in it twice"):
        tokenizers.load(path)
    path.write_text("\n".join(listed[1:]))
    with pytest.raises(UserError, match=r"it lacks \[PAD\]"):
        tokenizers.load(path)


@pytest.mark.parametrize(("kind", "size"), [("uncased", 30_522), ("cased", 28_996)])
def test_published_vocabularies(kind, size):
    """Through the published lists; the sentence is of Devlin et al. 2019, figure 2."""
    pytest.importorskip("tokenizers")
    path = Path(DATA) / "pretrained-vocabs" / f"bert-base-{kind}" / "vocab.txt"
    if not DATA or not path.is_file():
        pytest.skip(f"LMJAX_DATA={DATA or '(not set)'} has no vocabulary of bert-base-{kind}")
    words = tokenizers.load(path)
    assert words.vocab == size
    assert len(words.encode("my dog is cute")) == 4
    assert (words.encode("Paris") == words.encode("paris")).all() == (kind == "uncased")


def test_a_run_that_goes_on_keeps_the_tokenizer_it_began_with(tmp_path):
    first = tokenizers.kept(tmp_path / "tokenizer.json", tokenizers.Character.train("abc"))
    again = tokenizers.kept(tmp_path / "tokenizer.json", tokenizers.Character.train("xyz"))
    assert first == again == tokenizers.Character("abc")
