"""Word vectors as files: the text and binary formats of word2vec, and GloVe's text.

    word2vec     "V D" on a line, then for each word a line: the word, a space, D decimal numbers with spaces between
    binary       "V D" on a line, then for each word: the word, a space, D little-endian float32 (and, of some writers,
                 a line end)
    glove        word2vec without its first line

What other tools write is read, and the reverse. Letters: V words, D numbers a word.
"""

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data.files import opened
from lmjax.errors import UserError
from lmjax.interop.files import whole

FORMS = ("word2vec", "binary", "glove")
_BLOCK = 1 << 22  # bytes of a binary file read at a time


def read_vectors(path, limit: int = 0) -> tuple[list[str], np.ndarray]:
    """(words, vectors float32 [V,D]) of a file in any of `FORMS`, .gz or plain; its first `limit` words, 0 for all.

    GloVe's common-crawl words that hold spaces are read with them. Raises UserError, with the line, where the file is
    none of these or is damaged: a wrong number of words or of numbers, what is no number, a word twice or not UTF-8.
    """
    path = Path(path).expanduser()
    with opened(path, "word vectors") as file:
        kind = _kind(path, file)
        file.seek(0)
        if kind.announced is not None:
            file.readline()
        records = (_binary if kind.form == "binary" else _lines)(path, file, kind, limit)
        return _collect(path, records, kind, limit)


def table(known: Sequence[str], vectors, words: Sequence[str], seed: int = 0) -> tuple[np.ndarray, int]:
    """(float32 [V,D], how many of them were found): the vectors of `words`, from those of `read_vectors`.

    A word that these lack gets a random one, uniform and as wide as they are (Kim 2014, section 4.2).
    """
    place = {word: n for n, word in enumerate(known)}
    limit = np.sqrt(3 * vectors.var())
    found = np.random.default_rng(seed).uniform(-limit, limit, (len(words), vectors.shape[1])).astype(np.float32)
    at = [n for n, word in enumerate(words) if word in place]
    found[at] = vectors[[place[words[n]] for n in at]]
    return found, len(at)


class _Kind(NamedTuple):
    form: str
    D: int
    announced: int | None  # V as the first line has it


def _kind(path: Path, file) -> _Kind:
    first = file.readline(1 << 20)
    if not first:
        raise UserError(f"{path} is empty: expected word vectors of word2vec or GloVe")
    if header := re.fullmatch(rb"\s*(\d+)\s+(\d+)\s*", first):
        V, D = int(header[1]), int(header[2])
        if not V or not D:
            raise UserError(f"{path}, line 1: {V} words of {D} numbers: expected at least one of each")
        fields = file.readline(100 + 40 * D).rstrip().split(b" ")
        # A line of a text is numbers, if not as many as it should or with a slip among them: that is told later.
        text = not re.search(rb"[\0-\x08\x0e-\x1f]", b" ".join(fields[1:])) and len(fields) > 1
        text = text and 2 * sum(map(_number, fields[1:])) >= len(fields) - 1
        return _Kind("word2vec" if text or not any(fields) else "binary", D, V)
    fields = first.rstrip().split(b" ")
    D = next((at for at, field in enumerate(reversed(fields[1:])) if not _number(field)), len(fields) - 1)
    if not D:
        raise UserError(
            f"{path}, line 1: {_shown(first)}: expected a word and numbers, or the numbers of words and of dimensions"
        )
    return _Kind("glove", D, None)


def _lines(path: Path, file, kind: _Kind, limit: int) -> Iterator[tuple[str, bytes, list[bytes]]]:
    """(where, word, its D numbers) of each line."""
    D, first = kind.D, 1 if kind.announced is None else 2
    for number, line in enumerate(file, first):
        if number - first == (limit or -1):
            return
        where = f"line {number}"
        word, *numbers = line.rstrip().split(b" ")
        if len(numbers) > D and kind.form == "glove" and not any(map(_number, numbers[:-D])):
            word, numbers = b" ".join([word, *numbers[:-D]]), numbers[-D:]  # GloVe has ". . ." for a word
        if len(numbers) != D:
            if not line.strip():
                raise UserError(f"{path}, {where}: an empty line: expected a word and {D} numbers")
            raise UserError(
                f"{path}, {where}: {_shown(word)} has {len(numbers)} numbers: expected {D}, with one space between"
            )
        yield where, word, numbers


