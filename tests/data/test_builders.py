"""TFDS without TensorFlow: our builders over official files, any prepared set by name, one line where that fails."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")
import tensorflow_datasets as tfds

from lmjax.data import builders, files
from lmjax.data.images import batches, load_images
from lmjax.data.labelled import load_labelled
from lmjax.data.text import load_text
from lmjax.errors import UserError


@pytest.fixture(autouse=True)
def own_tfds(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def twin_lines(twin, monkeypatch):
    class TwinLines(builders.Lines, skip_registration=True):
        SOURCE = twin

    monkeypatch.setattr(builders, "OWN", (TwinLines,))
    return TwinLines


class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """As a set of the catalogue may be: configs, two texts, a label, no validation split, no newlines."""

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="small"), tfds.core.BuilderConfig(name="large")]  # noqa: RUF012

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, homepage="https://nowhere.invalid", disable_shuffling=True,
                                     features=tfds.features.FeaturesDict({
                                         "title": tfds.features.Text(), "body": tfds.features.Text(),
                                         "label": tfds.features.ClassLabel(num_classes=2)}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(9), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for number in range(count):
            yield number, {"title": f"title {number}", "body": f"naïve {number}", "label": number % 2}


class Flags(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures of 4 x 4 pixels in colour, of two kinds; half of them larger in "uneven"."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="even"), tfds.core.BuilderConfig(name="uneven")]  # noqa: RUF012

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, homepage="https://nowhere.invalid", disable_shuffling=True,
                                     features=tfds.features.FeaturesDict({
                                         "image": tfds.features.Image(shape=(None, None, 3)),
                                         "label": tfds.features.ClassLabel(num_classes=2)}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        from PIL import Image

        for number in range(count):
            size = 4 + (number % 2 if self.builder_config.name == "uneven" else 0)
            yield number, {"image": Image.fromarray(flag(number, size)), "label": number % 2}


def flag(number, size=4):
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[: number % 4, :, number % 2] = 10 * number
    return pixels


def prepare(folder, file_format="array_record"):
    Pairs(data_dir=folder, config="small", file_format=file_format).download_and_prepare()


def test_our_builder_gives_the_files_lines_in_order(twin_lines, contents, web):
    text = load_text("tfds:twin_lines")
    assert [text.train, text.valid, text.test] == [contents[split].decode() for split in ("train", "valid", "test")]
    source = builders.prepared("twin_lines").as_data_source("train")
    lines = contents["train"].split(b"\n")
    assert len(source) == len(lines) - 1
    assert source[7]["text"] == lines[7]
    assert "tensorflow" not in sys.modules


def test_our_builder_reads_the_users_folder_and_says_nothing(twin_lines, contents, tmp_path, capfd):
    (tmp_path / "own").mkdir()
    for split, content in contents.items():
        (tmp_path / "own" / f"twin.{split}.txt").write_bytes(content)
    assert load_text("tfds:twin_lines", tmp_path / "own").train == contents["train"].decode()
    assert capfd.readouterr() == ("", "")


def test_prepared_once(twin_lines, contents, web):
    load_text("tfds:twin_lines")
    for file in web.iterdir():
        file.unlink()
    (files.cache_dir() / "data" / "twin" / "twin.train.txt").unlink()
    assert load_text("tfds:twin_lines").train == contents["train"].decode()


def test_two_runs_may_prepare_at_once(twin, contents, web, monkeypatch):
    """Both build; the one that comes second finds the folder taken and reads that."""
    class Slow(builders.Lines, skip_registration=True):
        SOURCE = twin

    folder = files.cache_dir() / "tfds"
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: builders._prepare(Slow(data_dir=folder, file_format="array_record")), range(2)))
    for builder in both:
        assert len(builder.as_data_source("train")) == contents["train"].count(b"\n")
    assert [path.name for path in (folder / "slow").iterdir()] == ["1.0.0"]  # nothing half done is left


def test_offline_builder_names_file_folder_and_url(twin_lines, twin):
    with pytest.raises(UserError) as caught:
        load_text("tfds:twin_lines")
    message = str(caught.value)
    assert "twin.train.txt" in message
    assert twin.files[0].url in message
    assert "\n" not in message


@pytest.mark.parametrize("place", ["data_dir", "tfds", "cache"])
def test_a_prepared_set_is_found_by_name(tmp_path, place):
    folder = {"data_dir": tmp_path / "own", "tfds": tmp_path / "tfds", "cache": files.cache_dir() / "tfds"}[place]
    prepare(folder)
    text = load_text("tfds:pairs/small:body", folder if place == "data_dir" else None)
    whole = "".join(f"naïve {number}\n" for number in range(9))
    assert text.train + text.valid == whole
    assert len(text.train) == int(0.9 * len(whole))
    assert text.test == "naïve 0\nnaïve 1\n"
    titles = builders.tfds_texts("pairs/small", "test", "title", folder if place == "data_dir" else None)
    assert titles == ["title 0", "title 1"]


def refused(spec, *expected, data_dir=None):
    with pytest.raises(UserError) as caught:
        load_text(spec, data_dir)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 800
    for part in expected:
        assert str(part) in message, message


def test_refusals(tmp_path):
    prepare(tmp_path / "own")
    refused("tfds:pairs/small", "add one of body, title after a colon", data_dir=tmp_path / "own")
    refused("tfds:pairs/small:label", "no text feature label", "body, title", data_dir=tmp_path / "own")
    with pytest.raises(UserError, match="no split dev: expected one of train, test"):
        builders.tfds_texts("pairs/small", "dev", "body", tmp_path / "own")
    refused("tfds:imdb_review", "did you mean imdb_reviews?")
    refused("tfds:no_such_set_at_all", tmp_path / "tfds", "--data_dir")
    refused("tfds:not a name", "tfds:not a name")
    refused("tfds:", "tfds:")
    refused("tfds:pairs/small", "is not a folder", data_dir=tmp_path / "nope")
    info = tmp_path / "own" / "pairs" / "small" / "2.0.0" / "dataset_info.json"  # as TensorFlow's users have theirs
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    refused("tfds:pairs/small:body", "there as tfrecord", "array_record", data_dir=tmp_path / "own")


def test_offline_is_said_at_once(tmp_path, monkeypatch):
    """TFDS itself tries ten times, over minutes."""
    def unknown(host, port, *more):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    refused("tfds:imdb_reviews", "imdb_reviews", tmp_path / "tfds", "aclImdb_v1.tar.gz", "Name or service not known")


def test_a_builder_that_fails_is_one_line(tmp_path, monkeypatch):
    """Some of the catalogue's builders need TensorFlow to prepare; their errors run over many lines."""
    def fails(self, **options):
        raise ModuleNotFoundError("\n\n****\nNo module named 'tensorflow'\nmore\n")

    monkeypatch.setattr(builders, "_reachable", lambda builder, nowhere: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fails)
    refused("tfds:imdb_reviews", "imdb_reviews cannot be used", "ModuleNotFoundError", "No module named 'tensorflow'")


