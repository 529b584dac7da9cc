"""TFDS: our builders over the official files, and every set of its catalogue, read as ArrayRecord without TensorFlow.

`load_text("ptb")` reads the verified files themselves, which is quicker. These builders give the same text as
examples of random access, one line each: `tfds.builder("ptb", data_dir=…).as_data_source("train")[7]["text"]`.
"""

import contextlib
import difflib
import io
import logging
import re
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import tensorflow_datasets as tfds

from lmjax.data import files
from lmjax.errors import UserError


class Lines(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Lines of an official file set, in their order, without the newline. A subclass sets `SOURCE`.

    `Ptb(data_dir=…, file_format="array_record", files_dir=…)`: `files_dir` is where the official files are looked for.
    """

    VERSION = tfds.core.Version("1.0.0")
    SOURCE: files.Source

    def __init__(self, *, files_dir=None, **options):
        self.files_dir = files_dir
        super().__init__(**options)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, homepage=self.SOURCE.homepage, disable_shuffling=True,  # the order is the text
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(content)
                for split, content in files.read(self.SOURCE, self.files_dir).items()}

    def _generate_examples(self, content):
        for number, line in enumerate(content.removesuffix(b"\n").split(b"\n")):
            yield number, {"text": line}


class Ptb(Lines):
    """Penn Treebank, Mikolov's preprocessing."""

    SOURCE = files.PTB


class Wikitext2(Lines):
    """WikiText-2, word level (Merity et al. 2016)."""

    SOURCE = files.WIKITEXT_2


class Tinyshakespeare(Lines):
    """Karpathy's 40,000 lines of Shakespeare, uncut."""

    SOURCE = files.TINYSHAKESPEARE


OWN = (Ptb, Wikitext2, Tinyshakespeare)
RANDOM_ACCESS = tfds.core.file_adapters.FileFormat.with_random_access()


def read(spec: str, data_dir=None) -> dict[str, str]:
    """{"train", "valid", "test": text} of a TFDS set, as far as it has them. spec: "NAME[/CONFIG][:FEATURE]"."""
    name, _, feature = spec.partition(":")
    builder = prepared(name, data_dir)
    return {part: "".join(line if line.endswith("\n") else line + "\n" for line in _texts(builder, split, feature))
            for part, split in _splits(builder).items()}  # fmt: skip


def _splits(builder) -> dict[str, str]:
    """What the set calls its "train", "valid" and "test", as far as it has them."""
    splits = list(builder.info.splits)
    valid = next((split for split in ("validation", "valid", "dev") if split in splits), None)
    return {part: split for part, split in (("train", "train"), ("valid", valid), ("test", "test")) if split in splits}


def tfds_texts(name: str, split: str, feature: str = "", data_dir=None) -> list[str]:
    """The texts of one split. `feature` may be left out where only one holds text, or one is named "text"."""
    return _texts(prepared(name, data_dir), split, feature)


def _texts(builder, split, feature):
    feature = _text_feature(builder, feature)
    return [example[feature].decode() for example in _examples(builder, split)]


def _text_feature(builder, feature: str) -> str:
    features = builder.info.features
    texts = sorted(key for key, value in features.items() if isinstance(value, tfds.features.Text))
    feature = feature or ("text" if "text" in texts else texts[0] if len(texts) == 1 else "")
    if feature not in texts:
        found = f"add one of {', '.join(texts)} after a colon" if texts else "it has no text"
        raise UserError(f"tfds:{builder.name} has no text feature {feature or 'to choose by itself'}; {found}")
    return feature


def _examples(builder, split):
    if split not in builder.info.splits:
        raise UserError(f"tfds:{builder.name} has no split {split}: expected one of {', '.join(builder.info.splits)}")
    with _one_line(builder.name):
        source = builder.as_data_source(split)
        pieces = [range(first, min(first + 10_000, len(source))) for first in range(0, len(source), 10_000)]
        for piece in pieces:
            yield from source.__getitems__(piece)


def labelled(spec: str, data_dir=None) -> dict[str, list[tuple[int, str, str]]]:
    """(number, label, text) of every example of a TFDS set with one ClassLabel, for {"train", "valid", "test"} as far
    as it has them. spec: "NAME[/CONFIG][:FEATURE]", the feature that holds the text."""
    name, _, feature = spec.partition(":")
    builder = prepared(name, data_dir)
    label = _only(builder, tfds.features.ClassLabel, "a class")
    kind, feature = builder.info.features[label], _text_feature(builder, feature)
    return {part: [(n, kind.int2str(int(one[label])), " ".join(one[feature].decode().split()))
                   for n, one in enumerate(_examples(builder, split), 1)]
            for part, split in _splits(builder).items()}  # fmt: skip


def pictured(name: str, data_dir=None) -> dict:
    """{"train", "test": (pixels uint8 [N,Y,X,C], labels int32 [N])} of a TFDS set with one image and one class, all
    images of one size."""
    builder = prepared(name, data_dir)
    image, label = _only(builder, tfds.features.Image, "an image"), _only(builder, tfds.features.ClassLabel, "a class")
    if not {"train", "test"} <= set(builder.info.splits):
        raise UserError(f"tfds:{name} has the splits {', '.join(builder.info.splits)}: expected train and test")
    found = {}
    for split in ("train", "test"):
        examples = [(one[image], int(one[label])) for one in _examples(builder, split)]
        sizes = {pixels.shape for pixels, _ in examples}
        if len(sizes) > 1 or any(pixels.dtype != np.uint8 for pixels, _ in examples[:1]):
            some = ", ".join(map(str, sorted(sizes)[:2]))
            raise UserError(f"tfds:{name} has images of {len(sizes)} sizes, such as {some}: expected one, and bytes")
        pixels, labels = zip(*examples)
        found[split] = np.stack(pixels), np.array(labels, np.int32)
    return found


def _only(builder, kind, what: str) -> str:
    names = [name for name, feature in builder.info.features.items() if isinstance(feature, kind)]
    if len(names) != 1:
        raise UserError(f"tfds:{builder.name} has {len(names)} features that are {what}: expected one; use another set")
    return names[0]


@contextlib.contextmanager
def _quiet():
    """TFDS warns, through absl, of every place it did not find a set in."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@_quiet()
def prepared(name: str, data_dir=None):
    """The builder of a set: found in `data_dir`, TFDS's own folder or our cache, else prepared into the cache.

    Raises UserError where the name is unknown, or the set is nowhere and cannot be downloaded or prepared.
    """
    cache = files.cache_dir() / "tfds"
    for own in OWN:
        if name == own.name:
            builder = own(data_dir=cache, file_format="array_record", files_dir=data_dir)
            if not builder.is_prepared():
                files.read(own.SOURCE, data_dir)  # a download is worth a line; the second's work after it needs no bars
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                return _prepare(builder)
    tfds_dir = Path(tfds.core.constants.DATA_DIR).expanduser()
    places = [place for place in (files.own_dir(data_dir), tfds_dir, cache) if place]
    builder, searched = None, []
    for place in places:
        found = None
        with _one_line(name), contextlib.suppress(tfds.core.registered.DatasetNotFoundError):
            found = tfds.builder(name, data_dir=place)
        if found is None or not found.is_prepared():
            builder = found or builder
            searched.append(str(place))
        elif found.info.file_format in RANDOM_ACCESS:
            return found
        else:
            searched.append(f"{place} (there as {found.info.file_format.value})")
    nowhere = f"tfds:{name} is not prepared as array_record in {', '.join(searched)}"
    if builder is None:
        near = difflib.get_close_matches(name.partition("/")[0], _names(), n=1)
        elsewhere = "prepare it where TensorFlow is and name its folder by --data_dir"
        hint = f"did you mean {near[0]}?" if near else elsewhere
        raise UserError(f"{nowhere}, and TFDS has no set of that name it could prepare without TensorFlow: {hint}")
    _reachable(builder, nowhere)
    return _prepare(builder)


def _prepare(builder):
    """Download and write the set. TFDS renames a whole folder into place, so of two runs the first one's stays."""
    if builder.is_prepared():
        return builder
    config = tfds.download.DownloadConfig(try_download_gcs=False)  # that bucket holds TFRecord only
    with _one_line(builder.name):
        try:
            builder.download_and_prepare(download_config=config, file_format="array_record")
        except OSError:
            if not builder.is_prepared():
                raise
            builder.info.read_from_directory(builder.data_path)
    return builder


def _reachable(builder, nowhere):
    """Refuse at once what TFDS would retry for minutes: a host without an address."""
    url = next(iter(builder.url_infos), builder.info.homepage)
    host = urlsplit(url).hostname
    if not host or urllib.request.getproxies():
        return
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise UserError(f"{nowhere}, and {url} cannot be fetched ({error.strerror}): prepare it where there is a "
                        "connection and name its folder by --data_dir") from None


def _names():
    return [own.name for own in OWN] + tfds.list_builders(with_community_datasets=False)


@contextlib.contextmanager
def _one_line(name):
    """TFDS's own errors run over many lines, whatever their type: the first with words in it says what happened."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if re.search(r"\w", line)), "no reason given")
        raise UserError(f"tfds:{name} cannot be used: {type(error).__name__}: {first[:300]}") from error
