"""BLEU from merged counts is nltk's own, on random cases and on figures that nltk gave."""

import random

import pytest

from lmjax.evaluate import generation
from lmjax.evaluate.generation import bleu, copied, distinct, references, self_bleu

ORDERS = (1, 2, 3, 4, 5)


def sentences(seed, count, shortest=0, longest=9, words="aab cde"):
    rng = random.Random(seed)
    return [rng.choices(words.replace(" ", ""), k=rng.randint(shortest, longest)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(8))
def test_bleu_is_nltks(seed):
    """Every length from none on, so that brevity, smoothing and n-grams longer than a sentence all occur."""
    score = pytest.importorskip("nltk.translate.bleu_score", reason="nltk is not installed")
    smooth = score.SmoothingFunction().method1
    text, others = sentences(seed, 12, words="aabcdefgh"), sentences(seed + 100, 5, shortest=1, longest=7)

    def expected(hypothesis, given):
        weights = [(1 / n,) * n for n in ORDERS]
        return score.sentence_bleu(given, hypothesis, weights, smoothing_function=smooth)

    known = references(others)
    for one in text:
        assert generation.sentence_bleu(one, known, ORDERS) == pytest.approx(expected(one, others), rel=1e-12)
    pool = [one for one in text if one]  # one of no words is nobody's reference
    beside = [expected(one, pool[:i] + pool[i + 1 :]) for i, one in enumerate(pool)]
    assert list(self_bleu(pool, ORDERS).values()) == pytest.approx([sum(x) / len(x) for x in zip(*beside)], rel=1e-12)


def test_figures_that_nltk_gave():
    """nltk 3.10.4: too short, a word repeated, no trigram found, no word at all, no word found."""
    known = references([text.split() for text in ("the cat sat on the mat", "a dog sat on a red mat today")])
    expected = {
        "the cat sat": [0.36787944117144233, 0.36787944117144233, 0.20687381245863395, 0.14645544342956465],
        "the the the cat sat on": [0.7071067811865476, 0.6299605249474366, 0.537284965911771, 0.3341625309791344],
        "a mat on the dog": [0.40936537653899097, 0.16598952734027383, 0.1169737177441385, 0.10891779867395164],
        "": [0.0] * 4,
        "nothing of it": [0.0] * 4,
    }
    for text, values in expected.items():
        assert generation.sentence_bleu(text.split(), known) == pytest.approx(values, rel=1e-9)
    assert bleu([text.split() for text in expected], known)[2] == pytest.approx(
        sum(values[0] for values in expected.values()) / 5
    )
    four = [text.split() for text in ("a a b c", "a a b", "b c d a", "c")]
    twos = [0.7937005259840998, 0.7165313105737893, 0.23207944168063896, 0.029157102899024897]
    assert self_bleu(four, (3,))[3] == pytest.approx(sum(twos) / 4, rel=1e-9)


def test_repeated_and_copied():
    assert distinct([["a", "b", "a", "b"], ["a", "b"]], 2) == 2 / 4
    assert distinct([["a"], []], 2) == 0
    assert copied([["a", "b"], ["b"], ["a", "b"]], [["a", "b"], ["b", "a"]]) == 2 / 3
    assert self_bleu([["a", "b", "c", "d", "e"]] * 3, (5,))[5] == pytest.approx(1.0)


def test_refusals():
    for call in (lambda: references([]), lambda: bleu([], references([["a"]])), lambda: self_bleu([["a"]])):
        with pytest.raises(ValueError, match="expected at least"):
            call()
