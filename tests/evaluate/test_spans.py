"""Exact match and F1 against SQuAD's rule written out; the best stretches against all of them looked at."""

import itertools
import random
import re
import string

import jax
import numpy as np
import pytest

from lmjax.evaluate import spans
from lmjax.nn.attention import NEVER


def official(prediction: str, answers: list[str]) -> tuple[float, float]:
    """The rule step by step, with lists and loops."""

    def words(text):
        letters = [letter for letter in text.lower() if letter not in string.punctuation]
        return re.sub(r"\b(a|an|the)\b", " ", "".join(letters)).split()

    def overlap(said, true):
        left, common = list(true), 0
        for word in said:
            if word in left:
                left.remove(word)
                common += 1
        if common == 0:
            return 0.0
        precision, recall = common / len(said), common / len(true)
        return 2 * precision * recall / (precision + recall)

    said = words(prediction)
    exact = max(float(" ".join(said) == " ".join(words(answer))) for answer in answers)
    return exact, max(overlap(said, words(answer)) for answer in answers)


def test_scores_are_those_of_the_rule_on_a_thousand_cases():
    rng = random.Random(0)
    parts = ["the", "The", "a", "an", "theory", "A.", "U.S.", "us", "1,000", "1000", "(born", "born", "-",
             "\u2013", "naïve", "Naïve", "東京",
             "in", "in", "", "\u00a0", "'s", "can't", "cant", "anthem", "a-the", "$5", "5"]  # fmt: skip

    def text(longest):
        joined = "".join(rng.choice(parts) + rng.choice([" ", "  ", "\t", ""]) for _ in range(rng.randint(0, longest)))
        return joined or rng.choice(parts)

    predictions, answers, want, right = {}, {}, [], 0
    for n in range(1000):
        predictions[n] = text(5)
        answers[n] = [text(4) if rng.random() < 0.6 else f"the {predictions[n]}." for _ in range(rng.randint(1, 3))]
        want.append(official(predictions[n], answers[n]))
        one = spans.score({n: predictions[n]}, {n: answers[n]})
        assert one == pytest.approx((100 * want[-1][0], 100 * want[-1][1], 0), abs=1e-9), (predictions[n], answers[n])
        right += want[-1][0]
    assert 200 < right < 800
    whole = spans.score(predictions, answers)
    assert whole == pytest.approx((100 * np.mean([e for e, _ in want]), 100 * np.mean([f for _, f in want]), 0))


def test_a_question_without_a_prediction_counts_as_wrong():
    assert spans.score({"a": "x"}, {"a": ["X."], "b": ["y"]}) == (50.0, 50.0, 1)


def test_best_stretches_are_those_that_a_search_of_all_finds():
    rng = np.random.default_rng(0)
    B, T, L, n = 4, 11, 4, 6
    start, end = rng.normal(size=(2, B, T)).astype(np.float32)
    context = np.arange(T)[None] >= np.array([[1], [3], [2], [9]])
    context[0, 9:] = False
    mine = context & (np.arange(T)[None] % 5 > 0)
    found = jax.device_get(jax.jit(spans.best_spans, static_argnums=(4, 5))(start, end, context, mine, L, n))
    for b in range(B):
        every = [
            (float(start[b, i] + end[b, j]), i, j)
            for i, j in itertools.product(range(T), repeat=2)
            if i <= j < i + L and mine[b, i] and context[b, j]
        ]
        best = sorted(every, reverse=True)[:n]
        k = len(best)
        assert list(zip(found.start[b][:k], found.end[b][:k])) == [(i, j) for _, i, j in best]
        np.testing.assert_allclose(found.score[b][:k], [score for score, *_ in best], rtol=1e-6)
        assert (found.score[b][k:] <= NEVER).all()
        np.testing.assert_allclose(found.total[b], np.log(sum(np.exp(score) for score, *_ in every)), rtol=1e-5)


def test_a_text_without_places_has_no_stretch():
    nothing = np.zeros((1, 5), bool)
    found = spans.best_spans(np.zeros((1, 5)), np.zeros((1, 5)), nothing, nothing, 3, 2)
    assert (np.asarray(found.score) <= NEVER).all()
