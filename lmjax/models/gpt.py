"""GPT: a decoder-only Transformer language model (Radford et al. 2018, 2019; Touvron et al. 2023).

    h = tokens W_e + W_p;  h = block(h) for each layer;  P(next) = softmax(norm(h) W_e')

By default as GPT-2: norms before each sub-layer and one at the end, learned positions, the head tied to the embedding,
GELU by its tanh approximation (nanoGPT takes the exact one; GPT-2's weights were trained with this). A config's
`positions`, `norm`, `activation`, `groups` and `tied` choose other parts; LLAMA is the choice that the Llama family
made.

B batch, T time, S slots of the cache, D model, H heads, G groups of heads, K head size, V vocabulary, L layers.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from lmjax.losses import cross_entropy
from lmjax.models.transformer import Seen, attention_params, block, mlp, mlp_params, norms, swiglu, swiglu_params
from lmjax.nn.attention import attention_weights, cached_attention, causal_attention, causal_mask, write_cache
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import embedding
from lmjax.nn.norm import layer_norm, layer_norm_params, rms_norm, rms_norm_params
from lmjax.nn.positions import rotate, sinusoids
from lmjax.nn.xla import by_rows
from lmjax.param import Param, normal, stack

LLAMA = {"positions": "rotary", "norm": "rms", "activation": "swiglu", "tied": False, "bias": False}


def gpt_params(config):
    V, D = config.vocab, config.dim
    embed = {"token": Param((V, D), ("vocab", "embed"), normal(0.02))}
    if config.positions == "learned":
        embed["position"] = Param((config.context, D), (None, "embed"), normal(0.02))
    blocks = [block_params(config) for _ in range(config.layers)]
    params = {"embed": embed, "blocks": stack(blocks[0], config.layers) if config.scan else blocks,
              "norm": norm_params(config)(D)}  # fmt: skip
    return params if config.tied else params | {"head": Param((V, D), ("vocab", "embed"), normal(0.02))}


def block_params(config):
    """One block. Weights start at N(0, 0.02); the two that write to the residual stream at 0.02 / sqrt(2 L) (GPT-2)."""
    D, F = config.dim, config.hidden or 4 * config.dim
    first, last = normal(0.02), normal(0.02 / math.sqrt(2 * config.layers))
    middle = swiglu_params if config.activation == "swiglu" else mlp_params
    return {
        **norms(D, params=norm_params(config)),
        **attention_params(D, config.heads, first, last, groups=config.groups, bias=config.bias),
        **middle(D, F, first, last, bias=config.bias),
    }


def norm_params(config):
    return rms_norm_params if config.norm == "rms" else partial(layer_norm_params, bias=config.bias)


def norm(config):
    return partial(rms_norm if config.norm == "rms" else layer_norm, epsilon=config.epsilon)


def gpt(params, config, tokens, *, cache=None, key=None):
    """Logits [B,T,V] for the token after each of `tokens` [B,T]; with a cache, (logits, cache). `key`: dropout."""
    x, cache = hidden(params, config, tokens, cache=cache, key=key)
    with jax.named_scope("head"):
        logits = x.reshape(-1, config.dim) @ head(params).T.astype(x.dtype)
        logits = logits.reshape(*tokens.shape, -1)
    return logits if cache is None else (logits, cache)


def head(params):
    """What the last layer is multiplied with, [V,D]."""
    return params["head"] if "head" in params else params["embed"]["token"]


def gpt_loss(params, config, batch, key, carry):
    """Summed next-token cross entropy in nats: (sum, (weight, {}, carry)). `batch`: tokens, targets, weights [B,T]."""
    logits = gpt(params, config, batch["tokens"], key=key)
    with jax.named_scope("loss"):
        total, weight = cross_entropy(logits, batch["targets"], batch.get("weights"))
    return total, (weight, {}, carry)


def gpt_cache(config, batch: int, length: int, *, apart=False):
    """An empty cache for `length` <= context tokens of each of `batch` rows.

    It holds keys and values [B,G,S,K] of each layer, which slots hold a token that counts [B,S], each row's next
    position [B], and the next slot to write: one for all rows, or [B] where rows are to come and go `apart`.
    """
    shape = (batch, config.groups or config.heads, length, config.dim // config.heads)
    layer = {"k": jnp.zeros(shape, config.dtype), "v": jnp.zeros(shape, config.dtype)}
    blocks = jax.tree.map(lambda x: jnp.stack([x] * config.layers), layer) if config.scan else [layer] * config.layers
    return {"blocks": blocks, "valid": jnp.zeros((batch, length), bool),
            "position": jnp.zeros(batch, jnp.int32), "slot": jnp.zeros(batch if apart else (), jnp.int32)}  # fmt: skip


def grow_cache(cache, room: int):
    """`cache` with `room` empty slots more."""
    blocks = jax.tree.map(lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, room), (0, 0)]), cache["blocks"])
    return cache | {"blocks": blocks, "valid": jnp.pad(cache["valid"], ((0, 0), (0, room)))}


def hidden(params, config, tokens, *, cache=None, valid=None, key=None, look=False):
    """The normalised last layer [B,T,D], and the cache (None without one).

    With `look`, and no cache, a transformer.Seen of each block in the cache's place; their x are not normalised.

    `valid` bool [B,T] marks tokens that count, with a cache only: others (padding on either side) take no position and
    are seen by nobody.
    """
    T = tokens.shape[1]
    with jax.named_scope("embed"):
        if cache is None:
            seen = mask = slot = None
            positions = jnp.arange(T)[None]
        else:
            valid = jnp.ones(tokens.shape, bool) if valid is None else valid
            slot = cache["slot"]
            seen = write_cache(cache["valid"][:, None, :, None], valid[..., None, None], slot)[:, 0, :, 0]
            order = jnp.arange(seen.shape[1])[None, None, :] <= slot.reshape(-1, 1, 1) + jnp.arange(T)[None, :, None]
            mask = seen[:, None, :] & order
            ends = cache["position"][:, None] + jnp.cumsum(valid, axis=1)
            positions = jnp.maximum(ends - 1, 0)
        x = embedding(params["embed"]["token"], tokens)
        if config.positions == "learned":
            x = x + (params["embed"]["position"][None, :T] if cache is None else params["embed"]["position"][positions])
        elif config.positions == "sinusoidal":
            x = x + sinusoids(positions, config.dim)
        x = by_rows(dropout(fold(key, "embed"), x, config.dropout).astype(config.dtype))

    def attend(q, k, v, cache, key):
        if config.positions == "rotary":
            q, k = (rotate(z, positions, config.rotary_base) for z in (q, k))
        if cache is None:
            weights = attention_weights(q, k, causal_mask(T)[None, None]) if look else None
            return causal_attention(q, k, v, key=fold(key, 0), rate=config.dropout), weights
        cache = {name: write_cache(cache[name], new, slot) for name, new in (("k", k), ("v", v))}
        return cached_attention(q, cache["k"], cache["v"], mask), cache

    middle = swiglu if config.activation == "swiglu" else mlp

    def run(params, x, cache, key):
        x, kept = block(
            params, x, lambda q, k, v: attend(q, k, v, cache, key),
            norm=norm(config), mlp=middle, rate=config.dropout, key=key,
        )  # fmt: skip
        return x, Seen(x, kept) if look else kept

    run = jax.checkpoint(run) if config.remat else run
    x, blocks = _layers(run, params["blocks"], config, x, None if cache is None else cache["blocks"], key)
    if cache is not None:
        cache = {"blocks": blocks, "valid": seen, "position": ends[:, -1], "slot": slot + T}
    return norm(config)(params["norm"], x), blocks if look else cache


def _layers(run, params, config, x, caches, key):
    """Every block in turn, (x, caches): a loop, or a scan over stacked parameters and caches."""
    if config.scan:

        def one(x, layer):
            i, p, cache = layer
            return run(p, x, cache, fold(key, "block", i))

        return lax.scan(one, x, (jnp.arange(config.layers), params, caches))
    kept = []
    for i, p in enumerate(params):
        with jax.named_scope(f"block{i}"):
            x, cache = run(p, x, caches and caches[i], fold(key, "block", i))
        kept.append(cache)
    return x, kept
