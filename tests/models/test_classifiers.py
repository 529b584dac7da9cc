"""The CNN and the LSTM classifier: against a convolution of flax's, padding, dropout, and that they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from lmjax import config, param
from lmjax.models import bilstm, cnn

V, K, B, T = 64, 3, 6, 9
RNG = np.random.default_rng(0)
LENGTHS = np.array([9, 5, 1, 7, 2, 3])
BATCH = {
    "tokens": RNG.integers(0, V, (B, T), np.int32), "valid": np.arange(T)[None] < LENGTHS[:, None],
    "labels": RNG.integers(0, K, B, np.int32), "weights": np.ones(B, np.float32),
}  # fmt: skip
CNN = config.CNN(V, embed=8, windows=(2, 3), maps=5, dropout=0.0, init_words=1.0)
LSTMS = [config.BiLSTM(V, embed=8, layers=2, dim=8, both=both, pool=pool, dropout=0.0, init_words=1.0)
         for both, pool in ((True, "max"), (True, "last"), (False, "mean"))]  # fmt: skip
FORWARD = jax.jit(lambda params, batch, model: logits(model)(params, model, batch), static_argnums=2)
MODELS = pytest.mark.parametrize("model", [CNN, *LSTMS], ids=["cnn", "both max", "both last", "one mean"])


def logits(model):
    return cnn.cnn if isinstance(model, config.CNN) else bilstm.bilstm


def start(model, seed=0):
    make = cnn.cnn_params if isinstance(model, config.CNN) else bilstm.bilstm_params
    return jax.jit(lambda: param.init(make(model, K), jax.random.key(seed)))()


def test_the_published_size():
    # Kim's CNN-rand on MR: 18,765 words and one for padding, 300 numbers each; 3, 4 and 5 words, 100 maps each.
    specs = cnn.cnn_params(config.CNN(18_766), 2)
    assert param.count(specs) == 18_766 * 300 + (3 + 4 + 5) * 300 * 100 + 300 + 300 * 2 + 2


def test_a_window_is_a_convolution():
    params, n = start(CNN), 3
    x = jnp.where(BATCH["valid"][:, :, None], params["embed"][BATCH["tokens"]], 0)
    p = params["windows"][str(n)] | {"b": jnp.array([0.3, -0.2, 0.0, 0.1, -1.0])}
    conv = linen.Conv(5, (n,), padding=[(n - 1, n - 1)])
    y = conv.apply({"params": {"kernel": p["w"], "bias": p["b"]}}, x)
    for row, length in enumerate(LENGTHS):
        expected = jax.nn.relu(y[row, : length + n - 1].max(0))
        np.testing.assert_allclose(cnn.window(p, x, BATCH["valid"])[row], expected, rtol=1e-5, atol=1e-6)


@MODELS
def test_padding_is_invisible(model):
    params = start(model)
    other = np.where(BATCH["valid"], BATCH["tokens"], 7)
    wider = {name: np.pad(BATCH[name], ((0, 0), (0, 4))) for name in ("tokens", "valid")}
    expected = FORWARD(params, BATCH, model)
    np.testing.assert_array_equal(FORWARD(params, BATCH | {"tokens": other}, model), expected)
    np.testing.assert_allclose(FORWARD(params, wider, model), expected, atol=1e-6)
    assert np.ptp(np.asarray(expected), axis=0).min() > 1e-3  # the rows do differ


@pytest.mark.parametrize("model", [CNN, LSTMS[0]], ids=["cnn", "lstm"])
def test_a_text_without_a_word_has_a_gradient(model):
    empty = BATCH | {"valid": BATCH["valid"] & (np.arange(B) != 2)[:, None]}

    def loss(params):
        loss = cnn.cnn_loss if isinstance(model, config.CNN) else bilstm.bilstm_loss
        return loss(params, model, empty, None, ())[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(start(model))
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize("model", [CNN, LSTMS[0]], ids=["cnn", "lstm"])
def test_a_batch_is_learnt_by_heart_and_dropout_is_drawn_from_the_key(model):
    loss = cnn.cnn_loss if model is CNN else bilstm.bilstm_loss
    tx, params = optax.adam(0.03), start(model)

    @jax.jit
    def step(params, opt):
        (total, (_, metrics, _)), gradient = jax.value_and_grad(
            lambda p: loss(p, model, BATCH, None, ()), has_aux=True)(params)  # fmt: skip
        updates, opt = tx.update(gradient, opt, params)
        return optax.apply_updates(params, updates), opt, total, metrics["accuracy"]

    opt = tx.init(params)
    for _ in range(60):
        params, opt, total, right = step(params, opt)
    assert total < 0.1
    assert right == B
    dropped = config.dataclasses.replace(model, dropout=0.5)
    draw = jax.jit(lambda params, key: loss(params, dropped, BATCH, key, ())[0])
    losses = [draw(params, jax.random.key(n)) for n in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] > total
