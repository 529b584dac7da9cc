"""The relational memory core of Santoro et al. 2018, "Relational recurrent neural networks", arXiv:1806.01822.

A memory M of N rows attends over itself and the input, and lets each of its numbers change as far as gates say:

    M' = LN(M + attention(M, [M; x]));   M' = LN(M' + MLP(M'))
    i, f = W x + U tanh(M);   M <- sigmoid(i) tanh(M') + sigmoid(f + 1) M      a gate for each number

Departures, as in the authors' code: queries, keys and values are normalized together before the product, which is
divided by sqrt(3 S) in place of sqrt(S).

B rows of a batch, N rows of the memory, H heads of S numbers, D = H S.
"""

import jax
import jax.numpy as jnp

from lmjax.nn.linear import linear, linear_params
from lmjax.nn.norm import layer_norm, layer_norm_params, normalize
from lmjax.param import Param, ones, zeros


def memory_params(inputs: int, heads: int, size: int, init) -> dict:
    """Parameters of a memory on inputs of that width; `init(fan_in)` gives the weights' initializer."""
    D, square = heads * size, ("embed", "mlp")

    def gate():
        return linear_params(D, (2, D), ("embed", None, "mlp"), init=init(D), bias=False)

    return {
        "input": linear_params(inputs, D, square, init=init(inputs)),
        "qkv": linear_params(D, (heads, 3, size), ("embed", "heads", None, None), init=init(D), bias=False),
        "qkv_norm": {
            name: Param((heads, 3, size), ("heads", None, None), value) for name, value in
            (("scale", ones), ("bias", zeros))
        },
        "attended": layer_norm_params(D),
        "mlp": [linear_params(D, D, square, init=init(D)) for _ in range(2)],
        "thought": layer_norm_params(D),
        "gate_input": gate(),
        "gate_memory": gate(),
    }  # fmt: skip


def initial_memory(batch: int, slots: int, width: int):
    """[B,N,D]: the identity, so that no two rows are alike."""
    return jnp.broadcast_to(jnp.eye(slots, width)[None], (batch, slots, width))


def memory_step(params, x, memory):
    """The memory [B,N,D] after the input x [B,E]."""
    with jax.named_scope("attention"):
        x = linear(params["input"], x)[:, None]
        seen = attended(params, memory, jnp.concatenate([memory, x], axis=1))
        new = layer_norm(params["attended"], memory + seen)
    with jax.named_scope("mlp"):
        first, second = params["mlp"]
        new = layer_norm(params["thought"], new + linear(second, jax.nn.relu(linear(first, new))))
    with jax.named_scope("gates"):
        gates = linear(params["gate_input"], x) + linear(params["gate_memory"], jnp.tanh(memory))  # [B,N,2,D]
        i, f = jax.nn.sigmoid(gates[:, :, 0]), jax.nn.sigmoid(gates[:, :, 1] + 1)
    return i * jnp.tanh(new) + f * memory


def attended(params, memory, rows):
    """What the rows of the memory [B,N,D] read of `rows` [B,N+1,D], of which they are the first: [B,N,D]."""
    B, N, _ = memory.shape
    _, H, _, S = params["qkv"]["w"].shape
    qkv = normalize(linear(params["qkv"], rows).reshape(B, N + 1, -1), 1e-5).reshape(B, N + 1, H, 3, S)
    qkv = qkv * params["qkv_norm"]["scale"][None, None] + params["qkv_norm"]["bias"][None, None]
    q, k, v = qkv[:, :N, :, 0], qkv[:, :, :, 1], qkv[:, :, :, 2]
    weights = jax.nn.softmax(jnp.einsum("bnhs,bmhs->bhnm", q, k) / (3 * S) ** 0.5)
    return jnp.einsum("bhnm,bmhs->bnhs", weights, v).reshape(B, N, H * S)
