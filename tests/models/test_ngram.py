"""Counting models against slow dictionary versions, known entropies, and Mikolov's figures on the Penn Treebank."""

import gzip
import itertools
import math
import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.models import ngram

END = 0  # the boundary of every text here


def zipf(seed: int, n: int, vocab: int) -> np.ndarray:
    """Random text in which words depend on the word before, with sentences ended by END."""
    rng = np.random.default_rng(seed)
    weight = 1 / (1 + (np.arange(vocab)[None, :] * 7 + np.arange(vocab)[:, None] * 3) % vocab)
    cumulative = np.cumsum(weight / weight.sum(1, keepdims=True), axis=1)
    text = [END]
    for u in rng.random(n):
        text.append(min(int(np.searchsorted(cumulative[text[-1]], u)), vocab - 1))
    return np.array(text[1:])


def sentences(text, boundary: int | None) -> list[list]:
    """Lists of words, each begun by its boundary where there is one."""
    if boundary is None:
        return [list(text)]
    result = [[boundary]]
    for word in text:
        result[-1].append(word)
        if word == boundary:
            result.append([boundary])
    return result


def slow_kneser_ney(text, order, vocab, boundary, modified):
    """P(w | h) by dictionaries of tuples, as the paper defines it: h a tuple of at most order - 1 words."""
    raw, before = [Counter() for _ in range(order + 1)], defaultdict(set)
    for sentence in sentences(text, boundary):
        for i in range(boundary is not None, len(sentence)):
            for k in range(1, min(order, i + 1) + 1):
                gram = tuple(sentence[i - k + 1 : i + 1])
                raw[k][gram] += 1
                before[gram[1:]].add(gram[0])
    used = [None, *({g: len(before[g]) or c for g, c in raw[k].items()} for k in range(1, order)), raw[order]]
    discount = [None]
    for k in range(1, order + 1):
        n = Counter(used[k].values())
        y = n[1] / (n[1] + 2 * n[2]) if n[1] + n[2] else 0
        if not modified:
            discount.append([0] + 3 * [y if n[1] and n[2] else 0.5])
            continue
        three = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)] if all(n[i] for i in (1, 2, 3, 4)) else [0]
        discount.append([0, *three] if min(three) > 0 else [0, 0.5, 1, 1.5])

    def probability(w, h):
        lower = probability(w, h[1:]) if h else 1 / vocab
        row = {g: c for g, c in used[len(h) + 1].items() if g[:-1] == h}
        if not row:
            return lower
        d, total = discount[len(h) + 1], sum(row.values())
        freed = sum(d[min(c, 3)] for c in row.values())
        c = row.get((*h, w), 0)
        return (c - d[min(c, 3)] + freed * lower) / total

    return probability


@pytest.mark.parametrize("boundary", [END, None])
@pytest.mark.parametrize("modified", [True, False])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_equals_the_dictionary_version(order, modified, boundary):
    vocab = 9
    train, test = zipf(1, 400, vocab - 1), zipf(2, 60, vocab)  # the last word is never seen in training
    model = ngram.kneser_ney(train, order, vocab, boundary=boundary, modified=modified)
    slow = slow_kneser_ney(train.tolist(), order, vocab, boundary, modified)
    expected = []
    for sentence in sentences(test.tolist(), boundary):
        for i in range(boundary is not None, len(sentence)):
            expected.append(math.log(slow(sentence[i], tuple(sentence[max(0, i - order + 1) : i]))))
    assert vocab - 1 in test
    np.testing.assert_allclose(ngram.log_probabilities(model, test), expected, rtol=1e-10)


@pytest.mark.parametrize("build", [ngram.kneser_ney, ngram.katz])
@pytest.mark.parametrize("boundary", [END, None])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_every_context_sums_to_one(build, boundary, order):
    vocab = 5
    model = build(zipf(3, 150, vocab - 1), order, vocab, boundary=boundary)  # word 4 is never seen
    for length in range(order + 1):
        for context in itertools.product(range(vocab), repeat=length):
            p = ngram.distribution(model, list(context))
            assert p.min() > 0
            assert abs(p.sum() - 1) < 1e-12


@pytest.mark.parametrize("build", [ngram.kneser_ney, ngram.katz])
def test_distribution_agrees_with_log_probabilities(build):
    train, test = zipf(4, 500, 7), zipf(5, 40, 8)
    model = build(train, 4, 8, boundary=END)
    text = [END, *test.tolist()]
    by_row = [math.log(ngram.distribution(model, text[: i + 1])[w]) for i, w in enumerate(test)]
    np.testing.assert_allclose(ngram.log_probabilities(model, test), by_row, rtol=1e-12)


def test_context_stops_at_the_boundary():
    model = ngram.kneser_ney(zipf(6, 500, 6), 4, 6, boundary=END)
    np.testing.assert_array_equal(ngram.distribution(model, [3, 2, END]), ngram.distribution(model, [END]))
    np.testing.assert_array_equal(ngram.distribution(model, [3, END, 2]), ngram.distribution(model, [5, END, 2]))
    free = ngram.kneser_ney(zipf(6, 500, 6), 4, 6)
    assert not np.array_equal(ngram.distribution(free, [3, 2, END]), ngram.distribution(free, [END]))


