"""Counting language models as sparse transition matrices: Kneser-Ney, modified Kneser-Ney, Katz, and a unigram cache.

An n-gram model is one matrix an order, its rows the contexts h of k-1 words, its columns the words w:

    P_k[h, w] = A_k[h, w] + γ_k[h] P_{k-1}[h', w]        h' is h without its first word; P_0 = 1 / V

A_k is sparse: it has an entry for each k-gram of the training text, the discounted estimate α. γ_k is the back-off
weight, what discounting took from the row. The papers differ in A alone:

    Kneser & Ney 1995, "Improved backing-off for m-gram language modeling" (`kneser_ney`; interpolated and modified
        as in Chen & Goodman 1998, "An empirical study of smoothing techniques for language modeling", sections 2.7, 3)
    Katz 1987, "Estimation of probabilities from sparse data for the language model component of a speech recognizer"
        (`katz`; a back-off model, brought into the same form)
    Kuhn & De Mori 1990 and Clarkson & Robinson 1997 (the caches: `window_cache`, `decaying_cache`)

Sentences. The word `boundary` ends a sentence (it is predicted) and, as the first word of a context, begins the next
(SRILM's </s> and <s> in one). No context reaches back over it. Without a boundary the text is one long sentence.

Letters: N tokens, V vocabulary, E_k distinct k-grams (entries), C_k contexts of order k: C_1 = 1 (the empty context),
C_k = E_{k-1}, for a context is itself a (k-1)-gram, named by the number of its entry. All arrays are numpy's.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lmjax.errors import UserError


class Level(NamedTuple):
    """The matrix of one order: sorted coordinates and values of A, and the back-off weight of each row."""

    keys: np.ndarray  # [E] int64, sorted: context * V + word
    alpha: np.ndarray  # [E] float64, A_k[h, w]
    gamma: np.ndarray  # [C] float64, γ_k[h]; 1 where nothing was seen to follow h


class NGram(NamedTuple):
    levels: tuple[Level, ...]  # orders 1 to n
    vocab: int
    boundary: int | None


class Counts(NamedTuple):
    """The k-grams of a text for one k."""

    keys: np.ndarray  # [E] sorted: context * V + word
    counts: np.ndarray  # [E] occurrences c(h w)
    suffix: np.ndarray  # [E] the entry of the (k-1)-gram h' w, at k = 1 zero
    contexts: int  # C


def kneser_ney(tokens, order: int, vocab: int, *, boundary: int | None = None, modified: bool = True) -> NGram:
    """Interpolated Kneser-Ney smoothing of the text `tokens` [N], ids below `vocab`.

    `modified` takes Chen & Goodman's three discounts D1, D2, D3+ an order, otherwise the one D of Kneser & Ney. No
    n-gram is cut off. With a boundary, this is SRILM's `-kndiscount -interpolate -gtNmin 1` (not modified:
    `-ukndiscount`).
    """
    counts = count(tokens, order, vocab, boundary)
    levels = []
    for k, (keys, c, _, contexts) in enumerate(counts, start=1):
        if k < order:
            # Lower orders count the different words before an n-gram, N1+(• h w), not its occurrences: they are asked
            # only where the longer context failed. What begins a sentence has nothing before it and keeps c(h w).
            continuation = np.bincount(counts[k].suffix, minlength=len(keys))  # [E]
            c = np.where(continuation > 0, continuation, c)
        total = np.bincount(keys // vocab, c, contexts)  # [C] c(h •)
        discount = discounts(c, modified)[np.minimum(c, 3)]  # [E] D(c)
        alpha = (c - discount) / total[keys // vocab]  # A[h, w] = (c(h w) - D(c)) / c(h •)
        # γ(h) = (D1 N1(h •) + D2 N2(h •) + D3+ N3+(h •)) / c(h •) is what the row of A lacks of one.
        gamma = 1 - np.bincount(keys // vocab, alpha, contexts)
        levels.append(Level(keys, alpha, gamma))
    return NGram(tuple(levels), vocab, boundary)


def discounts(counts, modified: bool) -> np.ndarray:
    """D(c) for c = 0, 1, 2, 3 and more, from the numbers n_i of n-grams counted i times.

    Y = n1 / (n1 + 2 n2), D1 = 1 - 2 Y n2/n1, D2 = 2 - 3 Y n3/n2, D3+ = 3 - 4 Y n4/n3; not modified: Y for all. Texts
    too small or too regular to estimate them take 1/2, 1 and 3/2 (as KenLM offers); not modified: 1/2.
    """
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    if not modified:
        d = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
        return np.array([0, d, d, d])
    if n1 and n2 and n3 and n4:
        y = n1 / (n1 + 2 * n2)
        d1, d2, d3 = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        if min(d1, d2, d3) > 0:
            return np.array([0, d1, d2, d3])
    return np.array([0, 0.5, 1, 1.5])


def katz(tokens, order: int, vocab: int, *, boundary: int | None = None, reliable: int = 7, minimum: int = 2) -> NGram:
    """Katz back-off with Good-Turing discounts of the counts up to `reliable`, as SRILM does by default.

    From order 3 on an n-gram seen less than `minimum` times is dropped. Unigrams are relative frequencies. The model
    backs off, P(w | h) = d_c c(h w) / c(h •) where h w was seen and β(h) P(w | h') where not, so A may be negative
    here: A[h, w] = d_c c(h w) / c(h •) - β(h) P(w | h'), γ = β.
    """
    levels, lower = [], np.full(1, 1 / vocab)  # lower: P of each (k-1)-gram, [E_{k-1}]
    for k, (keys, c, suffix, contexts) in enumerate(count(tokens, order, vocab, boundary), start=1):
        context = keys // vocab
        ratio = good_turing(c, reliable)[np.minimum(c, reliable + 1)] if k > 1 else 1.0  # [E] d_c
        kept = ratio * np.where(c >= (minimum if k > 2 else 1), c, 0)  # [E]
        total = np.bincount(context, c, contexts)  # [C] c(h •)
        # SRILM: a row that lost nothing gets one count more, so that something is left to back off with.
        total += (total > 0) & (np.bincount(context, kept, contexts) >= total)
        p = kept / total[context]  # [E] d_c c(h w) / c(h •)
        # A unigram is interpolated with P_0 = 1 / V, for no word is to be impossible.
        seen = (p > 0) if k > 1 else np.zeros(vocab, bool)
        sums = np.bincount(context, p, contexts)
        backed = np.bincount(context, np.where(seen, lower[suffix], 0), contexts)
        full = np.bincount(context, seen, contexts) == vocab  # rows without a word to back off to
        p /= np.where(full, sums, 1)[context]
        beta = np.where(full, 0, (1 - sums) / np.where(full, 1, 1 - backed))  # [C] β(h); 1 where nothing follows h
        alpha = np.where(seen, p - beta[context] * lower[suffix], p)
        levels.append(Level(keys, alpha, beta))
        lower = alpha + beta[context] * lower[suffix]
    return NGram(tuple(levels), vocab, boundary)


def good_turing(counts, reliable: int) -> np.ndarray:
    """The ratios d_c for c = 0, ... reliable, and more (1): d_c = (r_c - μ) / (1 - μ), r_c = (c + 1) n_{c+1} / (c n_c),
    μ = (reliable + 1) n_{reliable+1} / n_1. Where few data make this no discount, d_c is 1."""
    n = np.bincount(np.minimum(counts, reliable + 2), minlength=reliable + 3).astype(float)
    ratio = np.ones(reliable + 2)
    for c in range(1, reliable + 1):
        if n[1] and n[c]:
            r, mu = (c + 1) * n[c + 1] / (c * n[c]), (reliable + 1) * n[reliable + 1] / n[1]
            if r <= 1 and mu < r:
                ratio[c] = (r - mu) / (1 - mu)
    return ratio


def count(tokens, order: int, vocab: int, boundary: int | None = None) -> list[Counts]:
    """The k-grams of a text for k = 1 ... order, by sorting: a k-gram is packed as (entry of its first k-1 words) * V +
    (its last word), which 64 bits hold at any order."""
    if order < 1:
        raise UserError(f"order={order}: an n-gram model needs an order of at least 1")
    tokens = _checked(tokens, vocab, boundary)
    if not len(tokens):
        raise UserError("the training text is empty: nothing can be counted; give a text of at least one token")
    text, reach = _text(tokens, boundary)
    entry = text  # [N] the entry of the k-gram that ends here, -1 where none does
    result = [Counts(np.arange(vocab), np.bincount(tokens, minlength=vocab), np.zeros(vocab, np.int64), 1)]
    for k in range(2, order + 1):
        at = np.flatnonzero(reach >= k - 1)
        keys, first, inverse, counts = np.unique(
            entry[at - 1] * vocab + text[at], return_index=True, return_inverse=True, return_counts=True
        )
        result.append(Counts(keys, counts, entry[at[first]], len(result[-1].keys)))
        entry = np.full(len(text), -1)
        entry[at] = inverse
    return result


def log_probabilities(model: NGram, tokens) -> np.ndarray:
    """log P(w_i | the words before it) of each token of a text, [N], natural logarithm. The text begins a sentence."""
    tokens = _checked(tokens, model.vocab, model.boundary)
    if not len(tokens):
        raise UserError("the text is empty: there is nothing to evaluate; give a text of at least one token")
    text, reach = _text(tokens, model.boundary)
    p = np.full(len(text), 1 / model.vocab)
    context = np.zeros(len(text), np.int64)  # the entry of the k-1 words before, -1 where they are unknown; k = 1: none
    for level, entry in zip(model.levels, _entries(model, text, reach)):
        alpha = np.append(level.alpha, 0)[entry]  # the appended value is what -1 reads
        gamma = np.append(level.gamma, 1)[context]
        p = gamma * p + alpha
        context = np.concatenate([[-1], entry[:-1]])
    return np.log(p[len(text) - len(tokens) :])


def perplexity(log_p) -> float:
    """exp of the mean negative log probability of a token, from log probabilities [N]."""
    return float(np.exp(-np.mean(log_p)))


def distribution(model: NGram, context: Sequence[int]) -> np.ndarray:
    """P(w | context) for every word, [V]. The words of `context` are the last before w; a sentence begins with the
    boundary, so [boundary] asks for first words and [] for the unigram distribution."""
    vocab = model.vocab
    text = _checked(context, vocab, model.boundary)[-len(model.levels) :]
    rows = [0]  # the row of each order, k = 1, 2, ...: the entry of the last k-1 words
    if len(text):
        rows += [entry[-1] for entry in _entries(model, text, _reach(text, model.boundary))]
    p = np.full(vocab, 1 / vocab)
    for level, row in zip(model.levels, rows):
        if row < 0:
            break  # where the last k-1 words were never seen, no more of them were
        start, stop = np.searchsorted(level.keys, (row * vocab, (row + 1) * vocab))
        p *= level.gamma[row]
        p[level.keys[start:stop] - row * vocab] += level.alpha[start:stop]
    return p


def sample(model: NGram, rng: np.random.Generator, prompt: Sequence[int], n: int) -> np.ndarray:
    """`n` tokens [n] drawn one after another behind `prompt`, which begins a sentence (and may be empty)."""
    history = [*([] if model.boundary is None else [model.boundary]), *prompt]
    for _ in range(n):
        cumulative = np.cumsum(distribution(model, history[-len(model.levels) :]))
        word = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
        history.append(min(int(word), model.vocab - 1))
    return np.array(history[len(history) - n :], np.int64)


def window_cache(tokens, length: int) -> np.ndarray:
    """P(w_i): its share in the last `length` tokens, across sentences, [N] (Kuhn & De Mori 1990). The first is 0."""
    tokens = np.asarray(tokens, np.int64)
    at = np.arange(len(tokens))
    start = np.maximum(at - length, 0)
    # Sorted by word, then place: the occurrences of w_i in a window are those between two places of its run.
    place = np.sort(tokens * len(tokens) + at)
    hits = np.searchsorted(place, tokens * len(tokens) + at) - np.searchsorted(place, tokens * len(tokens) + start)
    return hits / np.maximum(at - start, 1)


def decaying_cache(tokens, length: float) -> np.ndarray:
    """P(w_i) where a word d tokens back counts exp(-d / length), [N] (Clarkson & Robinson 1997). The first is 0."""
    tokens = np.asarray(tokens, np.int64)
    at = np.argsort(tokens, kind="stable")  # by word, then place
    word = tokens[at]
    # s_j = Σ exp(-(at_j - at_m) / length) over the occurrences m <= j of one word: a prefix sum, doubled at each turn.
    s, step = np.ones(len(at)), 1
    while step < len(at) and (same := word[step:] == word[:-step]).any():
        s[step:] += same * np.exp(-np.abs(at[step:] - at[:-step]) / length) * s[:-step]
        step *= 2
    # What stands before w_i is its last occurrence's sum, aged by the distance.
    before = np.zeros(len(at))
    before[at[1:]] = (word[1:] == word[:-1]) * np.exp(-np.abs(np.diff(at)) / length) * s[:-1]
    decay = np.exp(-1 / length)
    total = decay * (1 - decay ** np.arange(len(at))) / (1 - decay)  # Σ_{d=1..i} exp(-d / length)
    return before / np.where(total > 0, total, 1)


def interpolate(log_p, cache, weight: float) -> np.ndarray:
    """log((1 - λ) P + λ P_cache), [N]. The first token has an empty cache and keeps P."""
    weight = np.where(np.arange(len(log_p)) > 0, weight, 0.0)
    return np.log((1 - weight) * np.exp(log_p) + weight * cache)


def mixture_weight(log_p, cache, steps: int = 50) -> float:
    """The λ of `interpolate` that makes a held-out text likeliest, by EM (Jelinek & Mercer 1980)."""
    p, cache, weight = np.exp(log_p[1:]), cache[1:], 0.1
    for _ in range(steps):
        weight = float(np.mean(weight * cache / ((1 - weight) * p + weight * cache)))
    return weight


def _checked(tokens, vocab: int, boundary: int | None) -> np.ndarray:
    """The tokens as int64 [N]; refuses ids outside the vocabulary."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or (len(tokens) and tokens.dtype.kind not in "iu"):
        raise UserError(f"tokens of shape {tokens.shape} and type {tokens.dtype}: give one sequence of integers")
    tokens = tokens.astype(np.int64)
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab:
        bad = tokens[(tokens < 0) | (tokens >= vocab)][0]
        raise UserError(f"token {bad} is outside the vocabulary of {vocab}: map unknown words to an id below {vocab}")
    if boundary is not None and not 0 <= boundary < vocab:
        raise UserError(
            f"boundary={boundary} is outside the vocabulary of {vocab}: give the end of sentence's id, or None"
        )
    return tokens


def _text(tokens: np.ndarray, boundary: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The text with the boundary that begins it, where there is one, and its reach."""
    text = tokens if boundary is None else np.concatenate([[boundary], tokens])
    return text, _reach(text, boundary)


def _reach(text: np.ndarray, boundary: int | None) -> np.ndarray:
    """How many words before each token belong to its context, the sentence's boundary among them, [N]."""
    at = np.arange(len(text))
    if boundary is None:
        return at
    begins = np.maximum.accumulate(np.where(text == boundary, at, 0))  # the last boundary up to here
    return at - np.concatenate([[0], begins[:-1]])


def _entries(model: NGram, text: np.ndarray, reach: np.ndarray) -> Iterator[np.ndarray]:
    """For k = 1, 2, ...: the entry of the k-gram that ends at each token, [N], -1 where training never saw it."""
    entry = text
    yield entry
    for k, level in enumerate(model.levels[1:], start=2):
        previous = np.concatenate([[-1], entry[:-1]])
        known = (reach >= k - 1) & (previous >= 0)
        key = np.where(known, previous * model.vocab + text, -1)
        entry = np.full(len(text), -1)
        if len(level.keys):
            place = np.minimum(np.searchsorted(level.keys, key), len(level.keys) - 1)
            entry = np.where(level.keys[place] == key, place, -1)
        yield entry
