"""The losses against their definitions, and the one differentiated by hand against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmjax.losses import cross_entropy, linear_cross_entropy

B, T, D, V = 3, 5, 8, 11


def example(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (B, T, D), dtype)
    w, b = jax.random.normal(keys[1], (D, V)), jax.random.normal(keys[2], (V,))
    return x, w, b, jax.random.randint(keys[3], (B, T), 0, V)


def ragged():
    return jnp.arange(T)[None] < jnp.array([[5], [2], [0]])


def test_cross_entropy_is_minus_the_log_probability():
    x, w, b, targets = example()
    logits = np.asarray(x @ w + b[None, None], np.float64)
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nll = -np.log(np.take_along_axis(probability, np.asarray(targets)[..., None], -1))[..., 0]
    weights = np.asarray(ragged(), np.float32)
    total, weight = cross_entropy(jnp.asarray(logits, jnp.float32), targets, jnp.asarray(weights))
    np.testing.assert_allclose(total, (nll * weights).sum(), rtol=1e-5)
    assert weight == 7
    total, weight = cross_entropy(jnp.asarray(logits, jnp.float32), targets)
    np.testing.assert_allclose(total, nll.sum(), rtol=1e-5)
    assert weight == B * T


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_by_hand_is_autodiff(bias, weighted, smoothing):
    x, w, b, targets = example()
    weights = ragged().astype(jnp.float32) if weighted else None
    b = b if bias else None

    def composed(x, w, b):
        return cross_entropy(x @ w + (0.0 if b is None else b[None, None]), targets, weights, smoothing)

    def by_hand(x, w, b):
        return linear_cross_entropy(x, w, b, targets, weights, smoothing)

    (total, weight), pull = jax.vjp(composed, x, w, b)
    (total_, weight_), pull_ = jax.vjp(by_hand, x, w, b)
    np.testing.assert_allclose(total_, total, rtol=1e-6)
    assert weight_ == weight
    ones = (jnp.float32(0.7), jnp.float32(0.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), pull_(ones), pull(ones))


def test_smoothed_targets_are_optax():
    x, w, b, targets = example()
    logits = x @ w + b[None, None]
    smooth = optax.smooth_labels(jax.nn.one_hot(targets, V), 0.2)
    total, _ = cross_entropy(logits, targets, smoothing=0.2)
    np.testing.assert_allclose(total, optax.softmax_cross_entropy(logits, smooth).sum(), rtol=1e-6)


def test_weights_are_differentiated():
    x, w, b, targets = example()
    gradient = jax.grad(lambda weights: linear_cross_entropy(x, w, b, targets, weights)[0])(jnp.ones((B, T)))
    nll = [cross_entropy((x @ w + b[None, None])[i, t], targets[i, t])[0] for i in range(B) for t in range(T)]
    np.testing.assert_allclose(gradient.reshape(-1), np.array(nll), rtol=1e-5)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_large_scores_stay_finite(size):
    x, w, b, targets = example()
    total, gradient = jax.value_and_grad(lambda x: linear_cross_entropy(x, w * size, b, targets)[0])(x)
    assert jnp.isfinite(total)
    assert jnp.isfinite(gradient).all()


def test_bfloat16_products_float32_sums():
    x, w, b, targets = example()
    exact, gradient = jax.value_and_grad(lambda x, w, b: linear_cross_entropy(x, w, b, targets)[0], (0, 1, 2))(x, w, b)
    rough, rough_gradient = jax.value_and_grad(lambda x, w, b: linear_cross_entropy(x, w, b, targets)[0], (0, 1, 2))(
        x.astype(jnp.bfloat16), w, b
    )
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, rtol=1e-2)
    for a, b in zip(rough_gradient, gradient):
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.05)
    assert [g.dtype for g in rough_gradient] == [jnp.bfloat16, jnp.float32, jnp.float32]
