"""Layer normalization (Ba et al. 2016), its root-mean-square form (Zhang & Sennrich 2019), batch normalization (Ioffe &
Szegedy 2015), and of weights spectral normalization (Miyato et al. 2018)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

from lmjax.param import Param, ones, zeros


def layer_norm_params(dim: int, *, bias=True):
    params = {"scale": Param((dim,), ("embed",), ones)}
    if bias:
        params["bias"] = Param((dim,), ("embed",), zeros)
    return params


def layer_norm(params, x, epsilon: float = 1e-5):
    """`x` [..., D] with mean 0 and variance 1 over D, then scaled and shifted. Statistics in float32; x's dtype out."""
    shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
    y = normalize(x, epsilon) * params["scale"].reshape(shape)
    if "bias" in params:
        y = y + params["bias"].reshape(shape)
    return y.astype(x.dtype)


def rms_norm_params(dim: int):
    return {"scale": Param((dim,), ("embed",), ones)}


def rms_norm(params, x, epsilon: float = 1e-5):
    """`x` [..., D] with mean square 1 over D, then scaled (eq. 4). Statistics in float32; x's dtype out."""
    h = x.astype(jnp.float32)
    y = h * lax.rsqrt((h * h).mean(-1, keepdims=True) + epsilon)
    return (y * params["scale"].reshape((1,) * (x.ndim - 1) + (x.shape[-1],))).astype(x.dtype)


def normalize(x, epsilon: float):
    """x [..., D] -> float32 [..., D] with mean 0 and variance 1."""
    return _normalize(x.astype(jnp.float32), epsilon)


def _statistics(x, epsilon):
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    return mean, lax.rsqrt((centred * centred).mean(-1, keepdims=True) + epsilon)


def _forward(x, epsilon):
    mean, scale = _statistics(x, epsilon)
    return (x - mean) * scale, (x, mean, scale)


_normalize = jax.custom_vjp(lambda x, epsilon: _forward(x, epsilon)[0], nondiff_argnums=(1,))


def _backward(epsilon, saved, dy):
    """Ba et al. 2016, appendix: the gradient less its mean and less its part along y."""
    x, mean, scale = saved
    y = (x - mean) * scale
    return (scale * (dy - dy.mean(-1, keepdims=True) - y * (dy * y).mean(-1, keepdims=True)),)


_normalize.defvjp(_forward, _backward)


class Statistics(NamedTuple):
    """Mean and variance of each channel, float32 [C]."""

    mean: jax.Array
    variance: jax.Array


def batch_norm_params(dim: int):
    return {"scale": Param((dim,), ("mlp",), ones), "bias": Param((dim,), ("mlp",), zeros)}


def batch_statistics(x, psum=lambda x: x) -> Statistics:
    """Of each channel of x [..., C] over all else, and over the devices whose sums `psum` takes: an Axis's, or none."""
    h = x.astype(jnp.float32).reshape(-1, x.shape[-1])
    total, square, count = psum((h.sum(0), (h * h).sum(0), jnp.float32(len(h))))
    mean = total / count
    return Statistics(mean, jnp.maximum(square / count - mean * mean, 0.0))


def batch_norm(params, x, statistics: Statistics | None = None, psum=lambda x: x, epsilon: float = 1e-5):
    """Ioffe & Szegedy 2015: (x [..., C] with mean 0 and variance 1 in each channel, scaled and shifted; statistics).

    statistics: what to normalize by; None: this batch's own, summed over devices by `psum`, and given back. They are
    values: whoever wants an average of them, or another batch's, keeps it. Statistics in float32; x's dtype out.
    """
    statistics = batch_statistics(x, psum) if statistics is None else statistics
    shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
    factor = params["scale"] * lax.rsqrt(statistics.variance + epsilon)
    shift = params["bias"] - statistics.mean * factor
    return (x.astype(jnp.float32) * factor.reshape(shape) + shift.reshape(shape)).astype(x.dtype), statistics


def spectral_start(params) -> dict:
    """A vector [O] for each weight [..., O] of more than one axis in a tree, by its path: where `spectral_norm` begins.

    They are made of the weights, so that a seed's are its own; their length is 1.
    """
    vectors = {}
    for path, w in tree_leaves_with_path(params):
        if w.ndim > 1:
            vectors[keystr(path, simple=True, separator="/")] = _unit(w.reshape(-1, w.shape[-1]).sum(0))
    return vectors


def spectral_norm(params, vectors: dict):
    """Miyato et al. 2018, algorithm 1: (the tree with each weight [..., O] over its largest singular value, vectors).

    That is estimated by one step of the power method from `vectors`, whose next values come back; it is exact only
    after many. The gradient passes through the weight and not through the vectors (eq. 10).
    """
    new = {}

    def one(path, w):
        name = keystr(path, simple=True, separator="/")
        if name not in vectors:
            return w
        matrix = w.reshape(-1, w.shape[-1]).astype(jnp.float32)
        fixed = lax.stop_gradient(matrix)
        left = _unit(fixed @ lax.stop_gradient(vectors[name]))
        new[name] = _unit(left @ fixed)
        return (w / (left @ matrix @ new[name])).astype(w.dtype)

    return tree_map_with_path(one, params), new


def _unit(x):
    return x / jnp.maximum(jnp.sqrt((x * x).sum()), 1e-12)
