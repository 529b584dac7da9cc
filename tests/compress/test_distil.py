"""Distillation: Hinton's gradients, hidden states, any teacher."""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.compress import distil
from lmjax.losses import cross_entropy

LOGITS = jax.random.normal(jax.random.key(0), (6, 5))
TEACHER = 3 * jax.random.normal(jax.random.key(1), (6, 5))
WEIGHTS = jnp.array([1.0, 0, 2, 1, 1, 0])


def centred(x):
    return x - x.mean(-1, keepdims=True)


def test_at_a_high_temperature_it_matches_logits():
    """Hinton et al. 2015, eq. 4, times T^2: the gradient is (z - v) / K for logits of mean zero."""
    gradient = jax.grad(lambda z: distil.soft_cross_entropy(z, TEACHER, 1000.0)[0])(LOGITS)
    np.testing.assert_allclose(gradient, (centred(LOGITS) - centred(TEACHER)) / 5, atol=5e-3)


def test_the_gradient_is_that_of_the_paper():
    """Eq. 2: dC/dz = (q - p) / T, times T^2."""
    T = 2.5
    gradient = jax.grad(lambda z: distil.soft_cross_entropy(z, TEACHER, T, WEIGHTS)[0])(LOGITS)
    expected = T * (jax.nn.softmax(LOGITS / T) - jax.nn.softmax(TEACHER / T)) * WEIGHTS[:, None]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    assert distil.soft_cross_entropy(LOGITS, TEACHER, T, WEIGHTS)[1] == 5


def test_a_sure_teacher_at_temperature_1_is_a_label():
    labels = TEACHER.argmax(-1)
    soft = distil.soft_cross_entropy(LOGITS, 1000 * jax.nn.one_hot(labels, 5), 1.0, WEIGHTS)
    np.testing.assert_allclose(soft, cross_entropy(LOGITS, labels, WEIGHTS), rtol=1e-5)


def test_student_and_teacher_are_functions():
    batch = {"x": jnp.ones((6, 3)), "labels": jnp.arange(6) % 5, "weights": WEIGHTS}
    params = {"w": jax.random.normal(jax.random.key(2), (3, 5))}

    def student(params, batch, key):
        return batch["x"] @ params["w"]

    def given(hard, **more):
        loss = distil.distilled(student, temperature=2.0, hard=hard, **more)
        return lambda params, batch: loss(params, batch, None, ())[0]

    soft, _ = distil.soft_cross_entropy(student(params, batch, None), TEACHER, 2.0, WEIGHTS)
    true, _ = cross_entropy(student(params, batch, None), batch["labels"], WEIGHTS)
    beside, function = batch | {"teacher": TEACHER}, given(0.25, teacher=lambda _: TEACHER)
    for found in (given(0.25)(params, beside), function(params, batch)):
        np.testing.assert_allclose(found, 0.75 * soft + 0.25 * true, rtol=1e-6)
    # A network is its own best teacher, and is not moved by it.
    itself = given(0.0, teacher=lambda batch: student(params, batch, None))
    np.testing.assert_allclose(jax.grad(itself)(params, batch)["w"], 0, atol=1e-5)


def test_hidden_states_of_tokens_that_count():
    student, teacher = jax.random.normal(jax.random.key(3), (2, 2, 4, 8))
    valid = jnp.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    total, weight = distil.cosine_states(student, teacher, valid)
    each = np.einsum("btd,btd->bt", student, teacher)
    each = 1 - each / np.linalg.norm(student, axis=-1) / np.linalg.norm(teacher, axis=-1)
    np.testing.assert_allclose([total, weight], [each[np.asarray(valid)].sum(), 5], rtol=1e-5)
    np.testing.assert_allclose(distil.cosine_states(3 * teacher, teacher, valid)[0], 0, atol=1e-5)
    total, weight = distil.squared_states(student, teacher, valid)
    each = np.square(student - teacher).mean(-1)
    np.testing.assert_allclose([total, weight], [each[np.asarray(valid)].sum(), 5], rtol=1e-5)
    narrow, projection = student[..., :4], jax.random.normal(jax.random.key(4), (4, 8))
    wide = distil.squared_states(narrow, teacher, valid, projection)
    np.testing.assert_allclose(wide, distil.squared_states(narrow @ projection, teacher, valid), rtol=1e-5)
