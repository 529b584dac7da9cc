"""Text to train on: the embedded corpus, the official sets, TFDS sets, and anyone's own files."""

import difflib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from lmjax.data import files
from lmjax.errors import UserError

NAMES = ("pydoc", *(source.name for source in files.OFFICIAL))


@dataclass(frozen=True)
class Splits:
    """The text of each split; `test` is None where the set has none. `name` says what it is, for a record."""

    name: str
    train: str
    valid: str
    test: str | None = None

    @property
    def whole(self) -> str:
        """All splits after one another: what a character vocabulary is taken from."""
        return self.train + self.valid + (self.test or "")


def load_text(data: str, data_dir=None) -> Splits:
    """Read a text data set by name or path.

    data: one of `NAMES`; "tfds:NAME[/CONFIG][:FEATURE]" for any set of the TFDS catalogue; else the path of a UTF-8
    file or folder, .gz or plain. A folder with files named after train, valid and test keeps its splits; the
    texts of any other folder are joined in the order of their names.
    Where a set has no validation split, the last tenth of its characters is one (as nanoGPT cuts tinyshakespeare:
    1,003,854 and 111,540).
    data_dir: where official and TFDS sets are looked for before they are downloaded; LMJAX_DATA is the default.

    Raises UserError for a name or path that is not there, an empty or non-UTF-8 file, or one that is not the official.
    """
    if data == "pydoc":
        return _cut(f"pydoc of Python {platform.python_version()}", pydoc())
    for source in files.OFFICIAL:
        if data == source.name:
            parts = files.read(source, data_dir).items()
            return _with_validation(data, {split: decode(content, f"{data} {split}") for split, content in parts})
    if data.startswith("tfds:"):
        from lmjax.data import builders  # takes half a second to import, which no other source should pay

        return _with_validation(data, builders.read(data.removeprefix("tfds:"), data_dir))
    return _own(data)


def pydoc() -> str:
    """The embedded corpus: the reference topics every Python carries, about 460,000 characters of English and code.

    One text per Python version: its topics in the order of their names.
    """
    return "\n".join(text.strip("\n") + "\n" for text in pydoc_topics().values())


def pydoc_topics() -> dict[str, str]:
    """The embedded corpus by its topics, in the order of their names. UserError where this Python carries none."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UserError("this Python carries no pydoc_data: install its standard library whole, "
                        "or give a text file as --data=PATH") from None
    return {name: topics[name] for name in sorted(topics)}


def decode(content: bytes, name) -> str:
    """UTF-8 text, without a byte order mark and with \\n line ends. UserError where it is empty or no text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the mark, the user from the start of the file.
        offset = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        raise UserError(f"{name} is not UTF-8: byte 0x{content[offset]:02x} at offset {offset:,}; convert it "
                        "(iconv -f ENCODING -t utf-8) or give a text file") from None
    if "\0" in text:
        raise UserError(f"{name} is not text: a zero byte at offset {content.index(0):,}; give a UTF-8 text file")
    if not text.strip():
        raise UserError(f"{name} is empty: expected UTF-8 text")
    return text.replace("\r\n", "\n")


def _own(data: str) -> Splits:
    if not data:
        raise UserError(f"data is empty: expected one of {', '.join(NAMES)}, tfds:NAME, or a path")
    path = Path(data).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return _cut(str(data), decode(files.read_bytes(path), path))
    near = difflib.get_close_matches(data, NAMES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(f"data={data} is neither a file or folder nor a known set{hint}: expected one of "
                    f"{', '.join(NAMES)}, tfds:NAME, or a path")


_SPLIT = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid", "test": "test"}
SUFFIXES = (".txt", ".text", ".tokens", ".md")


def _folder(folder: Path) -> Splits:
    paths = sorted(path for path in folder.iterdir()
                   if path.is_file() and path.name.removesuffix(".gz").lower().endswith(SUFFIXES))
    if splits := split_files(folder, paths):
        texts = {split: decode(files.read_bytes(path), path) for split, path in splits.items()}
        return _with_validation(str(folder), texts)
    texts = [path for path in paths if not path.name.lower().startswith("readme")]
    if not texts:
        raise UserError(f"{folder} holds no text: expected files ending in {', '.join(SUFFIXES)}, plain or .gz")
    return _cut(str(folder), "\n".join(decode(files.read_bytes(path), path) for path in texts))


def split_files(folder: Path, paths: list[Path]) -> dict[str, Path]:
    """{"train", "valid", "test": file}, by the files' names; nothing where none is named after train.

    UserError where there is one to train on and two are of one split.
    """
    splits = {}
    for path in paths:
        for split in {_SPLIT[part] for part in re.split(r"[._\-]", path.name.lower()) if part in _SPLIT}:
            splits.setdefault(split, []).append(path)
    if "train" not in splits:
        return {}
    if double := next((found for found in splits.values() if len(found) > 1), None):
        raise UserError(f"{folder} has more than one file for a split, {double[0].name} and {double[1].name}: "
                        "keep one, or give a file")
    return {split: found[0] for split, found in splits.items()}


def _with_validation(name: str, texts: dict[str, str]) -> Splits:
    if "train" not in texts:
        raise UserError(f"{name} has no split to train on: expected train, found {', '.join(texts) or 'none'}")
    if "valid" in texts:
        return Splits(name, texts["train"], texts["valid"], texts.get("test"))
    cut = _cut(name, texts["train"])
    return Splits(name, cut.train, cut.valid, texts.get("test"))


def _cut(name: str, text: str) -> Splits:
    if len(text) < 10:
        raise UserError(f"{name} has {len(text)} characters: expected at least 10, to keep a tenth for validation")
    cut = int(len(text) * 0.9)
    return Splits(name, text[:cut], text[cut:])
