"""Tagged sentences as numbers: the vocabularies of words, letters, columns and tags, and batches of like length.

A batch of B sentences, for models/tagger.py: seen bool [B,T], True for words and False behind a sentence's end, tags
int32 [B,T], and of these what a tagger reads:

    words    int32 [B,T]    the word in the vocabulary, 0 for one that is not in it
    columns  int32 [B,T,n]  what each further column says, 0 for what training lacks
    features int32 [B,T,n]  data/tag_features.py's, 0 for none
    letters  int32 [S,C]    the letters of the batch's distinct spellings, each once, several in a row of C with a 0
                            between them and behind the last: a word has some six letters and may have 24
    lanes    int32 [S]      those rows' numbers, rising
    lane     int32 [B,T]    the number of the row that has each word's letters
    first    int32 [B,T]    the place of its first letter there
    last     int32 [B,T]    and of its last
    tokens   int32 [B,P]    BERT's pieces of the whole sentence between its marks
    valid    bool [B,P]     True for those
    piece    int32 [B,T]    the place of each word's first piece

so that the letters of a word are read once, however often it stands there. Where a batch is cut into parts (devices,
micro-batches), each part of the sentences has its own rows of letters in the same part of those.
"""

import json
import math
import os
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from lmjax.data.batches import cut_lengths, drawn_from, in_buckets
from lmjax.data.rows import marks, whole_row, word_pieces
from lmjax.data.tag_features import feature_list, feature_numbers
from lmjax.data.tagged import Sentence, iobes
from lmjax.errors import UserError

LETTERS = 24  # of a word that are read: the first and the last twelve
LANE = 2 * LETTERS + 1  # a row of letters: two of the longest words
UNKNOWN = "\ufffd"  # stands for letters that training lacks


class Vocabulary(NamedTuple):
    """What stands at which number. Number 0 of words and columns is that of everything else; of letters it
    is none, and 1 of everything else."""

    words: tuple[str, ...]
    letters: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    tags: tuple[str, ...]  # as they are learnt
    scheme: str  # "bio", "iobes" or "plain"
    once: tuple[bool, ...] = ()  # words that training has once
    zeros: bool = True  # digits are read as 0
    features: tuple[str, ...] = ()  # of a CRF on features

    def save(self, path):
        """Complete or not at all."""
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps(self._asdict(), ensure_ascii=False), encoding="utf-8")
        os.replace(new, path)


