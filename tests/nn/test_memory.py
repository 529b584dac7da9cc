"""The relational memory core, written out once more with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import param
from lmjax.nn.memory import initial_memory, memory_params, memory_step
from lmjax.param import normal

H, S, E = 2, 3, 5


def drawn():
    params = param.init(memory_params(E, H, S, lambda fan_in: normal(0.7)), jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    noise = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, noise, strict=True)])


def plain_step(params, x, memory):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def layer(q, x):
        return norm(x) * q["scale"] + q["bias"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    out = []
    for now, old in zip(np.asarray(x, np.float64), np.asarray(memory, np.float64), strict=True):
        x = now @ p["input"]["w"] + p["input"]["b"]
        rows = np.vstack([old, x])
        scale = {name: v.reshape(-1) for name, v in p["qkv_norm"].items()}
        qkv = layer(scale, rows @ p["qkv"]["w"].reshape(H * S, -1)).reshape(-1, H, 3, S)
        seen = np.zeros_like(rows)
        for h in range(H):
            q, k, v = (qkv[:, h, i] for i in range(3))
            weights = np.exp(q @ k.T / np.sqrt(3 * S))
            seen[:, h * S : (h + 1) * S] = weights / weights.sum(1, keepdims=True) @ v
        new = layer(p["attended"], rows + seen)
        first, second = p["mlp"]
        thought = np.maximum(new @ first["w"] + first["b"], 0) @ second["w"] + second["b"]
        new = layer(p["thought"], new + thought)[:-1]
        gates = [x @ p["gate_input"]["w"][:, i] + np.tanh(old) @ p["gate_memory"]["w"][:, i] for i in range(2)]
        out.append(sigmoid(gates[0]) * np.tanh(new) + sigmoid(gates[1] + 1) * old)
    return np.array(out)


@pytest.mark.parametrize("slots", [1, 4])
def test_a_step_is_the_papers(slots):
    params, step = drawn(), jax.jit(memory_step)
    memory = initial_memory(2, slots, H * S)
    for i in range(3):
        x = jax.random.normal(jax.random.key(i), (2, E))
        expected = plain_step(params, x, memory)
        memory = step(params, x, memory)
        np.testing.assert_allclose(memory, expected, atol=1e-5)


def test_it_begins_with_rows_that_differ():
    memory = initial_memory(3, 4, 6)
    assert memory.shape == (3, 4, 6)
    assert len(np.unique(memory[0], axis=0)) == 4
    assert initial_memory(1, 4, 2).shape == (1, 4, 2)


def test_what_a_row_does_depends_on_the_others():
    params = drawn()
    memory = jax.random.normal(jax.random.key(2), (1, 3, H * S))
    one = memory_step(params, jnp.ones((1, E)), memory)
    two = memory_step(params, jnp.ones((1, E)), memory.at[0, 2].add(1.0))
    assert np.abs(one[0, 0] - two[0, 0]).max() > 1e-4
