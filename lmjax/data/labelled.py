"""Labelled texts to classify: IMDB, Reuters R8, the SMS spam collection, and anyone's own `label<TAB>text` lines."""

import difflib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data import files
from lmjax.data.files import File, Source
from lmjax.data.text import decode, split_files
from lmjax.errors import UserError

# One file a review in the archive of its homepage; here a line each: label (1 pos, 0 neg), stars, number, text.
IMDB = Source("imdb", "https://ai.stanford.edu/~amaas/data/sentiment/", (
    File("train", "train.tsv", "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz", 33_390_335,
         "0e4feacfaae8cfbf67c47fd0767247c0941a6b86a50cdb1a3014c5ad512fe4a8"),
    File("test", "test.tsv", "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz", 32_608_464,
         "1696d670a823a97fc1fdf5117b9b44780612fd81800b5182b0e1d8f6bca1092b"),
))  # fmt: skip

_R8 = "https://raw.githubusercontent.com/yao8839836/text_gcn/962223652e9bb164ac2d83cd09fc7b8845ce860b/data/R8"
R8 = Source("reuters-r8", "https://arxiv.org/abs/1809.05679", (
    File("train", "train.txt", f"{_R8}/train.txt", 3_354_423,
         "3ed60c905aaa95b96c3fc4afb6d14ad2e20106c59c5b9dda950dcb3075eecfbe"),
    File("test", "test.txt", f"{_R8}/test.txt", 1_195_260,
         "2ba368c42e6808bc3dc68b8f7879eb07a2810ed137f0b304e2213b689677e561"),
))  # fmt: skip

SMS = Source("sms-spam", "https://doi.org/10.24432/C5CC84", (
    File("train", "SMSSpamCollection", "https://raw.githubusercontent.com/Binaryword/python-code/"
         "9d68c87b294774ff08222d3d83bc815076ce4c05/SMSSpamCollection", 477_899,
         "40db7509d6352ffad1194fd36136065c44d84b19c11cf0d5d2dee32d6f136d66"),
))  # fmt: skip

OFFICIAL = (IMDB, R8, SMS)
REVIEWS = 12_500  # of IMDB, in each split and class
NAMES = tuple(source.name for source in OFFICIAL)


class Documents(NamedTuple):
    texts: list[str]
    labels: np.ndarray  # int64 [N], places in Labelled.classes

    def take(self, at) -> "Documents":
        return Documents([self.texts[i] for i in at], self.labels[at])


@dataclass(frozen=True)
class Labelled:
    """Texts of each split, `valid` and `test` None where the set has none, and the classes' names in their order."""

    name: str
    classes: tuple[str, ...]
    train: Documents
    valid: Documents | None = None
    test: Documents | None = None