def load_vocabulary(path) -> Vocabulary:
    """UserError where the file is none that `save` wrote."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        columns = tuple(map(tuple, found.pop("columns")))
        lists = {name: tuple(found.pop(name)) for name in ("words", "letters", "tags", "once", "features")}
        return Vocabulary(columns=columns, **lists, **found)
    except OSError:
        raise UserError(f"{path} cannot be read: expected the vocabulary that a run of tag.py keeps") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged: expected the vocabulary that a run of tag.py keeps") from None


def vocabulary(train: list[Sentence], scheme: str, columns: int = 0, min_count: int = 1, more=(), zeros=True):
    """The vocabularies of training: a `Vocabulary`.

    columns: further columns that are read, the first so many; UserError where the sentences have fewer. min_count:
    words seen less often are unknown. more: words to know besides, in lower case: those that have a vector already.
    Case counts for letters alone.
    """
    counts = Counter(lookup(word, zeros) for sentence in train for word in sentence.words)
    words = dict.fromkeys(word for word, n in counts.most_common() if n >= min_count)
    words |= dict.fromkeys(more)
    letters = {letter for sentence in train for word in sentence.words for letter in _digits(word, zeros)}
    return _begun(train, scheme, columns)._replace(
        words=("", *words),
        letters=("", UNKNOWN, *sorted(letters - {UNKNOWN})),
        once=(False, *(counts[word] == 1 for word in words)),
        zeros=zeros,
    )


def feature_vocabulary(train: list[Sentence], scheme: str, columns: int = 0, min_count: int = 1) -> Vocabulary:
    """The features of training that it has `min_count` times; else as `vocabulary`."""
    return _begun(train, scheme, columns)._replace(features=feature_list(train, columns, min_count))


def counted(train: list[Sentence], scheme: str, columns: int = 0) -> Vocabulary:
    """The tags of training alone, which is all that counting needs; else as `vocabulary`."""
    return _begun(train, scheme, columns)


def _begun(train, scheme: str, columns: int) -> Vocabulary:
    has = len(train[0].columns)
    if columns > has:
        raise UserError(f"--columns={columns}, and the data has {has} between word and tag: lower it")
    tags = {tag for sentence in train for tag in _scheme(sentence.tags, scheme)}
    values = tuple(("", *sorted({value for one in train for value in one.columns[n]})) for n in range(columns))
    return Vocabulary((), (), values, tuple(sorted(tags)), scheme)


def lookup(word: str, zeros: bool = True) -> str:
    return _digits(word, zeros).lower()


def _digits(word: str, zeros: bool) -> str:
    return re.sub(r"\d", "0", word) if zeros else word


def _scheme(tags, scheme: str):
    return iobes(tags) if scheme == "iobes" else tags


class TagRows(NamedTuple):
    """Sentences as numbers. each: what a batch has of each word, [T,...] of each sentence. Where letters are read, the
    number of each word's spelling int32 [T], and of all distinct spellings the letters int32 [N,C] and their count [N].
    Where BERT reads them, the pieces int32 [P] of each sentence between its marks, and the number of [PAD].
    """

    each: dict[str, list[np.ndarray]]
    spelling: list[np.ndarray] | None = None
    letters: np.ndarray | None = None
    counts: np.ndarray | None = None
    pieces: list[np.ndarray] | None = None
    pad: int = 0

    @property
    def sizes(self) -> np.ndarray:
        """Words of each sentence."""
        return np.array([len(tags) for tags in self.each["tags"]])


def rows(sentences: list[Sentence], known: Vocabulary, tokenizer=None) -> TagRows:
    """A tag that training lacks, or that a sentence does not have, is -1. tokenizer: for a BERT, of its pieces."""
    tag = {name: n for n, name in enumerate(known.tags)}
    marked = [_scheme(one.tags, known.scheme) or [""] * len(one.words) for one in sentences]
    tags = [np.array([tag.get(name, -1) for name in names], np.int32) for names in marked]
    each = {"tags": tags}
    if known.features:
        each["features"] = feature_numbers(sentences, known.features, len(known.columns))
    if tokenizer is not None:
        cut = list(word_pieces(sentences, tokenizer))
        each["piece"] = [first.astype(np.int32) for _, first in cut]
        return TagRows(each, pieces=[whole_row(some, tokenizer) for some, _ in cut], pad=marks(tokenizer)["[PAD]"])
    if not known.words:
        return TagRows(each)
    place, letter = ({what: n for n, what in enumerate(some)} for some in (known.words, known.letters))
    columns = [{value: n for n, value in enumerate(some)} for some in known.columns]
    spellings = {}  # of each distinct word its number
    for sentence in sentences:
        for word in sentence.words:
            spellings.setdefault(word, len(spellings))
    letters = np.zeros((len(spellings), LETTERS), np.int32)
    counts, of_word = np.ones(len(letters), np.int32), np.zeros(len(letters), np.int32)
    for word, n in spellings.items():
        read = _digits(word, known.zeros)
        of_word[n] = place.get(read.lower(), 0)
        read = read if len(read) <= LETTERS else read[: LETTERS // 2] + read[-(LETTERS // 2) :]
        letters[n, : len(read)] = [letter.get(one, 1) for one in read]
        counts[n] = len(read)
    spelling = [np.array([spellings[word] for word in one.words], np.int32) for one in sentences]
    each["words"] = [of_word[some] for some in spelling]
    if columns:
        each["columns"] = [
            np.array([[kind.get(value, 0) for kind, value in zip(columns, row)] for row in zip(*one.columns)], np.int32)
            for one in sentences
        ]
    return TagRows(each, spelling, letters, counts)


def split_long(sentences: list[Sentence], longest: int) -> list[Sentence]:
    """The sentences, one of more than `longest` words in pieces of that many."""
    found = []
    for one in sentences:
        for at in range(0, len(one.words), longest):
            piece = slice(at, at + longest)
            found.append(Sentence(one.words[piece], one.tags[piece], tuple(some[piece] for some in one.columns)))
    return found


def batches(given: TagRows, batch: int, seed: int, *, shapes: int = 5, parts=(1, 1), once=None, forget: float = 0.0):
    """`(batch(step), steps_per_epoch)`, a pure function of (seed, step), in few shapes.

    Sentences of like length stand together; each comes once an epoch, and a bucket's last batch is filled with empty
    ones. parts: numbers of devices and of micro-batches. once: bool [V], words that become unknown with probability
    `forget`, each time anew (Lample et al. 2016).
    """
    ends = cut_lengths(given.sizes, shapes)
    turn, steps, members = in_buckets(given.sizes, ends, [batch] * len(ends), seed)
    room = [_room(given, who, batch, parts) for who in members]
    widths = [max(len(given.pieces[i]) for i in who) if given.pieces else 0 for who in members]

    def at(step: int) -> dict:
        b, who = turn(step)
        made = padded(given, who, batch, int(ends[b]), parts, room[b], widths[b])
        if forget and "words" in made:
            rng = drawn_from(seed + 1_000_003, step)
            gone = once[made["words"]] & (rng.random(made["words"].shape) < forget)
            made["words"] = np.where(gone, 0, made["words"])
        return made

    return at, steps


def evaluation(given: TagRows, batch: int, budget: int = 16_384):
    """Every sentence once, by length: an iterator of (their numbers, batch). Lengths are padded to powers of two, so
    that few programs serve all sets. Fewer rows than `batch` where they would be more than `budget` words: a very long
    sentence goes alone."""
    lengths = given.sizes
    ends = 2 ** np.maximum(4, np.ceil(np.log2(np.maximum(lengths, 1)))).astype(int)
    by_length = np.argsort(lengths, kind="stable")
    for end in np.unique(ends):
        who, rows = by_length[ends[by_length] == end], max(1, min(batch, budget // int(end)))
        for first in range(0, len(who), rows):
            some = who[first : first + rows]
            yield some, padded(given, some, rows, int(end), room=rows * int(end) // 16)


def padded(given: TagRows, at, batch: int, length: int, parts=(1, 1), room: int = 1, width: int = 0) -> dict:
    """The batch of the sentences `at`, filled to `batch` rows of `length` words; see the file's docstring.

    parts: numbers of devices and of micro-batches that it is cut into. room: rows of letters of each part; where they
    do not hold all, a quarter more as often as it needs. width: pieces of a row; 0: the next power of two.
    """
    seen = np.zeros((batch, length), bool)
    made = {name: np.zeros((batch, length, *some[0].shape[1:]), some[0].dtype) for name, some in given.each.items()}
    for n, i in enumerate(at):
        words = len(given.each["tags"][i])
        seen[n, :words] = True
        for name, some in given.each.items():
            made[name][n, :words] = some[i]
    made["seen"] = seen
    if given.pieces is not None:
        width = width or 1 << (max(len(given.pieces[i]) for i in at) - 1).bit_length()
        made["tokens"], made["valid"] = np.full((batch, width), given.pad, np.int32), np.zeros((batch, width), bool)
        for n, i in enumerate(at):
            made["tokens"][n, : len(given.pieces[i])], made["valid"][n, : len(given.pieces[i])] = given.pieces[i], True
    if given.spelling is None:
        return made
    spelling = np.zeros((batch, length), np.int32)
    for n, i in enumerate(at):
        spelling[n, : len(given.spelling[i])] = given.spelling[i]
    mine = _parts(batch, *parts)
    packed = [_packed(given, spelling[rows], seen[rows]) for rows in mine]
    need, grain = max(len(letters) for letters, _ in packed), max(room // 4, 1)
    room += max(0, -(-(need - room) // grain) * grain)
    lanes = np.arange(room * len(mine), dtype=np.int32)
    letters = np.zeros((len(lanes), LANE), np.int32)
    lane, first, last = (np.zeros((batch, length), np.int32) for _ in range(3))
    for rows, here, (some, places) in zip(mine, _parts(len(lanes), *parts), packed):
        letters[here[: len(some)]] = some
        lane[rows], first[rows], last[rows] = here[places[0]], *places[1:]
    return made | {"letters": letters, "lanes": lanes, "lane": lane, "first": first, "last": last}


def _room(given: TagRows, who, batch: int, parts) -> int:
    """Rows of letters that most batches of the sentences `who` need: few numbers of them, so few programs."""
    if given.spelling is None:
        return 1
    rng, size, need = np.random.default_rng(0), max(batch // math.prod(parts), 1), []
    for _ in range(8):
        some = np.concatenate([given.spelling[i] for i in rng.choice(who, min(size, len(who)), replace=False)])
        need.append(len(_packed(given, some[None], np.ones((1, len(some)), bool))[0]))
    return int(np.ceil(1.05 * max(need)))


def _parts(size: int, devices: int, accumulate: int) -> np.ndarray:
    """Which of `size` rows each part has, [parts, rows]: a device has rows in succession, of which a micro-batch takes
    every accumulate-th (train/step.py)."""
    return np.arange(size).reshape(devices, -1, accumulate).swapaxes(1, 2).reshape(devices * accumulate, -1)


def _packed(given: TagRows, spelling, seen):
    """(rows of letters int32 [S,LANE], (row, first place, last place) of each word's letters) of one part."""
    known = spelling[seen]
    distinct, where = np.unique(np.where(seen, spelling, known[0] if len(known) else 0), return_inverse=True)
    lengths = given.counts[distinct]
    lane, first, row, at = [], [], 0, 0
    for length in lengths.tolist():
        if at + length > LANE:
            row, at = row + 1, 0
        lane.append(row)
        first.append(at)
        at += length + 1
    lane, first, where = np.array(lane), np.array(first), where.reshape(spelling.shape)
    lanes = np.zeros((row + 1, LANE), np.int32)
    there = np.arange(LETTERS)[None] < lengths[:, None]
    place = (lane * LANE + first)[:, None] + np.arange(LETTERS)[None]
    lanes.reshape(-1)[place[there]] = given.letters[distinct][there]
    return lanes, (lane[where], first[where], (first + lengths - 1)[where])
