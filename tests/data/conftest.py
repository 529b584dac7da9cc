"""A small twin of an official set, on a disk that knows no real data and no real cache."""

import hashlib
import random

import pytest

from lmjax.data import files


@pytest.fixture(autouse=True)
def own_disk(tmp_path, monkeypatch):
    monkeypatch.delenv("LMJAX_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def contents() -> dict[str, bytes]:
    """Text of three splits: words by Zipf's law, <unk>, a space around each line as in PTB, not ASCII alone."""
    rng = random.Random(0)
    words = ["the", "<unk>", "N", "of", "naïve", "東京", *(f"w{number}" for number in range(40))]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    sizes = {"train": 200, "valid": 30, "test": 30}

    def line():
        return f" {' '.join(rng.choices(words, weights, k=rng.randint(0, 12)))} \n"

    return {split: "".join(line() for _ in range(lines)).encode() for split, lines in sizes.items()}


@pytest.fixture
def twin(tmp_path, contents) -> files.Source:
    """The twin as registered. Its official place is a folder, `tmp_path / "web"`, empty until a test asks for `web`."""
    return files.Source("twin", "https://example.org/twin", tuple(
        files.File(split, f"twin.{split}.txt", (tmp_path / "web" / f"{split}.txt").as_uri(), len(content),
                   hashlib.sha256(content).hexdigest())
        for split, content in contents.items()))


@pytest.fixture
def web(tmp_path, contents):
    """Put the twin's files at their official place; returns that folder."""
    folder = tmp_path / "web"
    folder.mkdir()
    for split, content in contents.items():
        (folder / f"{split}.txt").write_bytes(content)
    return folder
