"""Generated sentences judged beside real ones: BLEU and self-BLEU as the text GANs' papers take them, and what shows
copying and repetition. Sentences are lists of tokens, strings or numbers.

Zhu et al. 2018, Texygen, score every generated sentence by nltk's `sentence_bleu` with all test sentences as its
references, weights 1/n and smoothing method1 (0.1 in place of a count of 0, Chen & Cherry 2014), and take the mean;
self-BLEU has the other generated sentences for references. With 10,000 references a sentence that takes hours. A
clipped count asks only how often an n-gram stands in the one reference that has it most: they are read once.
"""

import bisect
import math
from collections import Counter
from typing import NamedTuple

ORDERS = (2, 3, 4, 5)
EPSILON = 0.1  # of smoothing method1

# One line for each figure that a table shows.
DEFINITIONS = {
    "bleu-n": "mean of the generated sentences' BLEU up to n-grams, all test sentences their references, smoothing "
    "method1, %; high: like the test text",
    "self-bleu-n": "the same with the other generated sentences for references; high: like one another",
    "nll_real": "nats a token of generated text under an LSTM that learned from the test text, its epoch chosen on "
    "validation lines: NLL_oracle where there is no oracle; low: looks real, or plays safe",
    "distinct-2": "different bigrams in 100 generated ones; low: repeats itself",
    "copied": "generated sentences that stand word for word in training, %",
    "length": "mean tokens of a generated sentence",
    "nll_gen": "nats a token of test text under the generator at temperature 1, ends counted, padding not; high: it "
    "misses what people write",
    "reverse_nll": "nats a token of test text under an LSTM that learned from generated text alone, its epoch chosen "
    "on generated text held out; high: what it read is wrong or lacks variety",
}


class References(NamedTuple):
    """counts[n-1]: n-gram -> (largest, second largest) number of times that one sentence has it. lengths: of the
    sentences, rising, each as often as it occurs."""

    counts: list
    lengths: list


def references(sentences, highest: int = max(ORDERS)) -> References:
    """What `bleu` needs to know of its references. ValueError where there are none."""
    if not sentences:
        raise ValueError("no references: expected at least one sentence")
    counts = [{} for _ in range(highest)]
    for sentence in sentences:
        for n, most in enumerate(counts, start=1):
            for gram, count in Counter(ngrams(sentence, n)).items():
                first, second = most.get(gram, (0, 0))
                if count > second:
                    most[gram] = (count, first) if count > first else (first, count)
    return References(counts, sorted(map(len, sentences)))


def ngrams(sentence, n: int):
    """The n-grams of a sentence, as tuples."""
    return zip(*(sentence[i:] for i in range(n)))


def bleu(sentences, known: References, orders=ORDERS) -> dict[int, float]:
    """Mean sentence BLEU of `sentences` for each of `orders`, 0 to 1. ValueError where there are no sentences."""
    return _mean([sentence_bleu(sentence, known, orders) for sentence in sentences], orders)


def self_bleu(sentences, orders=ORDERS) -> dict[int, float]:
    """Mean BLEU of each sentence beside all others. ValueError where there are fewer than two."""
    if len(sentences) < 2:
        raise ValueError(f"{len(sentences)} sentence for self-BLEU: expected at least two")
    known = references(sentences, max(orders))
    return _mean([sentence_bleu(sentence, known, orders, one_of_them=True) for sentence in sentences], orders)


def sentence_bleu(sentence, known: References, orders=ORDERS, one_of_them=False) -> list[float]:
    """BLEU of one sentence for each of `orders`. one_of_them: it is one of the references, to be left out of them."""
    length, logs = len(sentence), []
    for n in range(1, max(orders) + 1):
        most, right = known.counts[n - 1], 0
        for gram, count in Counter(ngrams(sentence, n)).items():
            first, second = most.get(gram, (0, 0))
            right += min(count, second if one_of_them and count == first else first)
        if n == 1 and not right:
            return [0.0] * len(orders)
        logs.append(math.log((right or EPSILON) / max(length - n + 1, 1)))
    closest = _closest(known.lengths, length, one_of_them)
    brevity = min(0.0, 1 - closest / length)
    return [math.exp(brevity + math.fsum(logs[:n]) / n) for n in orders]


def _closest(lengths: list, length: int, left_out: bool) -> int:
    """The reference's length next to `length`, the shorter of two equally near; one of this length may be left out."""
    at = bisect.bisect_left(lengths, length)
    above = lengths[at + left_out :][:1]
    return min([*lengths[max(at - 1, 0) : at], *above], key=lambda other: (abs(other - length), other))


def _mean(scores: list[list[float]], orders) -> dict[int, float]:
    if not scores:
        raise ValueError("no sentences to score: expected at least one")
    return {n: math.fsum(column) / len(scores) for n, column in zip(orders, zip(*scores))}


def distinct(sentences, n: int) -> float:
    """Share of all n-grams that are different ones (Li et al. 2016); 0 where there are none."""
    found = [gram for sentence in sentences for gram in ngrams(sentence, n)]
    return len(set(found)) / max(len(found), 1)


def copied(sentences, training) -> float:
    """Share of the sentences that stand in training, token for token."""
    known = set(map(tuple, training))
    return sum(tuple(sentence) in known for sentence in sentences) / max(len(sentences), 1)
