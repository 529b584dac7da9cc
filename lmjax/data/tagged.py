"""Sentences with a tag on each word: CoNLL-2000's chunks, and anyone's own files in CoNLL's columns."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lmjax.data import files
from lmjax.data.files import File, Source
from lmjax.data.text import decode, split_files
from lmjax.errors import UserError

_CONLL2000 = ("https://raw.githubusercontent.com/teropa/nlp/f89bc5a15b516208de1cfe2abe9692b7ed9a43e2"
              "/resources/corpora/conll2000")  # fmt: skip
CONLL2000 = Source("conll2000", "https://aclanthology.org/W00-0726", (
    File("train", "train.txt", f"{_CONLL2000}/train.txt", 2_842_164,
         "82033cd7a72b209923a98007793e8f9de3abc1c8b79d646c50648eb949b87cea"),
    File("test", "test.txt", f"{_CONLL2000}/test.txt", 639_396,
         "73b7b1e565fa75a1e22fe52ecdf41b6624d6f59dacb591d44252bf4d692b1628"),
))  # fmt: skip
NAMES = (CONLL2000.name,)
TAG = re.compile(r"O|[BI]-\S+")


class Sentence(NamedTuple):
    words: tuple[str, ...]
    tags: tuple[str, ...]  # O, or B- or I- and a kind: BIO


@dataclass(frozen=True)
class Tagged:
    """Sentences of each split, `valid` and `test` None where the set has none, and the tags in their order."""

    name: str
    tags: tuple[str, ...]
    train: list[Sentence]
    valid: list[Sentence] | None = None
    test: list[Sentence] | None = None


def load_tagged(data: str, data_dir=None) -> Tagged:
    """Read a tagged set by name or path.

    data: "conll2000"; else the path of a file in CoNLL's columns (a word a line, the word first and its tag last, an
    empty line behind each sentence), plain or .gz, or of a folder with files named after train, and valid and test
    where there are such. Lines of -DOCSTART- count for nothing. Tags that begin a chunk by I- become B-.
    data_dir: where CoNLL-2000 is looked for before it is downloaded; LMJAX_DATA is the default.

    Raises UserError for a name or path that is not there, a file that is not the official, not UTF-8 or empty, and a
    line of one column or with another tag. A tag that training lacks is a class all the same.
    """
    if data == CONLL2000.name:
        found = files.read(CONLL2000, data_dir)
        return _tagged(data, {split: read_columns(content, f"{data} {split}") for split, content in found.items()})
    path = Path(data).expanduser()
    if data and path.is_dir():
        paths = split_files(path, sorted(one for one in path.iterdir() if one.is_file()))
        if not paths:
            raise UserError(f"{path} has no file named after train: expected train.txt and perhaps test.txt")
    elif data and path.exists():
        paths = {"train": path}
    else:
        near = difflib.get_close_matches(data, NAMES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(
            f"data={data} is neither a file or folder nor a known set{hint}: expected {', '.join(NAMES)}, or a path"
        )
    return _tagged(data, {split: read_columns(files.read_bytes(one), one) for split, one in paths.items()})


def read_columns(content: bytes, name) -> list[Sentence]:
    """The sentences of a file, their tags in BIO. UserError, with file and line, where a line is none of CoNLL's."""
    found, words, tags = [], [], []
    for number, line in enumerate([*decode(content, name).split("\n"), ""], start=1):
        columns = line.split()
        if columns and columns[0] != "-DOCSTART-":
            if len(columns) < 2 or not TAG.fullmatch(columns[-1]):
                what = "has one column" if len(columns) < 2 else f"ends in {columns[-1][:20]!r}"
                raise UserError(f"{name}, line {number:,} {what}: expected a word and, last, its tag: O, B-… or I-…")
            words.append(columns[0])
            tags.append(columns[-1])
        elif words:
            found.append(Sentence(tuple(words), bio(tags)))
            words, tags = [], []
    if not found:
        raise UserError(f"{name} holds no sentence: expected a word and its tag a line, then an empty line")
    return found


def bio(tags) -> tuple[str, ...]:
    """Tags in which every chunk begins by B-, of such where a chunk without a neighbour of its kind begins by I-."""
    before, found = "O", []
    for tag in tags:
        found.append("B" + tag[1:] if tag[0] == "I" and before[1:] != tag[1:] else tag)
        before = tag
    return tuple(found)


def _tagged(name: str, splits: dict[str, list[Sentence]]) -> Tagged:
    tags = sorted({tag for found in splits.values() for sentence in found for tag in sentence.tags})
    if len(tags) < 2:
        raise UserError(f"{name} has one tag alone, {tags[0]}: expected two or more to tell apart")
    return Tagged(name, tuple(tags), **splits)