def load_labelled(data: str, data_dir=None) -> Labelled:
    """Read a labelled set by name or path.

    data: one of `NAMES`; else the path of a file of `label<TAB>text` lines, UTF-8, plain or .gz, or of a folder with
    files named after train, and valid and test where there are such. Empty lines count for nothing.
    data_dir: where official sets are looked for before they are downloaded; LMJAX_DATA is the default. imdb is not
    downloaded: it may lie there as the unpacked archive, imdb/aclImdb or aclImdb, too.

    Raises UserError for a name or path that is not there, a file that is not the official, not UTF-8 or empty, a line
    without a tab or label, one class alone, more classes than half the lines, and a class that training lacks.
    """
    for source in OFFICIAL:
        if data == source.name:
            return _imdb(data_dir) if source is IMDB else _labelled(data, _official(source, data_dir))
    if not data:
        raise UserError(f"data is empty: expected one of {', '.join(NAMES)}, or a path")
    path = Path(data).expanduser()
    if path.is_dir():
        found = _splits(path)
    elif path.exists():
        found = {"train": path}
    else:
        near = difflib.get_close_matches(data, NAMES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(
            f"data={data} is neither a file or folder nor a known set{hint}: expected one of "
            f"{', '.join(NAMES)}, or a path"
        )
    return _labelled(data, {split: read_lines(files.read_bytes(path), path) for split, path in found.items()})


def read_lines(content: bytes, name) -> list[tuple[int, str, str]]:
    """(line number, label, text) of each `label<TAB>text` line. UserError, with file and line, where one isn't."""
    lines = []
    for number, line in enumerate(decode(content, name).split("\n"), start=1):  # a review may hold other line ends
        if not line.strip():
            continue
        label, tab, text = line.partition("\t")
        if not tab or not label.strip():
            what = "has an empty label" if tab else "has no tab"
            shown = line if len(line) <= 40 else line[:37] + "..."
            raise UserError(f"{name}, line {number:,} {what}: {shown!r}; expected label<TAB>text")
        lines.append((number, label.strip(), text.strip()))
    return lines


def seen(train: Documents, test: Documents) -> np.ndarray:
    """Which of the test texts stand in training too, word for word: bool [N]."""
    known = set(train.texts)
    return np.array([text in known for text in test.texts], bool)


def _official(source: Source, data_dir) -> dict:
    return {split: read_lines(content, f"{source.name} {split}")
            for split, content in files.read(source, data_dir).items()}  # fmt: skip


def _imdb(data_dir) -> Labelled:
    folder = files.own_dir(data_dir)
    if all(files.locate(file, IMDB.name, folder) for file in IMDB.files):
        lines = _official(IMDB, data_dir)
        parts = {split: [(n, "pos" if label == "1" else "neg", text.split("\t", 2)[2]) for n, label, text in found]
                 for split, found in lines.items()}  # fmt: skip
    else:
        places = [] if folder is None else [folder / "imdb" / "aclImdb", folder / "aclImdb"]
        root = next((place for place in places if place.is_dir()), None)
        if root is None:
            searched = f"{folder / 'imdb'} or {folder}" if folder else "your folder (no --data_dir is given)"
            raise UserError(
                f"train.tsv and test.tsv of imdb are not in {searched}, nor is aclImdb: unpack "
                f"{IMDB.files[0].url} there and name the folder by --data_dir"
            )
        parts = {split: _reviews(root / split) for split in ("train", "test")}
    return _labelled("imdb", {split: [(n, label, text.replace("<br />", " ")) for n, label, text in lines]
                              for split, lines in parts.items()})  # fmt: skip


def _reviews(folder: Path) -> list[tuple[int, str, str]]:
    """The reviews of aclImdb/train or /test, NUMBER_STARS.txt below neg and pos, in the order of their numbers."""
    lines = []
    for label in ("neg", "pos"):
        paths = sorted((folder / label).glob("*.txt"), key=lambda path: int(re.match(r"\d*", path.name)[0] or 0))
        if len(paths) != REVIEWS:
            raise UserError(f"{folder / label} has {len(paths):,} reviews, expected {REVIEWS:,}: unpack it again")
        lines += [(1, label, decode(path.read_bytes(), path).replace("\n", " ")) for path in paths]
    return lines


def _splits(folder: Path) -> dict[str, Path]:
    found = split_files(folder, sorted(path for path in folder.iterdir() if path.is_file()))
    if not found:
        raise UserError(
            f"{folder} has no file named after train: expected train.txt, and test.txt where there is one, "
            "or the path of a file"
        )
    return found


def _labelled(name: str, lines: dict[str, list]) -> Labelled:
    counts = Counter(label for _, label, _ in lines["train"])
    classes = tuple(sorted(counts))
    if len(classes) < 2:
        raise UserError(f"{name} has one class alone, {classes[0]}: expected lines of two classes or more")
    if len(classes) > len(lines["train"]) / 2:
        raise UserError(
            f"{name} has {len(classes):,} classes on {len(lines['train']):,} lines, such as "
            f"{classes[0][:40]!r}: expected label<TAB>text, the label first"
        )
    place, splits = {label: n for n, label in enumerate(classes)}, {}
    for split, found in lines.items():
        for number, label, _ in found:
            if label not in place:
                raise UserError(
                    f"{name} {split}, line {number:,}: label {label[:40]} is not in train: expected one of "
                    f"{', '.join(classes[:12])}"
                )
        labels = np.array([place[label] for _, label, _ in found], np.int64)
        splits[split] = Documents([text for _, _, text in found], labels)
    return Labelled(name, classes, **splits)
