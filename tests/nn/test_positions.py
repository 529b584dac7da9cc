"""Positions: the paper's waves, and turns that leave only distances in a product."""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.nn.positions import rotate, sinusoids


def test_sinusoids_are_the_papers():
    D, positions = 8, np.array([[0, 1, 7]])
    found = sinusoids(jnp.asarray(positions), D)
    for i in range(D // 2):
        angle = positions / 10000 ** (2 * i / D)
        np.testing.assert_allclose(found[..., i], np.sin(angle), atol=1e-6)
        np.testing.assert_allclose(found[..., D // 2 + i], np.cos(angle), atol=1e-6)


def test_a_turned_query_and_key_know_only_their_distance():
    q, k = (jax.random.normal(jax.random.key(i), (1, 1, 2, 8)) for i in range(2))

    def product(at, to):
        return (rotate(q, jnp.array([[at]])) * rotate(k, jnp.array([[to]]))).sum(-1)

    np.testing.assert_allclose(product(3, 1), product(103, 101), rtol=1e-4)
    assert not np.allclose(product(3, 1), product(3, 2), rtol=1e-2)
    np.testing.assert_allclose(product(5, 5), (q * k).sum(-1), rtol=1e-5)  # at no distance nothing has turned


def test_turns_keep_lengths_and_types():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    y = rotate(x, jnp.arange(3)[None])
    np.testing.assert_allclose(jnp.linalg.norm(y, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    assert rotate(x.astype(jnp.bfloat16), jnp.arange(3)[None]).dtype == jnp.bfloat16
