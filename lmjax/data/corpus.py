"""A running text as word ids: what word vectors are trained on. Read in one pass, in pieces, whatever its size.

    Mikolov et al. 2013b, "Distributed representations of words and phrases and their compositionality" (`phrases`)

A corpus is a stream: it has no sentences, no splits and no mark for unknown words, which are dropped as word2vec drops
them, so that a window reaches over the gap. Letters: N words in the stream, V types.
"""

import codecs
import difflib
import functools
import itertools
import json
import os
import platform
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data import files
from lmjax.data import text as texts
from lmjax.errors import UserError, install

UNITS = ("words", "ascii", "characters", "jieba")
PIECE = 1 << 21  # bytes read at a time

# A folder is read as the first of these that it holds; of a table's line the longest field is the text.
_PLAIN, _TABLE, _JSON = texts.SUFFIXES, (".tsv",), (".json", ".jsonl")
_JSON_TEXT = ("text", "content", "context", "paragraphs")  # the keys under which a JSON file keeps text


class Corpus(NamedTuple):
    """A text as ids, and its vocabulary from the most to the least frequent word (ties: the one seen first)."""

    ids: np.ndarray  # [N] int32, the words of the vocabulary in the order of the text
    words: list[str]  # [V]
    counts: np.ndarray  # [V] int64
    total: int  # running words read, those outside the vocabulary included
    name: str


def read_corpus(data: str, data_dir=None, *, units: str = "words", min_count: int = 5, limit: int = 0) -> Corpus:
    """Read a text as ids of the words that occur at least `min_count` times, the `limit` most frequent (0: all).

    data: names and paths with "+" between, read one after another: "pydoc"; a set of `lmjax.data.files`, its training
        split without <unk>; "tfds:NAME[/CONFIG][:FEATURE]", its training split; a folder of `data_dir` (or LMJAX_DATA)
        by its name; else a UTF-8 file or folder, .gz or plain. A folder is all its text files in the order of their
        names, or all its .tsv files (of a line the longest field; <br /> is a space), or all its .json files (what
        stands under "text", "content", "context" or "paragraphs").
    units: "words", lower-cased runs of letters of any script, with an apostrophe inside; "ascii", the same of the
        letters a-z only, so that naïve is na and ve; "characters", each letter alone; "jieba", Chinese words by the
        package jieba. In ASCII text the first two are `[a-z]+(?:'[a-z]+)?`.

    Memory: 4 bytes a running word and the vocabulary before it is cut. Raises UserError where a part is not there or no
    text, and where no word is left.
    """
    if units not in UNITS:
        raise UserError(f"units={units}: expected one of {', '.join(UNITS)}")
    if limit < 0:
        raise UserError(f"limit={limit}: expected a number of word types, or 0 for all")
    split, known = _splitter(units), defaultdict()
    known.default_factory = known.__len__  # an unknown word takes the next id
    chunks = []
    name, parts = _parts(data, data_dir)
    for pieces in parts:
        for piece in pieces:
            found = split(piece)
            chunks.append(np.fromiter(map(known.__getitem__, found), np.int32, len(found)))
    total, counts = sum(map(len, chunks)), np.zeros(len(known), np.int64)
    if not total:
        raise UserError(f"{name} holds no word by units={units}: give a text of at least one")
    for chunk in chunks:
        counts += np.bincount(chunk, minlength=len(known))
    return _cut_vocabulary(chunks, list(known), counts, total, name, min_count, limit)


def _cut_vocabulary(chunks, words, counts, total, name, min_count, limit) -> Corpus:
    """The corpus of provisional ids `chunks`, emptied as it goes: words renumbered by frequency, the rare left out."""
    order = np.argsort(-counts, kind="stable")
    kept = order[counts[order] >= max(min_count, 1)]
    if not len(kept):
        top = order[0]
        hint = "" if words[top].isascii() or len(words[top]) < 5 else ", for Chinese by units=characters or jieba"
        raise UserError(
            f"min_count={min_count} leaves no word of {name}: the most frequent, {words[top][:40]}, occurs "
            f"{counts[top]:,} times; lower it or give more text{hint}"
        )
    kept = kept[:limit] if limit else kept
    table = np.full(len(words), -1, np.int32)
    table[kept] = np.arange(len(kept))
    ids, at = np.empty(counts[kept].sum(), np.int32), 0
    chunks.reverse()
    while chunks:
        new = table[chunks.pop()]
        new = new[new >= 0]
        ids[at : at + len(new)] = new
        at += len(new)
    return Corpus(ids, [words[old] for old in kept], counts[kept], total, name)


