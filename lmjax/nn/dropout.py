"""Dropout (Srivastava et al. 2014): zero a unit with probability `rate`, divide the others by the share kept."""

import zlib

import jax
import jax.numpy as jnp

from lmjax.nn.xla import written


def fold(key, *path):
    """The key of a named place inside a model: `fold(key, "block", 3)`; None stays None (no dropout)."""
    if key is None:
        return None
    for part in path:
        key = jax.random.fold_in(key, part if not isinstance(part, str) else zlib.crc32(part.encode()))
    return key


def absent(number) -> bool:
    """It is the plain number 0; a traced one may be anything."""
    return isinstance(number, int | float) and number == 0


def never(key, rate) -> bool:
    """Nothing is dropped: there is no key, or no rate."""
    return key is None or absent(rate)


def dropout_mask(key, rate, shape, dtype=jnp.float32):
    """Factors to multiply with, [*shape]: 0 with probability `rate`, to 16 bits, else 1 / (1 - rate)."""
    keep = 1.0 - rate
    return (keeps(key, keep, shape) / keep).astype(dtype)


def keeps(key, keep, shape):
    """bool [*shape], True with probability `keep`, to 16 bits.

    Each random word serves two places where an axis can be halved: on a CPU random words are most of what dropout
    costs. The last axis is tried first, which no mesh splits.
    """
    axis = next((axis for axis in (len(shape) - 1, 0) if shape and shape[axis] % 2 == 0), None)
    if axis is None:
        return jax.random.bernoulli(key, keep, shape)
    half = tuple(n // 2 if i == axis % len(shape) else n for i, n in enumerate(shape))
    words = jax.random.bits(key, half, jnp.uint32)
    below = jnp.round(jnp.float32(keep) * 65536.0).astype(jnp.uint32)
    return written(jnp.concatenate([(words & 0xFFFF) < below, (words >> 16) < below], axis=axis))


def dropout(key, x, rate):
    """`x` with dropout; `x` itself where `key` is None or the rate is the plain number 0. The rate may be traced."""
    return x if never(key, rate) else x * dropout_mask(key, rate, x.shape, x.dtype)
