"""The long short-term memory of Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000.

For one layer, with h and c the layer's output and cell at step t (Zaremba et al. 2014, section 3):

    i, f, g, o = x_t W + h_{t-1} U + b          sigmoid on i, f, o; tanh on g
    c_t = f c_{t-1} + i g
    h_t = o tanh(c_t)

T steps, B batch, D width of the input, G the four gates (in the order i, f, g, o) or the masks for them, H cells.
"""

import jax
import jax.numpy as jnp

from lmjax.param import Param


def lstm_layer_params(d: int, h: int, weights, bias) -> dict:
    """Parameters of a layer of `h` cells on inputs of width `d`; `weights` and `bias` are initializers."""
    return {
        "w": Param((d, 4, h), ("embed", None, "cells"), weights),
        "u": Param((h, 4, h), ("embed", None, "cells"), weights),
        "b": Param((4, h), (None, "cells"), bias),
    }


def _product(x, w, mask):
    """x [...,D] times w [D,4,H] -> [...,4,H]; a mask [...,4,D] gives each gate its own view of x, [...,1,D] all one."""
    if mask is None:
        return jnp.einsum("...d,dgh->...gh", x, w)
    if mask.shape[-2] == 1:
        return jnp.einsum("...d,dgh->...gh", x * mask[..., 0, :], w)
    return jnp.einsum("...gd,dgh->...gh", x[..., None, :] * mask, w)


def lstm_layer(params, x, carry, *, input_mask=None, hidden_mask=None):
    """One LSTM layer over a window.

    x           [T,B,D], in the type to compute in
    carry       (h, c), each [B,H] float32: the state the window before left
    input_mask  [T|1,B,1|4,D] dropout factors on x; 4: every gate sees its own mask
    hidden_mask [B,1|4,H] dropout factors on h_{t-1}, the same at every step (Gal & Ghahramani 2016, eq. 7)

    Returns (outputs h_t [T,B,H], carry).
    """
    w, u, b = (params[name].astype(x.dtype) for name in ("w", "u", "b"))
    # The input's product needs no recurrence: one matrix product for all steps, outside the scan.
    z = _product(x, w, input_mask) + b[None, None]

    def step(carry, z):
        h, c = carry
        i, f, g, o = jnp.moveaxis(z + _product(h, u, hidden_mask), -2, 0)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)  # float32: a sum over hundreds of steps
        h = (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(x.dtype)
        return (h, c), h

    h, c = carry
    (h, c), y = jax.lax.scan(step, (h.astype(x.dtype), c), z)
    return y, (h.astype(jnp.float32), c)
