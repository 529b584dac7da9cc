"""Low-rank factorisation: a matrix as the product of two thin ones, by its singular value decomposition.

The best of its rank in the sum of squares (Eckart & Young 1936). A matrix is seen as in quantize.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Factors(NamedTuple):
    """left [I,R], right [R,O]: their product is the matrix."""

    left: jax.Array
    right: jax.Array


def rank_of(shape: tuple[int, int], left: float) -> int:
    """The largest rank, at least 1, whose factors of a matrix [I,O] have a share `left` of its numbers."""
    rows, columns = shape
    return max(min(int(left * rows * columns / (rows + columns)), rows, columns), 1)


def factors(values, rank: int) -> Factors:
    """The `rank` largest singular values and their vectors of a matrix [I,O]; exact where rank is min(I, O)."""
    u, s, v = jnp.linalg.svd(values.astype(jnp.float32), full_matrices=False)
    root = jnp.sqrt(s[:rank])
    return Factors(u[:, :rank] * root[None], root[:, None] * v[:rank])


def kept(values, rank: int) -> float:
    """The share of the sum of squares of a matrix [I,O] that its best approximation of `rank` has."""
    s = jnp.linalg.svd(values.astype(jnp.float32), compute_uv=False)
    return float((s[:rank] ** 2).sum() / jnp.maximum((s**2).sum(), 1e-30))