def test_texts_with_their_class_are_read_of_a_catalogue_set(tmp_path):
    prepare(tmp_path)
    data = load_labelled("tfds:pairs/small:title", tmp_path)
    assert (data.classes, data.valid) == (("0", "1"), None)
    assert data.train.texts == [f"title {n}" for n in range(9)]
    assert data.test.labels.tolist() == [0, 1]
    with pytest.raises(UserError, match="body, title after a colon"):
        load_labelled("tfds:pairs/small", tmp_path)


def test_images_with_their_class_are_read_of_a_catalogue_set(tmp_path):
    pytest.importorskip("PIL", reason="pillow, which the plot extra brings, is absent")
    for name in ("even", "uneven"):
        Flags(data_dir=tmp_path / "data", config=name, file_format="array_record").download_and_prepare()
    found = load_images("tfds:flags/even", tmp_path / "data")
    np.testing.assert_array_equal(found.train.pixels, np.stack([flag(n) for n in range(10)]))
    np.testing.assert_array_equal(found.valid.pixels, np.stack([flag(n) for n in (10, 11)]))
    np.testing.assert_array_equal(found.test.labels, [0, 1, 0, 1])
    assert found.classes == 2
    assert "tensorflow" not in sys.modules
    at, steps = batches(found.train, 5, seed=0, shift=1)
    assert steps == 2
    assert at(0)["images"].shape == (5, 4, 4, 3)
    with pytest.raises(UserError, match=r"tfds:flags/uneven has images of 2 sizes, such as \(4, 4, 3\), \(5, 5, 3\)"):
        load_images("tfds:flags/uneven", tmp_path / "data")
    prepare(tmp_path / "data")
    with pytest.raises(UserError, match="tfds:pairs has 0 features that are an image"):
        load_images("tfds:pairs/small", tmp_path / "data")
