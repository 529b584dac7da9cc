"""Linear layers and embeddings."""

import math

import jax.numpy as jnp
from jax import lax

from lmjax.param import Param, normal, zeros


def linear_params(inputs, outputs, axes, *, init=None, bias=True):
    """A map from axes `inputs` to axes `outputs` (ints or tuples); `axes` names them all, inputs first.

    The default initializer keeps the variance of its input (LeCun: normal, 1 / sqrt(fan-in)).
    """
    inputs, outputs = _tuple(inputs), _tuple(outputs)
    init = init or normal(1 / math.sqrt(math.prod(inputs)))
    params = {"w": Param((*inputs, *outputs), axes, init)}
    if bias:
        params["b"] = Param(outputs, axes[len(inputs) :], zeros)
    return params


def linear(params, x, inputs: int = 1):
    """Contracts the last `inputs` axes of `x` [..., *inputs] with the first of "w": [..., *outputs], in x's dtype."""
    w = params["w"].astype(x.dtype)
    contract = (tuple(range(x.ndim - inputs, x.ndim)), tuple(range(inputs)))
    y = lax.dot_general(x, w, (contract, ((), ())))
    if "b" in params:
        b = params["b"].astype(x.dtype)
        y = y + b.reshape((1,) * (y.ndim - b.ndim) + b.shape)
    return y


def embedding(table, tokens, dtype=jnp.float32):
    """Rows of `table` [V,D] for int `tokens` [...]: [..., D]."""
    return table[tokens].astype(dtype)


def _tuple(x):
    return x if isinstance(x, tuple) else (x,)
