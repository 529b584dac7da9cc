"""The private step: one noise for all devices, of (seed, step), added once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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


def begin(tx=TX):
    return new_state(param.init(SPECS, jax.random.key(0)), tx)


def trained(strategy, step):
    call, key, state = strategy.compile(step), jax.random.key(3), strategy.place(begin())
    for i in range(STEPS):
        state, metrics = call(state, strategy.batch(batch(i)), strategy.share(key))
    return strategy.host(state), jax.device_get(metrics)


@pytest.fixture(scope="module")
def alone():
    """(the state, the metrics) after three steps on one device, and the compiled step."""
    call, state = parallel.local().compile(made()), parallel.local().place(begin())
    for i in range(STEPS):
        state, metrics = call(state, batch(i), jax.random.key(3))
    return jax.device_get(state), jax.device_get(metrics), call


@pytest.fixture(scope="module")
def once():
    """once(batch, key, number of the step, noise) -> (state, metrics) of one step at rate 1."""
    tx = optax.sgd(1.0)

    @jax.jit
    def step(batch, key, at, multiplier):
        state = begin(tx).replace(step=at)
        new = private_step(loss, tx, clip=0.5, noise_multiplier=multiplier, lot=10.0)
        return new(state, batch, key, parallel.ONE)

    return lambda batch, seed=0, at=0, noise=0.0: step(batch, jax.random.key(seed), jnp.int32(at), jnp.float32(noise))


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        (parallel.data_parallel, {}),
        (lambda: parallel.mesh({"data": 4, "model": 2}, param.axes(SPECS)), {}),
        (parallel.local, {"accumulate": 4}),
    ],
    ids=["pmap", "mesh", "micro-batches"],
)
def test_the_same_on_one_device_eight_a_mesh_and_in_micro_batches(alone, strategy, more):
    state, metrics, _ = alone
    other, theirs = trained(strategy(), made(**more))
    same((state.params, metrics), (other.params, theirs))
    assert metrics["examples"] == B - 5
    assert 0 < metrics["clipped"] < 1


def test_a_run_goes_on_to_the_same_bits(alone):
    whole, _, call = alone
    state, _ = call(parallel.local().place(begin()), batch(0), jax.random.key(3))
    state = parallel.local().place(jax.device_get(state))
    for i in range(1, STEPS):
        state, _ = call(state, batch(i), jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, whole.params, jax.device_get(state.params))


def test_without_noise_and_clipping_it_is_the_plain_step():
    private, ours = trained(parallel.local(), made(clip=0.0, noise_multiplier=0.0, lot=float(B - 5)))
    plain, theirs = trained(parallel.local(), make_step(loss, TX))
    same(private.params, plain.params)
    names = ("loss", "accuracy", "gradient_norm")
    same([ours[name] for name in names], [theirs[name] for name in names])


def test_the_noise_is_as_large_as_it_says_and_new_at_each_step(once):
    def flat(state):
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])

    quiet = flat(once(batch(0))[0])
    drawn, later = (
        np.stack([flat(once(batch(0), seed, at, 4.0)[0]) - quiet for seed in range(60)]) for at in (0, 1)
    )  # [60, numbers in the weights]
    assert abs(drawn.std() / (4.0 * 0.5 / 10.0) - 1) < 0.04
    assert abs(drawn.mean()) < 0.01
    for other in (later, np.roll(drawn, 1, 0), np.roll(drawn, 1, 1)):
        assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.05


def test_no_example_moves_the_weights_further_than_clip(once):
    wild = batch(0, filled=0)
    wild["x"][3] = 1e4
    without = {name: value.copy() for name, value in wild.items()}
    without["weights"][3] = 0
    (with_it, _), (left_out, _) = once(wild), once(without)
    moved = optax.tree.norm(jax.tree.map(lambda a, b: a - b, with_it.params, left_out.params))
    assert 0.01 < moved <= 0.5 / 10.0 + 1e-6


def test_a_step_that_is_not_finite_changes_nothing(once):
    broken = batch(0)
    broken["x"][0] = np.nan
    new, metrics = once(broken)
    same(new.params, begin().params)
    assert metrics["bad"] == 1
    assert new.step == 1


def test_frozen_parts_stay_and_have_no_share_in_the_length(alone):
    state, metrics = trained(parallel.local(), made(frozen=("fixed",)))
    start = begin().params
    jax.tree.map(np.testing.assert_array_equal, state.params["fixed"], jax.device_get(start["fixed"]))
    assert not np.array_equal(state.params["out"]["w"], start["out"]["w"])
    assert metrics["example_norm"] < alone[1]["example_norm"]


def test_lanes_draw_noise_of_their_own():
    members = [lanes.Lane(seed, {}) for seed in (0, 1)]
    start = lanes.start_lanes(lambda seed, hyper: begin(), members)
    step = lanes.over_lanes(lambda hyper: made(), shared=True)
    draws = lanes.draws(members, jax.random.key)
    state, _ = jax.jit(lambda s, b: step(s, b, draws, parallel.ONE))(start(), batch(0))
    a, b = state.params["out"]["w"]
    assert not np.array_equal(a, b)
