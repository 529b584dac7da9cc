"""The steps of SeqGAN: the same for each lane and for each way to spread them, and right where one can count."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import param
from lmjax.config import Generator, MemoryGenerator, TextDiscriminator, ViewsDiscriminator
from lmjax.models import relgan, seqgan
from lmjax.models.text_discriminator import discriminator_loss, discriminator_params, truth
from lmjax.run.tasks import sequences, writing
from lmjax.train import parallel
from lmjax.train.lanes import Lane, draws, lane, over_lanes, stack, start_lanes
from lmjax.train.state import new_state

MODEL = Generator(vocab=9, length=4, embed=4, cells=4, init=0.5)
JUDGE = TextDiscriminator(vocab=9, embed=4, windows=(1, 3), maps=(4, 2), dropout=0.0)
SPECS = {
    "generator": seqgan.generator_params(MODEL), "policy": seqgan.generator_params(MODEL),
    "discriminator": discriminator_params(JUDGE),
}  # fmt: skip
PLAN = writing.Plan(epochs=1, first=1, rounds=1, judge_rounds=2, batch=16, judge_sequences=32)
TRAIN = np.random.default_rng(0).integers(0, 9, (48, 4)).astype(np.int32)
TX = sequences.players(0.01, 0.02, 0.03)
GAME = sequences.Game(
    MODEL, JUDGE, TX, writing.judged_by(JUDGE), rollouts=3, epochs=2, probability=lambda epoch: 0.3 * (epoch + 1)
)


# RelGAN's: two rounds of three updates of the generator, each with two of the discriminator.
MEMORY = MemoryGenerator(vocab=9, length=4, embed=4, slots=2, heads=2, head_size=3)
VIEWS = ViewsDiscriminator(vocab=9, views=2, embed=2, windows=(1, 2), maps=(4, 3), hidden=5, dropout=0.0)
RELGAN_SPECS = {
    "generator": relgan.generator_params(MEMORY), "discriminator": relgan.discriminator_params(VIEWS)
}  # fmt: skip
RELGAN_PLAN = PLAN._replace(epochs=1, first=0, updates=3)
RELGAN = sequences.Game(MEMORY, VIEWS, TX, net=relgan, sharpness=lambda step: 2.0**step)


def keys(seed):
    return jax.random.split(jax.random.key(seed))


def played(strategy, seeds, parts=("rows", "true", "made"), steps=2, game=GAME, specs=SPECS, plan=PLAN):
    """The lanes' params after each of a few rounds of the game, or of parts of one, and each round's metrics. A round
    is taken twice: from the state before it, and from what a checkpoint would hold of that."""
    lanes = [Lane(seed) for seed in seeds]
    start = start_lanes(lambda seed, _: new_state(param.init(specs, keys(seed)[1]), TX), lanes)
    key = draws(lanes, lambda seed: keys(seed)[0])
    step = strategy.compile(over_lanes(lambda hyper: sequences.make_step(game)))
    state = strategy.place(jax.jit(start)())
    batch = stack([writing.batch(plan, TRAIN, seed, plan.epochs + plan.first) for seed in seeds])
    params, metrics = [], []
    for _ in range(steps):
        part = {name: batch[name] for name in parts}
        kept = jax.tree.map(np.array, strategy.host(state))
        state, report = step(state, strategy.batch(part), key)
        again, _ = step(strategy.place(kept), strategy.batch(part), key)
        jax.tree.map(np.testing.assert_array_equal, strategy.host(state), strategy.host(again))
        params.append(strategy.host(state).params)
        metrics.append(jax.device_get(report))
    return params, metrics


@pytest.fixture(scope="module")
def local():
    return played(parallel.local(), (5,))


def same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_each_lane_is_the_training_alone(local):
    params, _ = played(parallel.local(), (0, 5))
    same(lane(params[-1], 1), lane(local[0][-1], 0))


def test_spread_over_devices_it_is_the_same(local):
    params, metrics = played(parallel.data_parallel(), (5,))
    same(params, local[0])
    same(metrics, local[1])


def test_on_a_mesh_it_is_the_same(local):
    """The generator's half, in the first round: the discriminator's comes after it."""
    params, metrics = played(parallel.mesh({"data": 4, "model": 2}, param.axes(SPECS)), (5,), ("rows",), steps=1)
    same(params[0]["generator"], local[0][0]["generator"])
    same(metrics[0]["reward"], local[1][0]["reward"])


def test_each_player_is_trained_and_the_policy_follows_by_a_fifth_of_the_way(local):
    (first, second), (metrics, _) = local
    assert all(np.isfinite(value) for value in metrics.values())
    assert 0 < metrics["reward"] < 1
    assert np.abs(first["discriminator"]["output"]["w"] - second["discriminator"]["output"]["w"]).max() > 1e-3
    np.testing.assert_array_equal(second["policy"]["embed"], second["generator"]["embed"])
    old, new, found = (part["softmax"]["w"] for part in (first["policy"], second["generator"], second["policy"]))
    np.testing.assert_allclose(found, 0.8 * old + 0.2 * new, rtol=1e-5, atol=1e-6)


def relgan_played(strategy, seeds, steps=2):
    params, metrics = played(strategy, seeds, ("rows", "real"), steps, RELGAN, RELGAN_SPECS, RELGAN_PLAN)
    for part in params:  # all keys moved alike change no attention: Adam blows the last bits up
        bias = part["generator"]["memory"]["qkv_norm"]
        bias["bias"] = bias["bias"][..., [0, 2], :]
    return params, metrics


def test_relgans_round_is_the_same_for_each_lane_and_over_devices():
    params, metrics = relgan_played(parallel.local(), (0, 5))
    assert all(np.isfinite(metrics[-1][name]) for name in ("loss", "reward", "discriminator_loss"))
    moved = jax.tree.map(lambda one, two: np.abs(one - two).max(), *params)
    for layer in ("hidden", "output"):  # pairs cancel what is added behind the last kink
        moved["discriminator"][layer].pop("b")
    assert min(jax.tree.leaves(moved)) > 1e-5  # every other weight of both players learns
    spread, _ = relgan_played(parallel.data_parallel(), (5,))  # alone, and eight rows of two
    for ours, theirs in zip(spread, params, strict=True):
        same(lane(ours, 0), lane(theirs, 1))


def test_relgans_discriminator_learns_to_tell_and_then_its_generator_to_fool_it():
    plan, train = RELGAN_PLAN._replace(updates=60), np.sort(TRAIN, axis=1)  # what a start does not write
    batch = jax.tree.map(jnp.asarray, writing.batch(plan, train, 0, 1))
    state = new_state(param.init(RELGAN_SPECS, jax.random.key(0)), TX)
    fooled = jax.jit(writing.fooled_by(VIEWS, train))
    write = jax.jit(lambda params: relgan.sample(params["generator"], MEMORY, jax.random.key(3), 48))

    def round(state, generator, judge):
        game = RELGAN._replace(tx=sequences.players(0.01, generator, judge), sharpness=lambda step: 1.0)
        return jax.jit(lambda s: sequences.make_step(game)(s, batch, jax.random.key(1), parallel.ONE))(state)

    state, report = round(state, 1e-6, 0.01)
    assert report["discriminator_accuracy"] > 0.8
    before = fooled(state.params, write(state.params))
    assert before < 0.3
    assert np.isclose(fooled(state.params, jnp.asarray(train)), 0.5)
    state, _ = round(state, 0.02, 1e-6)
    assert fooled(state.params, write(state.params)) > before + 0.1


def test_what_a_step_does_is_told_by_its_place_in_the_plan():
    kinds = [set(writing.batch(PLAN, TRAIN, 0, i)) for i in range(PLAN.steps)]
    assert kinds == [{"tokens", "numbers"}, {"true", "made"}, {"rows", "true", "made"}]
    epoch, _, game = (writing.batch(PLAN, TRAIN, 0, i) for i in range(PLAN.steps))
    assert epoch["tokens"].shape == (16, 3, 4)
    assert game["true"].shape == (8, 2, 4, 4)
    assert game["made"].shape == (8, 2, 4)
    relgans = writing.batch(RELGAN_PLAN, TRAIN, 0, 1)
    assert {name: x.shape for name, x in relgans.items()} == {"rows": (16,), "real": (16, 3, 3, 4)}
    assert not np.array_equal(epoch["tokens"], writing.batch(PLAN, TRAIN, 5, 0)["tokens"])
    rows = [tuple(row) for row in epoch["tokens"].reshape(-1, 4)]
    assert sorted(rows) == sorted(map(tuple, TRAIN))  # each sequence once


def test_values_of_actions_come_near_their_expectation():
    """Monte-Carlo search over a reward that is a table (eq. 4), and the last token's value the table's own entry."""
    model = Generator(vocab=3, length=3, embed=4, cells=5, init=1.0)
    params = {"generator": param.init(seqgan.generator_params(model), jax.random.key(0))}
    tokens = jnp.array(list(itertools.product(range(3), repeat=3)), jnp.int32)
    table = jax.random.uniform(jax.random.key(4), (27,))
    game = sequences.Game(model, None, TX, lambda params, rows: table[rows @ jnp.array([9, 3, 1])], rollouts=1000)
    search = jax.jit(lambda key: sequences.action_values(game, params, tokens, key, jnp.arange(27)))
    found = np.asarray(search(jax.random.key(1)))
    nll = jax.jit(jax.vmap(lambda row: seqgan.nll(params["generator"], model, row[None])[0]))
    probability, rows = np.exp(-nll(tokens)), np.asarray(tokens)
    np.testing.assert_allclose(found[:, 2], table, rtol=1e-6)
    for i, t in itertools.product(range(27), range(2)):
        begins = (rows[:, : t + 1] == rows[i, : t + 1][None]).all(1)
        expected = (probability * table)[begins].sum() / probability[begins].sum()
        assert abs(found[i, t] - expected) < 4.5 * 0.5 / 1000**0.5


def test_a_discriminator_learns_to_tell_and_blocks_of_rows_change_nothing():
    params, tx = param.init(SPECS["discriminator"], jax.random.key(0)), sequences.players(0.1, None, 0.05)
    true, made = np.zeros((8, 4), np.int32), np.random.default_rng(1).integers(1, 9, (8, 4)).astype(np.int32)
    batch = {"tokens": jnp.concatenate([true, made]), "labels": jnp.repeat(jnp.array([1, 0]), 8)}
    optimizer = tx.parts["discriminator"][1]

    def update(state, _):
        params, opt = state
        gradient = jax.grad(lambda params: discriminator_loss(params, JUDGE, batch, None, ())[0] / 16)(params)
        change, opt = optimizer.update(gradient, opt, params)
        return (jax.tree.map(jnp.add, params, change), opt), None

    params, _ = jax.jit(lambda p: jax.lax.scan(update, (p, optimizer.init(p)), None, 60)[0])(params)
    found, by_blocks = jax.jit(lambda p, x: (truth(p, JUDGE, x), truth(p, JUDGE, x, rows=5)))(params, batch["tokens"])
    assert (found[:8] > 0.6).all()
    assert (found[8:] < 0.4).all()
    np.testing.assert_allclose(by_blocks, found, rtol=1e-5)


def test_failures_are_said_in_a_line_when_they_begin():
    said, state = [], new_state({}, TX._replace(parts={})).replace(bad=np.array([[0, 0], [3, 7]]))
    decide = writing.notices(said.append, ("seed 4", "seed 9"))
    fine = {"judged_0": 0.4, "judged_1": 0.5, "distinct_0": 1.0, "distinct_1": 0.95}
    decide([fine | {"judged_0": 0.001}], state)
    assert len(said) == 2
    assert "seed 4: the discriminator wins" in said[0]
    assert "seed 9: 3 updates" in said[1]
    said.clear()
    state = state.replace(bad=np.zeros((2, 2), int))
    decide([fine, fine | {"distinct_1": 0.5}], state)
    assert len(said) == 1
    assert "seed 9: the generator is collapsing, 50.0%" in said[0]
    decide([fine | {"distinct_1": 0.6}, fine | {"distinct_1": 0.5}], state)
    assert len(said) == 1


def test_each_lanes_best_is_its_own():
    history = [{"loss_0": 2.0, "loss_1": 1.0, "nll_oracle_0": 9.0, "nll_oracle_1": 8.0},
               {"loss_0": 1.0, "loss_1": 3.0, "nll_oracle_0": 7.0, "nll_oracle_1": 6.0}]  # fmt: skip
    assert writing.best_of_each(history, "nll_oracle") == [7.0, 8.0]
