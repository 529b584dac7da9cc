"""Oracles: from a seed, from a file like the published one, and what is said of other files."""

import io

import numpy as np
import pytest

from lmjax.data import oracle
from lmjax.errors import UserError

SIZES = (7, 3, 2)


def arrays():
    rng = np.random.default_rng(0)
    shapes = {"emb": (7, 3), "Wo": (2, 7), "bo": (7,)}
    for gate in ("i", "f", "c", "og"):
        shapes |= {f"W{gate}": (3, 2), f"U{gate}": (2, 2), f"b{gate}": (2,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_file_is_read_gate_by_gate(tmp_path):
    given = arrays()
    np.savez(tmp_path / "o.npz", **given)
    found = oracle.load_oracle(str(tmp_path / "o.npz"), *SIZES)
    for place, gate in enumerate(("i", "f", "c", "og")):
        for kind, ours in (("W", "w"), ("U", "u"), ("b", "b")):
            np.testing.assert_array_equal(np.moveaxis(found["lstm"][ours], -2, 0)[place], given[kind + gate])
    np.testing.assert_array_equal(found["softmax"]["b"], given["bo"])


def test_generated_oracles_are_standard_normal_and_their_seeds():
    one, same, other = (oracle.load_oracle("generated", 400, 32, 32, seed) for seed in (1, 1, 2))
    assert abs(one["embed"].std() - 1) < 0.03
    assert abs(one["lstm"]["w"].mean()) < 0.06
    np.testing.assert_array_equal(one["softmax"]["w"], same["softmax"]["w"])
    assert not np.array_equal(one["embed"], other["embed"])


def saved(**changed):
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in (arrays() | changed).items() if array is not None})
    return file.getvalue()


@pytest.mark.parametrize(("content", "said"), [
    (b"not a zip", "is no oracle"),
    (b"", "is no oracle"),
    (saved()[:900], "is no oracle"),
    (saved(Uog=None), "Uog"),
    (saved(bf=np.array([None, 1])), "is no oracle"),  # would be unpickled
    (saved(emb=np.zeros((8, 3), np.float32)), r"holds emb float32\[8, 3\]"),
    (saved(bo=np.zeros(7, np.int32)), "holds bo int32"),
    (saved(bo=np.full(7, np.nan, np.float32)), "finite"),
])  # fmt: skip
def test_another_file_is_refused_in_a_line(tmp_path, content, said):
    (tmp_path / "o.npz").write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        oracle.load_oracle(str(tmp_path / "o.npz"), *SIZES)
    assert "\n" not in str(raised.value)


def test_without_the_published_file_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("LMJAX_DATA", raising=False)
    for folder in (None, str(tmp_path)):
        with pytest.raises(UserError, match="--oracle=generated") as raised:
            oracle.load_oracle("published", 5000, 32, 32, data_dir=folder)
        assert "\n" not in str(raised.value)
