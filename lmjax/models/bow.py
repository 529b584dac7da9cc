"""Bags of words and what is linear in them: naive Bayes, logistic regression, the L2-SVM, and NBSVM.

A text is the row f of a sparse matrix: how often each word, or n-gram of words, stands in it. Every model here gives a
class the score f . w + b; they differ in how w is found.

    McCallum & Nigam 1998, "A comparison of event models for naive Bayes text classification" (`naive_bayes`)
    Wang & Manning 2012, "Baselines and bigrams: simple, good sentiment and topic classification" (`log_count_ratio`,
        `interpolate`, and the objectives of `fit`)
    Fan et al. 2008, "LIBLINEAR" (the objectives: L2-regularised, L2-loss SVM and logistic regression)

The objectives are convex and are minimized by L-BFGS over all documents at once. XLA's gather and segment sum take the
two products x w and x' g: 72 and 47 ms for the 10 million entries of IMDB's bigrams on two cores. scipy's take 18 and
18; here the same lines also run on an accelerator and are differentiated, and a fit takes seconds.

N documents, V columns (words and n-grams), E entries of the matrix, K classes. Two classes have one column of weights,
whose sign decides for the second class: S = 1, or S = K for more.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import sparse

from lmjax.errors import UserError
from lmjax.losses import cross_entropy
from lmjax.param import Param, init, zeros

# What is taken for a word: the name of a choice, and the pattern of one word.
WORDS = {
    "letters": r"[^\W\d_]+(?:'[^\W\d_]+)*",  # don't is one
    "words": r"\w+(?:'\w+)*",  # numbers too
    "marks": r"\w+(?:'\w+)*|[^\w\s]",  # and each punctuation mark
    "runs": r"\w+(?:'\w+)*|[^\w\s]+",  # and a run of marks as one: !!! :-)
    "spaces": r"\S+",  # whatever stands between spaces
    "characters": r"\S",  # each by itself: for Chinese
}
LOSSES = ("logistic", "squared_hinge")


class Vocabulary(NamedTuple):
    """The columns of a matrix: first the words, then the 2-grams, the 3-grams, ..."""

    words: dict[str, int]  # word -> its column, by falling count
    grams: tuple[np.ndarray, ...]  # for n = 2, ...: sorted int64, (entry of the first n-1 words) * words + last word

    @property
    def size(self) -> int:
        return len(self.words) + sum(map(len, self.grams))


class Linear(NamedTuple):
    w: np.ndarray  # [V,S]
    b: np.ndarray  # [S]


class Sparse(NamedTuple):
    """The entries of a matrix [N,V], by rows."""

    values: jax.Array  # [E]
    rows: jax.Array  # int[E]
    columns: jax.Array  # int[E]


def tokenize(texts: Sequence[str], words: str = "words", lower: bool = True) -> list[list[str]]:
    """The words of each text; `words` is one of WORDS."""
    find = re.compile(WORDS[words]).findall
    return [find(text.lower() if lower else text) for text in texts]


def vocabulary(documents: Sequence[Sequence[str]], ngrams: int = 1, min_count: int = 1, most: int = 0) -> Vocabulary:
    """Words and n-grams up to `ngrams` that stand at least `min_count` times in the documents, of the words at most
    the `most` most frequent (0: all). An n-gram lies within one document and has no word outside the vocabulary."""
    counts = Counter()
    for document in documents:
        counts.update(document)
    kept = [word for word, n in counts.most_common(most or None) if n >= min_count]
    if not kept:
        raise UserError(f"no word stands {min_count} times in {len(documents):,} documents: lower min_count")
    words, grams = {word: column for column, word in enumerate(kept)}, []
    ids, document = _flat(documents, words)
    entries = ids
    for _ in range(ngrams - 1):
        keys = _keys(entries, ids, document, len(words))
        found, n = np.unique(keys[keys >= 0], return_counts=True)
        grams.append(found[n >= min_count])
        entries = _find(keys, grams[-1])
    return Vocabulary(words, tuple(grams))


def count(documents: Sequence[Sequence[str]], known: Vocabulary) -> sparse.csr_array:
    """How often each column's words stand in each document, float32 [N,V]. Words out of the vocabulary are ignored."""
    ids, document = _flat(documents, known.words)
    entries, columns, offset = ids, [ids], len(known.words)
    for grams in known.grams:
        entries = _find(_keys(entries, ids, document, len(known.words)), grams)
        columns.append(np.where(entries >= 0, entries + offset, -1))
        offset += len(grams)
    columns = np.concatenate(columns)
    rows = np.tile(document, 1 + len(known.grams))[columns >= 0]
    columns = columns[columns >= 0]
    matrix = sparse.coo_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(documents), known.size))
    return matrix.tocsr()  # sums what stands there twice


