"""The small classifier that judges made images."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmjax import param
from lmjax.models import convnet


def drawn(size=8, channels=1, classes=4):
    return param.init(convnet.convnet_params(size, channels, classes, width=4, features=6), jax.random.key(0))


def test_it_learns_a_batch():
    params = drawn()
    batch = {"images": jax.random.normal(jax.random.key(1), (32, 8, 8, 1)), "labels": jnp.arange(32) % 4}
    tx = optax.adam(3e-3)

    @jax.jit
    def step(carry, _):
        params, opt = carry
        (total, (weight, metrics, _)), gradient = jax.value_and_grad(convnet.convnet_loss, has_aux=True)(
            params, batch, None, ()
        )
        updates, opt = tx.update(jax.tree.map(lambda g: g / weight, gradient), opt, params)
        return (optax.apply_updates(params, updates), opt), (total / weight, metrics["accuracy"] / weight)

    _, (losses, accuracy) = jax.lax.scan(step, (params, tx.init(params)), None, 300)
    assert losses[0] > 1.0
    assert losses[-1] < 0.1
    assert accuracy[-1] == 1


def test_stacked_images_are_seen_a_channel_at_a_time():
    params, images = drawn(), jax.random.normal(jax.random.key(1), (5, 8, 8, 3))
    alone = [convnet.seen(params, images[..., i : i + 1]) for i in range(3)]
    together, features = convnet.seen(params, images)
    assert together.shape == (5, 64)
    np.testing.assert_allclose(together.sum(1), 1, rtol=1e-5)
    expected = alone[0][0][:, 1] * alone[1][0][:, 2] * alone[2][0][:, 3]  # class 4 (4 1 + 2) + 3
    np.testing.assert_allclose(together[:, 27], expected, rtol=1e-5)
    np.testing.assert_allclose(features, jnp.concatenate([part[1] for part in alone], -1), rtol=1e-6)


def test_images_in_colour_are_seen_whole():
    params, images = drawn(channels=3), jax.random.normal(jax.random.key(1), (5, 8, 8, 3))
    probabilities, features = convnet.seen(params, images)
    assert probabilities.shape == (5, 4)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(convnet.convnet(params, images)[0]), rtol=1e-6)
    assert features.shape == (5, 6)
