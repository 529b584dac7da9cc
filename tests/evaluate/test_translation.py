"""BLEU: a case by hand, and its signature."""

import math

import pytest

from lmjax.evaluate.translation import bleu

pytest.importorskip("sacrebleu", reason="the translate extra is absent")


def test_bleu_is_the_product_of_precisions_and_brevity():
    said, asked = ["the cat sat on the mat today", "a dog"], ["the cat sat on a mat", "a dog ran home"]
    # Of 1 to 4 words: 7 of 9, 4 of 7, 2 of 5, 1 of 4 stand in the reference; 9 words for 10.
    expected = 100 * math.exp(1 - 10 / 9) * (7 / 9 * 4 / 7 * 2 / 5 * 1 / 4) ** 0.25
    found = bleu(said, asked)
    assert math.isclose(found.score, expected, rel_tol=1e-6)
    assert "tok:none" in found.signature
    assert bleu(asked, asked).score == pytest.approx(100)


def test_hypotheses_and_references_must_pair():
    with pytest.raises(ValueError, match="1 hypotheses for 2 references"):
        bleu(["a"], ["a", "b"])
