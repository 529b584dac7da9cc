"""Small classifiers of images: perceptrons of rectified linear units, and LeNet-5 (LeCun et al. 1998) as Caffe has it.

LeNet-300-100 is a perceptron of those two layers. LeNet-5: 20 and 50 maps of 5 x 5 pixels without margins, each
followed by the maximum of 2 x 2 pixels, and 500 rectified units. Pixels from -1 to 1 are read from 0 to 1, so that
paper is 0.

B batch, Y, X rows and columns, C channels, K classes.
"""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp

from lmjax.errors import UserError
from lmjax.nn.conv import conv, conv_params
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import linear, linear_params
from lmjax.param import normal


def network(kind: str, config, pictures):
    """(specs, logits(params, images, key=None)) of a "perceptron" or a "lenet5" for a data.images.Images.

    config: a Perceptron; of LeNet-5 its dropout alone. UserError where LeNet-5 does not take their size.
    """
    y, x, channels = pictures.train.pixels.shape[1:]
    if kind == "perceptron":
        specs = perceptron_params(config, y * x * channels, pictures.classes)
        return specs, lambda params, images, key=None: perceptron(params, config, images, key)
    if y != x or y < 12 or y % 4:
        raise UserError(f"{pictures.name} has images of {y} x {x} pixels: LeNet-5 takes squares of 12, 16, 20, ...")
    specs = lenet5_params(y, channels, pictures.classes)
    return specs, lambda params, images, key=None: lenet5(params, images, key, config.dropout)


def perceptron_params(config, inputs: int, classes: int):
    """For images of `inputs` numbers; config: a Perceptron. Weights keep the variance of ReLUs (He et al. 2015)."""
    sizes = (inputs, *config.hidden, classes)
    return {"layers": [layer_params(a, b) for a, b in pairwise(sizes)]}


def layer_params(inputs: int, outputs: int):
    return linear_params(inputs, outputs, ("embed", "mlp"), init=normal(math.sqrt(2 / inputs)))


def perceptron(params, config, images, key=None):
    """Logits float32 [B,K] of images [B,Y,X,C]. key: dropout of the pixels and of the units."""
    x = (images.reshape(len(images), -1) + 1) / 2
    for i, layer in enumerate(params["layers"]):
        x = dropout(fold(key, i), jax.nn.relu(x) if i else x, config.dropout if i else config.dropout_input)
        x = linear(layer, x)
    return x.astype(jnp.float32)


def lenet5_params(size: int, channels: int, classes: int):
    """For images of `size` x `size` pixels, 12 or more and 4 times a number: 431,080 parameters for MNIST's."""
    side = ((size - 4) // 2 - 4) // 2
    return {
        "in": conv_params(5, channels, 20),
        "maps": conv_params(5, 20, 50),
        "layers": [layer_params(50 * side**2, 500), layer_params(500, classes)],
    }


def lenet5(params, images, key=None, rate=0.0):
    """Logits float32 [B,K] of images [B,Y,X,C]. key: dropout of the 500 units at `rate`."""
    x = (images + 1) / 2
    for name in ("in", "maps"):
        x = largest(conv(params[name], x)[:, 2:-2, 2:-2])
    x = x.reshape(len(x), -1)
    x = dropout(fold(key, "units"), jax.nn.relu(linear(params["layers"][0], x)), rate)
    return linear(params["layers"][1], x).astype(jnp.float32)


def largest(x):
    """The largest of each 2 x 2 pixels: [B,Y,X,C] -> [B,Y/2,X/2,C]."""
    B, Y, X, C = x.shape
    return x.reshape(B, Y // 2, 2, X // 2, 2, C).max((2, 4))
