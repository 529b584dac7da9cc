"""Pruning: the papers' schedules, masks that hold through training, interruption, lanes and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.compress import prune, select
from lmjax.errors import UserError
from lmjax.losses import choice
from lmjax.models.perceptron import perceptron, perceptron_params
from lmjax.train import optim, parallel
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.state import new_state
from lmjax.train.step import make_step

MODEL = config.Perceptron((12, 8))
SPECS = perceptron_params(MODEL, 16, 4)
SHARES = {"layers/0/w": 0.9, "layers/1/w": 0.75, "layers/2/w": 0.5}
SCHEDULE = prune.gradual(1, 2, 2)


def loss(params, batch, key, carry):
    return choice(perceptron(params, MODEL, batch["images"], key), batch["labels"], batch["weights"], carry)


def batch(i):
    rng = np.random.default_rng(i)
    weights = np.where(np.arange(16) < 8, 0, rng.integers(1, 9, 16)).astype(np.float32)
    images = rng.normal(size=(16, 4, 4, 1)).astype(np.float32)
    return {"images": images, "labels": rng.integers(0, 4, 16, np.int32), "weights": weights}


def transform(shares=SHARES):
    return prune.pruned(optim.adamw(0.05, weight_decay=0.1), SCHEDULE, shares)


def begin(tx):
    return new_state(param.init(SPECS, jax.random.key(0)), tx)


def zeros(params):
    leaves = select.flat(params)
    return {path: float((leaves[path] == 0).mean()) for path in SHARES}


def test_the_schedule_is_that_of_the_paper():
    """Zhu & Gupta 2017, eq. 1: from 0 to 0.875 over 8 pruning steps, 100 steps from one to the next, from 2000 on."""
    schedule = prune.gradual(2000, 100, 8)
    for t in (0, 1999, 2000, 2100, 2400, 2800, 9000):
        expected = 0.875 + (0 - 0.875) * (1 - min(max(t - 2000, 0) / 800, 1)) ** 3
        np.testing.assert_allclose(schedule.sparsity(t, 0.875), expected, rtol=1e-6)
    due = [t for t in range(4000) if schedule.due(t)]
    assert due == list(range(2000, 2801, 100))


def test_rounds_keep_the_same_share_each_time():
    """Han et al. 2015: half of the weights, then half of those, then half of those."""
    schedule = prune.rounds(10, 5, 3)
    np.testing.assert_allclose([schedule.sparsity(t, 0.875) for t in (9, 10, 14, 15, 20, 99)],
                               [0, 0.5, 0.5, 0.75, 0.875, 0.875], rtol=1e-6)  # fmt: skip
    assert [t for t in range(100) if schedule.due(t)] == [10, 15, 20]


def test_the_smallest_go():
    w = jnp.array([[3.0, -0.1, 0.0], [0.2, -5.0, 0.0]])
    np.testing.assert_array_equal(prune.mask(w, 0.5), [[1, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(prune.mask(w, 0.0), np.ones((2, 3)))
    np.testing.assert_array_equal(prune.magnitude({"w": w}, {"w": 5 / 6})["w"], [[0, 0, 0], [0, -5, 0]])


def test_what_is_gone_stays_gone_and_takes_no_place():
    """A large gradient of a weight that is gone brings it back neither to the weights nor among the largest."""
    params = {"w": jnp.arange(1.0, 9.0).reshape(2, 4)}
    tx = prune.pruned(optim.sgd(1.0), prune.rounds(0, 1, 2), {"w": 0.75})
    state, zero = tx.init(params), {"w": jnp.zeros((2, 4))}
    for gradient, left in ((zero, [5, 6, 7, 8]), ({"w": -100 * (params["w"] < 5)}, [7, 8])):
        updates, state = tx.update(gradient, state, params)
        params = {"w": params["w"] + updates["w"]}
        np.testing.assert_array_equal(params["w"][params["w"] != 0], left)


def test_masks_hold_in_training_and_a_run_that_goes_on_has_the_same_bits(tmp_path):
    tx = transform()
    strategy = parallel.local()
    step, key = strategy.compile(make_step(loss, tx)), jax.random.key(1)
    state = strategy.place(begin(tx))
    for i in range(9):
        state, _ = step(state, strategy.batch(batch(i)), key)
        if i == 3:  # between two rounds of pruning
            with Checkpoints(tmp_path / "checkpoints") as checkpoints:
                checkpoints.save(4, jax.device_get(state))
        if i == 5:
            masks = jax.device_get(state.opt.masks)
    for path, share in SHARES.items():
        size = masks[path].size
        assert (~masks[path]).sum() == round(share * size)
        np.testing.assert_array_equal(select.flat(state.params)[path] == 0, ~masks[path])
    _, again, _ = Checkpoints(tmp_path / "checkpoints").restore(jax.eval_shape(lambda: begin(tx)))
    again = strategy.place(again)
    for i in range(4, 9):
        again, _ = step(again, strategy.batch(batch(i)), key)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))


def test_devices_and_micro_batches_prune_the_same_weights():
    tx, results = transform(), []
    for strategy, accumulate in ((parallel.data_parallel(), 2), (parallel.mesh({"data": 4, "model": 2},
                                                                               param.axes(SPECS)), 1)):  # fmt: skip
        step = strategy.compile(make_step(loss, tx, accumulate=accumulate))
        state = strategy.place(begin(tx))
        for i in range(6):
            state, _ = step(state, strategy.batch(batch(i)), jax.random.key(1))
        results.append(jax.device_get(strategy.near(state.params)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), *results)
    assert zeros(results[0]) == zeros(results[1])


def test_the_sparsity_may_be_traced():
    """So that a curve is one program of lanes."""
    params = param.init(SPECS, jax.random.key(0))

    def pruned_to(share):
        tx = prune.pruned(optim.sgd(0.1), prune.rounds(0, 1, 1), {"layers/0/w": share})
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
        return ((params["layers"][0]["w"] + updates["layers"][0]["w"]) == 0).sum()

    shares = jnp.array([0.0, 0.25, 0.5])
    np.testing.assert_array_equal(jax.jit(jax.vmap(pruned_to))(shares), shares * 16 * 12)


def test_patterns_name_weights():
    assert select.weights(SPECS) == list(SHARES)  # no biases
    assert select.chosen(SPECS, ("layers/[01]/*",)) == ["layers/0/w", "layers/1/w"]
    with pytest.raises(UserError, match=r"--layers=layer/\* names no weights: .* such as layers/0/w"):
        select.chosen(SPECS, ("layers/0/w", "layer/*"))
