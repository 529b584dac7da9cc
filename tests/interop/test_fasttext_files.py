"""fastText's model files: written, read back to the bit, read by gensim, and refused where they are damaged."""

import numpy as np
import pytest

from lmjax.config import Subword
from lmjax.errors import UserError
from lmjax.interop.fasttext import is_fasttext, read_fasttext, write_fasttext
from lmjax.models.subword import compose

WORDS = ["the", "ship", "naïve", "東京", "don't"]
COUNTS = np.array([50, 20, 9, 7, 5])


@pytest.fixture
def model(tmp_path):
    config = Subword(vocab=5, dim=12, buckets=300, window=4, min_n=2, max_n=5)
    rng = np.random.default_rng(0)
    params = {"input": rng.normal(size=(305, 12)).astype(np.float32), "output": np.ones((5, 12), np.float32)}
    path = tmp_path / "model.bin"
    write_fasttext(path, WORDS, COUNTS, params, config, epochs=3, min_count=5)
    return path, params, config


def test_what_is_written_is_read(model):
    path, params, config = model
    assert is_fasttext(path)
    words, counts, read, sizes = read_fasttext(path)
    assert (words, counts.tolist(), sizes) == (WORDS, COUNTS.tolist(), config)
    for name in params:
        np.testing.assert_array_equal(read[name], params[name])


def test_gensim_makes_the_same_vectors_of_it(model):
    """Of words in the vocabulary and of others: the hash, the order of rows and the mean are the same."""
    fasttext = pytest.importorskip("gensim.models.fasttext", reason="gensim, the peer, is not installed")
    path, params, config = model
    peer = fasttext.load_facebook_model(str(path))
    known = {word: id for id, word in enumerate(WORDS)}
    asked = [*WORDS, "ships", "naïveté", "東京都", "shipwreckage"]
    np.testing.assert_allclose(
        compose(params["input"], config, asked, known), [peer.wv[word] for word in asked], rtol=1e-4, atol=1e-6
    )
    assert peer.wv.get_vecattr("ship", "count") == 20


def test_what_is_no_such_file_is_one_line(model, tmp_path):
    path, _, _ = model
    content = path.read_bytes()
    bad = tmp_path / "bad.bin"

    def refused(content):
        bad.write_bytes(content)
        with pytest.raises(UserError) as error:
            read_fasttext(bad)
        return str(error.value)

    for cut in (0, 3, 40, 70, 100, 120, 150, 200, len(content) - 1):
        assert "bad.bin" in refused(content[:cut]), cut
    assert "damaged" in refused(content + b"\0")
    assert "no fastText model" in refused(b"5 12\nthe" + content)
    assert "no fastText model" in refused(content[:4] + b"\x0b" + content[5:])
    supervised = bytearray(content)
    supervised[8 + 4 * 7] = 3
    assert "text classifier" in refused(bytes(supervised))
    many = bytearray(content)
    many[64 + 3 : 64 + 4] = b"\x7f"  # two billion words
    assert "damaged" in refused(bytes(many))
    quantized = bytearray(content)
    quantized[content.index(b"don't\0") + len(b"don't\0") + 9] = 1
    assert "quantized" in refused(bytes(quantized))
    with pytest.raises(UserError, match="cannot be read"):
        read_fasttext(tmp_path / "nowhere.bin")
    assert not is_fasttext(tmp_path / "nowhere.bin")
    with pytest.raises(UserError, match="cannot be written"):
        write_fasttext(tmp_path / "no" / "m.bin", [], [], {}, Subword(), epochs=1, min_count=1)
