"""fastText's model files, .bin: words with their counts, the rows of words and n-grams, and the output's.

    Bojanowski et al. 2017 (arXiv 1607.04606); the form is that of its program's versions 0.1 to 0.9, "version 12"

All little-endian: magic, version; the settings; the dictionary; then twice a byte (1: quantized), rows, columns and
float32s. What the program, gensim and others write is read, and the reverse.
"""

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.config import Subword
from lmjax.errors import UserError
from lmjax.interop.files import whole

_MAGIC, _VERSION, _START = 793712314, 12, struct.Struct("<2i")
_SETTINGS, _SIZES, _ENTRY, _MATRIX = (struct.Struct(form) for form in ("<12id", "<3i2q", "<qb", "<?2q"))
_CBOW, _SKIP_GRAM, _SUPERVISED, _NEGATIVE_SAMPLING = 1, 2, 3, 2


class Trained(NamedTuple):
    words: list[str]
    counts: np.ndarray  # int64 [V]
    params: dict  # as models/subword.py has them: "input" [V+buckets,D], "output" [V,D]
    config: Subword


def is_fasttext(path) -> bool:
    """Whether a file begins as fastText's do; False where it cannot be read."""
    try:
        with open(Path(path).expanduser(), "rb") as file:
            return file.read(4) == _START.pack(_MAGIC, _VERSION)[:4]
    except OSError:
        return False


def write_fasttext(path, words: Sequence[str], counts, params, config: Subword, *, epochs: int, min_count: int):
    """Write a model, whole or not at all."""
    path = Path(path).expanduser()
    V = len(words)
    settings = (config.dim, config.window, epochs, min_count, config.negative, 1, _NEGATIVE_SAMPLING,
                _CBOW if config.cbow else _SKIP_GRAM, config.buckets, config.min_n, config.max_n, 100)  # fmt: skip
    with whole(path) as new, open(new, "wb") as file:
        file.write(_START.pack(_MAGIC, _VERSION) + _SETTINGS.pack(*settings, config.sample))
        file.write(_SIZES.pack(V, V, 0, int(np.sum(counts)), -1))
        for word, count in zip(words, counts, strict=True):
            file.write(word.encode() + b"\0" + _ENTRY.pack(count, 0))
        for name in ("input", "output"):
            matrix = np.ascontiguousarray(params[name], "<f4")
            file.write(_MATRIX.pack(False, *matrix.shape) + matrix.tobytes())


def read_fasttext(path) -> Trained:
    """A model of word vectors. Its arrays are views of the file, read as they are used.

    Raises UserError where the file is none, is damaged, quantized (.ftz) or a text classifier.
    """
    path = Path(path).expanduser()
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is empty"
        raise UserError(f"{path} cannot be read: {reason}; expected a fastText model") from None
    try:
        return _read(path, content)
    except UserError:
        raise
    except (struct.error, ValueError, IndexError):
        raise UserError(f"{path} is damaged or cut off: expected a fastText model, as its program writes it") from None


def _read(path: Path, content: mmap.mmap) -> Trained:
    magic, version = _START.unpack_from(content)
    if (magic, version) != (_MAGIC, _VERSION):
        raise UserError(f"{path} is no fastText model of version {_VERSION}: expected what fastText 0.1 to 0.9 write")
    at = _START.size
    dim, window, _, _, negative, _, _, kind, buckets, min_n, max_n, _, sample = _SETTINGS.unpack_from(content, at)
    at += _SETTINGS.size
    size, V, labels, _, pruned = _SIZES.unpack_from(content, at)
    at += _SIZES.size
    if kind == _SUPERVISED or labels:
        raise UserError(f"{path} is a text classifier: expected word vectors, of fasttext skipgram or cbow")
    words, counts = [], []
    for _ in range(size):
        end = content.find(b"\0", at)
        if end < 0:
            raise ValueError(at)
        words.append(content[at:end].decode())
        counts.append(_ENTRY.unpack_from(content, end + 1)[0])
        at = end + 1 + _ENTRY.size
    params = {}
    for name, rows in (("input", V + buckets), ("output", V)):
        quantized, *shape = _MATRIX.unpack_from(content, at)
        if quantized or pruned > 0:
            raise UserError(f"{path} is quantized, for classifying: expected the model before that, .bin")
        if shape != [rows, dim]:
            raise ValueError(shape)
        at += _MATRIX.size
        params[name] = np.frombuffer(content, "<f4", rows * dim, at).reshape(rows, dim)
        at += 4 * rows * dim
    if size != V or at != len(content):
        raise ValueError(at)
    config = Subword(vocab=V, dim=dim, window=window, negative=negative, cbow=kind == _CBOW, sample=sample,
                     min_n=min_n, max_n=max_n, buckets=buckets)  # fmt: skip
    return Trained(words, np.array(counts, np.int64), params, config)
