"""Tokenizers: text to int32 ids and back. A run saves its own as tokenizer.json, so that generation reads it by itself.

`vocab` is the number of token types and `eos` the id that ends a text or line, None where there is none.
"""

import functools
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmjax.errors import UserError, install


@dataclass(frozen=True)
class Character:
    """One token a character; ids in the order of the code points, as char-rnn and nanoGPT number them."""

    characters: str
    eos = None

    @classmethod
    def train(cls, text: str) -> "Character":
        """The sorted set of `text`'s characters. UserError where they are fewer than two."""
        points = np.flatnonzero(np.bincount(_points(text), minlength=1))
        if len(points) < 2:
            raise UserError(f"the text has {len(points)} distinct characters: expected at least 2 to tell apart")
        return cls("".join(map(chr, points)))

    @property
    def vocab(self) -> int:
        return len(self.characters)

    @functools.cached_property
    def _ids(self) -> np.ndarray:
        points = _points(self.characters)
        ids = np.full(points.max() + 2, -1, np.int32)  # the last stands for every code point beyond
        ids[points] = np.arange(len(points))
        return ids

    def encode(self, text: str) -> np.ndarray:
        """int32[N]. UserError naming the first character the vocabulary lacks."""
        ids = self._ids[np.minimum(_points(text), len(self._ids) - 1)]
        if len(ids) and ids.min() < 0:
            at = int(np.argmin(ids))
            known = self.characters if self.vocab <= 100 else self.characters[:100] + "…"
            raise UserError(f"character {text[at]!r} at position {at:,} is not in the vocabulary of {self.vocab}: "
                            f"expected only {known!r}")
        return ids

    def decode(self, ids) -> str:
        return _points(self.characters)[np.asarray(ids, np.int64)].tobytes().decode("utf-32-le")

    def save(self, path) -> None:
        _write(path, {"kind": "character", "characters": self.characters})


@dataclass(frozen=True)
class Word:
    """One token a word between spaces, and <eos> at the end of each line: the convention of PTB and WikiText.

    A word outside the vocabulary is <unk>. Decoding joins by single spaces, so the original spacing is not kept.
    """

    words: tuple[str, ...]

    @classmethod
    def train(cls, text: str, size: int | None = None) -> "Word":
        """The words of `text` by falling frequency, then by alphabet; with `size`, the most frequent that fit into it.

        <unk> joins at the end where the text has none. PTB's train split gives 10,000, WikiText-2's 33,278.
        Raises UserError where there is nothing to tell apart.
        """
        counts = Counter(_words(text))
        counts.setdefault("<unk>", 0)
        words = sorted(counts, key=lambda word: (-counts[word], word))
        if size is not None and size < len(words):
            words = [*[word for word in words if word != "<unk>"][:size - 1], "<unk>"]
        if len(words) < 3:
            raise UserError(f"the text has {len(words) - 1} distinct words: expected at least 2 to tell apart")
        return cls(tuple(words))

    @property
    def vocab(self) -> int:
        return len(self.words)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    @property
    def eos(self) -> int | None:
        return self._ids.get("<eos>")

    def encode(self, text: str) -> np.ndarray:
        """int32[N]. A text that does not end in a newline ends without <eos>, so a prompt can be continued."""
        unknown, ids = self._ids["<unk>"], self._ids
        return np.fromiter((ids.get(word, unknown) for word in _words(text)), np.int32)

    def decode(self, ids) -> str:
        text = " ".join("\n" if number == self.eos else self.words[number] for number in np.asarray(ids).tolist())
        return re.sub(" ?\n ?", "\n", text)

    def save(self, path) -> None:
        _write(path, {"kind": "word", "words": self.words})


