"""Batches: each is a pure function of its step (and seed), so there is nothing to seek and nothing to save.

A batch is a dict of arrays with the batch's axis first:

    tokens   int32[B,T]    what the model reads
    targets  int32[B,T]    what it should say next: the token after each
    weights  float32[B,T]  1 for a target that counts, 0 for padding, which stands at the end of a row
    start    bool[B]       where rows continue from step to step: True where the carried state begins anew
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lmjax.errors import UserError


def drawn_from(seed: int, number: int) -> np.random.Generator:
    """The randomness of one step or epoch: a function of (seed, number).

    Philox is counter-based: so keyed its streams are independent, and cheap to begin.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))


def windows(tokens, batch: int, context: int, seed: int):
    """Random windows, as nanoGPT draws them: `batch(step)` has `batch` rows of `context` tokens from anywhere.

    tokens: int[N]. Raises UserError where N is too short for one window.
    """
    tokens = _checked(tokens, context + 1, f"one window of context={context} and the token after it")
    rows = np.lib.stride_tricks.sliding_window_view(tokens, context + 1)  # [N-T, T+1], a view

    def at(step: int) -> dict:
        rng = drawn_from(seed, step)
        taken = rows[rng.integers(len(rows), size=batch)]
        return _batch(taken[:, :-1], taken[:, 1:], np.ones((batch, context)))

    return at


def contiguous(tokens, batch: int, unroll: int):
    """Truncated backpropagation through time (Zaremba et al. 2014): `(batch(step), steps_per_epoch)`.

    The text is cut into `batch` streams side by side; step i reads window i of every stream and begins again after
    the last, with `start` True. What does not fill a window is left out.
    tokens: int[N]. Raises UserError where N is too short for one window.
    """
    streams = _streams(tokens, batch, unroll)  # [B, N/B]
    steps = (streams.shape[1] - 1) // unroll

    def at(step: int) -> dict:
        first = step % steps * unroll
        return _batch(streams[:, first:first + unroll], streams[:, first + 1:first + unroll + 1],
                      np.ones((batch, unroll)), start=np.full(batch, first == 0))

    return at, steps


