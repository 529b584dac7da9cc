"""Principal directions, with noise and without."""

import jax
import numpy as np

from lmjax.privacy import projection


def test_without_noise_they_are_the_principal_directions_and_with_it_they_are_not():
    rng = np.random.default_rng(0)
    x = projection.unit_rows((rng.normal(size=(500, 12)) * np.linspace(3, 0.1, 12)).astype(np.float32))
    moment = projection.second_moment(x)
    found = np.asarray(projection.principal_directions(jax.random.key(0), moment, 3, 0.0))
    expected = np.linalg.svd(x, full_matrices=False)[2][:3].T
    np.testing.assert_allclose(np.abs((found * expected).sum(0)), 1, atol=1e-3)
    noisy = np.asarray(projection.principal_directions(jax.random.key(0), moment, 3, 500.0))
    np.testing.assert_allclose(noisy.T @ noisy, np.eye(3), atol=1e-5)
    assert np.abs((noisy * expected).sum(0)).max() < 0.95


def test_one_row_moves_the_upper_triangle_by_no_more_than_one():
    rng = np.random.default_rng(1)
    rows = projection.unit_rows(np.concatenate([rng.normal(size=(50, 6)), np.eye(6), np.zeros((1, 6))]))
    for row in rows:
        change = np.triu(projection.second_moment(row[None]))
        assert np.linalg.norm(change) <= 1 + 1e-6


def test_the_noise_is_symmetric_and_as_large_as_it_says():
    """By the directions' own product: of a moment of zeros the noise alone is left."""
    keys = jax.random.split(jax.random.key(0), 200)

    def largest(key):
        moment = np.zeros((8, 8), np.float32)
        v = projection.principal_directions(key, moment, 1, 2.0)[:, 0]
        return v

    found = np.asarray(jax.jit(jax.vmap(largest))(keys))
    assert np.abs(found.mean(0)).max() < 0.2  # in no direction of its own
