"""Lanes: each is the training that its seed and its numbers alone would be, in each form, however it is spread."""

import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import param
from lmjax.errors import UserError
from lmjax.param import Param, normal
from lmjax.train import lanes, optim, parallel
from lmjax.train.lanes import InTurn, Lane, Together
from lmjax.train.state import new_state
from lmjax.train.step import Recipe

SPECS = {"w": Param((4, 3), ("embed", "mlp"), normal(1.0))}
SEEDS = (3, 0, 11)
ABREAST = partial(InTurn, abreast=2)


def loss(params, batch, key, carry, noise=0.1):
    drawn = noise * jax.random.normal(key, ())
    error = (batch["x"] @ params["w"]).sum(axis=-1) - batch["y"] + drawn
    return (error**2).sum(), (jnp.float32(len(error)), {}, carry + error)


def batch(step, seed):
    rng = np.random.default_rng((seed, step))
    return {"x": rng.normal(size=(16, 4)).astype(np.float32), "y": rng.normal(size=16).astype(np.float32)}


def keys(seed):
    return jax.random.split(jax.random.key(seed))


def recipe(hyper, loss=loss):
    return Recipe(optim.adamw(hyper.get("lr", 0.1)), loss, clip=hyper.get("clip", 0.0), averaging=optim.ema(0.5))


def begin(seed, hyper):
    mine = recipe(hyper)
    return new_state(param.init(SPECS, keys(seed)[1]), mine.tx, jnp.zeros(16), mine.averaging)


def trained_alone(seed, steps=4, hyper=None, loss=loss, rows=batch):
    step = parallel.local().compile(recipe(hyper or {}, loss).make_step())
    state, key = parallel.local().place(begin(seed, hyper or {})), keys(seed)[0]
    for i in range(steps):
        state, metrics = step(state, rows(i, seed), key)
    return jax.device_get(state), float(metrics["loss"])


def trained(several, form, strategy, steps=4, loss=loss, rows=batch, patience=10):
    """(the canonical state, the last metrics) of lanes, as run/training.py takes them."""
    seeds = list(dict.fromkeys(one.seed for one in several))
    drawn = lanes.draws(several, lambda seed: keys(seed)[0])
    form = form(strategy, drawn, [seeds.index(one.seed) for one in several])

    def make(hyper):
        return recipe(hyper, loss).make_step()

    step = lanes.of_lane(make, patience) if isinstance(form, InTurn) else lanes.over_lanes(
        make, patience, shared=len(seeds) == 1
    )
    compiled = strategy.compile(step)
    state = form.place(lanes.start_lanes(begin, several)())
    for i in range(steps):
        state, metrics = form.launch(compiled, state, form.batch([rows(i, seed) for seed in seeds]))
    return form.host(state), metrics


def same(state, i, alone):
    one = lanes.one_of(state, i)
    for part in ("params", "opt", "average", "bad", "carry"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6),
                     getattr(one, part), getattr(alone, part))  # fmt: skip


STRATEGIES = {
    "local": parallel.local, "pmap": parallel.data_parallel,
    "mesh": lambda: parallel.mesh({"data": 4, "model": 2}, param.axes(SPECS)),
}  # fmt: skip


@pytest.mark.parametrize(("name", "form"), [("local", Together), ("local", InTurn), ("local", ABREAST),
                                            ("pmap", Together), ("pmap", InTurn), ("mesh", InTurn)])  # fmt: skip
def test_each_lane_is_the_training_alone(name, form):
    # Each device draws its own noise, so several are compared on the loss without it.
    part_loss = loss if name == "local" else partial(loss, noise=0.0)
    state, metrics = trained([Lane(seed) for seed in SEEDS], form, STRATEGIES[name](), loss=part_loss)
    losses = []
    for i, seed in enumerate(SEEDS):
        alone, value = trained_alone(seed, loss=part_loss)
        losses.append(value)
        same(state, i, alone)
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert int(state.step) == 4


