"""Layer normalization (Ba et al. 2016)."""

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
    h = x.astype(jnp.float32)
    h = h - h.mean(-1, keepdims=True)
    h = h * lax.rsqrt((h * h).mean(-1, keepdims=True) + epsilon)
    shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
    h = h * params["scale"].reshape(shape)
    if "bias" in params:
        h = h + params["bias"].reshape(shape)
    return h.astype(x.dtype)
