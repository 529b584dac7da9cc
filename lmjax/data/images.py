"""Images to classify: scikit-learn's digits, MNIST, sets of the TFDS catalogue, anyone's own IDX files; their batches.

A batch is a dict of arrays with the batch's axis first: images float32 [B,Y,X,C] from -1 to 1 (digits: from paper to
ink), labels int32 [B], weights float32 [B], 0 for a row that only fills the batch.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data import files
from lmjax.data.batches import drawn_from, shuffled
from lmjax.data.files import File, Source
from lmjax.errors import UserError, install

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
MNIST = Source("mnist", "http://yann.lecun.com/exdb/mnist/", (
    File("train-images", "train-images-idx3-ubyte", f"{_MNIST}/train-images-idx3-ubyte.gz", 47_040_016,
         "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    File("train-labels", "train-labels-idx1-ubyte", f"{_MNIST}/train-labels-idx1-ubyte.gz", 60_008,
         "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    File("test-images", "t10k-images-idx3-ubyte", f"{_MNIST}/t10k-images-idx3-ubyte.gz", 7_840_016,
         "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    File("test-labels", "t10k-labels-idx1-ubyte", f"{_MNIST}/t10k-labels-idx1-ubyte.gz", 10_008,
         "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
))  # fmt: skip
NAMES = ("digits", "mnist", "stacked_digits", "stacked_mnist")
DIGITS = 1797
VALID, TEST = 5_000, 360  # of MNIST's training images for validation; of the digits, which have no test set, for it


class Images(NamedTuple):
    pixels: np.ndarray  # uint8 [N,Y,X,C]
    labels: np.ndarray  # int32 [N]

    def __getitem__(self, at) -> "Images":
        return Images(self.pixels[at], self.labels[at])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Pictures:
    """Images of each split, all of one size, grey (C = 1) or in colour (3); labels run from 0 to classes - 1."""

    name: str
    classes: int
    train: Images
    valid: Images
    test: Images
    single: "Pictures | None" = None  # those that stand in the channels, where these are stacked


def load_images(data: str, data_dir=None) -> Pictures:
    """Read a set of images by name or path.

    data: "digits" (1,797 of 8 x 8 pixels, which scikit-learn carries), "mnist", either after "stacked_" for three
    digits in the channels of one image and a thousand classes (Metz et al. 2017, section 3.3.1), "tfds:NAME[/CONFIG]"
    for a set of the TFDS catalogue with an image and a label (fashion_mnist, cifar10), or the path of a folder with
    four IDX files named as MNIST's, plain or .gz. The digits have no test set: it is the last 360 in a random order,
    the same every time, so that the same hands wrote both. The validation split is cut from the end of training: 5,000
    of MNIST's, a sixth of any other.
    data_dir: where MNIST, and a set of the catalogue, is looked for before it is downloaded; LMJAX_DATA is the default.

    Raises UserError for a name or path that is not there, a file that is not the official, damaged or truncated IDX
    files, images and labels that do not belong together, and a set of the catalogue whose images differ in size.
    """
    if data in NAMES and data.startswith("stacked_"):
        return stacked(data, load_images(data.removeprefix("stacked_"), data_dir))
    if data == "digits":
        whole = _digits()[np.random.default_rng(0).permutation(DIGITS)]
        return _pictures("digits", whole[:-TEST], whole[-TEST:], (DIGITS - TEST) // 6)
    if data == "mnist":
        content = {file.name: _idx_of(content, f"mnist {file.name}") for file, content in _official(data_dir)}
        return _pictures("mnist", *_pairs(content, "mnist"), VALID)
    if data.startswith("tfds:"):
        from lmjax.data import builders

        found = builders.pictured(data.removeprefix("tfds:"), data_dir)
        train, test = (Images(*found[split]) for split in ("train", "test"))
        return _pictures(data, train, test, max(len(train) // 6, 1))
    folder = Path(data).expanduser()
    if not data or not folder.is_dir():
        near = difflib.get_close_matches(data, NAMES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(
            f"data={data} is neither a folder nor a known set{hint}: expected one of {', '.join(NAMES)}, tfds:NAME, "
            f"or a folder of IDX files such as {MNIST.files[0].name}"
        )
    content = {}
    for file in MNIST.files:
        path = files.locate(file, ".", folder)
        if path is None:
            raise UserError(f"{folder} has no {file.name}, plain or .gz: expected the four files as MNIST names them")
        content[file.name] = _idx_of(files.read_bytes(path), path)
    train, test = _pairs(content, folder)
    return _pictures(folder.name, train, test, max(len(train) // 6, 1))


def stacked(name: str, single: Pictures) -> Pictures:
    """Three grey images in the channels of one, all drawn from their split: as many as there are images, each once in
    each channel, with the class 100 a + 10 b + c of three out of ten."""
    rng, K = np.random.default_rng(0), single.classes

    def stack(part: Images) -> Images:
        three = [part[rng.permutation(len(part))] for _ in range(3)]
        labels = [images.labels for images in three]
        pixels = np.concatenate([images.pixels for images in three], axis=-1)
        return Images(pixels, (labels[0] * K + labels[1]) * K + labels[2])

    return Pictures(name, K**3, *(stack(part) for part in (single.train, single.valid, single.test)), single)


def _official(data_dir):
    content = files.read(MNIST, data_dir)
    return [(file, content[file.split]) for file in MNIST.files]


def _idx_of(content: bytes, name) -> np.ndarray:
    try:
        return read_idx(content)
    except ValueError as error:
        raise UserError(f"{name} is no IDX file of bytes: {error}; get the file again") from None


def read_idx(content: bytes) -> np.ndarray:
    """An array of bytes in MNIST's format: 0 0 8 (for uint8), the number of axes, their sizes in four big-endian bytes
    each, then the values. ValueError where that is not what it holds."""
    if len(content) < 4 or content[:3] != b"\0\0\x08" or not 1 <= content[3] <= 4:
        raise ValueError(f"it begins with {content[:4].hex(' ') or 'nothing'}, expected 00 00 08 and 1 to 4 axes")
    head = 4 + 4 * content[3]
    sizes = tuple(int(size) for size in np.frombuffer(content[4:head].ljust(head - 4, b"\0"), ">u4"))
    expected = head + int(np.prod(sizes, dtype=object))
    if len(content) != expected:
        raise ValueError(f"it has {len(content):,} bytes, expected {expected:,} for an array of {sizes}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(sizes)


def write_idx(path, array) -> None:
    """An array of bytes as an IDX file."""
    array = np.asarray(array, np.uint8)
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    Path(path).write_bytes(head + array.tobytes())


def _pairs(content: dict[str, np.ndarray], where) -> list[Images]:
    """Training and test images of the four arrays by their files' names."""
    found = []
    for images, labels in zip(MNIST.files[::2], MNIST.files[1::2]):
        pixels, numbers = content[images.name], content[labels.name]
        if pixels.ndim != 3 or numbers.ndim != 1 or len(pixels) != len(numbers) or not pixels.size:
            raise UserError(
                f"{where}: {images.name} has shape {pixels.shape} and {labels.name} {numbers.shape}: "
                "expected N images of rows and columns, and N labels"
            )
        found.append(Images(pixels[..., None], numbers.astype(np.int32)))
    if found[0].pixels.shape[1:] != found[1].pixels.shape[1:]:
        raise UserError(f"{where}: training images are {found[0].pixels.shape[1:3]}, test images "
                        f"{found[1].pixels.shape[1:3]} pixels: expected one size")  # fmt: skip
    return found