def names(known: Vocabulary, columns: Sequence[int]) -> list[str]:
    """The words of each column, with spaces between."""
    words, result = list(known.words), []
    for column in columns:
        parts, entry, n = [], int(column) - len(words), 0
        while entry >= 0 and entry >= len(known.grams[n]):
            entry, n = entry - len(known.grams[n]), n + 1
        if entry < 0:
            result.append(words[column])
            continue
        for grams in reversed(known.grams[: n + 1]):
            entry, last = divmod(int(grams[entry]), len(words))
            parts.append(words[last])
        result.append(" ".join([words[entry], *reversed(parts)]))
    return result


def inverse_document_frequency(counts: sparse.csr_array) -> np.ndarray:
    """log((1 + N) / (1 + documents with the column)) + 1, float32 [V]: no column is worth nothing."""
    documents = np.bincount(counts.indices, minlength=counts.shape[1])
    return (np.log((1 + counts.shape[0]) / (1 + documents)) + 1).astype(np.float32)


def weigh(counts: sparse.csr_array, weighting: str, idf: np.ndarray | None = None, unit: bool = False):
    """The matrix with its counts weighed: "count" as they are, "binary" 1, "tfidf" count times `idf` [V] (that of the
    training documents). unit: each row is divided by its length."""
    matrix = counts.copy()
    if weighting == "binary":
        matrix.data[:] = 1
    elif weighting == "tfidf":
        matrix.data *= idf[matrix.indices]
    elif weighting != "count":
        raise UserError(f"weighting={weighting}: expected binary, count or tfidf")
    if unit:
        length = np.sqrt(np.bincount(_rows(matrix), matrix.data**2, matrix.shape[0]))
        matrix.data /= np.where(length > 0, length, 1).astype(np.float32)[_rows(matrix)]
    return matrix


def naive_bayes(matrix, labels, classes: int, weights=None, alpha: float = 1.0) -> Linear:
    """Multinomial naive Bayes: w = log((alpha + Σ_c f) / Σ_V (alpha + Σ_c f)) for each class c, b = log P(c).

    labels: int [N] below `classes`; weights [N]: of each document. Of two classes the second's w and b less the first's
    are returned: the log-count ratio and log(N+ / N-) (Wang & Manning 2012, section 2.1).
    """
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)
    sums = alpha + _class_sums(matrix, labels, classes, weights)  # [V,K]
    w, b = np.log(sums / sums.sum(0)), np.log(np.bincount(labels, weights, classes) / weights.sum())
    if classes == 2:
        w, b = w[:, 1:] - w[:, :1], b[1:] - b[:1]
    return Linear(w.astype(np.float32), b.astype(np.float32))


def log_count_ratio(matrix, labels, classes: int, weights=None, alpha: float = 1.0) -> np.ndarray:
    """r = log((p / |p|_1) / (q / |q|_1)), where p = alpha + Σ f over a class and q the same over the others, [V,S]."""
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)
    sums = _class_sums(matrix, labels, classes, weights)
    p, q = alpha + sums, alpha + sums.sum(1, keepdims=True) - sums
    r = np.log(p / p.sum(0)) - np.log(q / q.sum(0))
    return (r[:, 1:] if classes == 2 else r).astype(np.float32)


def interpolate(model: Linear, beta: float) -> Linear:
    """w' = (1 - beta) mean|w| + beta w: between naive Bayes and the SVM (Wang & Manning 2012, eq. 4)."""
    return model._replace(w=(1 - beta) * np.abs(model.w).mean(0, keepdims=True) + beta * model.w)


def scale(model: Linear, ratio: np.ndarray) -> Linear:
    """The model on f that does what `model` does on r * f."""
    return model._replace(w=model.w * ratio)


def linear_params(columns: int, classes: int) -> dict:
    """A tree of Param: V S weights and S biases, all 0 at the start."""
    scores = 1 if classes == 2 else classes
    return {"w": Param((columns, scores), ("vocab", None), zeros), "b": Param((scores,), (None,), zeros)}


def linear(params, x: Sparse, documents: int):
    """Scores f . w + b of the documents, [N,S]."""
    picked = x.values[:, None] * params["w"][x.columns]
    return jax.ops.segment_sum(picked, x.rows, documents, indices_are_sorted=True) + params["b"][None]