def phrases(corpus: Corpus, *, threshold: float = 100.0, min_count: int = 5, passes: int = 1) -> Corpus:
    """The corpus with pairs that occur together more often than chance joined: new, york -> new_york.

    Mikolov et al. 2013b, eq. 6, times the number of words as their word2phrase has it,

        score(a, b) = (count(a b) - δ) / (count(a) count(b)) * total,  δ = min_count,

    joined where it exceeds `threshold`, from left to right without overlap; each further pass may join what the one
    before did. Words left with less than `min_count` occurrences leave the vocabulary. A departure: a pair is two
    neighbours in the stream of ids, and so may reach over a dropped rare word, where word2phrase does not.
    """
    for _ in range(passes):
        corpus = _join(corpus, threshold, min_count)
    return corpus


def _join(corpus: Corpus, threshold: float, min_count: int) -> Corpus:
    ids, V, counts = corpus.ids, len(corpus.words), corpus.counts
    steps = range(0, max(len(ids) - 1, 0), PIECE)  # some at a time: codes and their sorting are memory
    parts = [np.unique(_pairs(ids, start, V), return_counts=True) for start in steps]
    if not parts:
        return corpus
    codes, inverse = np.unique(np.concatenate([codes for codes, _ in parts]), return_inverse=True)
    together = np.bincount(inverse, np.concatenate([times for _, times in parts]))
    first, second = codes // V, codes % V
    score = (together - min_count) / counts[first] / counts[second] * corpus.total
    good = (score > threshold) & (np.minimum(counts[first], counts[second]) >= min_count)
    codes, first, second = codes[good], first[good], second[good]
    if not len(codes):
        return corpus

    joins = np.zeros(len(ids), np.int32)  # 1 + the number of the phrase that begins here
    for start in steps:
        pairs = _pairs(ids, start, V)
        place = np.minimum(np.searchsorted(codes, pairs), len(codes) - 1)
        joins[start : start + len(pairs)] = np.where(codes[place] == pairs, place + 1, 0)
    at = np.flatnonzero(joins)
    # In a run of pairs that each would join, every other one does, from the first on.
    place = np.arange(len(at))
    begins = np.maximum.accumulate(np.where(np.diff(at, prepend=-2) > 1, place, 0))
    at = at[(place - begins) % 2 == 0]
    number = {word: id for id, word in enumerate(corpus.words)}
    names = [f"{corpus.words[a]}_{corpus.words[b]}" for a, b in zip(first, second)]
    numbers = np.array([number.setdefault(name, len(number)) for name in names])  # in a later pass two may be one
    new = ids.copy()
    new[at] = numbers[joins[at] - 1]
    new = np.delete(new, at + 1)  # the second words are in the phrases now
    words = list(number)
    counts = np.bincount(new, minlength=len(words))
    return _cut_vocabulary([new], words, counts, corpus.total - len(at), corpus.name, min_count, 0)


def _pairs(ids: np.ndarray, start: int, V: int) -> np.ndarray:
    """The codes of the pairs of neighbours whose first is one of PIECE ids from `start` on, int64."""
    return ids[start : start + PIECE][: len(ids) - 1 - start].astype(np.int64) * V + ids[start + 1 : start + 1 + PIECE]


def _splitter(units: str) -> Callable[[str], list[str]]:
    """The function that cuts a text into its words."""
    if units == "characters":
        return lambda text: re.findall(r"[^\W\d_]", text.lower())
    if units == "jieba":
        try:
            import jieba
        except ImportError:
            raise UserError(
                f"units=jieba needs the package jieba: {install('chinese')}; or take units=characters"
            ) from None
        jieba.setLogLevel("WARNING")  # it tells of its dictionary on stderr
        return lambda text: [word for word in jieba.cut(text.lower()) if any(map(str.isalpha, word))]
    if units == "ascii":
        pattern = re.compile(r"[a-z]+(?:'[a-z]+)?")
        return lambda text: pattern.findall(text.lower())
    run = rf"[^\W\d_]+(?:[{_marks()}]+[^\W\d_]*)*"
    pattern = re.compile(rf"{run}(?:'{run})?")
    return lambda text: pattern.findall(text.lower().replace("\u2019", "'"))  # don’t is don't


@functools.cache
def _marks() -> str:
    """The combining marks, as the inside of a regular expression's class: to `re` they are no part of a word, and yet
    Hindi's vowels are such, and accents where a text is decomposed."""
    marks = [code for code in range(0x10000) if unicodedata.category(chr(code)).startswith("M")]
    runs = itertools.groupby(enumerate(marks), lambda item: item[1] - item[0])  # neighbours differ as their places do
    runs = [[code for _, code in run] for _, run in runs]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


def _parts(data: str, data_dir) -> tuple[str, list[Iterator[str]]]:
    """The name of the whole, and the pieces of each part. Every part is looked for before any is read."""
    one = os.path.exists(os.path.expanduser(data))  # a path with a + in it
    named = [_part(name.strip(), data_dir) for name in ([data] if one else data.split("+"))]
    return "+".join(name for name, _ in named), [part for _, parts in named for part in parts]


