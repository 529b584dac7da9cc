"""The private step: one noise for all devices, of (seed, step), added once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmjax import param
from lmjax.losses import choice
from lmjax.nn.linear import linear, linear_params
from lmjax.privacy.step import private_step
from lmjax.train import lanes, parallel
from lmjax.train.state import new_state
from lmjax.train.step import make_step

B, D, K, STEPS = 16, 8, 4, 3
SPECS = {"fixed": linear_params(D, D, (None, None)), "out": linear_params(D, K, ("embed", None))}


def batch(i, filled=5):
    rng = np.random.default_rng(i)
    weights = np.ones(B, np.float32)
    weights[B - filled :] = 0  # a device or two has none
    return {"x": rng.normal(size=(B, D)).astype(np.float32), "labels": rng.integers(0, K, B, np.int32),
            "weights": weights}  # fmt: skip


def loss(params, batch, key, carry):
    x = jnp.tanh(linear(params["fixed"], batch["x"]))
    return choice(linear(params["out"], x), batch["labels"], batch["weights"], carry)


TX = optax.sgd(0.5, momentum=0.9)


def made(**more):
    return private_step(loss, TX, **({"clip": 2.0, "noise_multiplier": 0.4, "lot": 10.0} | more))


def trained(strategy, step, first=0, state=None):
    state = strategy.place(new_state(param.init(SPECS, jax.random.key(0)), TX) if state is None else state)
    call, key = strategy.compile(step), jax.random.key(3)
    for i in range(first, STEPS):
        state, metrics = call(state, strategy.batch(batch(i)), strategy.share(key))
    return strategy.host(state), jax.device_get(metrics)


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def test_the_same_on_one_device_eight_a_mesh_and_in_micro_batches():
    alone, metrics = trained(parallel.local(), made())
    assert metrics["examples"] == B - 5
    assert 0 < metrics["clipped"] < 1
    for strategy, more in (
        (parallel.data_parallel(), {}),
        (parallel.mesh({"data": 4, "model": 2}, param.axes(SPECS)), {}),
        (parallel.local(), {"accumulate": 4}),
        (parallel.local(), {"ghost": False}),
    ):
        other, theirs = trained(strategy, made(**more))
        same((alone.params, metrics), (other.params, theirs))


def test_a_run_goes_on_to_the_same_bits():
    whole, _ = trained(parallel.local(), made())
    call, state = parallel.local().compile(made()), parallel.local().place(new_state(
        param.init(SPECS, jax.random.key(0)), TX))  # fmt: skip
    state, _ = call(state, batch(0), jax.random.key(3))
    resumed, _ = trained(parallel.local(), made(), 1, jax.device_get(state))
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)


def test_without_noise_and_clipping_it_is_the_plain_step():
    private, ours = trained(parallel.local(), made(clip=0.0, noise_multiplier=0.0, lot=float(B - 5)))
    plain, theirs = trained(parallel.local(), make_step(loss, TX))
    same(private.params, plain.params)
    names = ("loss", "accuracy", "gradient_norm")
    same([ours[name] for name in names], [theirs[name] for name in names])


def test_the_noise_is_as_large_as_it_says_and_new_at_each_step():
    tx = optax.sgd(1.0)
    step = private_step(loss, tx, clip=0.5, noise_multiplier=4.0, lot=10.0)
    quiet = private_step(loss, tx, clip=0.5, noise_multiplier=0.0, lot=10.0)

    def noises(seed, at):
        state = new_state(param.init(SPECS, jax.random.key(0)), tx).replace(step=jnp.asarray(at, jnp.int32))
        new = [one(state, batch(0), jax.random.key(seed), parallel.ONE)[0].params for one in (step, quiet)]
        return jnp.concatenate([(a - b).ravel() for a, b in zip(*map(jax.tree.leaves, new))])

    seeds = jnp.arange(100)
    drawn = np.asarray(jax.jit(jax.vmap(noises, (0, None)))(seeds, 0))  # [100, D D + D + D K + K]
    assert abs(drawn.std() / (4.0 * 0.5 / 10.0) - 1) < 0.03
    assert abs(drawn.mean()) < 0.01
    later = np.asarray(jax.jit(jax.vmap(noises, (0, None)))(seeds, 1))
    for other in (later, np.roll(drawn, 1, 0), np.roll(drawn, 1, 1)):
        assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.04


def test_no_example_moves_the_weights_further_than_clip():
    tx = optax.sgd(1.0)
    step = jax.jit(lambda s, b: private_step(loss, tx, clip=0.5, noise_multiplier=0.0, lot=10.0)(
        s, b, jax.random.key(0), parallel.ONE)[0].params)  # fmt: skip
    state = new_state(param.init(SPECS, jax.random.key(0)), tx)
    with_all, wild = batch(0, filled=0), batch(0, filled=0)
    wild["x"][3], wild["weights"][3] = 1e4, 1.0
    without = {name: value.copy() for name, value in wild.items()}
    without["weights"][3] = 0
    assert not np.array_equal(with_all["x"], wild["x"])
    moved = optax.tree.norm(jax.tree.map(lambda a, b: a - b, step(state, wild), step(state, without)))
    assert moved <= 0.5 / 10.0 + 1e-6


def test_frozen_parts_stay_and_have_no_share_in_the_length():
    state, metrics = trained(parallel.local(), made(frozen=("fixed",)))
    begin = param.init(SPECS, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state.params["fixed"], jax.device_get(begin["fixed"]))
    assert not np.array_equal(state.params["out"]["w"], begin["out"]["w"])
    assert metrics["example_norm"] < trained(parallel.local(), made())[1]["example_norm"]


def test_lanes_draw_noise_of_their_own():
    members = [lanes.Lane(seed, {"lr": 0.1}) for seed in (0, 1)]
    begin = lanes.start_lanes(lambda seed, hyper: new_state(param.init(SPECS, jax.random.key(0)), TX), members)
    step = lanes.over_lanes(lambda hyper: made(), shared=True)
    draws = lanes.draws(members, jax.random.key)
    state, _ = jax.jit(lambda s, b: step(s, b, draws, parallel.ONE))(begin(), batch(0))
    a, b = state.params["out"]["w"]
    assert not np.array_equal(a, b)


def test_a_step_that_is_not_finite_changes_nothing():
    broken = batch(0)
    broken["x"][0] = np.nan
    state = new_state(param.init(SPECS, jax.random.key(0)), TX)
    new, metrics = jax.jit(lambda s, b: made()(s, b, jax.random.key(0), parallel.ONE))(state, broken)
    jax.tree.map(np.testing.assert_array_equal, new.params, state.params)
    assert metrics["bad"] == 1
    assert new.step == 1
