"""GPT: a decoder-only Transformer language model (Radford et al. 2018, 2019), in nanoGPT's shape.

    h = tokens W_e + W_p;  h = block(h) for each layer;  P(next) = softmax(norm(h) W_e')

As GPT-2: norms before each sub-layer and one at the end, learned positions, the head tied to the embedding, GELU by its
tanh approximation (nanoGPT takes the exact one; GPT-2's weights were trained with this).

B batch, T time, S slots of the cache, D model, H heads, K head size, V vocabulary, L layers.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from lmjax.losses import cross_entropy
from lmjax.models.transformer import block, block_params
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import embedding
from lmjax.nn.norm import layer_norm, layer_norm_params
from lmjax.param import Param, normal, stack


def gpt_params(config):
    blocks = block_params(config)
    return {
        "embed": {"token": Param((config.vocab, config.dim), ("vocab", "embed"), normal(0.02)),
                  "position": Param((config.context, config.dim), (None, "embed"), normal(0.02))},
        "blocks": stack(blocks, config.layers) if config.scan else [block_params(config) for _ in range(config.layers)],
        "norm": layer_norm_params(config.dim, bias=config.bias),
    }  # fmt: skip


def gpt(params, config, tokens, *, cache=None, key=None):
    """Logits [B,T,V] for the token after each of `tokens` [B,T]; with a cache, (logits, cache). `key`: dropout."""
    x, cache = hidden(params, config, tokens, cache=cache, key=key)
    with jax.named_scope("head"):
        logits = x.reshape(-1, config.dim) @ params["embed"]["token"].T.astype(x.dtype)
        logits = logits.reshape(*tokens.shape, -1)
    return logits if cache is None else (logits, cache)


def gpt_loss(params, config, batch, key, carry):
    """Summed next-token cross entropy in nats: (sum, (weight, {}, carry)). `batch`: tokens, targets, weights [B,T]."""
    logits = gpt(params, config, batch["tokens"], key=key)
    with jax.named_scope("loss"):
        total, weight = cross_entropy(logits, batch["targets"], batch.get("weights"))
    return total, (weight, {}, carry)


def gpt_cache(config, batch: int, length: int):
    """An empty cache for `length` <= context tokens of each of `batch` rows.

    It holds keys and values [B,H,S,K] of each layer, which slots hold a token that counts [B,S], each row's next
    position [B], and the next slot to write (one for all rows).
    """
    shape = (batch, config.heads, length, config.dim // config.heads)
    layer = {"k": jnp.zeros(shape, config.dtype), "v": jnp.zeros(shape, config.dtype)}
    blocks = jax.tree.map(lambda x: jnp.stack([x] * config.layers), layer) if config.scan else [layer] * config.layers
    return {"blocks": blocks, "valid": jnp.zeros((batch, length), bool),
            "position": jnp.zeros(batch, jnp.int32), "slot": jnp.zeros((), jnp.int32)}  # fmt: skip


def grow_cache(cache, room: int):
    """`cache` with `room` empty slots more."""
    blocks = jax.tree.map(lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, room), (0, 0)]), cache["blocks"])
    return cache | {"blocks": blocks, "valid": jnp.pad(cache["valid"], ((0, 0), (0, room)))}


def hidden(params, config, tokens, *, cache=None, valid=None, key=None):
    """The normalised last layer [B,T,D], and the cache (None without one).

    `valid` bool [B,T] marks tokens that count, with a cache only: others (padding on either side) take no position and
    are seen by nobody.
    """
    T = tokens.shape[1]
    with jax.named_scope("embed"):
        if cache is None:
            mask, slot, positions = None, None, params["embed"]["position"][None, :T]
        else:
            valid = jnp.ones(tokens.shape, bool) if valid is None else valid
            slot = cache["slot"]
            seen = lax.dynamic_update_slice(cache["valid"], valid, (0, slot))
            order = jnp.arange(seen.shape[1])[None, :] <= slot + jnp.arange(T)[:, None]
            mask = seen[:, None, :] & order[None]
            at = cache["position"][:, None] + jnp.cumsum(valid, axis=1)
            positions = params["embed"]["position"][jnp.maximum(at - 1, 0)]
        x = embedding(params["embed"]["token"], tokens) + positions
        x = dropout(fold(key, "embed"), x, config.dropout).astype(config.dtype)
    run = partial(_remat_block if config.remat else block, config=config, mask=mask)
    x, blocks = _layers(run, params["blocks"], config, x, None if cache is None else (slot, cache["blocks"]), key)
    if cache is not None:
        cache = {"blocks": blocks, "valid": seen, "position": at[:, -1], "slot": slot + T}
    return layer_norm(params["norm"], x), cache


def _remat_block(params, config, x, cache=None, mask=None, key=None):
    return jax.checkpoint(partial(block, config=config))(params, x=x, cache=cache, mask=mask, key=key)


def _layers(run, params, config, x, cache, key):
    """Every block in turn: a loop, or a scan over stacked parameters and caches."""
    indices = jnp.arange(config.layers)
    if config.scan:

        def one(x, layer):
            i, p, c = layer
            y = run(p, x=x, cache=c and (cache[0], c), key=fold(key, "block", i))
            return y if c else (y, None)

        return lax.scan(one, x, (indices, params, cache and cache[1]))
    caches = []
    for i, p in enumerate(params):
        with jax.named_scope(f"block{i}"):
            y = run(p, x=x, cache=cache and (cache[0], cache[1][i]), key=fold(key, "block", i))
        x, c = y if cache else (y, None)
        caches.append(c)
    return x, caches
