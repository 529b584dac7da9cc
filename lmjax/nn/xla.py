"""Advice to the compiler."""

import jax
from jax import lax


def written(x):
    """`x`, written to memory once. On CPU only; elsewhere `x` itself.

    XLA on CPU fuses a transpose or a softmax into each of its readers and computes it anew in every one, in the order
    that suits the reader. Where a product reads it, that costs more than the copy.
    """
    return lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x
