"""Official files: the user's folder first, then the cache, then the URL; never another file than the registered one."""

import gzip
import hashlib
import re
import zipfile

import pytest

from lmjax.data import files
from lmjax.errors import UserError


def one_line(caught, *expected):
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert str(part) in message
    return message


def fill(folder, contents, pack=False):
    folder.mkdir(parents=True)
    for split, content in contents.items():
        name = f"twin.{split}.txt"
        (folder / (name + ".gz" if pack else name)).write_bytes(gzip.compress(content) if pack else content)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("below", ["twin", "."])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_own_folder_comes_first(twin, contents, tmp_path, monkeypatch, pack, below, by):
    fill(tmp_path / "own" / below if below != "." else tmp_path / "own", contents, pack)
    if by == "environment":
        monkeypatch.setenv("LMJAX_DATA", str(tmp_path / "own"))
    assert files.read(twin, tmp_path / "own" if by == "argument" else None) == contents
    assert not files.cache_dir().exists()  # nothing was fetched or copied


def test_argument_goes_before_environment(twin, contents, tmp_path, monkeypatch):
    fill(tmp_path / "own", contents)
    monkeypatch.setenv("LMJAX_DATA", str(tmp_path / "elsewhere"))
    assert files.read(twin, tmp_path / "own") == contents


def test_fetched_once_and_then_from_the_cache(twin, contents, web, capsys):
    assert files.read(twin) == contents
    assert capsys.readouterr().err.count("downloading") == 3
    for file in web.iterdir():
        file.unlink()
    assert files.read(twin) == contents
    assert capsys.readouterr().err == ""
    cached = files.cache_dir() / "data" / "twin"
    assert sorted(path.name for path in cached.iterdir()) == sorted(file.name for file in twin.files)  # no parts left


def test_damaged_cache_is_fetched_again(twin, contents, web):
    files.read(twin)
    cached = files.cache_dir() / "data" / "twin" / "twin.train.txt"
    cached.write_bytes(b"\0" + contents["train"][1:])
    assert files.read(twin) == contents
    assert cached.read_bytes() == contents["train"]


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(twin, contents, web, capsys):
    files.cache_dir().parent.write_text("a file where the folder should be")
    assert files.read(twin) == contents
    assert "not kept" in capsys.readouterr().err


def test_offline_names_file_folder_and_url(twin, tmp_path):
    with pytest.raises(UserError) as caught:
        files.read(twin)
    one_line(caught, "twin.train.txt", files.cache_dir() / "data" / "twin", twin.files[0].url, "--data_dir")
    (tmp_path / "own").mkdir()
    with pytest.raises(UserError) as caught:
        files.read(twin, tmp_path / "own")
    one_line(caught, "twin.train.txt", tmp_path / "own" / "twin", twin.files[0].url, "--data_dir")


def test_offline_without_a_network(twin, monkeypatch):
    """A host that no resolver knows: what a laptop on a train sees."""
    url = "https://nowhere.invalid/twin.train.txt"
    offline = files.Source("twin", "", (files.File("train", "twin.train.txt", url, 1, "00"),))
    with pytest.raises(UserError) as caught:
        files.read(offline)
    one_line(caught, url, "cannot be fetched")


@pytest.mark.parametrize("damage", ["shorter", "longer", "other", "empty"])
def test_wrong_file_is_refused(twin, contents, tmp_path, web, damage):
    good = contents["valid"]
    bad = {"shorter": good[:-1], "longer": good + b" ", "other": b"X" + good[1:], "empty": b""}[damage]
    fill(tmp_path / "own" / "twin", contents)
    wrong = tmp_path / "own" / "twin" / "twin.valid.txt"
    wrong.write_bytes(bad)
    with pytest.raises(UserError) as caught:
        files.read(twin, tmp_path / "own")
    one_line(caught, wrong, "not the official", "expected", twin.files[1].url)

    (web / "valid.txt").write_bytes(bad)
    with pytest.raises(UserError) as caught:
        files.read(twin)
    one_line(caught, "no longer holds twin.valid.txt", "expected")
    assert not (files.cache_dir() / "data" / "twin" / "twin.valid.txt").exists()


def test_a_damaged_gzip_is_one_line(twin, contents, tmp_path):
    fill(tmp_path / "own", contents, pack=True)
    packed = tmp_path / "own" / "twin.train.txt.gz"
    for content in (packed.read_bytes()[:-9], b"plain text", b""):
        packed.write_bytes(content)
        with pytest.raises(UserError) as caught:
            files.read(twin, tmp_path / "own")
        one_line(caught, packed)


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_data_dir_that_is_no_folder(twin, tmp_path, monkeypatch, by):
    if by == "environment":
        monkeypatch.setenv("LMJAX_DATA", str(tmp_path / "nope"))
    with pytest.raises(UserError) as caught:
        files.read(twin, tmp_path / "nope" if by == "argument" else None)
    one_line(caught, "data_dir" if by == "argument" else "LMJAX_DATA", tmp_path / "nope", "not a folder")


def test_registered_files_are_complete():
    for source in files.OFFICIAL:
        assert "train" in {file.split for file in source.files}
        for file in source.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.url.startswith("https://")
            assert file.bytes > 100_000


def test_a_file_in_latin_1_at_its_place_is_utf8_here(tmp_path):
    content = "naïve ½\n"
    (tmp_path / "old.txt").write_bytes(content.encode("latin-1"))
    whole = content.encode()
    url, digest = (tmp_path / "old.txt").as_uri(), hashlib.sha256(whole).hexdigest()
    file = files.File("train", "new.txt", url, len(whole), digest, latin=True)
    assert files.read(files.Source("twin", "", (file,))) == {"train": whole}


def test_a_file_in_an_archive_at_its_place(twin, tmp_path):
    content = b"(3 (2 It) (4 shines))\n" * 50
    digest = hashlib.sha256(content).hexdigest()
    with zipfile.ZipFile(tmp_path / "trees.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("trees/train.txt", content)
        archive.writestr("trees/large.txt", bytes(10**6))
    url = (tmp_path / "trees.zip").as_uri()

    def source(name):
        return files.Source("trees", "", (files.File("train", name, url, len(content), digest),))

    assert files.read(source("train.txt")) == {"train": content}
    for name, line in (("test.txt", "the archive has no test.txt"), ("large.txt", "no longer holds large.txt")):
        with pytest.raises(UserError) as caught:
            files.read(source(name))
        one_line(caught, line)
    (tmp_path / "trees.zip").write_bytes((tmp_path / "trees.zip").read_bytes()[:200])
    with pytest.raises(UserError) as caught:
        files.read(source("other.txt"))
    one_line(caught, url, "cannot be fetched", "damaged on its way")
