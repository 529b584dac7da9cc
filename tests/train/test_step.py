"""The step: one division, skipped where not finite, averages of the weights, optimizers as published."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmjax.train import optim, parallel
from lmjax.train.state import new_state
from lmjax.train.step import make_step


def loss(params, batch, key, carry):
    """Weighted squares, so that the mean's gradient is known: sum w (p x - y)^2."""
    error = (params["w"] * batch["x"] - batch["y"]) * 1.0
    carry = jax.tree.map(lambda c: c + batch["x"], carry)
    return (batch["weights"] * error**2).sum(), (
        batch["weights"].sum(),
        {"error": (batch["weights"] * error).sum()},
        carry,
    )


def batch(x=(1.0, 2.0, 3.0, 4.0), weights=(1.0, 1.0, 1.0, 1.0)):
    x = jnp.array(x)
    return {"x": x, "y": 2 * x, "weights": jnp.array(weights)}


def start(tx, averaging=None, carry=()):
    return new_state({"w": jnp.array(1.0)}, tx, carry, averaging)


def take(step, state, batch):
    return jax.jit(lambda s, b: step(s, b, jax.random.key(0), parallel.ONE))(state, batch)


def test_the_gradient_is_of_the_weighted_mean():
    tx = optax.sgd(1.0)
    state, metrics = take(make_step(loss, tx), start(tx), batch(weights=(1.0, 0.0, 0.0, 2.0)))
    # mean of (w x - 2 x)^2 at w = 1 with weights 1, 0, 0, 2: x^2 = 1 and 16 twice, over 3
    assert float(metrics["loss"]) == pytest.approx(11.0)
    assert float(metrics["weight"]) == 3.0
    assert float(metrics["error"]) == pytest.approx(-3.0)
    assert float(state.params["w"]) == pytest.approx(1.0 + 22.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(bad):
    tx = optim.adamw(0.1)
    averaging = optim.ema(0.9)
    step = make_step(loss, tx, clip=1.0, averaging=averaging)
    good, _ = take(step, start(tx, averaging, carry=jnp.zeros(4)), batch())
    skipped, metrics = take(step, good, batch(x=(1.0, bad, 3.0, 4.0)))
    assert int(metrics["bad"]) == 1
    for name in ("params", "opt", "average", "carry"):
        jax.tree.map(np.testing.assert_array_equal, getattr(skipped, name), getattr(good, name))
    assert int(skipped.step) == 2
    assert skipped.bad.tolist() == [1, 1]
    again, _ = take(step, skipped, batch(x=(1.0, bad, 3.0, 4.0)))
    assert again.bad.tolist() == [2, 2]
    after, _ = take(step, again, batch())
    assert after.bad.tolist() == [0, 2]
    assert float(after.params["w"]) != float(good.params["w"])


def test_micro_batches_carry_their_own_rows():
    tx = optax.sgd(0.0)
    state, _ = take(make_step(loss, tx, accumulate=2), start(tx, carry=jnp.arange(4.0)), batch())
    np.testing.assert_allclose(state.carry, jnp.arange(4.0) + jnp.array([1.0, 2.0, 3.0, 4.0]))


def test_each_step_and_micro_batch_draws_its_own_key():
    seen = []

    def noisy(params, batch, key, carry):
        noise = jax.random.normal(key)
        jax.debug.callback(lambda n: seen.append(float(n)), noise)
        return loss(params, batch, key, carry)

    tx = optax.sgd(0.0)
    step = make_step(noisy, tx, accumulate=2)
    state, _ = take(step, start(tx), batch())
    take(step, state, batch())
    jax.effects_barrier()
    assert len(set(seen)) == 4


def test_ema_is_the_weighted_mean_of_all_weights():
    tx, averaging = optax.sgd(0.01), optim.ema(0.5)
    step, state, seen = make_step(loss, tx, averaging=averaging), start(tx, averaging), []
    for _ in range(3):
        state, _ = take(step, state, batch())
        seen.append(float(state.params["w"]))
    expected = np.average(seen, weights=[0.25, 0.5, 1.0])
    assert float(averaging.weights(state.average)["w"]) == pytest.approx(expected, rel=1e-6)


def test_polyak_averages_from_where_it_is_started():
    tx, averaging = optax.sgd(0.01), optim.polyak()
    step, state, seen = make_step(loss, tx, averaging=averaging), start(tx, averaging), []
    for i in range(6):
        if i == 2:
            state = optim.start_averaging(state)
        state, _ = take(step, state, batch())
        seen.append(float(state.params["w"]))
        if i < 2:
            assert float(averaging.weights(state.average)["w"]) == pytest.approx(seen[-1], rel=1e-6)
    assert float(averaging.weights(state.average)["w"]) == pytest.approx(np.mean(seen[2:]), rel=1e-6)


def test_weight_decay_spares_biases_and_norms():
    params = {"qkv": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}
    mask = optim.decay_mask(params)
    assert mask == {"qkv": {"w": True, "b": False}, "norm": {"scale": False, "bias": False}}


def test_sgd_decays_and_shrinks_the_weights():
    params, gradient = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.3, 0.4])}
    tx = optim.sgd(0.5, weight_decay=0.1, shrink=0.01)
    updates, _ = tx.update(gradient, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.5 * (gradient["w"] + 0.1 * params["w"]) - 0.01 * params["w"], rtol=1e-6)


