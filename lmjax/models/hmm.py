"""The hidden Markov model of tags (Rabiner 1989; as a tagger, Brants 2000): its transition matrix is counted.

    P(x, y) = P(y_1) prod_t P(y_t | y_{t-1}) P(x_t | y_t) P(end | y_T)

The likeliest y, and the probability of each y_t given x, come of the same scans as a CRF's: a `crf.Chain` of log
probabilities, and log P(x_t | y) in the place of emissions.

A word x is what it says, texts from the most general to the most telling: of a word that training has seen the word
itself, of one that it has not its shape and its suffixes, which are counted among the words that training has once
(Brants 2000, section 2.3). Each text's counts of tags are filled up by what the one before it made likely; Bayes' rule
turns the P(y | x) of the last into P(x | y), but for a factor that is the same for all y.

K tags, T words. Counting is numpy; a model is plain counts, so that it can be kept as JSON.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from lmjax.models.crf import NEVER, Chain

LEAST = 1e-6  # the probability that the least likely tag keeps


class HMM(NamedTuple):
    """Counts."""

    steps: list  # [K+1][K+1], tag before and behind; row K: the begin, column K: the end
    said: dict  # text -> {tag's number: count}
    smoothing: float  # what each pair of tags that may be is counted too much
    filling: float  # counts that a text's are filled up by


def count(tags: Iterable, evidence: Iterable, size: int, smoothing: float = 0.1, filling: float = 1.0) -> HMM:
    """Counts sentences.

    tags: int [T] below `size` of each sentence. evidence: of each, for each word, (what it says where it is known, what
    it says where it is not), texts; the last of the first is told from all other words'.
    """
    steps, said, tags, evidence = np.zeros((size + 1, size + 1)), {}, list(tags), list(evidence)
    often = {}
    for words in evidence:
        for known, _ in words:
            often[known[-1]] = often.get(known[-1], 0) + 1
    for numbers, words in zip(tags, evidence, strict=True):
        np.add.at(steps, ([size, *numbers], [*numbers, size]), 1)
        for tag, (known, unknown) in zip(numbers, words, strict=True):
            rare = often[known[-1]] == 1
            for text in {*known, *(unknown if rare else ())}:
                row = said.setdefault(text, {})
                row[int(tag)] = row.get(int(tag), 0) + 1
    return HMM(steps.tolist(), said, smoothing, filling)


def links(model: HMM, legal: Chain) -> Chain:
    """The transition matrix: log P(first), log P(after | before), log P(end | last); NEVER where `legal` says no."""
    counts = np.array(model.steps)
    K = len(counts) - 1
    may = np.zeros_like(counts, bool)
    may[K, :K], may[:K, :K], may[:K, K] = legal.start, legal.between, legal.end
    counts = np.where(may, counts + model.smoothing, 0)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), LEAST)
    logs = np.where(shares > 0, np.log(np.maximum(shares, 1e-30)), NEVER).astype(np.float32)
    return Chain(logs[K, :K], logs[:K, :K], logs[:K, K])


def emissions(model: HMM, evidence) -> np.ndarray:
    """log P(x_t | y), but for what is the same for all y, float32 [T,K]. evidence: of the words of a sentence."""
    counts = np.array(model.steps)
    prior = counts[:-1].sum(1) + model.smoothing
    prior /= prior.sum()

    def word(known, unknown):
        share = prior
        for text in known if known[-1] in model.said else unknown:
            counts = np.zeros(len(prior))
            for tag, n in model.said.get(text, {}).items():
                counts[int(tag)] = n
            share = (counts + model.filling * share) / (counts.sum() + model.filling)
        return np.log(np.maximum(share, LEAST)) - np.log(prior)

    return np.stack([word(*one) for one in evidence]).astype(np.float32)
