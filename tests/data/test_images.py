"""Images: IDX files of our own and MNIST's, what is refused, the digits, and batches as a function of the step."""

import gzip
import os

import numpy as np
import pytest

from lmjax.data import files, images
from lmjax.errors import UserError

DATA = os.environ.get("LMJAX_DATA")
NAMES = [file.name for file in images.MNIST.files]


@pytest.fixture
def folder(tmp_path):
    """A twin of MNIST: 24 training and 5 test images of 6 x 5 pixels, the training images gzipped."""
    rng = np.random.default_rng(0)
    place = tmp_path / "twin"
    place.mkdir()
    arrays = [rng.integers(0, 256, (24, 6, 5)), np.arange(24) % 3, rng.integers(0, 256, (5, 6, 5)), [0, 1, 2, 0, 1]]
    for name, array in zip(NAMES, arrays):
        images.write_idx(place / name, array)
    packed = place / NAMES[0]
    (place / f"{NAMES[0]}.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    return place, arrays


def test_a_folder_is_read_as_it_was_written(folder):
    place, (pixels, labels, test, test_labels) = folder
    found = images.load_images(str(place))
    assert (found.name, found.classes) == ("twin", 3)
    np.testing.assert_array_equal(np.concatenate([found.train.pixels, found.valid.pixels])[..., 0], pixels)
    np.testing.assert_array_equal(np.concatenate([found.train.labels, found.valid.labels]), labels)
    np.testing.assert_array_equal(found.test.pixels[..., 0], test)
    assert found.test.labels.tolist() == test_labels
    assert len(found.valid) == 4


def test_the_format_is_mnists():
    """A file by hand: 2 images of 1 x 3 pixels."""
    content = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 9, 8, 7, 6, 5, 255])
    np.testing.assert_array_equal(images.read_idx(content), [[[9, 8, 7]], [[6, 5, 255]]])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda content: content[:-1], "it has 735 bytes, expected 736 for an array of (24, 6, 5)"),
        (lambda content: content + b"x", "it has 737 bytes, expected 736"),
        (lambda content: content[:9], "it has 9 bytes, expected 16 for an array of (24, 0, 0)"),
        (lambda content: b"", "it begins with nothing"),
        (lambda content: b"\x89PNG" + content, "it begins with 89 50 4e 47, expected 00 00 08"),
        (lambda content: content[:2] + b"\x0d" + content[3:], "it begins with 00 00 0d 03"),
        (lambda content: content[:4] + b"\xff" * 12 + content[16:], "for an array of (4294967295, 4294967295"),
    ],
)
def test_a_damaged_file_is_one_line(folder, damage, expected):
    place, (pixels, *_) = folder
    (place / f"{NAMES[0]}.gz").unlink()
    images.write_idx(place / NAMES[0], pixels)
    path = place / NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        images.load_images(str(place))
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_do_not_belong_together_are_one_line(folder, tmp_path):
    place, (_, labels, test, _) = folder
    images.write_idx(place / NAMES[1], labels[:-1])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte has shape \(24, 6, 5\) and .* \(23,\)"):
        images.load_images(str(place))
    images.write_idx(place / NAMES[1], labels)
    images.write_idx(place / NAMES[2], test[:, :5])
    with pytest.raises(UserError, match=r"training images are \(6, 5\), test images \(5, 5\) pixels"):
        images.load_images(str(place))
    (place / NAMES[2]).unlink()
    with pytest.raises(UserError, match=r"has no t10k-images-idx3-ubyte, plain or \.gz"):
        images.load_images(str(place))
    for name in ("mnits", "", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match=r"neither a folder nor a known set.*expected one of digits, mnist"):
            images.load_images(name)


def test_another_mnist_is_refused(folder):
    """A file under MNIST's name that is not MNIST's: by its size, before it is read."""
    place, (pixels, *_) = folder
    images.write_idx(place / NAMES[0], pixels)
    with pytest.raises(UserError, match=r"is not the official train-images-idx3-ubyte of mnist: it has 736 bytes"):
        images.load_images("mnist", place)


