"""A classifier that reads a text with LSTMs, from its beginning or from both ends, and decides on what they say.

    h_1 ... h_T of each layer; then the last states, the mean or the largest of each cell over the text; then a softmax

Dropout is Gal & Ghahramani 2016's: one mask for all words of a text, on word vectors, between the layers and on the
state that a layer hands to itself. Pooling by the maximum is Lai et al. 2015's and Conneau et al. 2017's.

B batch, T time, E embedding, H cells each way, K classes.
"""

import jax
import jax.numpy as jnp

from lmjax.losses import choice
from lmjax.nn.dropout import dropout, dropout_mask, fold, never
from lmjax.nn.linear import embedding, linear, linear_params
from lmjax.nn.recurrent import bilstm_layer, bilstm_layer_params, lstm_layer, lstm_layer_params
from lmjax.param import Param, uniform, zeros


def bilstm_params(config, classes: int):
    H, width, layers = config.dim, config.embed, []
    weights = uniform(H**-0.5)
    for _ in range(config.layers):
        make = bilstm_layer_params if config.both else lstm_layer_params
        layers.append(make(width, H, weights, zeros))
        width = 2 * H if config.both else H
    return {
        "embed": Param((config.vocab, config.embed), ("vocab", "embed"), uniform(config.init_words)),
        "layers": layers,
        "classify": linear_params(width, classes, ("embed", None), init=uniform(width**-0.5)),
    }


def bilstm(params, config, batch, key=None):
    """Logits float32 [B,K]. `batch`: tokens int [B,T], valid bool [B,T], each row's words first; key: dropout."""
    with jax.named_scope("classify"):
        return linear(params["classify"], pooled(params, config, batch, key)).astype(jnp.float32)


def pooled(params, config, batch, key=None):
    """What `bilstm` decides on, [B,H or 2H]."""
    lengths = jnp.maximum(batch["valid"].sum(1), 1)
    x = embedding(params["embed"], batch["tokens"].T).astype(config.dtype)  # [T,B,E]
    for i, layer in enumerate(params["layers"]):
        with jax.named_scope(f"layer{i}"):
            x, last = read(layer, config, x, lengths, fold(key, "layer", i))
    with jax.named_scope("pool"):
        counts = (jnp.arange(x.shape[0])[:, None] < lengths[None])[:, :, None]
        if config.pool == "mean":
            said = jnp.where(counts, x, 0).sum(0) / lengths[:, None].astype(x.dtype)
        elif config.pool == "max":
            said = jnp.where(counts, x, -jnp.inf).max(0)
        else:
            said = last.astype(x.dtype)
        return dropout(fold(key, "said"), said, config.dropout)


def read(params, config, x, lengths, key):
    """A layer over x [T,B,E]: what it says at every step [T,B,H or 2H], and at the last [B,H or 2H]."""
    B, H = x.shape[1], config.dim

    def mask(name, rate, width):
        return None if never(key, rate) else dropout_mask(fold(key, name), rate, (B, 1, width), x.dtype)

    inputs = mask("input", config.dropout, x.shape[-1])
    inputs = None if inputs is None else inputs[None]
    hidden = [mask(way, config.dropout_recurrent, H) for way in ("forward", "backward")]
    if config.both:
        return bilstm_layer(params, x, lengths, input_mask=inputs, hidden_masks=hidden)
    zero = jnp.zeros((B, H), jnp.float32)
    every, (last, _) = lstm_layer(
        params, x, (zero, zero), input_mask=inputs, hidden_mask=hidden[0], lengths=lengths
    )
    return every, last


def bilstm_loss(params, config, batch, key, carry):
    """`batch`: as of `bilstm`, labels int [B], and weights [B] where some rows count less."""
    return choice(bilstm(params, config, batch, key), batch["labels"], batch.get("weights"), carry)
