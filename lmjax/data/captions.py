"""Sentences to write more of, one a line: the sets that text GANs are measured on, and anyone's own lines.

A sentence is a list of tokens in lower case. `rows` makes numbers of them: 0 is read before the first token, says that
the sentence ends, and fills the row; 1 is a word that training lacks.
"""

import difflib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data import files
from lmjax.data.batches import cut_lengths, drawn_from
from lmjax.data.files import File, Source
from lmjax.data.text import decode, pydoc_topics
from lmjax.errors import UserError

_TEXYGEN = "https://raw.githubusercontent.com/geek-ai/Texygen/3104e22ac75f3cc2070da2bf5e2da6d2bef149ad/data"
_SHORT = ("https://raw.githubusercontent.com/pclucas14/GansFallingShort/e6be915b1aed7843d83f7d543bfb8de9f3d3461f/"
          "real_data_experiments/data")  # fmt: skip


_POETRY = ("https://raw.githubusercontent.com/chinese-poetry/chinese-poetry/99ebbef7e1345c0985c44b9fd96a3f9e776f117b/"
           "%E5%85%A8%E5%94%90%E8%AF%97")  # fmt: skip


def _set(homepage: str, *parts: File) -> Source:
    return Source("text-gan", homepage, parts)


def _poet(first: int, size: int, digest: str) -> File:
    return File(f"{first}", f"poet.tang.{first}.json", f"{_POETRY}/poet.tang.{first}.json", size, digest)


SETS = {
    # 20,000 captions of MS-COCO, of which LeakGAN's authors took the tokens apart and ended each by a full stop.
    "coco": _set(
        "https://arxiv.org/abs/1709.08624",
        File("train", "coco_train.txt", f"{_SHORT}/coco/train.txt", 558_310,
             "81c8d799b6bb3f9c64e1a3dc747e9fb3057c236a4501d1a0e0447f5bc898e314"),
        File("test", "coco_test.txt", f"{_SHORT}/coco/test.txt", 548_243,
             "9adeac90babb053b5724f60cabc53877ded4dc07fc0af29d1681bafacc06b0f1"),
    ),
    # The same captions as Texygen keeps them, plain.
    "coco-texygen": _set(
        "https://arxiv.org/abs/1802.01886",
        File("train", "texygen_image_coco.txt", f"{_TEXYGEN}/image_coco.txt", 546_442,
             "2c0fd1f0f43aac6a9dc3926a535516ccf395de535e15ac1fd17cd569420736f5"),
        File("test", "texygen_test_coco.txt", f"{_TEXYGEN}/test_coco.txt", 536_184,
             "72e25c9fb4d2cd43182ac602c92f6ffc377762147f9709572943b0b09174bcae"),
    ),
    # The 278,686 sentences that papers train on are not here: the 10,000 of the validation split stand in for them.
    "emnlp-news": _set(
        "https://arxiv.org/abs/1709.08624",
        File("train", "emnlp_news_valid.txt", f"{_SHORT}/news/valid.txt", 1_350_298,
             "e66a6fdd1f6cb15cb8f851051e5c49062270e0de1e69213289ce50b88a1d7281"),
        File("test", "test_emnlp.txt", f"{_TEXYGEN}/test_emnlp.txt", 1_742_757,
             "03c646d08f766f4140443db4419b1f0ee292bc0db514208873e9f2e166b95bd2"),
    ),
    # Four lines of five characters with their punctuation, many of them parts of longer poems.
    "tang": _set(
        "https://arxiv.org/abs/1609.05473",
        File("train", "shi.txt", f"{_TEXYGEN}/shi.txt", 1_590_217,
             "ac03c5fbb07776f0e43cb1ccfc74732f5313ab3d832df81c8e0db327df35e666"),
    ),
    # Of the first 10,008 poems of the Quan Tang Shi, in traditional characters, two couplets each: see `quatrains`.
    "quan-tang": Source("chinese-poetry", "https://github.com/chinese-poetry/chinese-poetry", (
        _poet(0, 408_405, "4f88f429938082523cdc72a1612bd7a7c3e3f7a33f8192c61ae51340efc3c92d"),
        _poet(1000, 477_519, "6e703b8d8dcedbd6110f6d48d043665ca2131db2035a5bfcef5e59a19aeb6d75"),
        _poet(2000, 417_948, "ec28efa7e2ae9cdbbba09f0ed186e32ccae47a325ad1e5816b7ad56071c1665a"),
        _poet(3000, 453_811, "9e4ba2323752b6b9fbdba875cdbc6a26636fe0cabc85fd066370d4915952001f"),
        _poet(4000, 488_655, "b8a7946c879b9658a6c667a4c55f776fae7e5e00a17789ab06b274c1429afc66"),
        _poet(5000, 467_225, "a0306e6962cff01639ad9a00b042a201b8dec1f30fa5d768a7b112589887861e"),
        _poet(6000, 470_031, "982a21d2b15922b406911f1c825785054314c686da86b2155d7aebb362d22771"),
        _poet(7000, 474_558, "a6fb69d7b4343c904dc56ae5aae34facc2478d196b51c37ceba9d1e2f171b342"),
        _poet(8000, 574_248, "ac3848e95b02736168003863795de4474838c2d6a71a24ca2a4a280ea5177773"),
        _poet(9000, 476_882, "b99d6596e3a1fe1a661652383083f92d196b8baf4e461d087081d5e1e1b7a51f"),
    )),
}  # fmt: skip
NAMES = ("pydoc", *SETS)
END, UNKNOWN = 0, 1
SPECIAL = ("</s>", "<unk>")
LONGEST = 500  # tokens of what may still be one sentence