def _digits() -> Images:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            f"the digits come with scikit-learn, which is not installed: {install('digits')}; or give --data=mnist"
        ) from None
    found = load_digits()
    return Images(np.round(found.images[..., None] * (255 / 16)).astype(np.uint8), found.target.astype(np.int32))


def _pictures(name: str, train: Images, test: Images, valid: int) -> Pictures:
    if len(train) <= valid:
        raise UserError(f"{name} has {len(train)} training images: expected more than the {valid} to validate on")
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    if classes < 2:
        raise UserError(f"{name} has one class alone: expected labels from 0 to 1 or more")
    return Pictures(name, classes, train[:-valid], train[-valid:], test)


def batches(images: Images, batch: int, seed: int, shift: int = 0, beside: dict | None = None):
    """Training batches: `(batch(step), steps_per_epoch)`, a pure function of (seed, step).

    Every image comes once an epoch, in the epoch's own order, moved by up to `shift` pixels in each direction; what
    moves in is paper. beside: further arrays [N, ...] by name, whose rows go with their images.
    """
    order, steps = shuffled(len(images), batch, seed)
    wide = np.pad(images.pixels, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, images.pixels.shape[1:3], axis=(1, 2))
    windows = np.moveaxis(windows, 3, -1)  # [N,2s+1,2s+1,Y,X,C]

    def at(step: int) -> dict:
        taken = order(step)
        rng = drawn_from(seed, step)
        down, right = rng.integers(2 * shift + 1, size=(2, batch))
        more = {name: array[taken] for name, array in (beside or {}).items()}
        return _batch(windows[taken, down, right], images.labels[taken], np.ones(batch)) | more

    return at, steps


def evaluation(images: Images, batch: int):
    """Every image once: an iterator of batches, the last one filled with rows of weight 0."""
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        rest = batch - len(part)
        yield _batch(np.pad(part.pixels, ((0, rest), (0, 0), (0, 0), (0, 0))), np.pad(part.labels, (0, rest)),
                     np.arange(batch) < len(part))  # fmt: skip


def scaled(pixels):
    """Pixels of bytes as float32 from -1 to 1."""
    return np.asarray(pixels, np.float32) / 127.5 - 1


def _batch(pixels, labels, weights) -> dict:
    return {"images": scaled(pixels), "labels": np.array(labels, np.int32), "weights": np.array(weights, np.float32)}
