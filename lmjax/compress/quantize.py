"""Weights in 8 or 4 bits, after training or trained on as such, by qwix's symmetric scales.

A weight array is seen as a matrix [I,O] from what it contracts to what it gives; a table [V,D] as one from D.
In 8 bits each of the O has a scale, in 4 bits each group of its inputs. A weight is then code x scale, off by half a
scale at most.

Of qwix the arithmetic is used and not its models: `quantize_model` replaces the operations inside a Flax module, and
our models are none. What it does there for quantisation-aware training, a rounding whose gradient goes straight
through, is `aware` here: a loss around a loss, so that it serves any model.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.compress.select import flat, replaced
from lmjax.errors import UserError, install


class Quantized(NamedTuple):
    """codes int8 [I',O], I' filled up to whole groups; scale [G,O], G 1 or the number of groups."""

    codes: jax.Array
    scale: jax.Array


def matrix(weights, inputs: tuple[int, ...]):
    """[I,O] of an array whose axes `inputs` are contracted."""
    outputs = [axis for axis in range(weights.ndim) if axis not in inputs]
    size = math.prod(weights.shape[axis] for axis in inputs)
    return weights.transpose(*inputs, *outputs).reshape(size, -1)


def unfolded(values, shape: tuple[int, ...], inputs: tuple[int, ...]):
    """The array of `shape` that `matrix` made [I,O] of."""
    order = (*inputs, *(axis for axis in range(len(shape)) if axis not in inputs))
    back = sorted(range(len(shape)), key=lambda axis: order[axis])
    return values.reshape([shape[axis] for axis in order]).transpose(back)


def quantized(values, bits: int, group: int = 32) -> Quantized:
    """Of a matrix [I,O]. bits: 8, or 4 with a scale in 16 bits for each `group` inputs of an output."""
    if bits not in (4, 8):
        raise ValueError(f"{bits} bits: expected 4 or 8")
    _library()
    return _quantized(values, bits, group)


@partial(jax.jit, static_argnums=(1, 2))
def _quantized(values, bits: int, group: int) -> Quantized:
    library = _library()
    if bits == 8:
        found = library.quantize(values, jnp.int8, channelwise_axes=(1,))
        return Quantized(found.qvalue, found.scale)
    group = min(group, len(values))
    values = jnp.pad(values, ((0, -len(values) % group), (0, 0)))
    found = library.quantize(values, jnp.int4, channelwise_axes=(1,), tiled_axes={0: group}, scale_dtype=jnp.float16)
    return Quantized(found.qvalue.astype(jnp.int8), found.scale)


@partial(jax.jit, static_argnums=2)
def dequantized(codes, scale, count: int):
    """float32 [I,O], I = `count`, of codes [I',O] and scale [G,O]."""
    groups = codes.reshape(len(scale), -1, codes.shape[1]).astype(jnp.float32)
    return (groups * scale.astype(jnp.float32)[:, None]).reshape(codes.shape)[:count]


def rounded(params, layouts: dict, bits: int, group: int = 32):
    """The tree whose weights are what `bits` leave of them. layouts: {path: axes that are contracted}, see select."""
    leaves, found = flat(params), {}
    for path, inputs in layouts.items():
        values = matrix(leaves[path].astype(jnp.float32), inputs)
        near = dequantized(*quantized(values, bits, group), len(values))
        found[path] = unfolded(near, leaves[path].shape, inputs).astype(leaves[path].dtype)
    return replaced(params, found)


def aware(loss, layouts: dict, bits: int, group: int = 32):
    """`loss` of the rounded weights, whose gradient goes to the weights as they are (straight through, Bengio et al.
    2013): what make_step trains on to find weights that few bits do not hurt (Jacob et al. 2018)."""

    def of_rounded(params, batch, key, carry):
        near = rounded(jax.lax.stop_gradient(params), layouts, bits, group)
        through = jax.tree.map(lambda w, r: w + jax.lax.stop_gradient(r - w), params, near)
        return loss(through, batch, key, carry)

    return of_rounded


def _library():
    try:
        import qwix
    except ImportError:
        raise UserError("qwix is not installed: " + install("compress")) from None
    return qwix