@pytest.mark.parametrize(("clip", "moved"), [(0.0, 22.0), (5.0, 5.0), (30.0, 22.0)])
def test_the_mean_gradient_is_clipped_by_its_norm(clip, moved):
    tx = optax.sgd(1.0)
    state, metrics = take(make_step(loss, tx, clip=clip), start(tx), batch(weights=(1.0, 0.0, 0.0, 2.0)))
    assert float(metrics["gradient_norm"]) == pytest.approx(22.0)
    assert float(state.params["w"]) == pytest.approx(1.0 + moved)


def test_a_norm_limit_shortens_long_columns_and_no_others():
    params = {"classify": {"w": jnp.array([[3.0, 0.3], [4.0, 0.4]])}, "w": jnp.full((2, 2), 9.0)}
    tx = optim.norm_limit(optim.sgd(1.0), 3.0, ("classify", "w"))
    gradient = jax.tree.map(jnp.zeros_like, params) | {"classify": {"w": jnp.array([[0.0, -0.3], [0.0, -0.4]])}}
    updates, _ = tx.update(gradient, tx.init(params), params)
    new = jax.tree.map(jnp.add, params, updates)
    np.testing.assert_allclose(new["classify"]["w"], [[1.8, 0.6], [2.4, 0.8]], rtol=1e-6)
    np.testing.assert_array_equal(new["w"], params["w"])


def test_schedules_have_the_published_values():
    rate = optim.epoch_decay(1.0, 0.5, steps_per_epoch=10, flat=4)
    assert [float(rate(step)) for step in (0, 39, 40, 49, 50, 129)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.5**9]
    rate = optim.warmup_cosine(1e-3, 1100, warmup=100, end=1e-4)
    assert float(rate(0)) == pytest.approx(1e-3 / 101)
    assert float(rate(100)) == pytest.approx(1e-3)
    assert float(rate(600)) == pytest.approx(5.5e-4)
    assert float(rate(1100)) == float(rate(9999)) == pytest.approx(1e-4)


def test_inverse_square_root_rises_and_falls_as_in_the_paper():
    rate = optim.inverse_square_root(5e-3, 2000)
    for step in (1, 500, 2000, 8000):
        expected = 5e-3 * 2000**0.5 * min(step**-0.5, step * 2000**-1.5)  # eq. 3, with its d^-0.5 for the peak
        np.testing.assert_allclose(rate(step - 1), expected, rtol=1e-5)


def test_the_mean_of_the_last_snapshots_is_that_of_the_weights_then():
    averaging, rng = optim.last_snapshots(3, every=4, steps=18), np.random.default_rng(0)
    weights = [{"w": jnp.asarray(rng.normal(size=3), jnp.float32)} for _ in range(18)]
    average = averaging.init(weights[0])
    for step, params in enumerate(weights):
        average = averaging.update(average, params, jnp.int32(step))
        now = step + 1
        taken = [weights[at - 1]["w"] for at in (8, 12, 16) if at <= now] or [params["w"]]
        np.testing.assert_allclose(averaging.weights(average)["w"], np.mean(taken, axis=0), rtol=1e-5)


def test_training_longer_takes_the_snapshots_anew():
    rng = np.random.default_rng(0)
    weights = [{"w": jnp.asarray(rng.normal(size=3), jnp.float32)} for _ in range(40)]
    once, twice = (optim.last_snapshots(3, every=4, steps=steps) for steps in (40, 16))
    whole = parts = once.init(weights[0])
    for step, params in enumerate(weights):
        whole = once.update(whole, params, jnp.int32(step))
        parts = (twice if step < 16 else once).update(parts, params, jnp.int32(step))
    assert int(whole["count"]) == int(parts["count"]) == 3
    assert np.array_equal(whole["mean"]["w"], parts["mean"]["w"])