# What a word is cut into, as nltk's word_tokenize does it: clitics, punctuation, the full stop at an end unless a
# letter by itself stands before it; and every Chinese character.
_CUT = re.compile(
    r"""(n't\b|'(?:s|m|d|ll|re|ve)\b|["?!;&$#()\[\]]|[,:](?!\d)|(?<!\.\w)\.+(?=["\s]|$)"""
    "|[\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef])"
)
_LINE = "[\u3400-\u9fff\uf900-\ufaff]{5}"
_COUPLET = re.compile(f"{_LINE}\uff0c{_LINE}[\u3002\uff1f\uff01]")  # a comma between, and a stop of three kinds


@dataclass(frozen=True)
class Sentences:
    """Token lists of each split. `notes`: what was done to the lines, for a record."""

    name: str
    train: list
    valid: list
    test: list
    notes: str = ""


class Rows(NamedTuple):
    """tokens int32 [N,T], END behind each sentence; lengths int [N] with the first END counted."""

    tokens: np.ndarray
    lengths: np.ndarray


def load_sentences(data: str, data_dir=None, longest: int = 0) -> Sentences:
    """Read a set by name or path.

    data: one of `NAMES`, or a UTF-8 file with one sentence a line, plain or .gz; empty lines count for nothing. pydoc:
    the sentences of the documentation that Python carries.
    longest: tokens of a training line; longer ones are left out of training, and `notes` says how many. 0: any.
    The twentieth part of training, at most 500 lines, is drawn for validation, the same for every run. A set without a
    test part first gives a tenth to it, its repeated lines counted once so that none is on both sides.
    data_dir: where official sets are looked for before they are downloaded; LMJAX_DATA is the default.

    Raises UserError for a name or path that is not there, a file that is not the official or not UTF-8, a line
    of more than 500 tokens, and where fewer than 40 sentences are left to train on.
    """
    if data == "quan-tang":
        parts = files.read(SETS[data], data_dir)
        poems = [line for split, part in parts.items() for line in quatrains(part, f"{data} {split}")]
        found = {"train": [tokens(line) for line in poems]}
    elif data in SETS:
        content = files.read(SETS[data], data_dir)
        found = {split: _lines(decode(part, f"{data} {split}"), f"{data} {split}") for split, part in content.items()}
    elif data == "pydoc":
        found = {"train": [tokens(sentence) for sentence in _pydoc()]}
    else:
        path = Path(data).expanduser()
        if not data or not path.is_file():
            near = difflib.get_close_matches(data, NAMES, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"data={data} is neither a file nor a known set{hint}: expected one of "
                            f"{', '.join(NAMES)}, or a text file with one sentence a line")  # fmt: skip
        found = {"train": _lines(decode(files.read_bytes(path), path), path)}
    return _divided(data, found, longest)


def tokens(line: str) -> list[str]:
    """A sentence in lower case, its punctuation taken off the words; tokenised text stays as it is."""
    return _CUT.sub(r" \1 ", line.lower()).split()


def _lines(text: str, name) -> list[list[str]]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = tokens(line)
        if len(words) > LONGEST:
            raise UserError(f"{name}, line {number:,} has {len(words):,} tokens: expected one sentence a line, of at "
                            f"most {LONGEST}")  # fmt: skip
        if words:
            found.append(words)
    return found


def quatrains(content: bytes, name) -> list[str]:
    """Of poems as chinese-poetry keeps them, a JSON list of {"paragraphs": [couplet, ...]}: every other couplet with
    the one behind it, where both are two lines of five characters."""
    try:
        poems = [poem["paragraphs"] for poem in json.loads(content)]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{name} is no JSON list of poems with paragraphs ({error}): get the file again") from None
    pairs = [pair for couplets in poems for pair in zip(couplets[::2], couplets[1::2])]
    return ["".join(pair) for pair in pairs if all(map(_COUPLET.fullmatch, pair))]


def _pydoc() -> list[str]:
    """Sentences of running text: what begins with a capital and ends, in paragraphs that hold no code or grammar."""
    found = []
    for text in pydoc_topics().values():
        for paragraph in re.split(r"\n\s*\n", text):
            if not re.search(r"::=|>>>|[-=~^*]{4}", paragraph):
                parts = re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split()))
                found += [part for part in parts if re.fullmatch(r"[A-Z].*[.!?]", part)]
    return found


