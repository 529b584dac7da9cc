"""A small convolutional classifier of images, whose last features serve to judge made ones.

Two convolutions of 4 x 4 pixels with stride 2, a layer of D features, and a softmax; ReLUs between them.
"""

import jax
import jax.numpy as jnp

from lmjax.losses import choice
from lmjax.nn.conv import conv, conv_params
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import linear, linear_params
from lmjax.param import normal


def convnet_params(size: int, channels: int, classes: int, width: int = 32, features: int = 64):
    """For images [B,size,size,channels], size a multiple of 4."""
    S = size // 4
    return {
        "in": conv_params(4, channels, width),
        "down": conv_params(4, width, 2 * width),
        "features": linear_params(
            (S, S, 2 * width), features, (None, None, "embed", "mlp"), init=normal((S * S * width) ** -0.5)
        ),
        "classify": linear_params(features, classes, ("embed", None)),
    }


def convnet(params, images, key=None, rate: float = 0.5):
    """images [B,Y,X,C] -> (logits [B,K], features [B,D]). key: dropout of the features at `rate`."""
    x = jax.nn.relu(conv(params["in"], images, 2))
    x = jax.nn.relu(conv(params["down"], x, 2))
    features = jax.nn.relu(linear(params["features"], x, inputs=3))
    logits = linear(params["classify"], dropout(fold(key, "features"), features, rate))
    return logits.astype(jnp.float32), features


def seen(params, images):
    """(probabilities [B,K], features [B,D]) of images [B,Y,X,C]; of a classifier of grey images, each channel is an
    image of its own: [B,K^C] of the channels' classes together, [B,C D]."""
    if params["in"]["w"].shape[2] == images.shape[-1]:
        logits, features = convnet(params, images)
        return jax.nn.softmax(logits), features
    logits, features = zip(*(convnet(params, channel[..., None]) for channel in jnp.moveaxis(images, -1, 0)))
    together = jnp.ones((len(images), 1))
    for part in logits:
        together = (together[:, :, None] * jax.nn.softmax(part)[:, None]).reshape(len(images), -1)
    return together, jnp.concatenate(features, axis=-1)


def convnet_loss(params, batch, key, carry):
    """batch: images, labels int [B], weights [B] where some count less."""
    return choice(convnet(params, batch["images"], key)[0], batch["labels"], batch.get("weights"), carry)