def _part(data: str, data_dir) -> tuple[str, list[Iterator[str]]]:
    official = {source.name: source for source in files.OFFICIAL}
    if data == "pydoc":
        return f"pydoc of Python {platform.python_version()}", [iter([texts.pydoc()])]
    if data in official:
        content = texts.decode(files.read(official[data], data_dir)["train"], f"{data} train")
        return data, [iter([content.replace("<unk>", " ")])]
    if data.startswith("tfds:"):
        from lmjax.data import builders  # takes half a second to import, which no other source should pay

        content = builders.read(data.removeprefix("tfds:"), data_dir).get("train", "")
        return data, [iter([content.replace("<unk>", " ")])]
    path = Path(os.path.expanduser(data))
    # A path with a folder in it is no set's name, and needs no LMJAX_DATA to be right.
    own = None if len(path.parts) > 1 and os.path.exists(path) else files.own_dir(data_dir)
    if own and len(path.parts) == 1 and os.path.exists(own / data):
        path = own / data
    if data and os.path.isdir(path):
        return data, [_pieces(file) for file in _folder(path)]
    if data and os.path.exists(path):
        return data, [_pieces(path)]
    folders = sorted(entry.name for entry in own.iterdir() if entry.is_dir()) if own else []
    sets = list(dict.fromkeys(["pydoc", *official, *folders]))
    near = difflib.get_close_matches(data, sets, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    where = "" if own else "; other sets are found in the folder that --data_dir or LMJAX_DATA names"
    raise UserError(
        f"data={data} is neither a file or folder nor a known set{hint}: expected one of "
        f"{', '.join(sets)}, tfds:NAME, a path, or several with + between{where}"
    )


def _folder(folder: Path) -> list[Path]:
    """The text files of a folder; what explains them, README and the like, is none."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    paths = [path for path in paths if not path.name.lower().startswith(("readme", "license", "class"))]
    for form in (_PLAIN, _TABLE, _JSON):
        if found := [path for path in paths if _suffix(path) in form]:
            return found
    raise UserError(
        f"{folder} holds no text: expected files ending in {', '.join(_PLAIN + _TABLE + _JSON)}, plain or "
        ".gz; or name a file in it"
    )


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _pieces(path: Path) -> Iterator[str]:
    """The text of a file in pieces that end between words."""
    if _suffix(path) in _TABLE:
        return map(_column, _read(path, _line_end))
    if _suffix(path) in _JSON:
        return _json(path)
    return _read(path, _word_end)


def _read(path: Path, end: Callable[[str], int]) -> Iterator[str]:
    """The text of a UTF-8 file a piece at a time; `end` says where in a text the next may begin, 0 for nowhere."""
    decoder, rest, offset = codecs.getincrementaldecoder("utf-8")(), "", 0
    with files.opened(path) as file:
        while content := file.read(PIECE):
            waiting = len(decoder.getstate()[0])
            try:
                piece = decoder.decode(content)
            except UnicodeDecodeError as error:
                _not_utf8(path, error, offset - waiting)
            if "\0" in piece:
                raise UserError(f"{path} is not text: a zero byte after {offset:,} bytes; give a UTF-8 text file")
            piece = rest + (piece if offset else piece.removeprefix("\ufeff"))
            offset += len(content)
            cut = end(piece)
            rest = piece[cut:]
            if cut:
                yield piece[:cut]
    try:
        rest += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        _not_utf8(path, error, offset - len(error.object))
    if rest:
        yield rest


def _not_utf8(path, error: UnicodeDecodeError, begin: int):
    raise UserError(
        f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {begin + error.start:,}; "
        "convert it (iconv -f ENCODING -t utf-8) or give a text file"
    ) from None


def _word_end(text: str) -> int:
    """Behind the last white space; where there is none, as in Chinese, behind the last sign that is part of no word."""
    if cut := max(text.rfind(space) for space in " \n\t") + 1:
        return cut
    for cut in range(len(text), max(0, len(text) - 10_000), -1):
        if unicodedata.category(text[cut - 1])[0] in "PSZC" and text[cut - 1] not in "'\u2019":
            return cut
    return len(text)  # no word is that long


def _line_end(text: str) -> int:
    return text.rfind("\n") + 1


def _column(lines: str) -> str:
    """The texts of a table's lines: labels and numbers are shorter."""
    return "\n".join(max(line.split("\t"), key=len) for line in lines.split("\n")).replace("<br />", " ")


def _json(path: Path) -> Iterator[str]:
    """The texts in a file of one JSON value, or of one a line."""
    content = texts.decode(files.read_bytes(path), path)
    try:
        values = map(json.loads, content.splitlines()) if _suffix(path) == ".jsonl" else [json.loads(content)]
        yield from itertools.chain.from_iterable(map(_strings, values))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}; give a text file") from None


def _strings(value, wanted: bool = False) -> Iterator[str]:
    """The strings below the keys that hold text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, key in _JSON_TEXT)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, wanted)
    elif wanted and isinstance(value, str):
        yield value