@dataclass(frozen=True)
class BPE:
    """Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019) by the `tokenizers` library.

    json: that library's own description of a tokenizer, of any kind it knows.
    """

    json: str

    @classmethod
    def train(cls, text: str, size: int = 4096) -> "BPE":
        """Learn merges until there are `size` tokens, with the bytes and <|endoftext|>. UserError where size < 257."""
        if size < 257:
            raise UserError(f"a vocabulary of {size} is too small: expected at least 257, the bytes and {END}")
        library = tokenizers_library()
        tokenizer = _byte_level(library.models.BPE())
        trainer = library.trainers.BpeTrainer(
            vocab_size=size, special_tokens=[END], show_progress=False,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet())
        tokenizer.train_from_iterator(_pieces(text), trainer)
        return cls(tokenizer.to_str())

    @functools.cached_property
    def _tokenizer(self):
        return tokenizers_library().Tokenizer.from_str(self.json)

    @property
    def vocab(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def eos(self) -> int | None:
        return self._tokenizer.token_to_id(END)

    def encode(self, text: str) -> np.ndarray:
        """int32[N], without the special tokens a tokenizer may want around a text."""
        tokenizer = self._tokenizer
        # Splitting is exact for our byte-level form only; another may normalise or prefix each piece.
        pieces = _pieces(text) if _is_byte_level(tokenizer) else [text]
        found = tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        return np.concatenate([np.asarray(piece.ids, np.int32) for piece in found] or [np.zeros(0, np.int32)])

    def encode_lines(self, lines) -> list[np.ndarray]:
        """int32 ids of each line by itself."""
        found = self._tokenizer.encode_batch_fast(list(lines), add_special_tokens=False)
        return [np.asarray(line.ids, np.int32) for line in found]

    def encode_spans(self, lines) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each line by itself int32 ids [N], and int32 [N,2]: the first character of each and the one behind it."""
        found = self._tokenizer.encode_batch(list(lines), add_special_tokens=False)
        spans = [np.array(line.offsets, np.int32).reshape(-1, 2) for line in found]
        return [(np.asarray(line.ids, np.int32), span) for line, span in zip(found, spans)]

    def id(self, token: str) -> int | None:
        """The id of a token as it stands in the vocabulary, None where it does not."""
        return self._tokenizer.token_to_id(token)

    def decode(self, ids) -> str:
        return self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False)

    def save(self, path) -> None:
        _write(path, {"kind": "bpe", "tokenizer": json.loads(self.json)})


def wordpiece(text: str, size: int = 8192, *, lower=True) -> BPE:
    """BERT's tokenizer, learnt on `text` until there are `size` tokens, with its five marks (Devlin et al. 2019).

    Words are taken apart at spaces and punctuation, in lower case without accents where `lower`; the first piece of a
    word stands as it is, the others behind "##". UserError where size < 100.
    """
    if size < 100:
        raise UserError(f"a vocabulary of {size} is too small: expected at least 100, letters and the marks")
    library = tokenizers_library()
    tokenizer = _bert(library.models.WordPiece(unk_token="[UNK]"), lower)
    trainer = library.trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(MARKS), show_progress=False)
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    return BPE(tokenizer.to_str())


Tokenizer = Character | Word | BPE
END = "<|endoftext|>"
MERGES = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def choose(kind: str, text, size: int) -> Tokenizer:
    """Make a tokenizer for a `Splits`: "character", "word", "bpe" or "wordpiece" of `size` tokens, or one already
    there, by its path.

    Characters are taken from all splits, as nanoGPT takes them; words and merges from the train split.
    """
    match kind:
        case "character":
            return Character.train(text.whole)
        case "word":
            return Word.train(text.train)
        case "bpe":
            return BPE.train(text.train, size)
        case "wordpiece":
            return wordpiece(text.train, size)
    if not kind or not Path(kind).expanduser().exists():
        raise UserError(f"tokenizer={kind}: expected character, word, bpe, wordpiece, or the path of a tokenizer that "
                        "is there")
    return load(kind)


def kept(path, made: Tokenizer) -> Tokenizer:
    """The tokenizer that a run saved at `path`; where there is none yet, `made`, saved there.

    A run that goes on reads its own again: pairs of equal counts merge in an order that changes from training to
    training in the tokenizers library where a word's first or last unit is marked.
    """
    if Path(path).exists():
        return load(path)
    made.save(path)
    return made


def load(path) -> Tokenizer:
    """Read a tokenizer: ours as saved, the `tokenizers` library's tokenizer.json, GPT-2's two files by the first, or
    BERT's vocab.txt.

    path: a file, or the folder that holds tokenizer.json, vocab.json with merges.txt, encoder.json with vocab.bpe, or
    vocab.txt. Of the last, words are in lower case where the list has no capital letter outside its marks.
    Raises UserError naming the path where it is not there or is none of these.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        names = ("tokenizer.json", *MERGES, "vocab.txt")
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise UserError(f"{path} holds no tokenizer: expected {' or '.join(names)}")
        path = found
    try:
        if path.name == "vocab.txt":
            return _words_of_bert(path, path.read_text(encoding="utf-8"))
        content = json.loads(path.read_text(encoding="utf-8"))
        match content:
            case {"kind": "character", "characters": str(characters)} if len(set(characters)) == len(characters) > 0:
                return Character(characters)
            case {"kind": "word", "words": [*words]} if _is_vocabulary(words):
                return Word(tuple(words))
            case {"kind": "bpe", "tokenizer": {"model": {}} as description} | ({"model": {}} as description):
                return BPE(_checked(json.dumps(description)))
            case {**vocabulary} if path.name in MERGES and all(type(number) is int for number in vocabulary.values()):
                return _gpt2(path, path.with_name(MERGES[path.name]))
    except OSError as error:
        raise UserError(f"tokenizer {path} cannot be read: {error.strerror}") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"tokenizer {path} is damaged: {str(error)[:200]}; restore it or train again") from None
    raise UserError(f"{path} is no tokenizer of ours, no tokenizer.json of the tokenizers library, and not GPT-2's "
                    f"{' or '.join(MERGES)}")