def linear_loss(s, labels, weights, loss: str):
    """(weighted sum, sum of weights) of a loss of the scores s [N,S]: labels int[N], weights [N].

    "logistic": log(1 + exp(-y s)), y = ±1; of more than two classes the softmax's. "squared_hinge": max(0, 1 - y s)²,
    of more than two classes each against the rest.
    """
    if s.shape[1] > 1 and loss == "logistic":
        return cross_entropy(s, labels, weights)
    y = 2.0 * (labels[:, None] if s.shape[1] == 1 else jax.nn.one_hot(labels, s.shape[1])) - 1
    each = jax.nn.softplus(-y * s) if loss == "logistic" else jnp.square(jnp.maximum(0, 1 - y * s))
    return (each.sum(1) * weights).sum(), weights.sum()


def fit(matrix, labels, classes: int, loss: str, c: float, *, weights=None, ratio=None, steps=300) -> Linear:
    """The minimum of 1/2 |w|² + c Σ loss over the documents (LIBLINEAR's objective; the bias b goes free).

    matrix: csr [N,V]; labels: int [N]; weights [N]: of each document, 0 leaves it out. ratio [V,S]: f is multiplied by
    it, and w belongs to what results. Stops after `steps` of L-BFGS, or where the gradient fell to 1/1000 of what it is
    at zero (LIBLINEAR: to 1/200 where the classes are even).
    """
    if loss not in LOSSES:
        raise UserError(f"loss={loss}: expected one of {', '.join(LOSSES)}")
    x = Sparse(*map(jnp.asarray, (matrix.data, _rows(matrix), matrix.indices)))
    weights = jnp.ones(len(labels)) if weights is None else jnp.asarray(weights, jnp.float32)
    begin = init(linear_params(matrix.shape[1], classes), jax.random.key(0))
    ratio = jnp.ones((1, 1)) if ratio is None else jnp.asarray(ratio)
    params = _minimize(begin, x, jnp.asarray(labels), weights, jnp.float32(c), ratio, loss, steps)
    return Linear(*(np.asarray(params[name]) for name in ("w", "b")))


@partial(jax.jit, static_argnames=("loss", "steps"))
def _minimize(params, x, labels, weights, c, ratio, loss: str, steps: int):
    """L-BFGS with an exact line search: a score is linear in the parameters, so along a direction d the scores are
    s + a X d. A step takes X d and X' g once each, and its search no product at all."""
    penalty = 1 / (c * weights.sum())  # all is divided by c Σ weights: the same minimum, with values about 1
    start, unravel = ravel_pytree(params)

    def score(flat):
        p = unravel(flat)
        return linear({**p, "w": jnp.broadcast_to(ratio, p["w"].shape) * p["w"]}, x, len(labels))

    def mean(s):
        total, weight = linear_loss(s, labels, weights, loss)
        return total / weight

    def penalized(flat):  # the weights, not the biases
        p = unravel(flat)
        return ravel_pytree({**p, "b": jnp.zeros_like(p["b"])})[0]

    def gradient_at(flat, s):
        (gradient,) = jax.vjp(score, flat)[1](jax.grad(mean)(s))
        return gradient + penalty * penalized(flat)

    def going(carry):
        _, _, gradient, _, step = carry
        return (step < steps) & (jnp.linalg.norm(gradient) > enough)

    def advance(carry):
        flat, s, gradient, memory, step = carry
        direction = -_newton(memory, gradient)
        along = score(direction)
        bent = penalized(direction)
        tilt, square = jnp.vdot(flat, bent), jnp.vdot(bent, bent)

        def slope(a):
            return jax.jvp(lambda a: mean(s + a * along), (a,), (1.0,))[1] + penalty * (tilt + a * square)

        a = _root(slope)
        flat, s = flat + a * direction, s + a * along
        new = gradient_at(flat, s)
        return flat, s, new, _remember(memory, a * direction, new - gradient, step), step + 1

    s = score(start)
    gradient = gradient_at(start, s)
    enough = 1e-3 * jnp.linalg.norm(gradient)
    memory = Memory(jnp.zeros((2, MEMORY, len(start))), jnp.zeros((2 * MEMORY, 2 * MEMORY)), jnp.zeros(MEMORY, int))
    flat, *_ = jax.lax.while_loop(going, advance, (start, s, gradient, memory, 0))
    return unravel(flat)


MEMORY = 8  # steps that L-BFGS remembers


class Memory(NamedTuple):
    """The last steps, and the products of all of them with one another: with these, the two loops of L-BFGS run over
    MEMORY numbers and only two passes over the vectors remain (Chen et al. 2014, "Large-scale L-BFGS using MapReduce").
    optax's took 190 ms a step of IMDB's bigrams, twice the products with the matrix; this takes 30."""

    pairs: jax.Array  # [2,M,P] s, the parameters' changes, and y, the gradient's
    products: jax.Array  # [2M,2M]
    newest: jax.Array  # int [M] places, newest first


