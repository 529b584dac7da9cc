"""Convolutions and their transposes against Linen's, gradients and second derivatives among them."""

import jax
import numpy as np
import pytest
from flax import linen

from lmjax import param
from lmjax.nn import conv

SIZES = [(4, 2), (3, 1), (6, 2)]


def case(kernel, stride, up):
    params = param.init(conv.conv_params(kernel, 3, 5, stride=stride if up else 1), jax.random.key(0))
    params["b"] = jax.random.normal(jax.random.key(2), (5,))
    return params, jax.random.normal(jax.random.key(1), (2, 6, 8, 3))


def linen_conv(params, x, kernel, stride):
    margin = (kernel - stride) // 2
    layer = linen.Conv(5, (kernel, kernel), (stride, stride), [(margin, margin)] * 2)
    return layer.apply({"params": {"kernel": params["w"], "bias": params["b"]}}, x)


def linen_transposed(params, x, kernel, stride):
    around = kernel - 1 - (kernel - stride) // 2
    layer = linen.ConvTranspose(5, (kernel, kernel), (stride, stride), [(around, around)] * 2)
    return layer.apply({"params": {"kernel": params["w"], "bias": params["b"]}}, x)


@pytest.mark.parametrize(("kernel", "stride"), SIZES)
@pytest.mark.parametrize("up", [False, True])
def test_agrees_with_linen(kernel, stride, up):
    params, x = case(kernel, stride, up)
    mine = conv.conv_transposed if up else conv.conv
    theirs = linen_transposed if up else linen_conv

    def whole(f, *more):
        value = lambda p, x: (f(p, x, *more) ** 3).sum()  # noqa: E731

        def all_of_it(p, x):
            y = f(p, x, *more)
            if kernel != 4:
                return y
            steep = lambda p: (jax.grad(value, 1)(p, x) ** 2).sum()  # noqa: E731 (as in a gradient penalty)
            return y, jax.grad(value, (0, 1))(p, x), jax.grad(steep)(p)

        return jax.jit(all_of_it)(params, x)

    got, expected = whole(mine, stride), whole(theirs, kernel, stride)
    shape = (2, 6 * stride, 8 * stride, 5) if up else (2, 6 // stride, 8 // stride, 5)
    assert jax.tree.leaves(got)[0].shape == shape
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * abs(b).max()), got, expected)


def test_the_start_keeps_the_variance():
    x = jax.random.normal(jax.random.key(3), (8, 16, 16, 32))
    for f, stride in ((conv.conv, 1), (conv.conv_transposed, 2)):
        params = param.init(conv.conv_params(4, 32, 64, stride=stride), jax.random.key(0))
        assert float(f(params, jax.nn.relu(x), 2).std()) == pytest.approx(1.0, abs=0.15)
