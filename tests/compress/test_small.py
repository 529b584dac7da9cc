"""Weights in few bits, factors and sparse forms: how far off they are, on disk and in a layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.compress import low_rank, prune, quantize, select, store
from lmjax.errors import UserError
from lmjax.models import gpt
from lmjax.nn.linear import linear, linear_params, weights

pytest.importorskip("qwix", reason="the compress extra is absent")
pytest.importorskip("safetensors", reason="the weights extra is absent")

MODEL = config.GPT(vocab=64, context=16, layers=2, heads=4, dim=32, scan=True)
SPECS = gpt.gpt_params(MODEL)
RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(70, 24)).astype(np.float32) * np.exp(RNG.normal(size=(1, 24))).astype(np.float32)


def drawn(specs):
    return param.map_params(lambda _, spec: RNG.normal(size=spec.shape).astype(np.float32), specs)


PARAMS = drawn(SPECS)


def both(a, b, **limits):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **limits), a, b)


@pytest.mark.parametrize(("bits", "groups", "most"), [(8, 1, 127), (4, 3, 7)])
def test_no_weight_is_off_by_more_than_half_a_scale(bits, groups, most):
    found = quantize.quantized(MATRIX, bits, 32)
    assert found.codes.dtype == jnp.int8
    assert found.scale.shape == (groups, 24)
    assert -most - 1 <= found.codes.min() <= found.codes.max() == most
    error = np.abs(quantize.dequantized(*found, 70) - MATRIX)
    scale = np.repeat(np.asarray(found.scale, np.float32), 70 if bits == 8 else 32, axis=0)[:70]
    assert (error <= 0.5001 * scale + 2**-11 * np.abs(MATRIX)).all()  # the scales of 4 bits are in 16
    assert error.max() > 0.4 * scale.min()  # and it is rounded


def test_the_gradient_goes_straight_through():
    layouts = select.layouts(SPECS, ["embed/token"])

    def loss(params, batch, key, carry):
        return (params["embed"]["token"] ** 2).sum(), ((), {}, ())

    aware = quantize.aware(loss, layouts, 4)
    table = {"embed": {"token": jnp.asarray(PARAMS["embed"]["token"])}}
    near = quantize.rounded(table, layouts, 4)
    assert (near["embed"]["token"] != table["embed"]["token"]).any()
    (value, _), gradient = jax.jit(jax.value_and_grad(lambda p: aware(p, None, None, ()), has_aux=True))(table)
    np.testing.assert_allclose(value, (near["embed"]["token"] ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient["embed"]["token"], 2 * near["embed"]["token"], rtol=1e-5)


def test_a_full_rank_is_exact_and_a_lower_one_the_best():
    left, right = low_rank.factors(MATRIX, 24)
    np.testing.assert_allclose(left @ right, MATRIX, atol=1e-4)
    left, right = low_rank.factors(MATRIX, 5)
    singular = np.linalg.svd(MATRIX, compute_uv=False)
    np.testing.assert_allclose(((left @ right - MATRIX) ** 2).sum(), (singular[5:] ** 2).sum(), rtol=1e-4)
    np.testing.assert_allclose(low_rank.kept(MATRIX, 5), (singular[:5] ** 2).sum() / (singular**2).sum(), rtol=1e-5)
    rank = low_rank.rank_of((70, 24), 0.5)
    assert rank * (70 + 24) <= 70 * 24 / 2 < (rank + 1) * (70 + 24)


def test_what_was_pruned_in_training_is_stored_as_it_is():
    specs = {"a": linear_params(8, 16, ("embed", "mlp"))}
    params = prune.magnitude(drawn(specs), {"a/w": 0.75})
    small = store.compressed(params, specs, "prune", ["a/w"], left=1.0)
    assert len(small.forms["a/w"].values) == 32
    both(store.expanded(small, specs), params, rtol=0)


def test_layouts_say_what_a_product_contracts():
    found = select.layouts(SPECS, select.weights(SPECS))
    assert found["embed/token"] == (1,)
    assert (found["blocks/qkv/w"], found["blocks/out/w"]) == ((1,), (1, 2))  # behind the axis of a scan
    lines = {"a": linear_params((4, 8), (3, 5), ("heads", None, None, "mlp"), bias=False)}
    assert select.layouts(lines, ["a/w"]) == {"a/w": (0, 1)}
    array = RNG.normal(size=(4, 3, 5))
    for inputs in ((0,), (1,), (0, 1), (2, 0)):
        rows = quantize.matrix(array, inputs)
        assert len(rows) == np.prod([array.shape[axis] for axis in inputs])
        np.testing.assert_array_equal(quantize.unfolded(rows, array.shape, inputs), array)


@pytest.mark.parametrize("method", store.METHODS)
def test_a_layer_computes_with_what_is_stored(method):
    """Two axes in, two axes out, with a bias."""
    specs = {"a": linear_params((4, 8), (3, 16), ("heads", None, None, "mlp"))}
    params = drawn(specs)
    small = store.compressed(params, specs, method, ["a/w"], left=0.4, group=16)
    whole = store.expanded(small, specs)
    x = jnp.asarray(RNG.normal(size=(2, 5, 4, 8)), jnp.float32)
    expected = linear(whole["a"], x, inputs=2)
    for running in (store.running(small, specs), store.running(small, specs, integers=True)):
        np.testing.assert_allclose(linear(running["a"], x, inputs=2), expected, atol=0.2)
        np.testing.assert_allclose(weights(running["a"]), whole["a"]["w"], atol=1e-5)
    kept = set(running["a"]) - {"b"}
    assert kept == {"int8": {"codes", "scale"}, "low_rank": {"left", "right"}}.get(method, {"w"})


@pytest.mark.parametrize("method", store.METHODS)
def test_the_file_reads_back_as_it_was_written(method, tmp_path):
    small = store.compressed(PARAMS, SPECS, method, select.chosen(SPECS), left=0.25, group=16)
    size = store.save(tmp_path / "small", small, {"method": method})
    again = store.load(tmp_path / "small", SPECS)
    both(store.expanded(again, SPECS), store.expanded(small, SPECS), rtol=0)
    assert store.about_of(tmp_path / "small") == {"method": method}
    share = {"prune": 0.25 + 1 / 32, "int8": 0.26, "int4": 0.16, "low_rank": 0.25}[method]
    whole = 4 * param.count(SPECS)
    assert size < (share + 0.1) * whole  # norms and biases are as they were
    assert store.numbers(small, SPECS) <= param.count(SPECS)
    other = gpt.gpt_params(config.GPT(vocab=64, context=16, layers=3, heads=4, dim=32, scan=True))
    with pytest.raises(UserError, match=r"holds no \S+ of shape .*: it is of another model, or damaged"):
        store.load(tmp_path / "small", other)
    (tmp_path / "small").write_bytes((tmp_path / "small").read_bytes()[:-9])
    with pytest.raises(UserError, match="is no whole safetensors file"):
        store.load(tmp_path / "small", SPECS)