def _divided(name: str, found: dict, longest: int) -> Sentences:
    train, test, notes = found["train"], found.get("test"), []
    rng = np.random.default_rng(0)  # a set's parts are the same in every run
    if test is None:
        once = list(dict.fromkeys(map(tuple, train)))
        if len(once) < len(train):
            notes.append(f"{len(train) - len(once):,} repeated lines left out")
        test, train = _drawn([list(line) for line in once], len(once) // 10, rng)
        notes.append(f"{len(test):,} lines drawn for the test")
    if longest:
        kept = [line for line in train if len(line) <= longest]
        if len(kept) < len(train):
            notes.append(f"{len(train) - len(kept):,} of {len(train):,} training lines left out, longer than {longest}")
        train = kept
    valid, train = _drawn(train, min(len(train) // 20, 500), rng)
    if len(train) < 40:
        raise UserError(f"{name} leaves {len(train)} sentences to train on: expected at least 40, one a line"
                        + (f", of at most --longest={longest} tokens" if longest else ""))  # fmt: skip
    notes.append(f"{len(valid):,} training lines drawn for validation")
    return Sentences(name, train, valid, test, "; ".join(notes))


def _drawn(lines: list, count: int, rng) -> tuple[list, list]:
    """(count of the lines by chance, the others), both in their order."""
    at = set(rng.permutation(len(lines))[:count].tolist())
    return [line for i, line in enumerate(lines) if i in at], [line for i, line in enumerate(lines) if i not in at]


def vocabulary(sentences) -> tuple[str, ...]:
    """END, UNKNOWN and the words by falling frequency, then by alphabet."""
    counts = Counter(word for sentence in sentences for word in sentence)
    return (*SPECIAL, *sorted(counts.keys() - set(SPECIAL), key=lambda word: (-counts[word], word)))


def rows(sentences, words) -> Rows:
    """Sentences as numbers: T is the longest one's length with its END."""
    place = {word: n for n, word in enumerate(words)}
    lengths = np.array([len(sentence) + 1 for sentence in sentences])
    table = np.full((len(sentences), lengths.max()), END, np.int32)
    for row, sentence in enumerate(sentences):
        table[row, : len(sentence)] = [place.get(word, UNKNOWN) for word in sentence]
    return Rows(table, lengths)


def until_end(table) -> list[list[int]]:
    """The numbers of each row [N,T] before its first END."""
    table = np.asarray(table)
    ended = np.concatenate([table == END, np.ones((len(table), 1), bool)], axis=1).argmax(1)
    return [row[:end] for row, end in zip(table.tolist(), ended)]


def by_length(found: Rows, batch: int, seed: int = 0, shapes: int = 4, multiple: int = 1):
    """Batches of a training: `(batch(step), steps_per_epoch)`.

    Sentences of like length share a batch, which is padded to one of at most `shapes` lengths, each a `multiple`. Which
    length a step has is the same for all seeds, a function of the epoch; which sentences is each seed's own. Every
    sentence comes once an epoch. A batch: "tokens" int32 [B,T], and "weights" float32 [B,T], 0 behind a sentence's
    END and in rows that fill up a length's last batch.
    """
    ends = _ends(found.lengths, shapes, multiple)
    place = np.searchsorted(ends, found.lengths)
    members = [np.flatnonzero(place == b) for b in range(len(ends))]
    plan = [(b, first) for b, who in enumerate(members) for first in range(0, len(who), batch)]
    known = {}  # the orders of the last epoch asked for: only a memory of f(seed, epoch)

    def orders(epoch):
        if epoch not in known:
            known.clear()
            rng = drawn_from(seed, epoch)
            known[epoch] = drawn_from(0, epoch).permutation(len(plan)), [rng.permutation(who) for who in members]
        return known[epoch]

    def at(step: int) -> dict:
        turns, order = orders(step // len(plan))
        b, first = plan[turns[step % len(plan)]]
        return _weighed(found, order[b][first : first + batch], batch, int(ends[b]))

    return at, len(plan)


def whole(found: Rows, batch: int, shapes: int = 4, multiple: int = 8):
    """Every sentence once, by length: an iterator of batches {"tokens", "weights"} [B,T]."""
    ends, order = _ends(found.lengths, shapes, multiple), np.argsort(found.lengths, kind="stable")
    place = np.searchsorted(ends, found.lengths[order])
    for b, end in enumerate(ends):
        who = order[place == b]
        for first in range(0, len(who), batch):
            yield _weighed(found, who[first : first + batch], batch, int(end))


def _ends(lengths, shapes: int, multiple: int) -> np.ndarray:
    """The lengths that batches are padded to: multiples, so that other sentences meet the same compiled programs."""
    return np.unique(-(-cut_lengths(lengths, shapes) // multiple) * multiple)


def _weighed(found: Rows, who, batch: int, length: int) -> dict:
    tokens, lengths = np.full((batch, length), END, np.int32), np.zeros(batch, int)
    part = found.tokens[who, :length]
    tokens[: len(who), : part.shape[1]], lengths[: len(who)] = part, found.lengths[who]
    return {"tokens": tokens, "weights": (np.arange(length) < lengths[:, None]).astype(np.float32)}
