"""Convolutions of images with square kernels, and their transposes, which a generator grows images with.

A kernel of k x k pixels moves by s of them; k is a multiple of s and k - s even, so that [B,Y,X,C] becomes
[B,Y/s,X/s,O] and back: 4 and 2 in DCGAN (Radford et al. 2016), 3 and 1 elsewhere.

On a CPU both are products written here: XLA's own are as fast for one convolution, but take 5 times as long for its
transpose (64 images, 7 x 7 x 64 to 14 x 14 x 32, with gradients: 91 ms against 19) and 50 times under `jax.vmap` over
kernels, as lanes have it.

B batch, Y, X rows and columns, C channels in, O out.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from lmjax.nn.linear import product
from lmjax.nn.xla import written
from lmjax.param import Param, normal, zeros

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv_params(kernel: int, channels: int, outputs: int, *, stride: int = 1, init=None, bias=True):
    """A kernel [k,k,C,O], started so that ReLUs keep the variance (He et al. 2015), and a bias [O].

    For `conv_transposed` give `stride` here: a pixel of its result is made of k k C / s s numbers.
    """
    init = init or normal(math.sqrt(2 * stride**2 / (kernel**2 * channels)))
    params = {"w": Param((kernel, kernel, channels, outputs), (None, None, "embed", "mlp"), init)}
    if bias:
        params["b"] = Param((outputs,), ("mlp",), zeros)
    return params


def conv(params, x, stride: int = 1):
    """x [B,Y,X,C] -> [B,Y/s,X/s,O]; what lies outside an image is 0."""
    w, s, margin = _kernel(params, x, stride)
    if jax.default_backend() == "cpu":
        y = by_products(w, x, s)
    else:
        y = lax.conv_general_dilated(x, w, (s, s), [(margin, margin)] * 2, dimension_numbers=DIMENSIONS)
    return _shifted(params, y)


def conv_transposed(params, x, stride: int = 1):
    """x [B,Y,X,C] -> [B,sY,sX,O]: each pixel lays a kernel of its own strength down, s pixels from the next."""
    w, s, margin = _kernel(params, x, stride)
    if jax.default_backend() == "cpu":
        y = transposed_by_products(w, x, s)
    else:
        around = w.shape[0] - 1 - margin
        y = lax.conv_general_dilated(
            x, w, (1, 1), [(around, around)] * 2, lhs_dilation=(s, s), dimension_numbers=DIMENSIONS
        )
    return _shifted(params, y)


def _kernel(params, x, stride):
    w = params["w"].astype(x.dtype)
    k = w.shape[0]
    if k % stride or (k - stride) % 2:
        raise ValueError(f"a kernel of {k} pixels with stride {stride}: expected a multiple, and an even number more")
    return w, stride, (k - stride) // 2


def _shifted(params, y):
    return y + params["b"].astype(y.dtype)[None, None, None] if "b" in params else y


def by_products(w, x, s: int):
    """`conv` without bias: every s x s pixels become one of s s C channels, n x n of these a row of one product."""
    k, _, C, O = w.shape
    n, margin = k // s, (k - s) // 2
    x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    x = written(space_to_depth(x, s))  # [B,Y/s+n-1,X/s+n-1,ssC]
    Y, X = x.shape[1] - n + 1, x.shape[2] - n + 1
    rows = written(jnp.concatenate([x[:, i : i + Y, j : j + X] for i in range(n) for j in range(n)], axis=-1))
    w = w.reshape(n, s, n, s, C, O).transpose(0, 2, 1, 3, 4, 5).reshape(-1, O)
    return product(rows.reshape(-1, rows.shape[-1]), w).reshape(-1, Y, X, O)


def transposed_by_products(w, x, s: int):
    """`conv_transposed` without bias: one product gives the kernels, in parts of s x s pixels, which are then added."""
    k, _, C, O = w.shape
    n, margin = k // s, (k - s) // 2
    B, Y, X, _ = x.shape
    w = w[::-1, ::-1].reshape(n, s, n, s, C, O).transpose(4, 0, 2, 1, 3, 5)  # [C,n,n,s,s,O]
    parts = product(x.reshape(-1, C), w.reshape(C, -1)).reshape(B, Y, X, n, n, s * s * O)
    ahead = [((0, 0), (i, n - 1 - i), (j, n - 1 - j), (0, 0)) for i in range(n) for j in range(n)]
    y = sum(jnp.pad(parts[:, :, :, m // n, m % n], widths) for m, widths in enumerate(ahead))
    y = depth_to_space(y, s)
    return y[:, margin : margin + s * Y, margin : margin + s * X]


def space_to_depth(x, s: int):
    """[B,Y,X,C] -> [B,Y/s,X/s,ssC]."""
    B, Y, X, C = x.shape
    return x.reshape(B, Y // s, s, X // s, s, C).transpose(0, 1, 3, 2, 4, 5).reshape(B, Y // s, X // s, s * s * C)


def depth_to_space(x, s: int):
    """[B,Y,X,ssC] -> [B,sY,sX,C]."""
    B, Y, X, C = x.shape
    x = x.reshape(B, Y, X, s, s, C // s**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(B, s * Y, s * X, C // s**2)
