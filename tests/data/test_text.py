"""Text by name or path: what is read, how it is cut, and what is said of a file that is no text."""

import gzip
import subprocess
import sys

import pytest

from lmjax.data import files
from lmjax.data.text import load_text
from lmjax.errors import UserError

TEXT = "".join(f"line {number} of a text\n" for number in range(50))


def refused(data, *expected, data_dir=None):
    with pytest.raises(UserError) as caught:
        load_text(str(data), data_dir)
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert str(part) in message, message


def test_embedded_corpus_is_large_cut_and_always_the_same():
    text = load_text("pydoc")
    assert len(text.whole) > 300_000
    assert len(text.train) == int(0.9 * len(text.whole))
    assert text.test is None
    assert load_text("pydoc") == text
    assert "Python 3" in text.name
    assert text.train.isprintable() is False
    assert "\r" not in text.whole
    assert text.whole.endswith("\n")


def test_embedded_corpus_and_own_files_need_no_heavy_import(tmp_path):
    """The first start of a new user should not wait for TFDS, nor a data loader for JAX."""
    (tmp_path / "own.txt").write_text(TEXT)
    code = ("import sys; from lmjax.data import batches, tokenizers; from lmjax.data.text import load_text; "
            f"load_text('pydoc'); load_text({str(tmp_path / 'own.txt')!r}); "
            "print(sorted({'jax', 'tensorflow', 'tensorflow_datasets', 'tokenizers'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_official_set_by_name(twin, contents, web, monkeypatch):
    monkeypatch.setattr(files, "OFFICIAL", (twin,))
    text = load_text("twin")
    assert [text.train, text.valid, text.test] == [contents[split].decode() for split in ("train", "valid", "test")]
    assert text.name == "twin"


def test_official_set_of_one_file_is_cut_as_nanogpt_cuts(twin, contents, web, monkeypatch):
    one = files.Source("twin", "", twin.files[:1])
    monkeypatch.setattr(files, "OFFICIAL", (one,))
    text, whole = load_text("twin"), contents["train"].decode()
    assert text.train + text.valid == whole  # no character in both, none lost
    assert len(text.train) == int(0.9 * len(whole))
    assert text.test is None


@pytest.mark.parametrize("name", ["own.txt", "own.anything", "own.txt.gz"])
def test_own_file(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()) if name.endswith("gz") else TEXT.encode())
    text = load_text(str(path))
    assert text.train + text.valid == TEXT
    assert text.name == str(path)


def test_own_file_of_windows(tmp_path):
    (tmp_path / "own.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert load_text(str(tmp_path / "own.txt")).whole == TEXT


def test_own_folder_of_documents(tmp_path):
    (tmp_path / "b.txt").write_text("second " * 9)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first " * 9))
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    assert load_text(str(tmp_path)).whole == "first " * 9 + "\n" + "second " * 9


@pytest.mark.parametrize("names", ["train.txt val.txt test.txt", "my.train.tokens my-dev.txt my_test.txt.gz"])
def test_own_folder_of_splits(tmp_path, names):
    for name, part in zip(names.split(), ("A" * 20, "B" * 20, "C" * 20)):
        content = part.encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    text = load_text(str(tmp_path))
    assert (text.train, text.valid, text.test) == ("A" * 20, "B" * 20, "C" * 20)


def test_own_folder_without_validation_is_cut(tmp_path):
    (tmp_path / "train.txt").write_text(TEXT)
    (tmp_path / "test.txt").write_text("test")
    text = load_text(str(tmp_path))
    assert (text.train + text.valid, text.test) == (TEXT, "test")


def test_refusals(tmp_path):
    def file(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    refused("ptbb", "ptbb", "did you mean ptb?", "tinyshakespeare", "path")
    refused("", "data is empty")
    refused(tmp_path / "nope.txt", tmp_path / "nope.txt", "neither")
    refused(file("empty.txt", b""), "empty.txt", "empty")
    refused(file("blank.txt", b" \n\n"), "blank.txt", "empty")
    refused(file("short.txt", b"abc"), "short.txt", "3 characters")
    refused(file("latin.txt", b"0123456789 na\xefve"), "latin.txt", "0xef", "offset 13", "UTF-8")
    refused(file("marked.txt", b"\xef\xbb\xbf0123456789\xff"), "marked.txt", "0xff", "offset 13")
    refused(file("utf16.txt", "text".encode("utf-16")), "utf16.txt", "0xff at offset 0")
    refused(file("zeros.bin", b"text" + bytes(100)), "zeros.bin", "offset 4", "not text")
    refused(file("not.gz", b"plain"), "not.gz", "cannot be read")
    refused(file("cut.txt.gz", gzip.compress(TEXT.encode())[:-20]), "cut.txt.gz", "cannot be read")
    (tmp_path / "bare").mkdir()
    refused(tmp_path / "bare", "bare", "holds no text")
    (tmp_path / "twice").mkdir()
    for name in ("a.train.txt", "b.train.txt"):
        file(f"twice/{name}", TEXT.encode())
    refused(tmp_path / "twice", "a.train.txt", "b.train.txt", "more than one")