def stretches(tokens, rows: int, turns: int, length: int):
    """Running text side by side: `(batch(step), steps_per_epoch)`, for models that draw their own windows.

    The text is cut into `rows` parts; step i has of each part stretch i, `turns` times `length` tokens, and begins
    again after the last. A batch: "tokens" int32[rows,turns,length], -1 behind a part's end, and "row" int32[rows], the
    numbers of the rows. tokens: int[N], N >= 1.
    """
    tokens = _checked(tokens, 1, "one word")
    part = -(-len(tokens) // rows)
    steps = -(-part // (turns * length))

    def at(step: int) -> dict:
        first = step % steps * turns * length
        taken = np.full((rows, turns * length), -1, np.int32)
        for row in range(rows):
            begin, end = row * part + first, min((row + 1) * part, len(tokens), row * part + first + turns * length)
            taken[row, : max(end - begin, 0)] = tokens[begin : max(end, begin)]
        return {"tokens": taken.reshape(rows, turns, length), "row": np.arange(rows, dtype=np.int32)}

    return at, steps


def jittered(tokens, batch: int, unroll: int, seed: int):
    """AWD-LSTM's windows of random length (Merity et al. 2017, section 5): `(batch(step), steps_per_epoch)`.

    A length is normal around `unroll` (in 5 % of the cases around its half) with standard deviation 5, and at least 5.
    Departure: at most unroll + 10, the bound the authors' code proposes in a comment, so that one shape
    [B, unroll + 10] serves all; shorter windows are padded at the end. Every target of an epoch is seen once.
    A batch also has "lengths" int32[B] and "scale" float32[B] = length / unroll, by which the learning rate is to be
    multiplied. Epochs differ a little in their number of windows: steps_per_epoch is the first one's.
    tokens: int[N]. Raises UserError where N is too short for one window.
    """
    streams = _streams(tokens, batch, unroll)
    targets = streams.shape[1] - 1
    longest = unroll + 10
    # What the epochs so far were, as _jittered_bounds has them, and the step each begins at: only a memory of f(seed).
    bounds, begins = [], [0]

    def at(step: int) -> dict:
        while step >= begins[-1]:
            bounds.append(_jittered_bounds(targets, unroll, longest, seed, epoch=len(bounds)))
            begins.append(begins[-1] + len(bounds[-1]) - 1)
        epoch = np.searchsorted(begins, step, side="right") - 1
        window = step - begins[epoch]
        first, last = bounds[epoch][window:window + 2]
        length = int(last - first)
        return _batch(_padded(streams[:, first:last], longest), _padded(streams[:, first + 1:last + 1], longest),
                      _padded(np.ones((batch, length)), longest), start=np.full(batch, first == 0),
                      lengths=np.full(batch, length, np.int32), scale=np.full(batch, length / unroll, np.float32))

    return at, len(_jittered_bounds(targets, unroll, longest, seed, epoch=0)) - 1


def evaluation(tokens, batch: int, unroll: int):
    """Every target once, in streams that carry their state: an iterator of batches.

    The text's targets (every token but the first) are cut into `batch` streams of equal length, the last one padded.
    Each stream begins without memory, so batch=1 gives a paper's figure and a larger one costs it a little.
    tokens: int[N]. Raises UserError where N < 2.
    """
    tokens = _checked(tokens, 2, "one token and its target")
    targets = len(tokens) - 1
    length = -(-targets // batch)
    first = np.arange(batch) * length
    end = np.minimum(first + length, targets)
    return (_rows(tokens, first + at, end, unroll, start=np.full(batch, at == 0)) for at in range(0, length, unroll))


def evaluation_windows(tokens, context: int, batch: int):
    """Every target once, in windows that do not overlap and remember nothing: an iterator of batches.

    The last window is padded, and so is the last batch's number of rows.
    tokens: int[N]. Raises UserError where N < 2.
    """
    tokens = _checked(tokens, 2, "one token and its target")
    targets = len(tokens) - 1
    rows = np.arange(batch) * context
    return (_rows(tokens, at + rows, np.minimum(at + rows + context, targets), context)
            for at in range(0, targets, batch * context))


class Bucketed(NamedTuple):
    """Sentence pairs in batches of similar length: `batch(step)`, the steps of an epoch, the lengths that batches are
    padded to, and the target tokens of a mean step."""

    batch: Callable[[int], dict]
    steps: int
    lengths: tuple[int, ...]
    tokens: float


def bucketed(source, target, begin: int, *, rows: int = 0, budget: int = 0, multiple: int = 8, shapes: int = 6, seed=0):
    """Pairs of sentences by length, in few shapes: a `Bucketed`.

    source, target: int[N] arrays with the end-of-sentence last. A pair's length is that of its longer side; pairs of
    similar length make a bucket, at most `shapes` of them, cut where padding is least. A batch takes `rows` pairs of
    one bucket, or as many as `budget` tokens hold, a multiple of `multiple`; buckets, and pairs in them, come in an
    order drawn from (seed, epoch). Every pair is seen once an epoch: a bucket's last batch is filled with empty rows.

    A batch: source int32[B,L] and seen bool[B,L]; tokens (after `begin`), targets int32[B,L] and weights float32[B,L].
    """
    lengths = np.maximum([len(s) for s in source], [len(t) for t in target])
    ends = cut_lengths(lengths, shapes)
    sizes = [rows or max(budget // end // multiple, 1) * multiple for end in ends]
    turn, steps, _ = in_buckets(lengths, ends, sizes, seed)

    def at(step: int) -> dict:
        b, who = turn(step)
        return pair_batch(source, target, begin, who, sizes[b], int(ends[b]))

    return Bucketed(at, steps, tuple(map(int, ends)), sum(map(len, target)) / steps)


def in_buckets(lengths, ends, sizes, seed: int):
    """Whose turn it is: (turn(step) -> (bucket, members int [n]), the steps of an epoch, the members of each bucket).

    What is up to ends[0] long makes the first bucket, and so on; a batch has sizes[b] of bucket b, the last what is
    left. Batches, and members in them, come in an order that is a function of (seed, epoch).
    """
    place = np.searchsorted(ends, lengths)
    members = [np.flatnonzero(place == b) for b in range(len(ends))]
    plan = [(b, first) for b, who in enumerate(members) for first in range(0, len(who), sizes[b])]
    known = {}  # the order of the last epoch asked for: only a memory of f(seed, epoch)

    def order(epoch):
        if epoch not in known:
            known.clear()
            rng = drawn_from(seed, epoch)
            known[epoch] = [rng.permutation(who) for who in members], rng.permutation(len(plan))
        return known[epoch]

    def turn(step: int):
        shuffled, turns = order(step // len(plan))
        b, first = plan[turns[step % len(plan)]]
        return b, shuffled[b][first : first + sizes[b]]

    return turn, len(plan), members


def sorted_batches(source, target, begin: int, rows: int, shapes: int = 6, ends=()):
    """All pairs by rising length, for evaluation: an iterator of (numbers of the pairs, batch), `rows` of them each.

    They are padded to the first of the rising `ends` that holds them, or, where none are given or one is longer than
    all, to at most so many lengths fitted to them.
    """
    lengths = np.maximum([len(s) for s in source], [len(t) for t in target])
    given = len(ends) > 0 and lengths.max() <= ends[-1]
    ends, by_length = np.asarray(ends) if given else cut_lengths(lengths, shapes), np.argsort(lengths, kind="stable")
    place = np.searchsorted(ends, lengths[by_length])
    for b, end in enumerate(ends):
        who = by_length[place == b]
        for first in range(0, len(who), rows):
            some = who[first : first + rows]
            yield some, pair_batch(source, target, begin, some, rows, int(end))


def pair_batch(source, target, begin: int, who, rows: int, length: int) -> dict:
    """The pairs numbered `who` in a batch of `rows` rows of `length` places."""
    batch = {name: np.zeros((rows, length), np.int32) for name in ("source", "tokens", "targets")}
    seen, weights = np.zeros((rows, length), bool), np.zeros((rows, length), np.float32)
    for row, i in enumerate(who):
        s, t = source[i], target[i]
        batch["source"][row, : len(s)], seen[row, : len(s)] = s, True
        batch["tokens"][row, 0], batch["tokens"][row, 1 : len(t)] = begin, t[:-1]
        batch["targets"][row, : len(t)], weights[row, : len(t)] = t, 1.0
    return batch | {"seen": seen, "weights": weights}


def cut_lengths(lengths, most: int) -> np.ndarray:
    """At most `most` lengths to pad to, rising, that together pad the least: int array, the last is the longest.

    By dynamic programming over the lengths that occur.
    """
    values, counts = np.unique(lengths, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    n = len(values)
    # cost[j]: places that the shortest j lengths take in the buckets so far; last[k][j]: where the last of k+1 begins.
    cost = below * np.concatenate([[0], values])
    last = [np.zeros(n + 1, int)]
    for _ in range(1, min(most, n)):
        joined = [cost[: j + 1] + (below[j] - below[: j + 1]) * values[max(j - 1, 0)] for j in range(n + 1)]
        last.append(np.array([int(np.argmin(x)) for x in joined]))
        cost = np.array([x.min() for x in joined])
    ends, j = [], n
    for begins in reversed(last):
        if j:
            ends.append(values[j - 1])
            j = begins[j]
    return np.array(ends[::-1])


def shuffled(count: int, batch: int, seed: int):
    """Which examples a step takes: `(order(step) -> int64[batch], steps_per_epoch)`.

    The epochs' permutations of `count` examples follow each other without a gap, so each comes once an epoch and a step
    may hold the end of one epoch and the beginning of the next.
    """
    known = {}  # the last permutations, only a memory of f(seed, epoch)

    def permutation(epoch: int) -> np.ndarray:
        if epoch not in known:
            if len(known) > 2:
                known.clear()
            rng = drawn_from(seed, epoch)
            known[epoch] = rng.permutation(count)
        return known[epoch]

    def order(step: int) -> np.ndarray:
        at = step * batch + np.arange(batch)
        epochs = range(at[0] // count, at[-1] // count + 1)
        return np.concatenate([permutation(epoch) for epoch in epochs])[at - epochs[0] * count]

    return order, -(-count // batch)


def _checked(tokens, least: int, what: str) -> np.ndarray:
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise UserError(f"tokens of shape {tokens.shape} and type {tokens.dtype}: expected a row of integers")
    if len(tokens) < least:
        raise UserError(f"the text has {len(tokens):,} tokens: expected at least {least:,}, {what}; "
                        "give more text or a smaller size")
    return tokens


def _streams(tokens, batch: int, unroll: int) -> np.ndarray:
    tokens = _checked(tokens, batch * (unroll + 1), f"batch={batch} streams of unroll={unroll} and the token after it")
    length = len(tokens) // batch
    return tokens[:batch * length].reshape(batch, length)


def _jittered_bounds(targets: int, unroll: int, longest: int, seed: int, epoch: int) -> np.ndarray:
    """Where the windows of an epoch begin and the last ends: int[windows + 1], from 0 to `targets`."""
    rng = drawn_from(seed, epoch)
    count = targets // 5 + 1  # none is shorter than 5, so these are enough
    mean = np.where(rng.random(count) < 0.95, unroll, unroll / 2)
    ends = np.cumsum(np.clip(rng.normal(mean, 5).astype(int), 5, longest))
    return np.concatenate([[0], ends[ends < targets], [targets]])


def _rows(tokens, first, end, length: int, **more) -> dict:
    """Rows of `length` targets from `first` [B] on, those at `end` [B] and after it padded."""
    at = first[:, None] + np.arange(length)  # [B,T]
    counts = at < end[:, None]
    at = np.where(counts, at, 0)
    return _batch(tokens[at] * counts, tokens[at + 1] * counts, counts, **more)


def _padded(rows, length: int) -> np.ndarray:
    return np.pad(rows, ((0, 0), (0, length - rows.shape[1])))


def _batch(tokens, targets, weights, **more) -> dict:
    # Copies: a device may go on reading a batch in place, and no caller's change may reach the text.
    return {"tokens": np.array(tokens, np.int32, order="C"), "targets": np.array(targets, np.int32, order="C"),
            "weights": np.array(weights, np.float32), **more}
