"""Principal directions of private examples (Abadi et al. 2016, section 4; Dwork et al. 2014, algorithm 1)."""

import jax
import jax.numpy as jnp
import numpy as np


def unit_rows(x):
    """Each row of x [N,D] at length 1; a row of zeros stays one."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def second_moment(x) -> np.ndarray:
    """x' x, float32 [D,D], of x [N,D] with rows of length 1: one row more changes its upper triangle by at most 1."""
    return np.asarray(x.T @ x, np.float32)


def principal_directions(key, moment, count: int, noise: float):
    """The `count` directions [D, count] of most variance, the first of most, of a second moment [D,D] with noise.

    noise: deviation of what is added to each of the upper triangle's entries, and to the lower's alike: what is so
    released is a Gaussian mechanism of that noise, where the moment is of rows of length 1 (accounting.Mechanism).
    """
    moment = jnp.asarray(moment)
    drawn = noise * jax.random.normal(key, moment.shape, moment.dtype)
    _, directions = jnp.linalg.eigh(moment + jnp.triu(drawn) + jnp.triu(drawn, 1).T)  # rising
    return directions[:, ::-1][:, :count]
