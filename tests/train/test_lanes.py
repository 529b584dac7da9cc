"""Lanes: each is the training that its seed alone would be, on one device, under pmap and on a mesh."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import param
from lmjax.errors import UserError
from lmjax.param import Param, normal
from lmjax.train import optim, parallel
from lmjax.train.lanes import Lanes, lane, over_lanes, stack, start_lanes
from lmjax.train.state import count_bad, new_state
from lmjax.train.step import descend, make_step

SPECS = {"w": Param((4, 3), ("embed", "mlp"), normal(1.0))}
SEEDS = (3, 0, 11)


def loss(params, batch, key, carry, noise=0.1):
    drawn = noise * jax.random.normal(key, ())
    error = (batch["x"] @ params["w"]).sum(axis=-1) - batch["y"] + drawn
    return (error**2).sum(), (jnp.float32(len(error)), {}, carry)


def batch(step, seed):
    rng = np.random.default_rng((seed, step))
    return {"x": rng.normal(size=(16, 4)).astype(np.float32), "y": rng.normal(size=16).astype(np.float32)}


def keys(seed):
    return jax.random.split(jax.random.key(seed))


def begin(seed):
    return new_state(param.init(SPECS, keys(seed)[1]), optim.adamw(0.1), (), optim.ema(0.5))


def trained_alone(seed, steps=4, rate=0.1, loss=loss):
    step = parallel.local().compile(make_step(loss, optim.adamw(rate), averaging=optim.ema(0.5)))
    state, key = parallel.local().place(begin(seed)), keys(seed)[0]
    for i in range(steps):
        state, metrics = step(state, batch(i, seed), key)
    return jax.device_get(state), float(metrics["loss"])


def trained(lanes, step, strategy, steps=4):
    start, key = start_lanes(begin, keys, lanes)
    state, step = strategy.place(start()), strategy.compile(over_lanes(step, lanes))
    for i in range(steps):
        state, metrics = step(state, strategy.batch(stack([batch(i, seed) for seed in lanes.seeds])), key)
    return strategy.host(state), metrics


@pytest.mark.parametrize(("name", "at_once"), [("local", True), ("local", False), ("pmap", True), ("pmap", False),
                                               ("mesh", True)])  # fmt: skip
def test_each_lane_is_the_training_alone(name, at_once):
    strategy = {"local": parallel.local, "pmap": parallel.data_parallel,
                "mesh": lambda: parallel.mesh({"data": 4, "model": 2}, param.axes(SPECS))}[name]()  # fmt: skip
    # Each device draws its own noise, so several are compared on the loss without it.
    part_loss = loss if name == "local" else partial(loss, noise=0.0)
    step = make_step(part_loss, optim.adamw(0.1), averaging=optim.ema(0.5))
    state, metrics = trained(Lanes(SEEDS, at_once=at_once), step, strategy)
    losses = []
    for i, seed in enumerate(SEEDS):
        alone, value = trained_alone(seed, loss=part_loss)
        losses.append(value)
        for part in ("params", "opt", "average", "bad"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6),
                lane(getattr(state, part), i), getattr(alone, part),
            )  # fmt: skip
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert int(state.step) == 4


def test_a_rate_for_each_lane_is_an_argument_of_the_step():
    def step(state, batch, key, axis, hyper):
        key = axis.fold(jax.random.fold_in(key, state.step))
        new = descend(loss, optim.adamw(hyper["lr"]), state.params, state.opt, batch, key, (), axis)
        average = optim.ema(0.5).update(state.average, new.params, state.step)
        bad = count_bad(state.bad, new.finite)
        new = state.replace(step=state.step + 1, params=new.params, opt=new.opt, average=average, bad=bad)
        return new, {"loss": jnp.float32(0), "bad": bad[0]}

    rates = (0.01, 0.1, 0.3)
    state, _ = trained(Lanes((5, 5, 5), {"lr": rates}), step, parallel.local())
    for i, rate in enumerate(rates):
        alone, _ = trained_alone(5, rate=rate)
        np.testing.assert_allclose(lane(state.params, i)["w"], alone.params["w"], rtol=2e-5, atol=2e-6)


def test_one_bad_lane_does_not_stop_the_others():
    lanes = Lanes((0, 1))
    start, key = start_lanes(begin, keys, lanes)
    rows = stack([batch(0, 0), batch(0, 1)])
    rows["x"][0, 1] = np.nan
    step = parallel.local().compile(over_lanes(make_step(loss, optim.adamw(0.1), averaging=optim.ema(0.5)), lanes))
    before = start()
    state, metrics = step(jax.tree.map(jnp.copy, before), rows, key)
    assert int(metrics["bad"]) == 0
    assert int(metrics["lanes_bad"]) == 1
    np.testing.assert_array_equal(state.params["w"][1], before.params["w"][1])
    assert not np.array_equal(state.params["w"][0], before.params["w"][0])
    assert state.bad.tolist() == [[0, 0], [1, 1]]


def test_hyper_of_another_length_is_one_line():
    with pytest.raises(UserError, match="2 values of lr for 3 seeds"):
        start_lanes(begin, keys, Lanes((0, 1, 2), {"lr": (0.1, 0.2)}))
