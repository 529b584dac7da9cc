"""Linear layers and embeddings."""

import math

import jax
import jax.numpy as jnp

from lmjax.nn.xla import written
from lmjax.param import Param, normal, zeros


def linear_params(inputs, outputs, axes, *, init=None, bias=True):
    """A map from axes `inputs` to axes `outputs` (ints or tuples); `axes` names them all, inputs first.

    The default initializer keeps the variance of its input (LeCun: normal, 1 / sqrt(fan-in)).
    """
    inputs, outputs = _tuple(inputs), _tuple(outputs)
    init = init or normal(1 / math.sqrt(math.prod(inputs)))
    params = {"w": Param((*inputs, *outputs), axes, init, len(inputs))}
    if bias:
        params["b"] = Param(outputs, axes[len(inputs) :], zeros)
    return params


def linear(params, x, inputs: int = 1):
    """Contracts the last `inputs` axes of `x` [..., *inputs] with the first of "w": [..., *outputs], in x's dtype.

    A layer made small (compress/) has in the place of "w" two factors, "left" [*inputs,R] and "right" [R,*outputs], or
    "codes" int8 of w's shape and "scale" float32 [*outputs].
    """
    if "left" in params:
        params, x, inputs = {**params, "w": params["right"]}, linear({"w": params["left"]}, x, inputs), 1
    elif "codes" in params:
        return _linear_int8(params, x, inputs)
    w = params["w"].astype(x.dtype)
    outputs, width = w.shape[inputs:], math.prod(w.shape[:inputs])
    y = product(x.reshape(-1, width), w.reshape(width, -1))
    if "b" in params:
        y = y + params["b"].astype(x.dtype).reshape(1, -1)
    return y.reshape(*x.shape[: x.ndim - inputs], *outputs)


def _linear_int8(params, x, inputs: int):
    """Products of integers: each row of x is rounded to 8 bits as it comes (dynamic quantisation)."""
    codes, outputs = params["codes"], params["codes"].shape[inputs:]
    rows = x.reshape(-1, math.prod(codes.shape[:inputs])).astype(jnp.float32)
    step = jnp.maximum(jnp.abs(rows).max(axis=1, keepdims=True), 1e-30) / 127
    whole = jnp.round(rows / step).astype(jnp.int8)
    sums = jnp.matmul(whole, codes.reshape(rows.shape[1], -1), preferred_element_type=jnp.int32)
    y = sums.astype(jnp.float32) * step * params["scale"].reshape(1, -1)
    y = y + params["b"].reshape(1, -1) if "b" in params else y
    return y.astype(x.dtype).reshape(*x.shape[: x.ndim - inputs], *outputs)


def weights(params):
    """ "w" of a linear layer as one array, however it is kept."""
    if "left" in params:
        return jnp.tensordot(params["left"], params["right"], 1)
    if "codes" in params:
        scale = params["scale"]
        return params["codes"] * scale.reshape((1,) * (params["codes"].ndim - scale.ndim) + scale.shape)
    return params["w"]


@jax.custom_vjp
def product(x, w):
    """x [N,D] times w [D,F]. By hand, so that XLA on CPU transposes an operand in memory for w's gradient.

    The narrower of the two, that is; left alone it multiplies with the operand as it lies, at two thirds of the rate
    (x' dy at N 3072, 1024 by 256: 12.7 ms against 8.6; 8.5 are the bare product).
    """
    return x @ w


def _product_forward(x, w):
    return x @ w, (x, w)


def _product_backward(saved, dy):
    x, w = saved
    dw = written(x.T) @ dy if x.shape[1] <= dy.shape[1] else written(written(written(dy.T) @ x).T)
    return dy @ w.T, dw


product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def gelu(x):
    """x times the normal distribution function of x (Hendrycks & Gimpel 2016), by their tanh approximation as in GPT-2.

    Its gradient is computed from x alone: nothing else is kept for the backward pass.
    """
    return jax.nn.gelu(x, approximate=True)


def _gelu_backward(x, dy):
    c, a = math.sqrt(2 / math.pi), 0.044715
    h = x.astype(jnp.float32)
    t = jnp.tanh(c * (h + a * h * h * h))
    slope = 0.5 * (1 + t) + 0.5 * c * h * (1 - t * t) * (1 + 3 * a * h * h)
    return ((dy * slope).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


@jax.custom_vjp
def exact_gelu(x):
    """x times the normal distribution function of x, by the error function as in BERT and ViT. Keeps x alone.

    jax.nn.gelu takes erfc, exact in the far tail too; XLA on CPU needs nearly three times as long for it.
    """
    h = x.astype(jnp.float32)
    return (h * _normal_cdf(h)).astype(x.dtype)


def _normal_cdf(h):
    return 0.5 * (1 + jax.lax.erf(h * math.sqrt(0.5)))


def _exact_gelu_backward(x, dy):
    h = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * h * h) / math.sqrt(2 * math.pi)
    return ((dy * (_normal_cdf(h) + h * density)).astype(x.dtype),)


exact_gelu.defvjp(lambda x: (exact_gelu(x), x), _exact_gelu_backward)


def embedding(table, tokens, dtype=jnp.float32):
    """Rows of `table` [V,D] for int `tokens` [...]: [..., D]."""
    return table[tokens].astype(dtype)


def _tuple(x):
    return x if isinstance(x, tuple) else (x,)