@pytest.mark.parametrize("seeds", [(5,), (5, 2)])
def test_lanes_spread_over_the_devices_are_the_trainings_alone(seeds):
    several = [Lane(seed, {"lr": lr, "clip": 1.0}) for lr in (0.01, 0.02, 0.1, 0.3) for seed in seeds]
    several *= 8 // len(several)
    state, metrics = trained(several, Together, parallel.lane_parallel(shared=len(seeds) == 1))
    found = [trained_alone(one.seed, hyper=one.values) for one in several]
    for i, (alone, _) in enumerate(found):
        same(state, i, alone)
    assert float(metrics["loss"]) == pytest.approx(np.mean([value for _, value in found]), rel=1e-5)


@pytest.mark.parametrize("form", [Together, InTurn])
def test_numbers_of_a_lane_are_arguments_of_the_step(form):
    numbers = [{"lr": 0.01, "clip": 0.0}, {"lr": 0.1, "clip": 0.5}, {"lr": 0.3, "clip": 2.0}]
    state, _ = trained([Lane(5, hyper) for hyper in numbers], form, parallel.local())
    for i, hyper in enumerate(numbers):
        same(state, i, trained_alone(5, hyper=hyper)[0])


def test_lanes_abreast_end_in_the_bits_of_lanes_in_turn_and_are_under_way_together():
    several = [Lane(seed, {"lr": lr}) for seed in SEEDS for lr in (0.01, 0.1)]
    (one, said), (other, heard) = (trained(several, form, parallel.local()) for form in (InTurn, ABREAST))
    jax.tree.map(np.testing.assert_array_equal, (one, said), (other, heard))
    met = threading.Barrier(2, timeout=60)  # passed by two calls at one time alone
    form = ABREAST(parallel.local(), lanes.draws([Lane(0), Lane(1)], lambda seed: keys(seed)[0]), [0, 1])

    def call(state, batch, draw):
        met.wait()
        return state, {"loss": jnp.float32(0), "bad": jnp.int32(0)}

    form.launch(call, [0, 1], [0, 1])


@pytest.mark.parametrize("form", [Together, InTurn, ABREAST])
def test_a_lane_that_fails_stops_alone_and_for_good(form):
    def rows(step, seed):  # the second seed's are no numbers in three steps
        made = batch(step, seed)
        made["x"][0] = np.nan if seed == 1 and step < 3 else made["x"][0]
        return made

    state, metrics = trained([Lane(0), Lane(1)], form, parallel.local(), steps=6, rows=rows, patience=3)
    assert (int(metrics["bad"]), int(metrics["lanes_bad"])) == (0, 1)
    alone, value = trained_alone(0, steps=6)
    same(state, 0, alone)
    assert float(metrics["loss"]) == pytest.approx(value, rel=1e-5)  # of the lane that goes on
    np.testing.assert_array_equal(state.params["w"][1], begin(1, {}).params["w"])
    assert state.bad.tolist() == [[0, 0], [3, 3]]


@pytest.mark.parametrize("form", [Together, InTurn])
def test_the_best_weights_of_each_lane_are_kept_by_themselves(form):
    several = [Lane(0), Lane(1)]
    drawn = lanes.draws(several, lambda seed: keys(seed)[0])
    form = form(parallel.local(), drawn, [0, 1])
    start = lanes.start_lanes(begin, several)()
    state = form.place(start.replace(best=start.params))
    moved = form.put(state, {i: one.replace(params={"w": one.params["w"] + 1})
                             for i, one in enumerate(form.one(state, i) for i in range(2))})  # fmt: skip
    found = form.host(form.better(moved, np.array([False, True])))
    np.testing.assert_array_equal(found.best["w"][0], start.params["w"][0])
    np.testing.assert_array_equal(found.best["w"][1], start.params["w"][1] + 1)


def test_a_state_is_what_its_lanes_join_to():
    state = jax.device_get(lanes.start_lanes(begin, [Lane(seed) for seed in SEEDS])())
    assert state.carry.shape == (16, 3)
    jax.tree.map(np.testing.assert_array_equal, lanes.join(lanes.split(state)), state)


def test_lanes_that_set_different_numbers_are_one_line():
    with pytest.raises(UserError, match="give each lane a value of every one"):
        lanes.draws([Lane(0, {"lr": 0.1}), Lane(0, {"clip": 0.2})], lambda seed: seed)
