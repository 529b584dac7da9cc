"""Parameters declared as data: keyed by path, counted, stacked."""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax import param
from lmjax.param import Param


def specs(layers):
    w = Param((3, 4), ("embed", "mlp"), param.normal(0.1))
    return {"blocks": [{"w": w, "b": Param((4,), ("mlp",), param.zeros)} for _ in range(layers)], "head": w}


def test_adding_a_layer_changes_no_other_weight():
    two, three = (param.init(specs(n), jax.random.key(0)) for n in (2, 3))
    np.testing.assert_array_equal(two["head"], three["head"])
    for a, b in zip(two["blocks"], three["blocks"], strict=False):
        np.testing.assert_array_equal(a["w"], b["w"])


def test_every_array_draws_its_own():
    params = param.init(specs(2), jax.random.key(0))
    draws = [params["head"], *(block["w"] for block in params["blocks"])]
    assert len({np.asarray(d).tobytes() for d in draws}) == 3


def test_count_is_the_number_of_scalars_of_specs_arrays_and_shapes():
    tree = specs(2)
    assert param.count(tree) == 12 + 2 * 16
    assert param.count(param.init(tree, jax.random.key(0))) == param.count(param.shapes(tree)) == 44


def test_axes_stand_where_the_arrays_do():
    assert param.axes(specs(1)) == {"blocks": [{"w": ("embed", "mlp"), "b": ("mlp",)}], "head": ("embed", "mlp")}


def test_stacked_layers_gain_an_axis_and_draw_apart():
    stacked = param.stack({"w": Param((3, 4), ("embed", "mlp"), param.normal(1.0))}, 5)
    w = param.init(stacked, jax.random.key(0))["w"]
    assert w.shape == (5, 3, 4)
    assert stacked["w"].axes == ("layers", "embed", "mlp")
    assert len({np.asarray(layer).tobytes() for layer in w}) == 5


def test_initializers_have_their_spread():
    key = jax.random.key(1)
    assert abs(float(jnp.std(param.normal(0.02)(key, (200, 200), jnp.float32))) - 0.02) < 5e-4
    u = param.uniform(0.1)(key, (200, 200), jnp.float32)
    assert float(abs(u).max()) <= 0.1
    assert abs(float(jnp.std(u)) - 0.1 / 3**0.5) < 5e-4
