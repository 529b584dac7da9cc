"""The LSTM language models: paper-size counts, causality, carried state, what each paper's dropout drops, learning."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmjax import param
from lmjax.config import LSTM
from lmjax.models.lstm_lm import lstm_carry, lstm_hidden, lstm_lm, lstm_loss, lstm_params

SMALL = LSTM(vocab=64, dim=32)
B, T = 4, 16
KEY = jax.random.key(7)


def batch(rows=B, steps=T, vocab=64, seed=0):
    text = jax.random.randint(jax.random.key(seed), (rows, steps + 1), 0, vocab)
    return {"tokens": text[:, :-1], "targets": text[:, 1:], "weights": jnp.ones((rows, steps)),
            "start": jnp.zeros(rows, bool)}  # fmt: skip


def model(config=SMALL, rows=B):
    return param.init(lstm_params(config), jax.random.key(1)), lstm_carry(config, rows)


@partial(jax.jit, static_argnums=(1,), static_argnames=("alpha", "beta"))
def loss(params, config, batch, key, carry, alpha=0.0, beta=0.0):
    return lstm_loss(params, config, batch, key, carry, alpha=alpha, beta=beta)


@partial(jax.jit, static_argnums=1)
def gradient(params, config, batch, key, carry):
    return jax.grad(lambda p: lstm_loss(p, config, batch, key, carry)[0])(params)


logits_of = jax.jit(lstm_lm, static_argnums=1)


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **({"rtol": 1e-4, "atol": 1e-5} | tolerance)), a, b)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (LSTM(vocab=10000, dim=200), 4_651_600),  # Zaremba: "4.65 M", 19.8 M, 66 M
        (LSTM(vocab=10000, dim=650), 19_775_200),
        (LSTM(vocab=10000, dim=1500), 66_022_000),
        (LSTM(vocab=10000, layers=3, dim=1150, embed=400, tied=True, shared_masks=True), 24_210_800),  # Merity: 24 M
        (LSTM(vocab=33278, layers=3, dim=1150, embed=400, tied=True, shared_masks=True), 33_545_278),  # 33 M
    ],
)
def test_paper_sizes(config, count):
    specs = lstm_params(config)
    assert param.count(specs) == count
    tokens = jax.ShapeDtypeStruct((20, 35), jnp.int32)
    carry = jax.eval_shape(lambda: lstm_carry(config, 20))
    run = partial(lstm_lm, config=config, key=KEY)
    logits, after = jax.eval_shape(lambda p, x, c: run(p, tokens=x, carry=c), param.shapes(specs), tokens, carry)
    assert logits.shape == (20, 35, config.vocab)
    assert jax.tree.map(lambda s: (s.shape, s.dtype), after) == jax.tree.map(lambda s: (s.shape, s.dtype), carry)


def test_starts_in_its_range():
    params, _ = model(replace(SMALL, init_range=0.05, forget_bias=1.0))
    forget = params["layers"][0]["b"][1]
    assert ((forget >= 0.95) & (forget <= 1.05)).all()
    others = jax.tree.leaves(params | {"layers": [p["w"] for p in params["layers"]]})
    assert all(0.03 < jnp.abs(x).max() <= 0.05 for x in others)
    params, _ = model(replace(SMALL, init_range=0.0))
    assert jnp.abs(params["layers"][0]["u"]).max() == pytest.approx(32**-0.5, rel=0.05)
    assert (params["softmax"]["b"] == 0).all()


def test_causal_and_rows_apart():
    params, carry = model()
    places = jnp.arange(B * T).reshape(B, T)  # a word vector for each place, so that there is one to differentiate by

    def score(vectors):
        return lstm_lm(params | {"embed": vectors}, SMALL, places, carry)[0][1, 5].sum()

    reach = jnp.abs(jax.jit(jax.grad(score))(params["embed"])).max(-1).reshape(B, T)
    assert (reach[1, :6] > 0).all()
    assert (reach[1, 6:] == 0).all()
    assert (reach.at[1].set(0) == 0).all()


def test_the_carry_joins_windows():
    params, carry = model()
    tokens = batch()["tokens"]
    whole, end = logits_of(params, SMALL, tokens, carry)
    first, between = logits_of(params, SMALL, tokens[:, :8], carry)
    second, end_ = logits_of(params, SMALL, tokens[:, 8:], between)
    close((jnp.concatenate([first, second], 1), end_), (whole, end))


def test_a_row_that_starts_forgets_its_carry():
    params, carry = model()
    data = batch()
    _, (_, _, carry) = loss(params, SMALL, data, None, carry)
    carry[0] = (carry[0][0].at[2].set(jnp.nan), carry[0][1])  # whatever it was
    started = data | {"start": jnp.array([False, False, True, False])}
    _, (_, _, after) = loss(params, SMALL, started, None, carry)
    _, (_, _, fresh) = loss(params, SMALL, data, None, lstm_carry(SMALL, B))
    close(jax.tree.map(lambda s: s[2], after), jax.tree.map(lambda s: s[2], fresh))
    assert not jnp.allclose(after[1][1][0], fresh[1][1][0])


@pytest.mark.parametrize("key", [None, KEY])
def test_padding_is_invisible(key):
    config = replace(SMALL, shared_masks=True, dropout_input=0.4, dropout_output=0.3, dropout_word=0.1)
    params, carry = model(config)
    data, lengths = batch(), jnp.array([16, 5, 1, 9])
    counts = jnp.arange(T)[None] < lengths[:, None]
    padded = data | {"weights": counts.astype(jnp.float32), "lengths": lengths}
    rubbish = padded | {name: jnp.where(counts, data[name], 3) for name in ("tokens", "targets")}
    total, (weight, _, after) = loss(params, config, padded, key, carry, alpha=2.0, beta=1.0)
    total_, (_, _, after_) = loss(params, config, rubbish, key, carry, alpha=2.0, beta=1.0)
    close((total_, after_), (total, after))
    assert weight == 31
    close(gradient(params, config, rubbish, key, carry), gradient(params, config, padded, key, carry))
    _, short = logits_of(params, config, data["tokens"][:, :5], carry)
    if key is None:
        close(jax.tree.map(lambda s: s[1], after), jax.tree.map(lambda s: s[1], short))


def test_no_key_no_dropout_and_one_key_one_draw():
    config = replace(SMALL, dropout_input=0.5, dropout_layer=0.5, dropout_output=0.5)
    params, carry = model(config)
    tokens = batch()["tokens"]
    close(logits_of(params, config, tokens, carry)[0], logits_of(params, SMALL, tokens, carry)[0])
    drawn = logits_of(params, config, tokens, carry, key=KEY)[0]
    close(logits_of(params, config, tokens, carry, key=KEY)[0], drawn)
    assert not jnp.allclose(logits_of(params, config, tokens, carry, key=jax.random.key(8))[0], drawn)


@pytest.mark.parametrize("shared", [True, False])
def test_output_masks(shared):
    config = replace(SMALL, dim=64, dropout_output=0.25, shared_masks=shared)
    params, carry = model(config)
    params["softmax"] = {"w": jnp.eye(64), "b": jnp.zeros(64)}  # the scores are the dropped outputs
    tokens = batch()["tokens"]
    dropped, _ = logits_of(params, config, tokens, carry, key=KEY)
    whole, _ = logits_of(params, config, tokens, carry)
    kept = dropped != 0
    close(dropped, jnp.where(kept, whole / 0.75, 0))
    assert float(kept.mean()) == pytest.approx(0.75, abs=0.1 if shared else 0.03)
    assert bool((kept == kept[:, :1]).all()) == shared
    assert not (kept[0] == kept[1]).all()


def zeroed(array, *axes):
    """Where a gradient is zero along all `axes`, and the share of that: what a mask kept from learning."""
    at = (array == 0).all(axes)
    return at, float(at.mean())


@pytest.mark.parametrize("masks", [1, 4])
def test_gal_drops_the_same_units_at_every_step(masks):
    rates = {"dropout_input": 0.3, "dropout_layer": 0.3, "dropout_recurrent": 0.4}
    config = replace(SMALL, shared_masks=True, gate_masks=masks, **rates)
    params, carry = model(config, rows=1)
    layers = gradient(params, config, batch(rows=1), KEY, carry)["layers"]
    for layer in layers:
        for name, rate in ("w", 0.3), ("u", 0.4):
            at, share = zeroed(layer[name], 2)  # [D,4]
            assert share == pytest.approx(rate, abs=0.2)
            assert bool((at == at[:, :1]).all()) == (masks == 1)
    assert not (zeroed(layers[0]["u"], 2)[0] == zeroed(layers[1]["u"], 2)[0]).all()


def test_zaremba_drops_other_units_at_each_step_and_no_recurrent_ones():
    config = replace(SMALL, dropout_input=0.5, dropout_layer=0.5, dropout_output=0.5)
    params, carry = model(config, rows=1)
    layers = gradient(params, config, batch(rows=1), KEY, carry)["layers"]
    assert all(zeroed(layer[name], 1, 2)[1] == 0 for layer in layers for name in ("w", "u"))
    # With one step the mask shows: half of the inputs, but none of the recurrent weights.
    _, carry = logits_of(params, SMALL, batch(rows=1)["tokens"], carry)
    layers = gradient(params, config, batch(rows=1, steps=1), KEY, carry)["layers"]
    for layer in layers:
        assert zeroed(layer["w"], 1, 2)[1] == pytest.approx(0.5, abs=0.25)
        assert zeroed(layer["u"], 1, 2)[1] == 0


def test_words_are_dropped_by_type():
    config = replace(SMALL, dropout_word=0.4)
    params, carry = model(config, rows=2)
    data = batch(rows=2, steps=64) | {"tokens": jnp.tile(jnp.arange(32), (2, 2))}  # each row has 32 types twice
    dropped = []
    for row in (0, 1):
        weights = jnp.zeros((2, 64)).at[row].set(1.0)
        at, share = zeroed(gradient(params, config, data | {"weights": weights}, KEY, carry)["embed"][:32], 1)
        assert share == pytest.approx(0.4, abs=0.2)  # were places drawn apart, 0.16 of the types would be lost twice
        dropped.append(at)
    assert (dropped[0] != dropped[1]).any()
    words = jnp.where(dropped[0][:, None], 0.0, params["embed"][:32] / 0.6)
    x, _ = logits_of(params, config, data["tokens"], carry, key=KEY)
    x_, _ = logits_of(params | {"embed": words}, SMALL, data["tokens"], carry)
    close(x[0], x_[0])


def test_weight_drop():
    config = replace(SMALL, dropout_weight=0.5, shared_masks=True)
    params, carry = model(config)
    layers = gradient(params, config, batch(), KEY, carry)["layers"]
    for layer in layers:
        assert zeroed(layer["u"])[1] == pytest.approx(0.5, abs=0.03)
        assert zeroed(layer["w"])[1] == 0
        dropped = {**params, "layers": [{**p, "u": jnp.where(g["u"] == 0, 0, 2 * p["u"])}
                                        for p, g in zip(params["layers"], layers)]}  # fmt: skip
    tokens = batch()["tokens"]
    close(logits_of(params, config, tokens, carry, key=KEY)[0], logits_of(dropped, SMALL, tokens, carry)[0])


def test_activation_penalties_are_mean_squares():
    config = replace(SMALL, shared_masks=True, dropout_output=0.4)
    params, carry = model(config)
    data = batch()
    total, (weight, metrics, _) = loss(params, config, data, KEY, carry, alpha=2.0, beta=1.0)
    params_ = params | {"softmax": {"w": jnp.eye(32), "b": jnp.zeros(32)}}
    dropped, _ = logits_of(params_, replace(config, vocab=32), data["tokens"], carry, key=KEY)
    raw, _ = lstm_hidden(params, config, data["tokens"], carry, key=KEY)
    penalty = 2 * (dropped**2).mean() + ((raw[:, 1:] - raw[:, :-1]) ** 2).mean()  # as the authors' main.py
    close((total - metrics["nll"]) / weight, penalty)
    plain, (_, none, _) = loss(params, config, data, KEY, carry)
    close(metrics["nll"], plain)
    assert none == {}
    close(loss(params, config, data, None, carry, alpha=2.0, beta=1.0)[0], loss(params, SMALL, data, None, carry)[0])


def test_tied_softmax_is_the_embedding():
    config = replace(SMALL, embed=24, tied=True, init_range=0.0)
    params, carry = model(config)
    assert "w" not in params["softmax"]
    tokens = batch()["tokens"]
    hidden, _ = lstm_hidden(params, config, tokens, carry)
    scores = jnp.einsum("btd,vd->btv", hidden, params["embed"]) + params["softmax"]["b"][None, None]
    close(logits_of(params, config, tokens, carry)[0], scores)
    unseen = gradient(params, config, batch(), None, carry)["embed"]
    assert (jnp.abs(unseen).max(-1) > 0).all()  # through the softmax every word learns


def test_a_rate_may_be_traced():
    config = replace(SMALL, dropout_input=0.3, dropout_recurrent=0.2, shared_masks=True)
    params, carry = model(config)

    def total(rate):
        return lstm_loss(params, replace(config, dropout_input=rate), batch(), KEY, carry)[0]

    rates = jnp.array([0.0, 0.3])
    close(jax.jit(jax.vmap(total))(rates), jnp.stack([total(0.0), total(0.3)]))


def test_bfloat16_with_float32_parameters():
    config = replace(SMALL, dtype="bfloat16", dropout_input=0.2, dropout_output=0.2)
    params, carry = model(config)
    logits, after = logits_of(params, config, batch()["tokens"], carry)
    assert logits.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(after)} == {jnp.dtype("float32")}
    total, (weight, _, _) = loss(params, config, batch(), None, carry)
    assert total.dtype == jnp.float32
    close(total / weight, loss(params, SMALL, batch(), None, carry)[0] / weight, atol=0.02)
    assert {x.dtype for x in jax.tree.leaves(gradient(params, config, batch(), KEY, carry))} == {jnp.dtype("float32")}


VARIATIONAL = {"dropout_word": 0.02, "dropout_recurrent": 0.05, "gate_masks": 4}
MERITY = {"embed": 24, "tied": True, "dropout_weight": 0.1}


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, shared_masks=True, **VARIATIONAL, **MERITY)])
def test_learns_a_batch_by_heart(config):
    params, carry = model(config, rows=2)
    data, tx = batch(rows=2, steps=8), optax.adam(0.02)

    def step(state, key):
        params, opt = state
        gradient = jax.grad(lambda p: lstm_loss(p, config, data, key, carry)[0])(params)
        updates, opt = tx.update(gradient, opt)
        return (optax.apply_updates(params, updates), opt), None

    before = loss(params, config, data, None, carry)[0] / 16
    (params, _), _ = jax.jit(partial(jax.lax.scan, step))((params, tx.init(params)), jax.random.split(KEY, 400))
    after = loss(params, config, data, None, carry)[0] / 16
    assert before > 4.0
    assert after < 0.2
