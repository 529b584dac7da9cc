"""The real files, where LMJAX_DATA has them: the counts the papers publish."""

import os
from pathlib import Path

import pytest

from lmjax.data import captions, files, tokenizers
from lmjax.data.text import load_text
from lmjax.data.tokenizers import Character, Word
from lmjax.evaluate import generation

DATA = os.environ.get("LMJAX_DATA", "")  # before the fixture that hides it


def real(source):
    folder = Path(DATA) if DATA else None
    missing = next((file.name for file in source.files if files.locate(file, source.name, folder) is None), None)
    return pytest.mark.skipif(missing is not None, reason=f"LMJAX_DATA={DATA or '(not set)'} has no {missing}")


@real(files.PTB)
def test_ptb():
    """Mikolov et al. 2011; Zaremba et al. 2014."""
    text = load_text("ptb", DATA)
    words = Word.train(text.train)
    assert words.vocab == 10_000
    assert [len(words.encode(part)) for part in (text.train, text.valid, text.test)] == [929_589, 73_760, 82_430]
    assert words.words[:4] == ("the", "<unk>", "<eos>", "N")


@real(files.WIKITEXT_2)
def test_wikitext_2():
    """Merity et al. 2016, table 1."""
    text = load_text("wikitext-2", DATA)
    words = Word.train(text.train)
    assert words.vocab == 33_278
    assert [len(words.encode(part)) for part in (text.train, text.valid, text.test)] == [2_088_628, 217_646, 245_569]


@real(files.TINYSHAKESPEARE)
def test_tinyshakespeare():
    """nanoGPT, data/shakespeare_char/readme.md and data/shakespeare/readme.md."""
    text = load_text("tinyshakespeare", DATA)
    characters = Character.train(text.whole)
    assert characters.vocab == 65
    assert [len(characters.encode(part)) for part in (text.train, text.valid)] == [1_003_854, 111_540]
    folder = Path(DATA) / "pretrained-vocabs" / "gpt2"
    if folder.is_dir():
        pytest.importorskip("tokenizers")
        gpt2 = tokenizers.load(folder)
        assert gpt2.vocab == 50_257
        assert [len(gpt2.encode(part)) for part in (text.train, text.valid)] == [301_966, 36_059]


@real(captions.SETS["coco-texygen"])
def test_texygens_captions_and_their_scores():
    """Zhu et al. 2018, docs/evaluation.md of Texygen: the training set beside the test set, and beside itself."""
    text = captions.load_sentences("coco-texygen", DATA)
    training = text.train + text.valid
    found = generation.bleu(training, generation.references(text.test)), generation.self_bleu(training)
    published = (0.740, 0.520, 0.337, 0.218), (0.892, 0.747, 0.573, 0.415)
    for figures, expected in zip(found, published):
        assert list(figures.values()) == pytest.approx(expected, abs=0.0011)
