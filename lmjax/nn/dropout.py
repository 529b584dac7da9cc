"""Dropout (Srivastava et al. 2014): zero a unit with probability `rate`, divide the others by the share kept."""

import zlib

import jax
import jax.numpy as jnp


def fold(key, *path):
    """The key of a named place inside a model: `fold(key, "block", 3)`; None stays None (no dropout)."""
    if key is None:
        return None
    for part in path:
        key = jax.random.fold_in(key, part if not isinstance(part, str) else zlib.crc32(part.encode()))
    return key


def never(key, rate) -> bool:
    """Nothing is dropped: there is no key, or the rate is the plain number 0 (a traced one may be anything)."""
    return key is None or (isinstance(rate, int | float) and rate == 0)


def dropout_mask(key, rate, shape, dtype=jnp.float32):
    """Factors to multiply with, [*shape]: 0 with probability `rate`, else 1 / (1 - rate)."""
    keep = 1.0 - rate
    return (jax.random.bernoulli(key, keep, shape) / keep).astype(dtype)


def dropout(key, x, rate):
    """`x` with dropout; `x` itself where `key` is None or the rate is the plain number 0. The rate may be traced."""
    return x if never(key, rate) else x * dropout_mask(key, rate, x.shape, x.dtype)
