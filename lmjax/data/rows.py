"""Sentences as rows of word pieces, to classify or to tag with a BERT, and their batches.

A batch: tokens int32 [B,T], valid bool [B,T], labels int32 [B] or, of tags, [B,T], weights float32 of labels' shape: 1
for what counts, 0 for a row that only fills the batch and for what is no word's first piece. T is a multiple of 16, so
that a few shapes serve all.
"""

from typing import NamedTuple

import numpy as np

from lmjax.data.batches import drawn_from
from lmjax.data.masked import marks

MULTIPLE, POOL = 16, 16  # of T; batches that are sorted by length together


class Rows(NamedTuple):
    """tokens: int32 [T] of each row, between [CLS] and [SEP]. labels: int32 [N], or of tags int32 [T] of each row, -1
    where a piece has none. pad: the token that fills. beside: further arrays [N, ...] that a batch has by these names,
    0 in rows that only fill it."""

    tokens: list[np.ndarray]
    labels: np.ndarray | list[np.ndarray]
    pad: int
    beside: dict[str, np.ndarray] = {}  # noqa: RUF012 (never written to)

    def take(self, at) -> "Rows":
        labels = [self.labels[i] for i in at] if isinstance(self.labels, list) else self.labels[at]
        beside = {name: array[at] for name, array in self.beside.items()}
        return Rows([self.tokens[i] for i in at], labels, self.pad, beside)


def classified(texts: list[str], labels, tokenizer, longest: int) -> Rows:
    """Texts and their classes, int [N]; of a text that does not fit into `longest` tokens the beginning."""
    ids = marks(tokenizer)
    pieces = tokenizer.encode_lines(texts)
    return Rows([_row(row, ids, longest) for row in pieces], np.asarray(labels, np.int32), ids["[PAD]"])


def tagged(sentences, tags: tuple[str, ...], tokenizer, longest: int) -> Rows:
    """Sentences (words, tags), each tag on the first piece of its word; words behind `longest` tokens are left out."""
    ids, place = marks(tokenizer), {tag: number for number, tag in enumerate(tags)}
    tokens, labels = [], []
    for sentence, (pieces, starts) in zip(sentences, word_pieces(sentences, tokenizer)):
        row = _row(pieces, ids, longest)
        label = np.full(len(row), -1, np.int32)
        fits = starts < len(row) - 1
        label[starts[fits]] = np.array([place[tag] for tag in sentence.tags], np.int32)[fits]
        tokens.append(row)
        labels.append(label)
    return Rows(tokens, labels, ids["[PAD]"])


def word_pieces(sentences, tokenizer):
    """Of each sentence its pieces int32 [P], and the place int [T] of each word's first in a row that begins with
    [CLS]. A word that the tokenizer has no piece for is [UNK]."""
    unknown = np.array([marks(tokenizer)["[UNK]"]], np.int32)
    words = sorted({word for sentence in sentences for word in sentence.words})
    pieces = dict(zip(words, tokenizer.encode_lines(words)))
    for sentence in sentences:
        parts = [pieces[word] if len(pieces[word]) else unknown for word in sentence.words]
        yield np.concatenate(parts), 1 + np.cumsum([0, *map(len, parts[:-1])])


def whole_row(pieces, tokenizer) -> np.ndarray:
    """[CLS] pieces [SEP], int32."""
    return _row(pieces, marks(tokenizer), len(pieces) + 2)


def _row(pieces, ids: dict[str, int], longest: int) -> np.ndarray:
    return np.concatenate([[ids["[CLS]"]], pieces[: longest - 2], [ids["[SEP]"]]]).astype(np.int32)


def batches(rows: Rows, batch: int, seed: int):
    """`(batch(step), steps_per_epoch)`, a pure function of (seed, step). Every row comes once an epoch, among rows of
    like length."""
    lengths = np.array([len(row) for row in rows.tokens])
    steps = -(-len(lengths) // batch)
    known = {}  # the last epoch's parts, only a memory of f(seed, epoch)

    def parts(epoch: int) -> list[np.ndarray]:
        if epoch not in known:
            known.clear()
            rng = drawn_from(seed, epoch)
            order = rng.permutation(len(lengths))
            pools = [order[at : at + POOL * batch] for at in range(0, len(order), POOL * batch)]
            order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
            found = [order[at : at + batch] for at in range(0, len(order), batch)]
            known[epoch] = [found[i] for i in rng.permutation(len(found))]
        return known[epoch]

    return lambda step: padded(rows, parts(step // steps)[step % steps], batch), steps


def evaluation(rows: Rows, batch: int, lengths=()):
    """Every row once, by length: an iterator of (the rows' places int [n], batch). lengths: as of `padded`."""
    order = np.argsort([len(row) for row in rows.tokens], kind="stable")
    for start in range(0, len(order), batch):
        at = order[start : start + batch]
        yield at, padded(rows, at, batch, lengths)


def padded(rows: Rows, at, batch: int, lengths=()) -> dict:
    """The batch of the rows `at` int [n], filled to `batch`. T is the first of the rising `lengths` that holds them, or
    where none does a multiple of 16."""
    longest = max(len(rows.tokens[i]) for i in at)
    length = next((length for length in lengths if length >= longest), -(-longest // MULTIPLE) * MULTIPLE)
    tokens, valid = np.full((batch, length), rows.pad, np.int32), np.zeros((batch, length), bool)
    tags = isinstance(rows.labels, list)
    labels = np.full((batch, length) if tags else batch, -1, np.int32)
    for n, i in enumerate(at):
        width = len(rows.tokens[i])
        tokens[n, :width], valid[n, :width] = rows.tokens[i], True
        labels[(n, slice(width)) if tags else n] = rows.labels[i]
    weights = (labels >= 0).astype(np.float32)
    more = {name: np.zeros((batch, *array.shape[1:]), array.dtype) for name, array in rows.beside.items()}
    for name, array in rows.beside.items():
        more[name][: len(at)] = array[at]
    return {"tokens": tokens, "valid": valid, "labels": np.maximum(labels, 0), "weights": weights} | more
