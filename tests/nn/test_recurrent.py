"""The LSTM layer against flax's cell, and its backward pass by hand against autodiff and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.test_util import check_grads

from lmjax import param
from lmjax.nn import recurrent
from lmjax.nn.recurrent import lstm_layer_params

T, B, D, H = 7, 3, 5, 4
lstm_layer = jax.jit(recurrent.lstm_layer)


def example(seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    params = param.init(lstm_layer_params(D, H, param.normal(0.5), param.normal(0.5)), keys[0])
    carry = (jax.random.normal(keys[1], (B, H)), jax.random.normal(keys[2], (B, H)))
    return params, jax.random.normal(keys[3], (T, B, D)), carry


def mask(seed, *shape):
    return 2.0 * jax.random.bernoulli(jax.random.key(seed), 0.5, shape)


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **({"rtol": 1e-4, "atol": 1e-5} | tolerance)), a, b)


@pytest.mark.parametrize("cell", [linen.LSTMCell, linen.OptimizedLSTMCell])
def test_same_weights_same_numbers_as_flax(cell):
    params, x, (h, c) = example()
    named = {}
    for n, gate in enumerate("ifgo"):
        named[f"i{gate}"] = {"kernel": params["w"][:, n]}
        named[f"h{gate}"] = {"kernel": params["u"][:, n], "bias": params["b"][n]}
    layer = linen.RNN(cell(H), time_major=True, return_carry=True)
    (c_, h_), y_ = jax.jit(layer.apply)({"params": {"cell": named}}, x, initial_carry=(c, h))
    y, (h, c) = lstm_layer(params, x, (h, c))
    close((y, h, c), (y_, h_, c_))


@pytest.mark.parametrize("masks", [None, 1, 4])
def test_backward_by_hand_is_autodiff(masks):
    keys = jax.random.split(jax.random.key(1), 6)
    shapes = [(T, B, 4, H), (H, 4, H), (B, H), (B, H)]
    inputs = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)]
    factors = None if masks is None else mask(2, B, masks, H)
    gradients = (jax.random.normal(keys[4], (T, B, H)), jax.random.normal(keys[5], (T, B, H)))

    @jax.jit
    def pulled(inputs):
        by_hand, pull = jax.vjp(lambda *a: recurrent._recurrence(*a, factors), *inputs)
        autodiff, pull_ = jax.vjp(lambda *a: recurrent._forward(*a, factors)[:2], *inputs)
        return (by_hand, pull(gradients)), (autodiff, pull_(gradients))

    close(*pulled(inputs))


def test_finite_differences():
    params, x, carry = example()

    def f(params, x, carry):
        return lstm_layer(params, x, carry, input_mask=mask(3, 1, B, 4, D), hidden_mask=mask(4, B, 4, H))

    check_grads(f, (params, x, carry), order=1, modes=("rev",), rtol=2e-2, atol=2e-2)


def test_each_gate_sees_its_own_mask():
    params, x, carry = example()
    tied_input, tied_hidden = mask(5, 1, B, 1, D), mask(6, B, 1, H)
    tied = lstm_layer(params, x, carry, input_mask=tied_input, hidden_mask=tied_hidden)
    spread = {"input_mask": jnp.repeat(tied_input, 4, 2), "hidden_mask": jnp.repeat(tied_hidden, 4, 1)}
    close(lstm_layer(params, x, carry, **spread), tied)
    # The output gate's mask alone changes h_1 but not c_1; the others' change c_1.
    for gate, changes_cell in enumerate([True, True, True, False]):
        other = spread["input_mask"].at[:, :, gate].set(0.0)
        _, (h, c) = lstm_layer(params, x[:1], carry, input_mask=spread["input_mask"])
        _, (h_, c_) = lstm_layer(params, x[:1], carry, input_mask=other)
        assert not jnp.allclose(h, h_)
        assert jnp.allclose(c, c_) != changes_cell


def test_a_mask_multiplies_what_enters_the_gates():
    params, x, carry = example()
    factors = mask(7, T, B, 1, D)
    close(lstm_layer(params, x, carry, input_mask=factors), lstm_layer(params, x * factors[:, :, 0], carry))
    # On the hidden state: the same as a recurrent matrix whose rows are multiplied, for one row of the batch.
    factors, row = mask(8, B, 1, H), slice(1, 2)
    y, _ = lstm_layer(params, x, carry, hidden_mask=factors)
    scaled = params | {"u": params["u"] * factors[1, 0][:, None, None]}
    y_, _ = lstm_layer(scaled, x[:, row], jax.tree.map(lambda s: s[row], carry))
    close(y[:, row], y_)


def test_the_carry_joins_windows():
    params, x, carry = example()
    y, end = lstm_layer(params, x, carry)
    first, between = lstm_layer(params, x[:3], carry)
    second, end_ = lstm_layer(params, x[3:], between)
    close((jnp.concatenate([first, second]), end_), (y, end))


def test_a_row_ends_where_its_length_says():
    params, x, carry = example()
    lengths = jnp.array([7, 1, 4])

    def ragged(params, x):
        return lstm_layer(params, x, carry, lengths=lengths)[1]

    ends, pull = jax.vjp(ragged, params, x)
    _, dx = pull(jax.tree.map(jnp.ones_like, ends))
    for b, n in enumerate(lengths):
        row = slice(b, b + 1)
        _, end = lstm_layer(params, x[:n, row], jax.tree.map(lambda s, row=row: s[row], carry))
        close(jax.tree.map(lambda s, row=row: s[row], ends), end)
        assert (dx[n:, b] == 0).all()
        assert (dx[:n, b] != 0).all()


def test_bfloat16_keeps_the_cell_in_float32():
    params, x, carry = example()
    y, (h, c) = lstm_layer(params, x, carry)
    y_, (h_, c_) = lstm_layer(params, x.astype(jnp.bfloat16), carry)
    assert (y_.dtype, h_.dtype, c_.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    close((y_.astype(jnp.float32), h_, c_), (y, h, c), atol=0.05)
    gradient = jax.grad(lambda p: lstm_layer(p, x.astype(jnp.bfloat16), carry)[0].astype(jnp.float32).sum())(params)
    exact = jax.grad(lambda p: lstm_layer(p, x, carry)[0].sum())(params)
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(gradient))
    close(gradient, exact, atol=0.3, rtol=0.1)


def test_two_ways_read_from_both_ends_and_padding_is_invisible():
    params = param.init(recurrent.bilstm_layer_params(D, H, param.normal(0.5), param.normal(0.5)), jax.random.key(0))
    x, lengths = jax.random.normal(jax.random.key(1), (T, B, D)), jnp.array([7, 3, 1])
    every, last = jax.jit(recurrent.bilstm_layer)(params, x, lengths)
    for row, length in enumerate(lengths.tolist()):
        one, end = jax.jit(recurrent.bilstm_layer)(params, x[:length, row : row + 1], jnp.array([length]))
        close(every[:length, row], one[:, 0])
        close(last[row], end[0])
    forward = recurrent.lstm_layer(params["forward"], x, (jnp.zeros((B, H)), jnp.zeros((B, H))))[0]
    backward = recurrent.lstm_layer(params["backward"], x[::-1], (jnp.zeros((B, H)), jnp.zeros((B, H))))[0][::-1]
    close(every[:, 0], jnp.concatenate([forward, backward], -1)[:, 0])
    close(last[0], jnp.concatenate([forward[-1], backward[0]], -1)[0])