def _gpt2(vocabulary: Path, merges: Path) -> BPE:
    if not merges.is_file():
        raise UserError(f"tokenizer {vocabulary} needs {merges.name} beside it, which is not there")
    library = tokenizers_library()
    try:
        model = library.models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"tokenizer {vocabulary} with {merges.name} is damaged: {str(error)[:200]}") from None
    tokenizer = _byte_level(model)
    if tokenizer.token_to_id(END) is not None:
        tokenizer.add_special_tokens([END])
    return BPE(tokenizer.to_str())


def _words_of_bert(path: Path, content: str) -> BPE:
    words = content.removesuffix("\n").split("\n")
    missing = [mark for mark in MARKS if mark not in words]
    if missing or len(set(words)) < len(words):
        what = f"it lacks {', '.join(missing)}" if missing else "a token stands in it twice"
        raise UserError(f"tokenizer {path} is no vocabulary of BERT's: {what}")
    lower = not any(word != word.lower() for word in words if not re.fullmatch(r"\[.*\]", word))
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = _bert(tokenizers_library().models.WordPiece(vocabulary, unk_token="[UNK]"), lower)
    tokenizer.add_special_tokens(list(MARKS))
    return BPE(tokenizer.to_str())


def _bert(model, lower: bool):
    library = tokenizers_library()
    tokenizer = library.Tokenizer(model)
    tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = library.decoders.WordPiece()
    return tokenizer


def _checked(description: str) -> str:
    """The same tokenizer in the form the library itself writes. ValueError where it is none."""
    library = tokenizers_library()
    try:
        tokenizer = library.Tokenizer.from_str(description)
        tokenizer.no_padding()  # some files ask for rows of one length: what is asked for here are a text's tokens
        tokenizer.no_truncation()
        return tokenizer.to_str()
    except Exception as error:  # the library raises bare Exception
        raise ValueError(str(error)) from None


def _is_vocabulary(words: list) -> bool:
    return all(isinstance(word, str) for word in words) and "<unk>" in words and len(set(words)) == len(words)


def tokenizers_library():
    """The tokenizers library. UserError where it is not installed."""
    try:
        import tokenizers
    except ImportError:
        raise UserError("BPE needs the tokenizers library, which is not installed: " + install("text")) from None
    return tokenizers


def _byte_level(model):
    library = tokenizers_library()
    tokenizer = library.Tokenizer(model)
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    return tokenizer


def _is_byte_level(tokenizer) -> bool:
    before = tokenizer.pre_tokenizer
    return (isinstance(before, tokenizers_library().pre_tokenizers.ByteLevel) and not before.add_prefix_space
            and tokenizer.normalizer is None)


def _pieces(text: str, least: int = 1 << 16) -> list[str]:
    """Cut into pieces the library can work on side by side.

    Only in front of a newline after a non-space: GPT-2's pattern never joins these two, while it may join spaces.
    """
    cuts, at = [0], 0
    pattern = re.compile(r"(?<=\S)\n")
    while found := pattern.search(text, at + least):
        at = found.start()
        cuts.append(at)
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)]) if start < end]


def _write(path, content) -> None:
    """Whole or not at all: the run may be killed here."""
    part = Path(f"{path}.part{os.getpid()}")
    part.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    os.replace(part, path)


def _words(text: str) -> list[str]:
    return text.replace("\n", " <eos> ").split()


def _points(text: str) -> np.ndarray:
    """The code points of a text: uint32[N]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
