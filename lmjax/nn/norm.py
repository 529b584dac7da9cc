"""Layer normalization (Ba et al. 2016) and its root-mean-square form (Zhang & Sennrich 2019)."""

import jax
import jax.numpy as jnp
from jax import lax

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
