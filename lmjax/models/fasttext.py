"""fastText: the mean of a text's word and n-gram vectors, and a softmax over classes.

Joulin, Grave, Bojanowski & Mikolov 2016, "Bag of tricks for efficient text classification". N-grams are not listed but
hashed into a fixed number of buckets. Training is plain SGD whose rate falls linearly to zero. A step changes the rows
of the table that its texts read, and no other.

Departures: the mean is over B texts a step, their gradients summed, where fastText's threads take one text each without
locks; the hash is CRC-32 of the word where fastText's is FNV-1a; the softmax is the full one, not hierarchical.

B texts a step, T their words and n-grams after one another (padded), R rows of the table, D width, K classes.
"""

import zlib
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.losses import cross_entropy
from lmjax.param import Param, uniform, zeros


class FastText(NamedTuple):
    """Sizes of a model. ngrams: the longest n-gram, 1: words alone, which take no buckets."""

    words: int
    classes: int
    dim: int = 10
    ngrams: int = 1
    buckets: int = 0


class Features(NamedTuple):
    """The table's rows of all texts: those of text i are rows[start[i]:start[i + 1]]."""

    rows: np.ndarray  # int32
    start: np.ndarray  # int64 [N+1]


def fasttext_params(config: FastText) -> dict:
    """A tree of Param: vectors of words and buckets, uniform in ±1/D, and the softmax, which has no bias, from 0."""
    rows = config.words + config.buckets
    return {
        "embed": Param((rows, config.dim), ("vocab", "embed"), uniform(1 / config.dim)),
        "softmax": Param((config.dim, config.classes), ("embed", None), zeros),
    }


def features(documents: Sequence[Sequence[str]], words: dict[str, int], config: FastText) -> Features:
    """The rows of each text's words, and behind them those of its n-grams. Words out of the vocabulary have no row of
    their own, but are part of n-grams."""
    hashes: dict[str, int] = {}
    rows = []
    for document in documents:
        found = [words[word] for word in document if word in words]
        if config.ngrams > 1:
            for word in document:
                if word not in hashes:
                    hashes[word] = zlib.crc32(word.encode())
            values = np.array([hashes[word] for word in document], np.uint64)
            h = values
            for n in range(1, config.ngrams):  # h = h' * 116049371 + hash, modulo 2^64, as fastText chains them
                h = h[: len(values) - n] * np.uint64(116049371) + values[n:]
                found.extend((config.words + (h % np.uint64(config.buckets)).astype(np.int64)).tolist())
        rows.append(found)
    start = np.concatenate([[0], np.cumsum([len(found) for found in rows])])
    return Features(np.array([row for found in rows for row in found], np.int32), start)


def fasttext(params, batch):
    """Scores of each class, [B,K], before the softmax.

    batch: "rows" int[T] of the table, "document" int[T], which of the B texts each belongs to (B: padding), "labels"
    int[B], of which the length is read. A text without a row has the mean 0.
    """
    return _scores(params["embed"][batch["rows"]], params["softmax"], batch["document"], len(batch["labels"]))


def _scores(vectors, softmax, document, texts: int):
    total = jax.ops.segment_sum(vectors, document, texts)
    length = jax.ops.segment_sum(jnp.ones(len(document)), document, texts)
    return total / jnp.maximum(length, 1)[:, None] @ softmax


def fasttext_loss(params, batch, key=None, carry=()):
    """Negative log-likelihood in nats as train/step.py wants it: (sum, (weight, metrics, carry)).

    batch: see `fasttext`, and "weights" [B], 0 for a text that is padding.
    """
    s = fasttext(params, batch)
    total, weight = cross_entropy(s, batch["labels"], batch["weights"])
    right = ((s.argmax(-1) == batch["labels"]) * batch["weights"]).sum()
    return total, (weight, {"accuracy": right}, carry)


def sgd_step(params, batch, rate):
    """params - rate * gradient of `fasttext_loss`'s sum, and that sum. The table's gradient is never a whole table."""

    def loss(vectors, softmax):
        s = _scores(vectors, softmax, batch["document"], len(batch["labels"]))
        return cross_entropy(s, batch["labels"], batch["weights"])[0]

    vectors = params["embed"][batch["rows"]]  # [T,D]
    total, (dvectors, dsoftmax) = jax.value_and_grad(loss, (0, 1))(vectors, params["softmax"])
    # add, not set: a word that stands twice gets both gradients
    embed = params["embed"].at[batch["rows"]].add(-rate * dvectors)
    return {"embed": embed, "softmax": params["softmax"] - rate * dsoftmax}, total


@partial(jax.jit, donate_argnums=0)
def sgd_steps(params, batches, rates):
    """`sgd_step` for each of the batches, stacked [steps, ...], at its rate [steps]: (params, the losses' sums)."""

    def body(params, step):
        return sgd_step(params, *step)

    return jax.lax.scan(body, params, (batches, rates))


def batches(data: Features, labels, order, size: int, width: int) -> dict[str, np.ndarray]:
    """The texts `order` in steps of `size`, for `sgd_steps`: a dict of arrays [steps, ...]. width: T."""
    steps = -(-len(order) // size)
    rows, document = np.zeros((steps, width), np.int32), np.full((steps, width), size, np.int32)
    padded, weights = np.zeros((steps, size), np.int32), np.zeros((steps, size), np.float32)
    for step in range(steps):
        texts = order[step * size : (step + 1) * size]
        found = [data.rows[data.start[i] : data.start[i + 1]] for i in texts]
        lengths = [len(f) for f in found]
        rows[step, : sum(lengths)] = np.concatenate(found)
        document[step, : sum(lengths)] = np.repeat(np.arange(len(texts)), lengths)
        padded[step, : len(texts)], weights[step, : len(texts)] = labels[texts], 1
    return {"rows": rows, "document": document, "labels": padded, "weights": weights}


def width_for(data: Features, orders: Sequence[np.ndarray], size: int) -> int:
    """The T that every batch of these orders fits in, a multiple of 64."""
    lengths = np.diff(data.start)
    most = max(np.add.reduceat(lengths[order], np.arange(0, len(order), size)).max() for order in orders)
    return max(64, -(-int(most) // 64) * 64)


def train(params, data: Features, labels, texts, *, epochs: int, rate: float, size: int, seed: int):
    """Trains on the texts at `texts`, each epoch in an order of its own: (params, [the mean loss of each epoch]).

    The rate falls from `rate` to 0. `params` is used up: its memory becomes the result's.
    """
    orders = [np.random.default_rng((seed, epoch)).permutation(texts) for epoch in range(epochs)]
    width, steps, losses = width_for(data, orders, size), -(-len(texts) // size), []
    for epoch, order in enumerate(orders):
        done = (epoch * steps + np.arange(steps)) / (epochs * steps)
        rates = (rate * (1 - done)).astype(np.float32)
        params, sums = sgd_steps(params, batches(data, labels, order, size, width), rates)
        losses.append(float(sums.sum()) / len(texts))
    return params, losses


_score = jax.jit(fasttext)


def scores(params, data: Features, texts, size: int = 64) -> np.ndarray:
    """`fasttext` of the texts at `texts`, [N,K]."""
    width = width_for(data, [texts], size)
    stacked = batches(data, np.zeros(len(data.start) - 1, np.int32), texts, size, width)
    parts = [_score(params, {k: v[step] for k, v in stacked.items()}) for step in range(len(stacked["rows"]))]
    return np.concatenate([np.asarray(part) for part in parts])[: len(texts)]