def test_the_digits():
    pytest.importorskip("sklearn", reason="pip install 'lmjax[digits]'")
    found = images.load_images("digits")
    assert [len(part) for part in (found.train, found.valid, found.test)] == [1198, 239, 360]
    assert found.classes == 10
    assert found.train.pixels.shape[1:] == (8, 8, 1)
    assert (found.train.pixels.min(), found.train.pixels.max()) == (0, 255)
    # The same 360 every time, drawn from all 1,797.
    assert np.bincount(found.test.labels).tolist() == [39, 37, 47, 28, 42, 32, 37, 27, 30, 41]


def test_batches_are_a_function_of_the_step_and_take_each_image_once(folder):
    found = images.load_images(str(folder[0]))
    first, steps = images.batches(found.train, 8, seed=3)
    second, _ = images.batches(found.train, 8, seed=3)
    assert steps == 3
    there = {step: first(step) for step in range(10)}
    for step in reversed(range(10)):
        again = second(step)
        assert all((again[name] == there[step][name]).all() for name in again)
    seen = np.concatenate([there[step]["images"] for step in range(10)])  # 80 rows: four epochs of 20
    seen = np.rint((seen[..., 0] + 1) * 127.5)
    for epoch in range(4):
        part = seen[20 * epoch : 20 * epoch + 20].reshape(20, -1)
        np.testing.assert_array_equal(np.sort(part, 0), np.sort(found.train.pixels.reshape(20, -1), 0))
    assert (there[0]["images"] != images.batches(found.train, 8, seed=4)[0](0)["images"]).any()
    assert there[0]["images"].dtype == np.float32


def test_moved_images_are_moved_and_keep_their_labels():
    """One bright pixel whose place is the image's label: a shift moves it by at most its size, by every amount."""
    pixels, labels = np.zeros((12, 9, 9, 1), np.uint8), np.arange(12, dtype=np.int32)
    pixels[labels, 3, labels // 4 + 3] = 255
    at, _ = images.batches(images.Images(pixels, labels), 12, seed=0, shift=2)
    moves = set()
    for step in range(20):
        batch = at(step)
        row, down, right = np.nonzero(batch["images"][..., 0] == 1)
        assert len(row) == 12
        assert (batch["images"].sum((1, 2, 3)) == 1 - 80).all()
        moves |= set(zip(down - 3, right - batch["labels"][row] // 4 - 3))
    assert moves == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}


def test_evaluation_takes_each_image_once(folder):
    test = images.load_images(str(folder[0])).test
    parts = list(images.evaluation(test, 3))
    assert [part["images"].shape for part in parts] == [(3, 6, 5, 1)] * 2
    assert [part["weights"].tolist() for part in parts] == [[1, 1, 1], [1, 1, 0]]
    assert np.concatenate([part["labels"] for part in parts]).tolist() == [0, 1, 2, 0, 1, 0]


@pytest.mark.skipif(
    DATA is None or any(files.locate(file, "mnist", files.own_dir(DATA)) is None for file in images.MNIST.files),
    reason=f"LMJAX_DATA={DATA or '(not set)'} has no MNIST",
)
def test_mnist():
    """LeCun et al. 1998: 60,000 and 10,000; the first labels, and how often each digit comes."""
    found = images.load_images("mnist", DATA)
    assert [len(part) for part in (found.train, found.valid, found.test)] == [55_000, 5_000, 10_000]
    assert found.train.labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert np.bincount(found.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert found.train.pixels.shape[1:] == (28, 28, 1)


def test_stacked_digits_have_each_digit_once_in_each_channel():
    pytest.importorskip("sklearn", reason="scikit-learn, which carries the digits, is absent")
    one, found = images.load_images("digits"), images.load_images("stacked_digits")
    assert found.classes == 1000
    assert found.single.classes == 10
    for split in ("train", "valid", "test"):
        part, single = getattr(found, split), getattr(one, split)
        assert part.pixels.shape == (len(single), 8, 8, 3)
        for channel, place in enumerate((100, 10, 1)):
            both = [
                sorted((int(label), x.tobytes()) for label, x in zip(labels, pixels, strict=True)) for labels, pixels in
                ((part.labels // place % 10, part.pixels[..., channel]), (single.labels, single.pixels[..., 0]))
            ]  # fmt: skip
            assert both[0] == both[1]
    assert len(np.unique(found.train.labels)) > 600
