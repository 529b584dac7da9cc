"""Answers that are stretches of a text: SQuAD's exact match and F1, and the best stretches under a model's scores.

B batch, T places, L the longest answer, n answers to keep.
"""

import re
import string
from collections import Counter
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.nn.attention import NEVER

_NO_MARKS = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


class Scores(NamedTuple):
    """Percent of the questions; how many had no prediction, which counts as wrong."""

    exact_match: float
    f1: float
    missing: int


def normalised(text: str) -> str:
    """As SQuAD's script compares: lower case, without ASCII punctuation and articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_MARKS)).split())


def exact(prediction: str, answer: str) -> float:
    return float(normalised(prediction) == normalised(answer))


def f1(prediction: str, answer: str) -> float:
    """Of the words that both have, each as often as both have it; 0 where there are none."""
    said, true = normalised(prediction).split(), normalised(answer).split()
    common = (Counter(said) & Counter(true)).total()
    return 2 * common / (len(said) + len(true)) if common else 0.0


def score(predictions: dict[str, str], answers: dict[str, list[str]]) -> Scores:
    """predictions: id -> answer. answers: id -> what annotators marked; of these the best counts."""
    em = overlap = missing = 0
    for id, marked in answers.items():
        if id not in predictions:
            missing += 1
            continue
        em += max(exact(predictions[id], answer) for answer in marked)
        overlap += max(f1(predictions[id], answer) for answer in marked)
    return Scores(100 * em / len(answers), 100 * overlap / len(answers), missing)


class Best(NamedTuple):
    """start, end int [B,n]: first and last place, best first; score float32 [B,n], NEVER or less where there are fewer;
    total float32 [B]: log of the sum over exp of every stretch that may be one."""

    start: jax.Array
    end: jax.Array
    score: jax.Array
    total: jax.Array


def best_spans(start, end, context, mine, longest: int, count: int) -> Best:
    """The stretches with the highest start + end, not longer than `longest` places.

    start, end: scores float32 [B,T]. context: bool [B,T], places of the text; an answer ends in one. mine: bool [B,T],
    where an answer may begin: of a long text each place is one window's.
    """
    B, T = start.shape
    L = min(longest, T)
    ahead = jnp.arange(T)[:, None] + jnp.arange(L)[None]  # [T,L] the last place of a stretch
    end = jnp.pad(jnp.where(context, end, NEVER), ((0, 0), (0, L)), constant_values=NEVER)
    both = jnp.where(context & mine, start, NEVER)[:, :, None] + end[:, ahead]  # [B,T,L]
    both = jnp.maximum(both, NEVER).reshape(B, T * L)
    score, at = jax.lax.top_k(both, min(count, T * L))
    return Best(at // L, at // L + at % L, score, jax.nn.logsumexp(both, axis=-1))
