"""The convolutional network for sentences of Kim 2014, "Convolutional Neural Networks for Sentence Classification".

    c_t = relu(W [x_t; ...; x_{t+n-1}] + b)     every window of n words, for each n of the config (eq. 2)
    c = max_t c_t                               (section 2); then dropout and a softmax over all maps

Windows may hang over a sentence's ends into zeros, as in the paper's code, but each holds a word of the sentence: what
stands behind it changes nothing.

B batch, T time, E embedding, M maps a window, K classes.
"""

import jax
import jax.numpy as jnp

from lmjax.losses import choice
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import embedding, linear, linear_params
from lmjax.param import Param, normal, uniform, zeros


def cnn_params(config, classes: int):
    E, M = config.embed, config.maps
    total = M * len(config.windows)
    return {
        "embed": Param((config.vocab, E), ("vocab", "embed"), uniform(config.init_words)),
        "windows": {str(n): window_params(n, E, M) for n in config.windows},
        "classify": linear_params(total, classes, ("embed", None), init=normal(0.01)),
    }


def window_params(n: int, embed: int, maps: int):
    bound = (6 / (n * embed + n * maps)) ** 0.5  # Glorot & Bengio 2010, as in the paper's code
    return {"w": Param((n, embed, maps), (None, "embed", "mlp"), uniform(bound)), "b": Param((maps,), ("mlp",), zeros)}


def cnn(params, config, batch, key=None):
    """Logits float32 [B,K]. `batch`: tokens int [B,T], valid bool [B,T]; key: dropout."""
    with jax.named_scope("classify"):
        return linear(params["classify"], pooled(params, config, batch, key)).astype(jnp.float32)


def pooled(params, config, batch, key=None):
    """What `cnn` decides on, [B, M windows]."""
    with jax.named_scope("embed"):
        x = embedding(params["embed"], batch["tokens"]) * batch["valid"][:, :, None]
        x = x.astype(config.dtype)
    with jax.named_scope("windows"):
        maps = [window(params["windows"][str(n)], x, batch["valid"]) for n in config.windows]
    return dropout(fold(key, "maps"), jnp.concatenate(maps, axis=-1), config.dropout)


def window(params, x, valid):
    """The largest response of each map [B,M] over the windows of `x` [B,T,E] that hold a word."""
    n, _, M = params["w"].shape
    w = params["w"].astype(x.dtype)
    # One product for every place in every position of a window, then sums along its diagonals: nothing is unfolded.
    z = (x.reshape(-1, x.shape[-1]) @ w.swapaxes(0, 1).reshape(-1, n * M)).reshape(*x.shape[:2], n, M)
    responses = sum(jnp.pad(z[:, :, j], ((0, 0), (n - 1 - j, j), (0, 0))) for j in range(n))  # [B,T+n-1,M]
    counts = sum(jnp.pad(valid, ((0, 0), (n - 1 - j, j))) for j in range(n)) > 0
    best = jnp.where(counts[:, :, None], responses, -jnp.inf).max(axis=1)
    return jax.nn.relu(best + params["b"].astype(x.dtype)[None])


def cnn_loss(params, config, batch, key, carry):
    """`batch`: as of `cnn`, labels int [B], and weights [B] where some rows count less."""
    return choice(cnn(params, config, batch, key), batch["labels"], batch.get("weights"), carry)
