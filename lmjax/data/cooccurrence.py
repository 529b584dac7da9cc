"""How often words stand near each other: GloVe's matrix X, and its entries as batches (Pennington et al. 2014).

N words of running text, V types, W window. X is symmetric, so one triangle of it is counted and kept: 8 bytes an entry.
The text is taken in pieces; what stands around a word counts 1/d at a distance of d words (section 4.2). Then entries
are dealt into groups of K: one word with K others, so that who reads a group fetches that word's vectors once.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.sparse import csr_array

from lmjax.data.batches import drawn_from
from lmjax.errors import UserError

PIECE = 1 << 22  # pairs of words a thread counts at a time: 32 MB, and as much again thrice while they are summed up
THREADS = min(os.cpu_count() or 1, 4)  # numpy sorts and sums without Python's lock


def cooccurrences(ids, vocab: int, window: int) -> csr_array:
    """The upper triangle of X, float32 [V,V]: X[i,j] for i <= j, the sum of 1/d over all places of i and of j that are
    d <= `window` words apart. For i = j each pair of places counts twice, as from either side.

    ids: int[N] below `vocab`. UserError where they are too few for any pair, or `vocab` too large for 64 bits.
    """
    ids = np.asarray(ids)
    if len(ids) < 2:
        raise UserError(f"a text of {len(ids)} words: expected at least two, of which one stands near the other")
    if vocab**2 * window >= 1 << 63:
        raise UserError(f"{vocab:,} word types are too many to count pairs of: keep fewer (limit, min_count)")
    length = max(PIECE // window, 1)

    def count(start):
        return _count(ids[start : start + length + window], min(length, len(ids) - start), vocab, window)

    done = []  # each at least twice as large as the next: an entry is merged some log N times
    with ThreadPoolExecutor(THREADS) as pool:
        for piece in pool.map(count, range(0, len(ids), length)):
            done.append(piece)
            while len(done) > 1 and done[-2].nnz < 2 * done[-1].nnz:
                done.append(done.pop() + done.pop())
    while len(done) > 1:
        done.append(done.pop() + done.pop())
    return done[0]


def _count(ids, length: int, vocab: int, window: int) -> csr_array:
    """The triangle that `length` words make with the words behind them; `ids` holds `window` more where there are."""
    ids, bits = ids.astype(np.int64), (window - 1).bit_length()
    # A pair and its distance in one number: sorting numbers is what numpy does fastest.
    pairs = [_codes(ids, length, d, vocab) << bits | d - 1 for d in range(1, min(window, len(ids) - 1) + 1)]
    keys = np.concatenate(pairs) if pairs else np.zeros(0, np.int64)
    del pairs
    keys.sort()
    codes = keys >> bits
    begins = np.flatnonzero(np.concatenate([codes[:1] >= 0, codes[1:] != codes[:-1]]))
    weights = (1.0 / np.arange(1, window + 1))[keys & (1 << bits) - 1]
    del keys
    codes = codes[begins]
    x = np.add.reduceat(weights, begins) if len(begins) else weights
    x *= 1 + (codes % (vocab + 1) == 0)  # on the diagonal i V + i
    indptr = np.searchsorted(codes, np.arange(vocab + 1) * vocab).astype(np.int32)  # scipy widens them where it must
    return csr_array((x.astype(np.float32), (codes % vocab).astype(np.int32), indptr), shape=(vocab, vocab))


def _codes(ids, length: int, d: int, vocab: int) -> np.ndarray:
    """i V + j of the words d apart, i <= j."""
    first, second = ids[: min(length, len(ids) - d)], ids[d : length + d]
    return np.minimum(first, second) * vocab + np.maximum(first, second)


def entries(x: csr_array, group: int, rows: int, turns: int, seed: int):
    """The entries of a triangle in groups, each once an epoch: `(batch(step), steps_per_epoch)`.

    A batch: "word" int32[rows,turns], "other" int32[rows,turns,K], their "count" float32[rows,turns,K], 0 where there
    is no entry. K = `group`. The groups are the same in each epoch, their order is drawn anew from (seed, epoch).
    """
    word, other, count = _deal(x, group)
    size = rows * turns
    steps = -(-len(word) // size)
    order = (-1, None)  # the latest epoch's: only a memory of f(seed, epoch)

    def at(step: int) -> dict:
        nonlocal order
        epoch, first = step // steps, step % steps * size
        if order[0] != epoch:
            rng = drawn_from(seed, epoch)
            order = epoch, rng.permutation(len(word)).astype(np.int32)
        taken = order[1][first : first + size]
        empty = size - len(taken)
        return {
            "word": np.pad(word[taken], (0, empty)).reshape(rows, turns),
            "other": np.pad(other[taken], ((0, empty), (0, 0))).reshape(rows, turns, group),
            "count": np.pad(count[taken], ((0, empty), (0, 0))).reshape(rows, turns, group),
        }

    return at, steps


def _deal(x: csr_array, K: int):
    """(word int32 [G], other int32 [G,K], count float32 [G,K]): each row's entries in as few groups as hold them.

    They are dealt like cards, every so many-th entry to the same group: where ids go by frequency, each group has its
    share of frequent words and of rare ones.
    """
    sizes = np.diff(x.indptr)
    groups = -(-sizes // K)
    base = np.concatenate([[0], np.cumsum(groups)])
    word = np.repeat(np.arange(len(sizes), dtype=np.int32), groups)
    other, count = np.zeros(base[-1] * K, np.int32), np.zeros(base[-1] * K, np.float32)
    cuts = np.searchsorted(x.indptr, np.arange(0, x.nnz, PIECE))  # some rows at a time
    for low, high in zip(cuts, [*cuts[1:], len(sizes)], strict=True):
        begin, end = x.indptr[low], x.indptr[high]
        row = np.repeat(np.arange(low, high), sizes[low:high])
        slot, own = np.divmod(np.arange(begin, end) - x.indptr[row], groups[row])
        at = (base[row] + own) * K + slot
        other[at], count[at] = x.indices[begin:end], x.data[begin:end]
    return word, other.reshape(-1, K), count.reshape(-1, K)