def _binary(path: Path, file, kind: _Kind, limit: int) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """(where, word, its D numbers) of each record."""
    size, content, at = 4 * kind.D, b"", 0
    for number in range(1, min(limit or kind.announced, kind.announced) + 1):
        while (space := content.find(b" ", at)) < 0 or space + 1 + size > len(content):
            more = file.read(_BLOCK)
            if not more:
                raise UserError(
                    f"{path} ends within word {number:,} of {kind.announced:,}: expected {kind.D} float32 "
                    "for each; it was cut off, or is no word2vec file"
                )
            content, at = content[at:] + more, 0
        yield f"word {number:,}", content[at:space].lstrip(b"\n"), np.frombuffer(content, "<f4", kind.D, space + 1)
        at = space + 1 + size
    if not limit and (content[at:] + file.read(1)).strip(b"\n"):
        raise UserError(
            f"{path} goes on behind its {kind.announced:,} words: its first line has a wrong number "
            "of words or of dimensions"
        )


def _collect(path: Path, records, kind: _Kind, limit: int) -> tuple[list[str], np.ndarray]:
    seen, vectors = {}, np.empty((1024, kind.D), np.float32)
    for where, word, numbers in records:
        try:
            word = word.decode()
        except UnicodeDecodeError:
            raise UserError(
                f"{path}, {where}: the word {_shown(word)} is not UTF-8: convert the file (iconv -f ENCODING -t utf-8)"
            ) from None
        if not word or word in seen:
            fault = f"{word} a second time, first in {seen[word]}" if word else "no word"
            raise UserError(f"{path}, {where}: {fault}: expected each word once")
        if len(seen) == len(vectors):
            vectors.resize((2 * len(vectors), kind.D), refcheck=False)
        try:
            vectors[len(seen)] = numbers
        except ValueError:
            bad = next((field for field in numbers if not _number(field)), b"")
            expected = f"expected {kind.D} numbers behind {word}"
            raise UserError(f"{path}, {where}: {_shown(bad)} is not a number: {expected}") from None
        seen[word] = where
    if kind.announced is not None and len(seen) != min(limit or kind.announced, kind.announced):
        raise UserError(
            f"{path} holds {len(seen):,} words, and its first line says {kind.announced:,}: it was "
            "cut off, or the line is wrong"
        )
    vectors.resize((len(seen), kind.D), refcheck=False)
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        word = list(seen)[int(np.argmin(finite))]
        raise UserError(f"{path}, {seen[word]}: the vector of {word} is not finite: train again, or take the line out")
    return list(seen), vectors


def write_vectors(path, words: Sequence[str], vectors, form: str = "word2vec") -> None:
    """Write vectors [V,D] in one of `FORMS`, gzipped where the name ends in .gz; whole or not at all.

    Nine digits keep each float32 to the bit. Raises UserError where a word is empty, double or has white space in it,
    which ends a word in all three formats, or a vector is not finite.
    """
    path, vectors = Path(path).expanduser(), np.asarray(vectors, np.float32)
    if form not in FORMS:
        raise UserError(f"form={form}: expected one of {', '.join(FORMS)}")
    _check(words, vectors)
    V, D = vectors.shape
    with whole(path) as new, gzip.open(new, "wb", 6) if path.name.endswith(".gz") else open(new, "wb") as file:
        if form != "glove":
            file.write(f"{V} {D}\n".encode())
        if form == "binary":
            for word, row in zip(words, vectors.astype("<f4")):
                file.write(word.encode() + b" " + row.tobytes())
        else:
            numbers = " ".join(["%.9g"] * D)
            for word, row in zip(words, vectors):
                file.write(f"{word} {numbers % tuple(row.tolist())}\n".encode())


def _check(words: Sequence[str], vectors: np.ndarray):
    if vectors.ndim != 2 or len(words) != len(vectors) or not vectors.size:
        raise UserError(f"{len(words)} words and vectors of shape {vectors.shape}: expected one vector a word, [V,D]")
    bad = next((word for word in words if word.split() != [word]), None)
    if bad is not None:
        raise UserError(
            f"the word {bad!r} is empty or has white space in it, which these formats cannot hold: write _ in its place"
        )
    if len(set(words)) != len(words):
        seen = set()
        double = next(word for word in words if word in seen or seen.add(word))
        raise UserError(f"the word {double} has two vectors: keep one")
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        raise UserError(f"the vector of {words[int(np.argmin(finite))]} is not finite: nothing was written")


def _number(field: bytes) -> bool:
    try:
        float(field)
        return True
    except ValueError:
        return False


def _shown(content: bytes) -> str:
    """Bytes of a file, in a message."""
    return ascii(content[:40].decode(errors="replace").strip())
