"""Subword vectors, fastText's: a word's vector is the mean of its own row and those of its character n-grams.

Bojanowski, Grave, Joulin & Mikolov 2017, "Enriching word vectors with subword information" (arXiv 1607.04606): word2vec
with, in the place of a vector a word,

    x_w = mean of z_w and z_g, g the n-grams of <w>, of min_n to max_n letters, the marks < and > among them

N-grams are not listed but hashed (FNV-1a, the signs of UTF-8) into buckets. A word that training never saw has n-grams
too, and so a vector. Departure: the paper's score is a sum over g, its program's a mean whose whole gradient each row
gets, so that a step moves x_w as far as word2vec's would; this follows the program, whose files `interop/fasttext.py`
reads and writes.

How it is computed. An update takes each of its words once, however often it comes: makes its vector from its rows,
lets word2vec.py work on these vectors as if they were its table, and hands a word's summed gradient to all its rows.
Rows are kept in pieces of four, the last of a word's filled up, so that words of any length fit one array. A row that
many words share is calmed as a word is there, by the pairs that it is expected to get from all of them.

V word types, N words or places, D width, R = V + buckets rows, U of them trained, C pieces of an update.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.models import word2vec
from lmjax.param import Param, uniform, zeros

PIECE = 4  # rows


class Rows(NamedTuple):
    """The rows of all words: those of word i are ids[start[i]:start[i + 1]]."""

    ids: np.ndarray  # int32
    start: np.ndarray  # int64 [N+1]


def ngrams(words: Sequence[str], config) -> Rows:
    """The buckets, from 0, of each word's n-grams, in the order of their first letters, then of their lengths."""
    text = np.frombuffer("".join(f"<{word}>" for word in words).encode(errors="replace"), np.uint8)
    letter = np.flatnonzero(text & 0xC0 != 0x80)  # where each begins in UTF-8
    size = np.diff(letter, append=len(text))
    lengths = np.array([len(word) + 2 for word in words], np.int64)
    word = np.repeat(np.arange(len(words)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(word))  # letters from here to the word's end
    signed = text.astype(np.int8).astype(np.uint32)  # the program's bytes are signed, and widened as such
    value, found = np.full(len(letter), 2166136261, np.uint32), []
    for n in range(1, config.max_n + 1):
        at = np.flatnonzero(left >= n)
        last = at + n - 1
        for byte in range(int(size.max(initial=0))):
            longer = size[last] > byte
            here = at[longer]
            value[here] = (value[here] ^ signed[letter[last[longer]] + byte]) * np.uint32(16777619)
        if n == 1:  # a mark alone is none
            at = at[(left[at] > 1) & (left[at] < lengths[word[at]])]
        if n >= config.min_n:
            found.append((at, value[at] % np.uint32(config.buckets)))
    if not found:
        return Rows(np.zeros(0, np.int32), np.zeros(len(words) + 1, np.int64))
    at, ids = (np.concatenate(part) for part in zip(*found))
    order = np.argsort(at, kind="stable")
    start = np.append(0, np.cumsum(np.bincount(word[at], minlength=len(words))))
    return Rows(ids[order].astype(np.int32), start)


def word_rows(words: Sequence[str], config, known: dict[str, int]) -> Rows:
    """The table's rows of each word: its own, where it is `known` by a number, then its n-grams'."""
    own = np.array([known.get(word, -1) for word in words], np.int32)
    found = ngrams(words, config)
    start = found.start + np.append(0, np.cumsum(own >= 0))
    ids, first = np.empty(start[-1], np.int32), np.zeros(start[-1], bool)
    first[start[:-1][own >= 0]] = True
    ids[first], ids[~first] = own[own >= 0], config.vocab + found.ids
    return Rows(ids, start)


def compose(table, config, words: Sequence[str], known: dict[str, int]) -> np.ndarray:
    """The vectors of words, float32 [N,D]; `known` gives the numbers of the vocabulary's. table: all rows [R,D].

    Other words are the mean of their n-grams alone, and 0 where they have none.
    """
    from scipy.sparse import csr_array

    ids, start = word_rows(words, config, known)
    size = np.diff(start)
    share = np.repeat(1 / np.maximum(size, 1), size).astype(np.float32)
    return csr_array((share, ids, start), shape=(len(words), len(table))) @ np.asarray(table, np.float32)


def used_rows(config, words: Sequence[str], counts) -> np.ndarray:
    """The rows [U] that the vocabulary has, the most used first: training keeps these alone, in this order.

    What is read most then lies together, which on CPU makes an update up to twice as fast; and buckets that no word
    has, never trained, cost nothing.
    """
    given = _given(config, word_rows(words, config, _numbers(words)), np.asarray(counts))
    order = np.argsort(-given, kind="stable")
    return order[: np.count_nonzero(given)]


def unpacked(table, used, config) -> np.ndarray:
    """The rows of all words and buckets, [R,D], of those `used`; 0 where training has none."""
    full = np.zeros((config.vocab + config.buckets, config.dim), np.float32)
    full[used] = table
    return full


def subword_params(config, used):
    """ "input": the rows of `used_rows`; "output": what words' vectors are multiplied with."""
    axes = ("vocab", "embed")
    return {
        "input": Param((len(used), config.dim), axes, uniform(1 / config.dim)),
        "output": Param((config.vocab, config.dim), axes, zeros),
    }


def subword_tables(config, words: Sequence[str], counts, used) -> dict:
    """`word2vec_tables`, with "input" factors on the gradients of the `used` rows [U], and

    pieces int32 [.,4]: rows of words, four at a time, U where there is none; begin, count int32 [V]: a word's pieces;
    inverse [V]: one over its number of rows.
    """
    rows = word_rows(words, config, _numbers(words))
    U, size = len(used), np.diff(rows.start)
    place = np.zeros(config.vocab + config.buckets, np.int32)
    place[used] = np.arange(U)
    count = -(-size // PIECE)
    begin = np.cumsum(count) - count
    pieces = np.full(count.sum() * PIECE, U, np.int32)
    pieces[np.repeat(begin * PIECE - rows.start[:-1], size) + np.arange(len(rows.ids))] = place[rows.ids]
    tables = {"pieces": pieces.reshape(-1, PIECE), "begin": begin.astype(np.int32), "count": count.astype(np.int32)}
    factor = word2vec.damping(config, _given(config, rows, counts)[used])
    tables |= {"inverse": (1 / size).astype(np.float32), "input": factor.astype(np.float32)}
    return word2vec.word2vec_tables(config, counts) | {name: jnp.asarray(x) for name, x in tables.items()}


def _numbers(words: Sequence[str]) -> dict[str, int]:
    return {word: id for id, word in enumerate(words)}


def _given(config, rows: Rows, counts):
    """The pairs and noise words that each row is expected to get gradients of in an update, [R]."""
    pairs = word2vec.pairs_an_update(config, counts) * (1 + config.negative)
    each = np.repeat(pairs, np.diff(rows.start))
    return np.bincount(rows.ids, each, minlength=config.vocab + config.buckets)


def pieces_a_row(config, tables, counts) -> int:
    """So many pieces are the different words among a row's places, and seldom more (3 standard deviations, where words
    fall independently; in a text they come again sooner, but change with its matter)."""
    count, places = np.asarray(tables["count"]), config.positions // config.rows
    here = 1 - (1 - word2vec.kept_shares(config, counts)) ** places
    return int(np.ceil(count @ here + 3 * np.sqrt(count**2 @ (here * (1 - here)))))


class Chosen(NamedTuple):
    """The words of an update, each at the first place that has it."""

    place: jax.Array  # int32 [V]: that place, N for other words
    fits: jax.Array  # bool [N]: whether there was room for the word of a place
    owner: jax.Array  # int32 [C]: the place whose word a piece is of
    rows: jax.Array  # int32 [C,4], U where there is none


def choose(tables, words, room: int) -> Chosen:
    """words int32 [N], -1 for none. A word that does not fit `room` pieces is left out of the update."""
    N, V, U = len(words), len(tables["count"]), len(tables["input"])
    at = jnp.arange(N, dtype=jnp.int32)
    place = jnp.full(V, N, jnp.int32).at[jnp.where(words < 0, V, words)].min(at, mode="drop")
    count = jnp.where((words >= 0) & (place[words] == at), tables["count"][words], 0)
    end = jnp.cumsum(count)
    begin, fits = end - count, end <= room
    owner = jnp.zeros(room, jnp.int32).at[jnp.where((count > 0) & fits, begin, room)].set(at, mode="drop")
    owner = lax.cummax(owner)
    within = jnp.arange(room, dtype=jnp.int32) - begin[owner]
    piece = tables["begin"][words[owner]] + within
    rows = jnp.where((within < count[owner])[:, None], tables["pieces"][piece], U)
    return Chosen(place, fits, owner, rows)


def composed(params, tables, config, blocks: word2vec.Blocks, room: int):
    """(an update's words' vectors [N,D], the blocks with places of words in them for words, `choose`'s pieces)."""
    words = blocks.centre.reshape(-1)
    N = len(words)
    chosen = choose(tables, words, room)
    with jax.named_scope("compose"):
        # Not the sum of one gather, which XLA on CPU would write out first.
        at = params["input"].at
        four = sum(at[chosen.rows[:, i]].get(mode="fill", fill_value=0) for i in range(PIECE))  # [C,D]
        x = jnp.zeros((N, config.dim)).at[chosen.owner].add(four, indices_are_sorted=True)
        x = x * tables["inverse"][words][:, None]

    def placed(ids):
        at = chosen.place[ids]
        return jnp.where((ids >= 0) & chosen.fits[jnp.minimum(at, N - 1)], at, -1)

    own = blocks._replace(centre=placed(blocks.centre))
    if config.cbow:  # it asks "input" for the words around, "output" for the one within
        own = blocks._replace(around=placed(blocks.around), centre=jnp.where(own.centre < 0, -1, blocks.centre))
    return x, own, chosen


def subword_gradients(params, tables, config, blocks: word2vec.Blocks, room: int):
    """({name: (ids, rows, factor)}, finite), as `word2vec_gradients`, of whose skip-gram or CBOW these are made.

    "input": (ids [C,4], rows [C,D], factor [C,4] of `calm`): each row is the gradient of four, for `descend`. room: C,
    so many pieces have all the blocks.
    """
    x, own, chosen = composed(params, tables, config, blocks, room)
    plain = tables | {"input": jnp.ones(len(x))}
    touched, finite = word2vec.word2vec_gradients({"input": x, "output": params["output"]}, plain, config, own)
    ids, dx, _ = touched["input"]
    dx = jnp.zeros(x.shape).at[ids].add(dx)
    factor = tables["input"].at[chosen.rows].get(mode="fill", fill_value=0)
    return touched | {"input": (chosen.rows, dx[chosen.owner], factor)}, finite


def subword_loss(params, tables, config, blocks: word2vec.Blocks, room: int):
    """As `word2vec_loss`."""
    x, own, _ = composed(params, tables, config, blocks, room)
    return word2vec.word2vec_loss({"input": x, "output": params["output"]}, config, own)


def descend(params, tables, touched, rate):
    """The update of train/sparse.py for `subword_gradients`: (the new params, the same tables)."""
    new = dict(params)
    for name, (ids, rows, factor) in touched.items():
        if name == "input":
            ids, steps = word2vec.flat(ids, (-rate * factor)[:, :, None] * rows[:, None])
        else:
            steps = (-rate * factor)[:, None] * rows
        new[name] = new[name].at[ids].add(steps)
    return new, tables
