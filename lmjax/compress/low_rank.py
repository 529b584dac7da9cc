"""Low-rank factorisation: a matrix as the product of two thin ones, by its singular value decomposition.

The best of its rank in the sum of squares (Eckart & Young 1936). A matrix is seen as in quantize.py.
"""

from typing import NamedTuple

import numpy as np


class Factors(NamedTuple):
    """left [I,R], right [R,O]: their product is the matrix."""

    left: np.ndarray
    right: np.ndarray


def rank_of(shape: tuple[int, int], left: float) -> int:
    """The largest rank, at least 1, whose factors of a matrix [I,O] have a share `left` of its numbers."""
    rows, columns = shape
    return max(min(int(left * rows * columns / (rows + columns)), rows, columns), 1)


def factors(values, rank: int) -> Factors:
    """The `rank` largest singular values and their vectors of a matrix [I,O]; exact where rank is min(I, O)."""
    u, s, v = np.linalg.svd(np.asarray(values, np.float32), full_matrices=False)
    root = np.sqrt(s[:rank])
    return Factors(u[:, :rank] * root[None], root[:, None] * v[:rank])


def kept(values, rank: int) -> float:
    """The share of the sum of squares of a matrix [I,O] that its best approximation of `rank` has."""
    s = np.linalg.svd(np.asarray(values, np.float32), compute_uv=False)
    return float((s[:rank] ** 2).sum() / max((s**2).sum(), 1e-30))
