"""Dropout: its share, its mean, and where it does nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.nn.dropout import dropout, dropout_mask, fold


def test_a_share_is_zero_and_the_mean_stays():
    y = dropout(jax.random.key(0), jnp.ones((200, 200)), 0.3)
    assert set(np.unique(np.round(y, 4))) == {0.0, np.float32(1.4286)}
    np.testing.assert_allclose((y == 0).mean(), 0.3, atol=0.01)
    np.testing.assert_allclose(y.mean(), 1.0, atol=0.015)


def test_nothing_without_a_key_or_a_rate():
    x = jnp.ones((3, 3))
    assert dropout(None, x, 0.5) is x
    assert dropout(jax.random.key(0), x, 0.0) is x
    np.testing.assert_array_equal(dropout(jax.random.key(0), x, jnp.float32(0)), x)


def test_a_traced_rate_draws_the_same():
    x = jnp.ones((50, 50))
    traced = jax.jit(lambda rate: dropout(jax.random.key(1), x, rate))(0.25)
    np.testing.assert_allclose(traced, dropout(jax.random.key(1), x, 0.25), rtol=1e-6)


def test_each_place_has_its_own_key():
    key = jax.random.key(0)
    keys = [fold(key, *path) for path in (("a",), ("b",), ("a", 0), ("a", 1), (0,))]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == len(keys)
    assert fold(None, "a") is None


def test_the_mask_has_the_type_asked_for():
    assert dropout_mask(jax.random.key(0), 0.5, (4,), jnp.bfloat16).dtype == jnp.bfloat16
