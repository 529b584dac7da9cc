"""The Transformer's block (Vaswani et al. 2017), of which GPT, Llama, BERT, ViT and the translator are made.

A block adds to its input x, one after the other, what each of its sub-layers f says, around a norm:

    pre-norm   x + f(norm(x))      GPT-2, Llama, ViT
    post-norm  norm(x + f(x))      Vaswani et al., BERT

The sub-layers are self-attention, attention to a memory (the decoder of a translator) and an MLP. What models differ in
is handed over as functions: the norm, the MLP, and `attend`, which knows who may look where, positions and caches.

B batch, T time, S time of the memory, D model, H heads, G groups of heads that share keys and values, R = H / G,
K head size, F feed-forward.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import gelu, linear, linear_params
from lmjax.nn.norm import layer_norm, layer_norm_params
from lmjax.nn.xla import by_rows


class Seen(NamedTuple):
    """What may be seen of a block: x [B,T,D] as it leaves the block, and its attention's weights float32 [B,H,T,T]."""

    x: Any
    weights: Any


def attention_params(D: int, H: int, first, last, *, groups: int = 0, bias=True):
    """Self-attention: of each group its R queries, its key and its value in one product, then the way out.

    first, last: initializers of the two. groups: G, 0: as many as heads (Vaswani et al. 2017); fewer are grouped-query
    attention (Ainslie et al. 2023).
    """
    G, K = groups or H, D // H
    return {
        "qkv": linear_params(D, (G, H // G + 2, K), ("embed", "heads", None, None), init=first, bias=bias),
        "out": linear_params((H, K), D, ("heads", None, "embed"), init=last, bias=bias),
    }


def memory_params(D: int, H: int, first, last, *, bias=True):
    """Attention to a memory: queries of x, keys and values of the memory."""
    K = D // H
    return {
        "query": linear_params(D, (H, K), ("embed", "heads", None), init=first, bias=bias),
        "memory": linear_params(D, (H, 2, K), ("embed", "heads", None, None), init=first, bias=bias),
        "read": linear_params((H, K), D, ("heads", None, "embed"), init=last, bias=bias),
    }


def mlp_params(D: int, F: int, first, last, *, bias=True):
    return {
        "up": linear_params(D, F, ("embed", "mlp"), init=first, bias=bias),
        "down": linear_params(F, D, ("mlp", "embed"), init=last, bias=bias),
    }


def swiglu_params(D: int, F: int, first, last, *, bias=True):
    gate = {"gate": linear_params(D, F, ("embed", "mlp"), init=first, bias=bias)}
    return mlp_params(D, F, first, last, bias=bias) | gate


def mlp(params, x, activation=gelu):
    """Two layers with a non-linearity between: x [...,D] -> [...,D] (Vaswani et al. 2017, eq. 2, there with ReLU)."""
    return linear(params["down"], activation(linear(params["up"], x)))


def swiglu(params, x):
    """silu(x W_gate) * (x W_up), times W_down: x [...,D] -> [...,D] (Shazeer 2020, eq. 6)."""
    return linear(params["down"], jax.nn.silu(linear(params["gate"], x)) * linear(params["up"], x))


def self_attention(params, x, attend: Callable):
    """x [B,T,D] -> ([B,T,D], what attend keeps). attend(q [B,T,H,K], k, v [B,T,G,K]) -> ([B,T,H,K], any value)."""
    qkv = linear(params["qkv"], x)
    R = qkv.shape[3] - 2
    q, k, v = jnp.split(qkv, (R, R + 1), axis=3)
    y, kept = attend(q.reshape(*q.shape[:2], -1, q.shape[-1]), k.squeeze(3), v.squeeze(3))
    return linear(params["out"], y, inputs=2), kept


def memory_keys(params, memory):
    """Keys and values [B,S,H,K] of a memory [B,S,D]: computed once, however long the answer."""
    k, v = jnp.split(linear(params["memory"], memory), 2, axis=3)
    return k.squeeze(3), v.squeeze(3)


def block(params, x, attend, read=None, *, norm=layer_norm, mlp=mlp, pre=True, rate=0.0, key=None):
    """x [B,T,D] -> ([B,T,D], what attend keeps).

    attend: see self_attention. read(q [B,T,H,K]) -> [B,T,H,K]: attention to a memory, of a block that has one.
    norm(params, x), mlp(params, x): functions. pre: where the norm stands. rate, key: dropout of what is added to x.
    """

    def add(name, number, x, f):
        y, kept = f(norm(params[name], x) if pre else x)
        x = by_rows(x + dropout(fold(key, number), by_rows(y), rate))
        return (x if pre else norm(params[name], x)), kept

    with jax.named_scope("attention"):
        x, kept = add("norm1", 1, x, lambda h: self_attention(params, h, attend))
    if read is not None:
        with jax.named_scope("memory"):
            x, _ = add("norm3", 3, x, lambda h: (linear(params["read"], read(linear(params["query"], h)), 2), None))
    with jax.named_scope("mlp"):
        x, _ = add("norm2", 2, x, lambda h: (mlp(params, h), None))
    return x, kept


def norms(D: int, *, memory=False, params=layer_norm_params):
    """Parameters of a block's norms, before or behind self-attention (1), the MLP (2) and the memory (3)."""
    names = ("norm1", "norm2", "norm3") if memory else ("norm1", "norm2")
    return {name: params(D) for name in names}
