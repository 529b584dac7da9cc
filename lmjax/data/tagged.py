"""Sentences with a tag on each word: CoNLL-2000's chunks, CoNLL-2003's names, a generated corpus, and anyone's own
files in CoNLL's columns or in CoNLL-U."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data import files
from lmjax.data.files import File, Source
from lmjax.data.labelled import tenths
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
_LAMPLE = "https://raw.githubusercontent.com/glample/tagger/1c9618889fb89500cc5e70c45c27859b89d44449/dataset"
CONLL2003 = Source("conll2003-ner", "https://aclanthology.org/W03-0419", (
    File("train", "eng.train", f"{_LAMPLE}/eng.train", 3_281_527,
         "1f829db7620be0f4a5fff90203eeef27580a75546fdbf180e36ff542b92e6a92"),
    File("valid", "eng.testa", f"{_LAMPLE}/eng.testa", 827_009,
         "426445b024120cfbd770fb4c0dafb6710f35afc08056b82837aa166a8cd6aef7"),
    File("test", "eng.testb", f"{_LAMPLE}/eng.testb", 748_094,
         "ae78c673d851c4308090fed5fb4412474c8b1fc91fe20728fdf62fdbfa1a5b2c"),
))  # fmt: skip
OFFICIAL = {"conll2000": CONLL2000, "conll2003": CONLL2003}
NAMES = (*OFFICIAL, "generated")
# The marks of IOB1, BIO, IOBES, BILOU and BMES, and what each says of its word in IOBES.
MARKS = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
TAG = re.compile(rf"O|[{''.join(MARKS)}]-\S+")


class Sentence(NamedTuple):
    words: tuple[str, ...]
    tags: tuple[str, ...]  # of chunks O, or B- or I- and a kind: BIO; else one of its own for each word
    columns: tuple[tuple[str, ...], ...] = ()  # what the file has between word and tag, such as parts of speech


@dataclass(frozen=True)
class Tagged:
    """Sentences of each split, `valid` and `test` None where the set has none, and the tags in their order.

    chunks: the tags are of chunks, in BIO; else each stands for itself. columns: that each sentence has beside.
    """

    name: str
    tags: tuple[str, ...]
    train: list[Sentence]
    valid: list[Sentence] | None = None
    test: list[Sentence] | None = None
    chunks: bool = True
    columns: int = 0


def load_tagged(data: str, data_dir=None, chunks: bool = True) -> Tagged:
    """Read a tagged set by name or path.

    data: one of NAMES; else the path of a file in CoNLL's columns (a word a line, the word first and its tag last, an
    empty line behind each sentence) or, where its name ends in .conllu, of CoNLL-U, whose universal parts of speech are
    the tags; plain or .gz; or of a folder with files named after train, and valid and test where there are such. Lines
    of -DOCSTART- count for nothing. Tags of IOB1, IOBES, BILOU and BMES become BIO.
    chunks: the tags of a file in columns are those of chunks; False: any, such as parts of speech.
    data_dir: where an official set is looked for before it is downloaded; LMJAX_DATA is the default.

    Raises UserError for a name or path that is not there, a file that is not the official, not UTF-8 or empty, and a
    line with another number of columns than the first or with another tag. A tag that training lacks is a class all
    the same.
    """
    if data == "generated":
        return _tagged(data, {name: generated(size, seed) for seed, (name, size) in enumerate(GENERATED.items())})
    if data in OFFICIAL:
        found = files.read(OFFICIAL[data], data_dir)
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
    universal = [is_conllu(one) for one in paths.values()]
    if len(set(universal)) > 1:
        raise UserError(f"{path} has files in CoNLL-U (.conllu) and in columns: expected all splits in one form")
    if universal[0]:
        return _tagged(data, {name: read_conllu(files.read_bytes(one), one) for name, one in paths.items()}, False)
    found = {split: read_columns(files.read_bytes(one), one, chunks) for split, one in paths.items()}
    return _tagged(data, found, chunks)


def splits(data: Tagged) -> dict[str, list[Sentence]]:
    """{"train", "valid", "test"}. A set without validation gives a tenth of training for it, one without a test set
    another tenth: see labelled.tenths."""
    found = {"valid": data.valid, "test": data.test}
    missing = [name for name, part in found.items() if part is None]
    cut = tenths(len(data.train), missing, data.name)
    return found | {name: [data.train[i] for i in order] for name, order in cut.items()}


def is_conllu(path) -> bool:
    return str(path).lower().removesuffix(".gz").endswith(".conllu")


def read_columns(content: bytes, name, chunks: bool = True) -> list[Sentence]:
    """The sentences of a file, chunks' tags in BIO. UserError, with file and line, where a line is none of CoNLL's."""
    found, rows, first = [], [], None
    wanted = "O, B-… or I-…" if chunks else "any without spaces"
    for number, line in enumerate([*decode(content, name).split("\n"), ""], start=1):
        # Not by split(), which cuts at every space of Unicode's: some are words.
        row = re.split(r"[ \t]+", line.strip(" \t\r"))
        if row[0] and row[0] != "-DOCSTART-":
            first = first or (number, len(row))
            if len(row) < 2 or len(row) != first[1]:
                count = "one column" if len(row) == 1 else f"{len(row)} columns"
                raise UserError(
                    f"{name}, line {number:,} has {count}, {line.strip()[:40]!r}: expected a word and, last, its tag: "
                    f"{wanted}" + f"; {first[1]} columns as in line {first[0]:,}" * (first[0] < number)
                )
            if chunks and not TAG.fullmatch(row[-1]):
                raise UserError(
                    f"{name}, line {number:,} ends in {row[-1][:20]!r}: expected a word and, last, its tag: {wanted}; "
                    "--chunks=false reads tags that stand for themselves"
                )
            rows.append(row)
        elif rows:
            words, *columns, tags = map(tuple, zip(*rows))
            found.append(Sentence(words, bio(tags) if chunks else tags, tuple(columns)))
            rows = []
    if not found:
        raise UserError(f"{name} holds no sentence: expected a word and its tag a line, then an empty line")
    return found


def read_conllu(content: bytes, name) -> list[Sentence]:
    """The sentences of a CoNLL-U file, each word's tag its universal part of speech (column 4).

    Of a token of several words (3-4) the words count; empty nodes (8.1) do not. UserError, with file and line, where a
    line has not ten columns between tabs, a number that none should have, or no part of speech.
    """
    found, words, tags = [], [], []
    for number, line in enumerate([*decode(content, name).split("\n"), ""], start=1):
        if line.startswith("#"):
            continue
        if not line.strip():
            if words:
                found.append(Sentence(tuple(words), tuple(tags)))
            words, tags = [], []
            continue
        columns = line.split("\t")
        if len(columns) != 10 or not re.fullmatch(r"\d+([-.]\d+)?", columns[0]):
            what = f"has {len(columns)} columns" if len(columns) != 10 else f"begins with {columns[0][:20]!r}"
            raise UserError(f"{name}, line {number:,} {what}: expected CoNLL-U, ten columns with tabs between, the "
                            "word's number first")  # fmt: skip
        if columns[0].isdigit():
            if columns[3] in ("_", ""):
                raise UserError(f"{name}, line {number:,} has no part of speech in column 4: tag the file, or take "
                                "another")  # fmt: skip
            words.append(columns[1])
            tags.append(columns[3])
    if not found:
        raise UserError(f"{name} holds no sentence: expected CoNLL-U, a word a line, then an empty line")
    return found


def bio(tags) -> tuple[str, ...]:
    """Tags in BIO, of such in IOB1, IOBES, BILOU or BMES: every chunk begins by B-, and all its other words are I-."""
    before, found = "O", []
    for tag in tags:
        mark, kind = MARKS.get(tag[0], "O"), tag[2:]
        opens = mark in "BS" or before == "O" or before[2:] != kind or before[0] in "ES"
        found.append("O" if mark == "O" else ("B-" if opens else "I-") + kind)
        before = "O" if mark == "O" else f"{mark}-{kind}"
    return tuple(found)


def iobes(tags) -> tuple[str, ...]:
    """BIO in which the last word of a chunk is E- and one alone S-."""
    found = []
    for tag, after in zip(tags, [*tags[1:], "O"]):
        ends = after != "I" + tag[1:]
        found.append({"B": "S", "I": "E"}[tag[0]] + tag[1:] if ends and tag != "O" else tag)
    return tuple(found)


GENERATED = {"train": 1500, "valid": 200, "test": 500}
_SYLLABLES = "ba be bo da di do fa ga go ka ke ko la le li lo ma mi mo na ne no pa pe ra ri ro sa se so ta te to va vi"
_ENDINGS = {"LOC": ("ville", "burg", "land", "ton"), "ORG": (" Bank", " Ltd", " Club", " Press"), "PER": ("", "n", "s")}
_FRAMES = """
{PER} lives in {LOC} . | {PER} , a {JOB} from {LOC} , works for {ORG} . | {ORG} opened a new office in {LOC} {DAY} .
{ORG} beat {ORG} {NUMBER} - {NUMBER} . | The {JOB} met {PER} and {PER} in {LOC} . | {LOC} {NUMBER} , {LOC} {NUMBER}
Shares of {ORG} fell {NUMBER} percent {DAY} . | {PER} left {ORG} for {ORG} {DAY} . | No {JOB} was seen {DAY} .
{PER} told the {JOB} that {LOC} was closed . | May {PER} visit {LOC} ? | The bank of the river near {LOC} rose {DAY} .
"""


def generated(count: int, seed: int) -> list[Sentence]:
    """Sentences from a dozen frames with persons, places and organisations whose names are made up: what kind a name
    is of is told by what stands around it and by how it is spelt, for hardly any comes again."""
    rng = np.random.default_rng(seed)
    frames = [frame.split() for frame in _FRAMES.strip().replace("\n", "|").split("|")]
    words = {"JOB": ["teacher", "doctor", "baker", "singer"], "DAY": ["today", "on Monday", "last May"]}

    def filled(slot: str) -> str:
        if slot in _ENDINGS:
            name = "".join(rng.choice(_SYLLABLES.split(), rng.integers(2, 4))).capitalize()
            first = "".join(rng.choice(_SYLLABLES.split(), 2)).capitalize() + " "
            return first * int(slot == "PER" and rng.random() < 0.7) + name + str(rng.choice(_ENDINGS[slot]))
        return str(rng.integers(1, 99)) if slot == "NUMBER" else str(rng.choice(words[slot]))

    found = []
    for _ in range(count):
        sentence, tags = [], []
        for part in frames[rng.integers(len(frames))]:
            slot = part[1:-1] if part[0] == "{" else ""
            some = filled(slot).split() if slot else [part]
            sentence += some
            tags += [f"{'I' if n else 'B'}-{slot}" if slot in _ENDINGS else "O" for n in range(len(some))]
        found.append(Sentence(tuple(sentence), tuple(tags)))
    return found


def _tagged(name: str, splits: dict[str, list[Sentence]], chunks: bool = True) -> Tagged:
    tags = sorted({tag for found in splits.values() for sentence in found for tag in sentence.tags})
    if len(tags) < 2:
        raise UserError(f"{name} has one tag alone, {tags[0]}: expected two or more to tell apart")
    counts = {split: len(found[0].columns) for split, found in splits.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{split} {count + 2}" for split, count in counts.items())
        raise UserError(f"{name}: the splits have different numbers of columns ({shown}): expected the same in all")
    return Tagged(name, tuple(tags), **splits, chunks=chunks, columns=counts["train"])