def test_perplexity_of_a_known_source():
    """Text of a first-order chain: the model comes within a hundredth of the source's entropy, and never below it."""
    rng = np.random.default_rng(0)
    chain = rng.dirichlet(np.full(6, 0.5), size=6)
    stationary = np.linalg.matrix_power(chain, 200)[0]
    entropy = -np.sum(stationary[:, None] * chain * np.log(chain))
    states, steps = [0], np.cumsum(chain, axis=1)
    for u in rng.random(120_000):
        states.append(min(int(np.searchsorted(steps[states[-1]], u)), 5))
    train, test = np.array(states[:80_000]), np.array(states[80_000:])
    source = ngram.perplexity(np.log(chain[test[:-1], test[1:]]))  # what the chain itself scores on this sample
    assert abs(source / math.exp(entropy) - 1) < 0.02
    for build in (ngram.kneser_ney, ngram.katz):
        bigram = ngram.perplexity(ngram.log_probabilities(build(train, 2, 6), test)[1:])
        assert 0.9999 < bigram / source < 1.005
    assert ngram.perplexity(ngram.log_probabilities(ngram.kneser_ney(train, 1, 6), test)) > 1.2 * source
    uniform = rng.integers(0, 16, 50_000)
    log_p = ngram.log_probabilities(ngram.kneser_ney(uniform, 1, 16), rng.integers(0, 16, 5000))
    assert abs(ngram.perplexity(log_p) - 16) < 0.05


def slow_katz(text, order, vocab):
    """P(w | h) by dictionaries of tuples; counts up to 7 discounted, from order 3 on those of 1 dropped."""
    raw = [Counter(tuple(text[i : i + k]) for i in range(len(text) - k + 1)) for k in range(order + 1)]
    ratio = []
    for k in range(order + 1):
        n = Counter(raw[k].values())
        ratio.append(dict.fromkeys(range(1, 8), 1.0))
        for c in range(1, 8):
            if k > 1 and n[1] and n[c]:
                r, mu = (c + 1) * n[c + 1] / (c * n[c]), 8 * n[8] / n[1]
                ratio[k][c] = (r - mu) / (1 - mu) if mu < r <= 1 else 1.0

    def probability(w, h):
        k = len(h) + 1
        row = {g[-1]: c for g, c in raw[k].items() if g[:-1] == h}
        if not row:
            return probability(w, h[1:])
        kept = {v: c * ratio[k].get(c, 1.0) for v, c in row.items() if c > 1 or k < 3}
        total = sum(row.values()) + (sum(kept.values()) >= sum(row.values()))
        left = 1 - sum(kept.values()) / total
        if k == 1:
            return kept.get(w, 0) / total + left / vocab
        if w in kept:
            return kept[w] / total
        return left / (1 - sum(probability(v, h[1:]) for v in kept)) * probability(w, h[1:])

    return probability, ratio


def test_katz_equals_the_dictionary_version():
    rng = np.random.default_rng(7)
    train, test = np.minimum(rng.zipf(1.4, 2500), 39), np.minimum(rng.zipf(1.4, 60), 40)
    slow, ratio = slow_katz(train.tolist(), 3, 41)
    assert min(ratio[2].values()) < 1  # some counts are discounted,
    assert max(ratio[3].values()) == 1  # and some can't be
    expected = [math.log(slow(test[i], tuple(test[max(0, i - 2) : i].tolist()))) for i in range(len(test))]
    np.testing.assert_allclose(ngram.log_probabilities(ngram.katz(train, 3, 41), test), expected, rtol=1e-9)


@pytest.mark.parametrize("build", [ngram.kneser_ney, ngram.katz])
@pytest.mark.parametrize("text", [[1], [1, 1], [1, 2] * 50, [0, 0, 0], list(range(5)), [2] * 100, zipf(0, 2000, 5)])
def test_tiny_and_regular_texts(build, text):
    for boundary, order in itertools.product([None, END], [1, 3, 5]):
        model = build(text, order, 5, boundary=boundary)
        assert np.isfinite(ngram.log_probabilities(model, [0, 1, 2, 3, 4, 4, 0, 0, 1])).all()
        for context in ([], [1], [END], text[-4:], [4, 4]):
            assert abs(ngram.distribution(model, context).sum() - 1) < 1e-12


