"""The Transformer block, pre-norm (Vaswani et al. 2017; Radford et al. 2019).

B batch, T time, S time in the cache, D model, H heads, K head size, F feed-forward.
"""

import math

import jax
import jax.numpy as jnp

from lmjax.nn.attention import cached_attention, causal_attention, write_cache
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import gelu, linear, linear_params
from lmjax.nn.norm import layer_norm, layer_norm_params
from lmjax.param import normal


def block_params(config):
    """One block. Weights start at N(0, 0.02); the two that write to the residual stream at 0.02 / sqrt(2 L) (GPT-2)."""
    D, H, bias = config.dim, config.heads, config.bias
    K, F = D // H, 4 * D
    first, last = normal(0.02), normal(0.02 / math.sqrt(2 * config.layers))
    return {
        "norm1": layer_norm_params(D, bias=bias),
        "qkv": linear_params(D, (H, 3, K), ("embed", "heads", None, None), init=first, bias=bias),
        "out": linear_params((H, K), D, ("heads", None, "embed"), init=last, bias=bias),
        "norm2": layer_norm_params(D, bias=bias),
        "up": linear_params(D, F, ("embed", "mlp"), init=first, bias=bias),
        "down": linear_params(F, D, ("mlp", "embed"), init=last, bias=bias),
    }


def block(params, config, x, cache=None, mask=None, key=None):
    """x [B,T,D] -> [B,T,D]. With a cache (the slot to write from, {"k","v"} [B,H,S,K]) and a mask: (x, cache)."""
    with jax.named_scope("attention"):
        qkv = linear(params["qkv"], layer_norm(params["norm1"], x))
        q, k, v = (z.squeeze(3) for z in jnp.split(qkv, 3, axis=3))
        if cache is None:
            y = causal_attention(q, k, v, key=fold(key, 0), rate=config.dropout)
        else:
            slot, cache = cache
            cache = {name: write_cache(cache[name], new, slot) for name, new in (("k", k), ("v", v))}
            y = cached_attention(q, cache["k"], cache["v"], mask)
        x = x + dropout(fold(key, 1), linear(params["out"], y, inputs=2), config.dropout)
    with jax.named_scope("mlp"):
        y = gelu(linear(params["up"], layer_norm(params["norm2"], x)))
        x = x + dropout(fold(key, 2), linear(params["down"], y), config.dropout)
    return x if cache is None else (x, cache)