def _remember(memory: Memory, s, y, step) -> Memory:
    place = step % MEMORY
    pairs = jax.lax.dynamic_update_slice(memory.pairs, jnp.stack([s, y])[:, None], (0, place, 0))
    new = pairs.reshape(2 * MEMORY, -1) @ jnp.stack([s, y], axis=1)  # [2M,2]
    at = jnp.stack([place, MEMORY + place])
    products = memory.products.at[:, at].set(new).at[at].set(new.T)
    return Memory(pairs, products, (place - jnp.arange(MEMORY)) % MEMORY)


def _newton(memory: Memory, gradient):
    """The inverse Hessian as L-BFGS knows it times the gradient [P]."""
    m, pairs = MEMORY, memory.pairs.reshape(2 * MEMORY, -1)
    g = pairs @ gradient
    gram = jnp.block([[memory.products, g[:, None]], [g[None], jnp.vdot(gradient, gradient)[None, None]]])
    curvature = jnp.diagonal(memory.products[:m, m:])  # s . y, which is 0 where nothing is remembered
    inverse = jnp.where(curvature > 0, 1 / jnp.where(curvature > 0, curvature, 1), 0.0)

    def back(share, i):
        alpha = inverse[i] * jnp.vdot(gram[i], share)
        return share.at[m + i].add(-alpha), alpha

    def forth(share, step):
        i, alpha = step
        return share.at[i].add(alpha - inverse[i] * jnp.vdot(gram[m + i], share)), None

    share, alphas = jax.lax.scan(back, jnp.zeros(2 * m + 1).at[-1].set(1.0), memory.newest)
    last = memory.newest[0]
    share *= jnp.where(inverse[last] > 0, curvature[last] / jnp.maximum(gram[m + last, m + last], 1e-30), 1.0)
    share, _ = jax.lax.scan(forth, share, (memory.newest[::-1], alphas[::-1]))
    return share[:-1] @ pairs + share[-1] * gradient


def _root(slope, steps: int = 20):
    """The a > 0 where the rising function `slope` is zero: Newton's steps, kept between the bounds known so far."""

    def advance(_, carry):
        a, low, high = carry
        value, rise = jax.jvp(slope, (a,), (1.0,))
        low, high = jnp.where(value < 0, a, low), jnp.where(value < 0, high, a)
        newton = a - value / rise
        inside = (newton > low) & (newton < high) & (newton < 10 * a)
        return jnp.where(inside, newton, jnp.where(jnp.isinf(high), 10 * a, (low + high) / 2)), low, high

    return jax.lax.fori_loop(0, steps, advance, (jnp.float32(1), jnp.float32(0), jnp.float32(jnp.inf)))[0]


def scores(model: Linear, matrix) -> np.ndarray:
    """A score for each class, [N,K]; of two classes the first's is 0. numpy and scipy, for a matrix of any size."""
    s = np.asarray(matrix @ model.w) + model.b
    return np.concatenate([np.zeros_like(s), s], axis=1) if s.shape[1] == 1 else s


def class_weights(model: Linear) -> np.ndarray:
    """How much a column speaks for each class against the others, [V,K]."""
    w = np.concatenate([-model.w, model.w], axis=1) if model.w.shape[1] == 1 else model.w
    return w - w.mean(1, keepdims=True)


def _class_sums(matrix, labels, classes: int, weights) -> np.ndarray:
    """Σ f over the documents of each class, float64 [V,K]."""
    onehot = sparse.csr_array((weights, (np.arange(len(labels)), labels)), shape=(len(labels), classes))
    return (matrix.T @ onehot).toarray()


def _rows(matrix) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))


def _flat(documents, words: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Each word's column (-1: not in the vocabulary) and its document, int64 [T], the documents after one another."""
    lengths = [len(document) for document in documents]
    ids = (words.get(word, -1) for document in documents for word in document)
    return np.fromiter(ids, np.int64, sum(lengths)), np.repeat(np.arange(len(documents)), lengths)


def _keys(entries, ids, document, words: int) -> np.ndarray:
    """The key of the n-gram that ends at each word, -1 where none does, from the entries of the (n-1)-grams, [T]."""
    keys = np.full(len(ids), -1)
    before, last = entries[:-1], ids[1:]
    good = (before >= 0) & (last >= 0) & (document[1:] == document[:-1])
    keys[1:][good] = before[good] * words + last[good]
    return keys


def _find(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The place of each key in the sorted `known`, -1 where it is not there."""
    if not len(known):
        return np.full(len(keys), -1)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, place, -1)
