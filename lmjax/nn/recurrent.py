"""The long short-term memory of Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, and the GRU.

For one LSTM layer, with h and c the layer's output and cell at step t (Zaremba et al. 2014, section 3):

    i, f, g, o = x_t W + h_{t-1} U + b          then sigmoid on i, f, o and tanh on g
    c_t = f c_{t-1} + i g
    h_t = o tanh(c_t)

T steps, B batch, D width of the input, H cells; the four gates stand in the order i, f, g, o.
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


def lstm_layer(params, x, carry, *, input_mask=None, hidden_mask=None, lengths=None):
    """One LSTM layer over a window.

    x           [T,B,D], in the type to compute in
    carry       (h, c), each [B,H] float32: the state the window before left
    input_mask  [T|1,B,1|4,D] dropout factors on x; 4: each gate sees x through its own
    hidden_mask [B,1|4,H] dropout factors on h_{t-1}, the same at every step (Gal & Ghahramani 2016, eq. 7)
    lengths     int[B], the steps that count in each row, at least 1; None: all T

    Returns (h_t for every step [T,B,H], carry after each row's last step).
    """
    w, u, b = (params[name].astype(x.dtype) for name in ("w", "u", "b"))
    h, c = carry
    with jax.named_scope("inputs"):  # needs no recurrence: one matrix product for all steps
        z = _product(x, w, input_mask) + b[None, None]
    with jax.named_scope("recurrence"):
        y, cells = _recurrence(z, u, h.astype(x.dtype), c, hidden_mask)
    if lengths is None:
        return y, (y[-1].astype(h.dtype), cells[-1])
    last = (lengths - 1, jnp.arange(lengths.shape[0]))
    return y, (y[last].astype(h.dtype), cells[last])


def reversed_rows(x, lengths):
    """x [T,B,...] with the first `lengths` [B] steps of each row in reverse order, and what is behind them in place."""
    steps = jnp.arange(x.shape[0])[:, None]
    at = jnp.where(steps < lengths[None], lengths[None] - 1 - steps, steps)
    return x[at, jnp.arange(x.shape[1])[None]]


def bilstm_layer_params(d: int, h: int, weights, bias) -> dict:
    """Parameters of two layers of `h` cells on inputs of width `d`, one for each direction."""
    return {way: lstm_layer_params(d, h, weights, bias) for way in ("forward", "backward")}


def bilstm_layer(params, x, lengths, *, input_mask=None, hidden_masks=(None, None)):
    """A layer that reads a text of `lengths` [B] from both ends (Graves & Schmidhuber 2005), from a state of zeros.

    x [T,B,D]. input_mask [1,B,1|4,D]: as of lstm_layer, for both ways and every step. hidden_masks: one a way. Returns
    (what both say at every step [T,B,2H], what each ends with [B,2H]); behind a row's length stands nothing of use.
    """
    h = params["forward"]["u"].shape[0]
    zero = jnp.zeros((x.shape[1], h), jnp.float32)
    every, last = [], []
    for way, mask in zip(("forward", "backward"), hidden_masks, strict=True):
        flip = (lambda x: x) if way == "forward" else (lambda x: reversed_rows(x, lengths))
        y, (end, _) = lstm_layer(
            params[way], flip(x), (zero, zero), input_mask=input_mask, hidden_mask=mask, lengths=lengths
        )
        every.append(flip(y))
        last.append(end)
    return jnp.concatenate(every, axis=-1), jnp.concatenate(last, axis=-1)


def _product(x, w, mask):
    """x [...,D] times w [D,4,H] -> [...,4,H]; a mask [...,4,D] gives each gate its own view of x, [...,1,D] all one."""
    if mask is not None and mask.shape[-2] == 4:
        return jnp.einsum("...gd,dgh->...gh", x[..., None, :] * mask, w)
    x = x if mask is None else x * mask[..., 0, :]
    # Two axes a side: XLA on CPU transposes w in memory before a product over more.
    return (x.reshape(-1, x.shape[-1]) @ w.reshape(len(w), -1)).reshape(*x.shape[:-1], *w.shape[1:])


def _product_back(dz, w, mask):
    """The gradient of x in _product, for x [B,D] and dz [B,4H]."""
    if mask is not None and mask.shape[-2] == 4:
        return (jnp.einsum("bgh,dgh->bgd", dz.reshape(len(dz), 4, -1), w) * mask).sum(-2)
    dx = dz @ w.reshape(len(w), -1).T
    return dx if mask is None else dx * mask[..., 0, :]


@jax.custom_vjp
def _recurrence(z, u, h, c, mask):
    """The steps: z [T,B,4,H] = x W + b, u [H,4,H], h and c [B,H] -> every h_t and, in float32, every c_t [T,B,H].

    Differentiated by hand: autodiff would add up U's gradient step by step, T products and T sums of its size, where
    one product over all steps does. It takes 15 % off a training step of 2 x 650 cells on a CPU.
    """
    y, cells, _ = _forward(z, u, h, c, mask)
    return y, cells


def _forward(z, u, h, c, mask):
    def step(carry, z):
        h, c = carry
        i, f, g, o = jnp.moveaxis((z + _product(h, u, mask)).astype(c.dtype), -2, 0)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c = f * c + i * g
        h = (o * jnp.tanh(c)).astype(h.dtype)
        return (h, c), (h, c, tuple(gate.astype(h.dtype) for gate in (i, f, g, o)))

    _, saved = jax.lax.scan(step, (h, c), z)
    return saved


def _recurrence_forward(z, u, h, c, mask):
    y, cells, gates = _forward(z, u, h, c, mask)
    return (y, cells), (u, h, c, mask, y, cells, gates)


def _recurrence_backward(saved, gradients):
    u, h, c, mask, y, cells, gates = saved
    h_before, c_before = jnp.concatenate([h[None], y[:-1]]), jnp.concatenate([c[None], cells[:-1]])
    to_weights = jax.linear_transpose(lambda u: _product(h_before, u, None if mask is None else mask[None]), u)

    def step(carry, this):
        dh, dc = carry
        (dy, dcell), (i, f, g, o), c_before, c = this
        tanh_c = jnp.tanh(c)
        dh = dh + dy
        dc = dc + dcell + dh * o * (1 - tanh_c * tanh_c)
        dz = [dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)]
        dz = jnp.concatenate(dz, axis=-1).astype(y.dtype)
        dh = _product_back(dz, u, mask).astype(c.dtype)
        return (dh, dc * f), dz

    zero = jnp.zeros_like(c)
    (dh, dc), dz = jax.lax.scan(step, (zero, zero), (gradients, gates, c_before, cells), reverse=True)
    dz = dz.reshape(*y.shape[:-1], 4, -1)
    return dz, to_weights(dz)[0], dh.astype(h.dtype), dc, None if mask is None else jnp.zeros_like(mask)


_recurrence.defvjp(_recurrence_forward, _recurrence_backward)


def gru_params(d: int, h: int, weights, bias) -> dict:
    """Parameters of a GRU of `h` cells on inputs of width `d`; `weights` and `bias` are initializers."""
    return {
        "w": Param((d, 3, h), ("embed", None, "cells"), weights),
        "u": Param((h, 3, h), ("embed", None, "cells"), weights),
        "b": Param((3, h), (None, "cells"), bias),
        "reset_b": Param((h,), ("cells",), bias),
    }


def gru_inputs(params, x):
    """What the inputs x [...,D] add to the gates, [...,3,H]: needs no recurrence, so one product serves all steps."""
    b = params["b"].astype(x.dtype).reshape((1,) * (x.ndim - 1) + (3, -1))
    return _product(x, params["w"].astype(x.dtype), None) + b


def gru_step(params, z, h):
    """One step of the gated recurrent unit (Cho et al. 2014): z [B,3,H] of `gru_inputs` and state h [B,H] -> h [B,H].

        r, u = sigmoid of the first two gates;  g = tanh(z_g + r (h U_g + b_r));  h = (1 - u) g + u h

    As PyTorch and cuDNN have it. Departure from the paper, which resets h before the product with U_g.
    """
    past = _product(h, params["u"].astype(h.dtype), None)
    r, u = jax.nn.sigmoid(z[:, 0] + past[:, 0]), jax.nn.sigmoid(z[:, 1] + past[:, 1])
    g = jnp.tanh(z[:, 2] + r * (past[:, 2] + params["reset_b"].astype(h.dtype)[None]))
    return (1 - u) * g + u * h


def gru_layer(params, x, h, seen=None, *, reverse=False):
    """A GRU over x [T,B,D] from state h [B,H], forwards or backwards: (h_t of every step [T,B,H], the last).

    seen: bool [T,B]; a step that is not leaves the state of its row as it is.
    """

    def step(h, this):
        z, counts = this
        new = gru_step(params, z, h)
        h = new if counts is None else jnp.where(counts[:, None], new, h)
        return h, h

    last, every = jax.lax.scan(step, h, (gru_inputs(params, x), seen), reverse=reverse)
    return every, last