def test_samples_follow_the_distribution():
    model = ngram.kneser_ney(zipf(8, 2000, 6), 3, 6, boundary=END)
    drawn = ngram.sample(model, np.random.default_rng(1), [3], 8_000)
    assert drawn.shape == (8_000,)
    np.testing.assert_array_equal(drawn, ngram.sample(model, np.random.default_rng(1), [3], 8_000))
    text = [END, 3, *drawn.tolist()]
    for context in ([END], [2, 1]):
        after = [
            text[i + len(context)] for i in range(len(text) - len(context)) if text[i : i + len(context)] == context
        ]
        share = np.bincount(after, minlength=6) / len(after)
        assert len(after) > 100
        np.testing.assert_allclose(share, ngram.distribution(model, context), atol=4 * 0.5 / math.sqrt(len(after)))
    firsts = [ngram.sample(model, np.random.default_rng(s), [3], 1)[0] for s in range(400)]
    np.testing.assert_allclose(np.bincount(firsts, minlength=6) / 400, ngram.distribution(model, [END, 3]), atol=0.1)
    assert len(ngram.sample(model, np.random.default_rng(1), [], 0)) == 0


@pytest.mark.parametrize("length", [1, 3, 17, 1000])
def test_caches_equal_their_sums(length):
    text = zipf(9, 200, 8)
    window, decaying = ngram.window_cache(text, length), ngram.decaying_cache(text, length)
    assert window[0] == decaying[0] == 0
    for i in range(1, len(text)):
        past = text[max(0, i - length) : i]
        weight = np.exp(-np.arange(i, 0, -1) / length)
        assert window[i] == pytest.approx(np.mean(past == text[i]), abs=1e-12)
        assert decaying[i] == pytest.approx(np.sum(weight * (text[:i] == text[i])) / np.sum(weight), abs=1e-12)


def test_cache_of_a_long_text_does_not_overflow():
    cache = ngram.decaying_cache(np.arange(200_000) % 1000, 5.0)
    assert np.isfinite(cache).all()
    assert cache.max() <= 1


def test_mixture_weight_is_the_best():
    rng = np.random.default_rng(2)
    log_p, cache = np.log(rng.uniform(0.01, 0.2, 3000)), rng.uniform(0, 0.3, 3000) * (rng.random(3000) < 0.5)
    best = ngram.mixture_weight(log_p, cache)
    grid = np.linspace(0.01, 0.99, 99)
    scores = [ngram.perplexity(ngram.interpolate(log_p, cache, w)) for w in grid]
    assert abs(best - grid[np.argmin(scores)]) < 0.02
    mixed = ngram.interpolate(log_p, cache, 0.25)
    np.testing.assert_allclose(np.exp(mixed[1:]), 0.75 * np.exp(log_p[1:]) + 0.25 * cache[1:])
    assert mixed[0] == log_p[0]


@pytest.mark.parametrize(
    ("tokens", "order", "boundary", "message"),
    [
        ([], 3, None, "empty"),
        ([1, 2], 0, None, "order=0"),
        ([1, 9], 2, None, "token 9"),
        ([1, -1], 2, None, "token -1"),
        ([1, 2], 2, 7, "boundary=7"),
        ([0.5, 1.5], 2, None, "integers"),
        ([[1, 2]], 2, None, "one sequence"),
    ],
)
def test_bad_input_is_one_line(tokens, order, boundary, message):
    for build in (ngram.kneser_ney, ngram.katz):
        with pytest.raises(UserError, match=message) as error:
            build(tokens, order, 5, boundary=boundary)
        assert "\n" not in str(error.value)


def test_empty_test_text():
    with pytest.raises(UserError, match="empty"):
        ngram.log_probabilities(ngram.kneser_ney([1, 2, 1], 2, 3), [])


def test_penn_treebank():
    """Mikolov's thesis, table 4.1: KN3 148.3, KN5 141.2, GT3 165.2, GT5 162.3, KN5 + cache 125.7."""
    folder = Path(os.environ.get("LMJAX_DATA", "/nonexistent")) / "ptb"
    if not (folder / "ptb.train.txt.gz").exists():
        pytest.skip("LMJAX_DATA holds no ptb")
    words = {}
    ids = {}
    for split in ("train", "valid", "test"):
        text = gzip.decompress((folder / f"ptb.{split}.txt.gz").read_bytes()).decode().replace("\n", " <eos> ").split()
        ids[split] = np.array([words.setdefault(word, len(words)) for word in text])
    assert (len(words), len(ids["test"])) == (10_000, 82_430)
    for build, order, published in (
        (ngram.katz, 3, 165.2),
        (ngram.katz, 5, 162.3),
        (ngram.kneser_ney, 3, 148.3),
        (ngram.kneser_ney, 5, 141.2),
    ):
        model = build(ids["train"], order, 10_000, boundary=words["<eos>"])
        log_p = ngram.log_probabilities(model, ids["test"])
        assert abs(ngram.perplexity(log_p) - published) < 0.1
    valid = ngram.log_probabilities(model, ids["valid"])
    weight = ngram.mixture_weight(valid, ngram.decaying_cache(ids["valid"], 125))
    mixed = ngram.interpolate(log_p, ngram.decaying_cache(ids["test"], 125), weight)
    assert abs(ngram.perplexity(mixed) - 125.7) < 1
