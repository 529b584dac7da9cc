"""Sentence pairs to translate: Multi30k and anyone's own parallel files, and how their lines become tokens.

A line is first written as lower-case tokens with single spaces between, as the published work on a set did it, then
turned into ids by a vocabulary of words or a joint one of byte pairs. Scores are taken on the tokens.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data import files
from lmjax.data.files import File, Source
from lmjax.data.text import decode
from lmjax.data.tokenizers import BPE, tokenizers_library
from lmjax.errors import UserError, install

_MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw"
MULTI30K = Source("multi30k-en-de", "https://arxiv.org/abs/1605.00459", tuple(
    File(name, name, f"{_MULTI30K}/{name}.gz", size, sha256) for name, size, sha256 in (
        ("train.en", 1_801_238, "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
        ("train.de", 2_110_398, "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72"),
        ("val.en", 63_297, "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227"),
        ("val.de", 75_981, "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660"),
        ("test_2016_flickr.en", 62_076, "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182"),
        ("test_2016_flickr.de", 70_649, "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16"),
        ("test_2017_flickr.en", 55_242, "ce1450ddc5ab0834502579d77a170849952e15a2938b34cc503bdc25ebb4fb98"),
        ("test_2017_flickr.de", 64_059, "c3078bc3b36808bf9d20eb2347ed6137016179ef59ec0d2b9b8ecc3fb2880081"),
        ("test_2017_mscoco.en", 24_949, "43051fdfa86fd5395182e718a94ca67b1b227b9f7c79596ff0f6b813216981d2"),
        ("test_2017_mscoco.de", 29_906, "58277df3c75f92f7145a11b910b553d1cf82c439249d4dc237c899609eafac22"),
    )
))  # fmt: skip
VALIDATION = ("val", "valid", "dev", "validation")
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"


class Sentences(NamedTuple):
    """Lines of two languages, line i of one the translation of line i of the other."""

    source: list[str]
    target: list[str]


@dataclass(frozen=True)
class Parallel:
    """Sentence pairs of each split; the test sets by name, in the order of their names."""

    name: str
    train: Sentences
    valid: Sentences
    tests: dict[str, Sentences]


def load_pairs(data: str, source: str, target: str, data_dir=None) -> Parallel:
    """Read a parallel set by name or path.

    data: multi30k (English "en" and German "de"), or a folder with files train.LANGUAGE, valid.LANGUAGE (or val, dev)
    and any test sets test*.LANGUAGE, UTF-8, plain or .gz, a sentence a line. source, target: the two languages.
    data_dir: where multi30k is looked for before it is downloaded; LMJAX_DATA is the default.

    Raises UserError for a name or path that is not there, a language that is missing, and files of two lengths.
    """
    if source == target:
        raise UserError(f"source={source} and target={target} are one language: expected two")
    if data == "multi30k":
        for language in (source, target):
            if language not in ("en", "de"):
                raise UserError(f"multi30k has no language {language}: expected en and de")
        lines = {name: _lines(content, name) for name, content in files.read(MULTI30K, data_dir).items()}
    else:
        lines = _folder(data, (source, target))
    splits = {}
    for split in sorted({name.rpartition(".")[0] for name in lines}):
        pair = Sentences(*(lines.get(f"{split}.{language}", []) for language in (source, target)))
        if len(pair.source) != len(pair.target):
            raise UserError(
                f"{split} of {data} has {len(pair.source):,} lines of {source} and {len(pair.target):,} of {target}: "
                "line i of one must translate line i of the other"
            )
        splits[split] = pair
    train, valid = splits.get("train"), next((splits[name] for name in VALIDATION if name in splits), None)
    if not train or not valid:
        missing = "valid" if train else "train"
        raise UserError(f"{data} has no {missing}.{source} with {missing}.{target}, found {', '.join(sorted(lines))}")
    return Parallel(data, train, valid, {name: pair for name, pair in splits.items() if name.startswith("test")})


def _folder(data: str, languages) -> dict[str, list[str]]:
    folder = Path(data).expanduser()
    if not data or not folder.is_dir():
        raise UserError(f"data={data} is no folder and no known set: expected multi30k, or a folder with train.de, ...")
    found = {path.name.removesuffix(".gz"): path for path in sorted(folder.iterdir()) if path.is_file()}
    names = [name for name in found if name.rpartition(".")[2] in languages]
    if not names:
        raise UserError(f"{folder} has no files of {' or '.join(languages)}: expected train.{languages[0]} and others")
    return {name: _lines(files.read_bytes(found[name]), found[name]) for name in names}


def _lines(content: bytes, name) -> list[str]:
    return decode(content, name).removesuffix("\n").split("\n")


def moses(language: str) -> Callable[[str], str]:
    """A line in lower case, with plain punctuation, as tokens with spaces between: what WMT's text-only work scores.

    Moses's rules by the sacremoses library, in the order of Multi30k's own preprocessing.
    """
    try:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer
    except ImportError:
        raise UserError("Moses's tokens need the sacremoses library: " + install("translate")) from None
    plain, tokens = MosesPunctNormalizer(language), MosesTokenizer(language)
    return lambda line: tokens.tokenize(plain.normalize(line.lower()), return_str=True, escape=False)


def spacy(language: str) -> Callable[[str], str]:
    """A line as the lower-case tokens of spaCy's rules for the language, with spaces between; no model is needed."""
    try:
        import spacy
    except ImportError:
        raise UserError("spaCy's tokens need the spacy library: " + install("translate")) from None
    try:
        rules = spacy.blank(language).tokenizer
    except ImportError:
        raise UserError(f"spaCy has no rules for language {language}: expected a code such as en or de") from None
    return lambda line: " ".join(token.text.lower() for token in rules(line) if not token.is_space)


def spaces(language: str) -> Callable[[str], str]:
    """A line as it is: its tokens are what stands between spaces."""
    return lambda line: " ".join(line.split())


def word_vocabulary(lines: Sequence[str], least: int = 2) -> BPE:
    """The words that the lines have at least `least` times; another is <unk>."""
    models = tokenizers_library()
    tokenizer = models.Tokenizer(models.models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = models.pre_tokenizers.WhitespaceSplit()
    special = [UNKNOWN, BEGIN, END]
    trainer = models.trainers.WordLevelTrainer(min_frequency=least, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return BPE(tokenizer.to_str())


def joint_vocabulary(lines: Sequence[str], size: int) -> BPE:
    """`size` units of the words of both languages by byte-pair encoding (Sennrich et al. 2016)."""
    models = tokenizers_library()
    tokenizer = models.Tokenizer(models.models.BPE(unk_token=UNKNOWN, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = models.pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = models.decoders.BPEDecoder(suffix="</w>")
    trainer = models.trainers.BpeTrainer(
        vocab_size=size, special_tokens=[UNKNOWN, BEGIN, END], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return BPE(tokenizer.to_str())


def encode(vocabulary: BPE, lines: Sequence[str]) -> list[np.ndarray]:
    """int32 ids of each line, the end-of-sentence last."""
    end = vocabulary.id(END)
    return [np.append(ids, np.int32(end)) for ids in vocabulary.encode_lines(lines)]


def words(vocabulary: BPE, ids) -> str:
    """The tokens of one sentence up to its end, with spaces between."""
    ids = np.asarray(ids)
    ends = np.flatnonzero(ids == vocabulary.id(END))
    text = vocabulary.decode(ids[: ends[0]] if len(ends) else ids)
    return re.sub(r" +", " ", text).strip()
