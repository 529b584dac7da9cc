"""ViT: a Transformer encoder over the patches of an image (Dosovitskiy et al. 2021).

    z_0 = [class; patches E] + E_pos                     eq. 1
    z   = block(z) for each layer, pre-norm, GELU        eq. 2, 3
    y   = norm(z)[class]; logits = y W + b               eq. 4

As in the published weights: exact GELU and biases everywhere. Departure, section 3.1: pre-training there puts a hidden
layer with tanh in front of the logits; here the head is the one linear layer that fine-tuning has.

B batch, Y X rows and columns of pixels, C channels, P patch size, N patches, D model, H heads, K head size, L layers.
"""

from functools import partial

import jax
import jax.numpy as jnp

from lmjax.errors import UserError
from lmjax.losses import choice
from lmjax.models.transformer import Seen, attention_params, block, mlp, mlp_params, norms
from lmjax.nn.attention import attention, attention_weights
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import exact_gelu, linear, linear_params
from lmjax.nn.norm import layer_norm, layer_norm_params
from lmjax.nn.xla import by_rows
from lmjax.param import Param, normal, zeros


def vit_params(config):
    """Linear layers start at variance 1 / fan-in, the class token at N(0, 0.02), the head at zero, positions at
    N(0, 0.5), as large as what pixels from -1 to 1 give: from the paper's 0.02 small data finds the places late (the
    digits of experiments/vit.py: 94 % of the validation images after 60 epochs, against 99 %)."""
    D, P = config.dim, config.patch
    return {
        "embed": {
            "patch": linear_params((P, P, config.channels), D, (None, None, None, "embed")),
            "class": Param((D,), ("embed",), normal(0.02)),
            "position": Param((1 + (config.size // P) ** 2, D), (None, "embed"), normal(0.5)),
        },
        "blocks": [block_params(config) for _ in range(config.layers)],
        "norm": layer_norm_params(D),
        "head": linear_params(D, config.classes, ("embed", "vocab"), init=zeros),
    }


def block_params(config):
    D, F = config.dim, config.hidden or 4 * config.dim
    return {**norms(D), **attention_params(D, config.heads, None, None), **mlp_params(D, F, None, None)}


def vit(params, config, images, *, key=None):
    """Logits [B,classes] of float images [B,Y,X,C], Y = X = config.size. `key`: dropout. UserError for other sizes."""
    x = hidden(params, config, images, key=key)
    with jax.named_scope("head"):
        return linear(params["head"], x[:, 0])


def vit_loss(params, config, batch, key, carry):
    """Summed cross entropy in nats: (sum, (weight, {"accuracy": summed}, carry)).

    `batch`: images [B,Y,X,C], labels int [B], and weights [B] where some images count less.
    """
    logits = vit(params, config, batch["images"], key=key)
    with jax.named_scope("loss"):
        return choice(logits, batch["labels"], batch.get("weights"), carry)


def hidden(params, config, images, *, key=None, look=False):
    """The normalised last layer [B,1+N,D], the class token first; with `look` (that, a transformer.Seen of each
    block)."""
    rate = config.dropout
    with jax.named_scope("embed"):
        x = linear(params["embed"]["patch"], patches(images, config), inputs=3)
        first = jnp.broadcast_to(params["embed"]["class"][None, None].astype(x.dtype), (x.shape[0], 1, config.dim))
        x = jnp.concatenate([first, x], axis=1) + params["embed"]["position"][None].astype(x.dtype)
        x = by_rows(dropout(fold(key, "embed"), x, rate))
    norm, seen = partial(layer_norm, epsilon=config.epsilon), []

    def attend(q, k, v, key):
        return attention(q, k, v, None, key=fold(key, 0), rate=rate), attention_weights(q, k) if look else None

    for i, p in enumerate(params["blocks"]):
        with jax.named_scope(f"block{i}"):
            now = fold(key, "block", i)
            x, weights = block(
                p, x, partial(attend, key=now), norm=norm, mlp=partial(mlp, activation=exact_gelu), rate=rate, key=now
            )
        seen.append(Seen(x, weights))
    x = norm(params["norm"], x)
    return (x, seen) if look else x


def patches(images, config):
    """float images [B,Y,X,C] -> patches [B,N,P,P,C], row by row, in the config's dtype."""
    B, Y, X, C = images.shape
    if images.shape[1:] != (config.size, config.size, config.channels):
        raise UserError(
            f"images of {Y} x {X} pixels and {C} channels: expected {config.size} x {config.size} and "
            f"{config.channels}; set model.size and model.channels to the data's"
        )
    P = config.patch
    x = images.astype(config.dtype).reshape(B, Y // P, P, X // P, P, C)
    return x.swapaxes(2, 3).reshape(B, -1, P, P, C)
