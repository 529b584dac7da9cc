"""The step of two players: parity over devices with batch statistics, lanes, unrolling, failures that are said."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmjax import param
from lmjax.config import Game, ImageGAN, PointGAN
from lmjax.data import mixtures
from lmjax.models import gan
from lmjax.nn.norm import spectral_start
from lmjax.train import adversarial, optim, parallel
from lmjax.train.lanes import Lane, draws, lane, over_lanes, stack, start_lanes
from lmjax.train.state import new_state

B = 16


def players(pair, game, tx=None):
    return adversarial.Players(
        partial(gan.generator_loss, pair, game), partial(gan.discriminator_loss, pair, game),
        tx or optim.sgd(0.1), tx or optim.sgd(0.05), spectral_start if game.spectral else lambda params: {},
    )  # fmt: skip


def batch(i, pair, updates):
    rng, shape = np.random.default_rng(i), (B, updates, pair.pack, *pair.shape)
    rows = {"real": rng.normal(size=shape).astype(np.float32), "row": np.arange(B, dtype=np.int32)}
    rows["real"] *= np.linspace(0, 2, B, dtype=np.float32).reshape(-1, *[1] * (len(shape) - 1))  # each device's differ
    return rows


GAMES = {
    "batch norm in both": (
        gan.image_pair(ImageGAN(size=8, latent=4, width=4, critic_batch_norm=True)), Game()),
    "batch norm, packs, unrolled": (
        gan.point_pair(PointGAN(hidden=8, layers=1, critic_hidden=8, critic_layers=1, pack=2)), Game(unroll=2)),
    "slope penalty, spectral norms": (
        gan.point_pair(PointGAN(hidden=8, layers=1, critic_hidden=8, critic_layers=1)),
        Game(loss="wasserstein", penalty=1.0, spectral=True, critic_steps=2)),
}  # fmt: skip


def run(name, strategy=None, steps=2):
    pair, game = GAMES[name]
    both, averaging = players(pair, game), adversarial.generator_average(0.9)
    step = adversarial.make_step(
        both, critic_steps=game.critic_steps, unroll=game.unroll, averaging=averaging, spread=gan.spread
    )
    state = jax.jit(lambda key: new_state(param.init(pair.specs, key), both, (), averaging))(jax.random.key(0))
    strategy = strategy(param.axes(pair.specs)) if strategy else parallel.local()
    state, step = strategy.place(state), strategy.compile(step)
    for i in range(steps):
        rows = strategy.batch(batch(i, pair, game.critic_steps))
        state, metrics = step(state, rows, jax.random.key(1))
    return strategy.host(state), {name: float(x) for name, x in metrics.items()}


def assert_same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, value in one[1].items():
        assert value == pytest.approx(other[1][name], rel=1e-3, abs=1e-5), name


@pytest.fixture(scope="module")
def alone():
    done = {}

    def get(name):
        if name not in done:
            done[name] = run(name)
        return done[name]

    return get


@pytest.mark.parametrize(
    ("name", "strategy"),
    [(name, "pmap") for name in GAMES] + [("batch norm, packs, unrolled", "mesh")],
)
def test_strategies_agree_with_one_device(name, strategy, alone):
    made = {"pmap": lambda axes: parallel.data_parallel(),
            "mesh": lambda axes: parallel.mesh({"data": 4, "model": 2}, axes)}[strategy]  # fmt: skip
    assert_same(run(name, made), alone(name))


def test_each_lane_is_the_run_alone():
    pair = gan.point_pair(PointGAN(hidden=8, layers=1, critic_hidden=8, critic_layers=1))
    game = Game(critic_steps=2, spectral=True)
    both, averaging, seeds = players(pair, game), adversarial.generator_average(0.5), (3, 0)
    step = adversarial.make_step(both, critic_steps=2, averaging=averaging, spread=gan.spread)

    def keys(seed):
        return jax.random.split(jax.random.key(seed))

    def begin(seed, hyper):
        return new_state(param.init(pair.specs, keys(seed)[1]), both, (), averaging)

    batches = [mixtures.batches(mixtures.ring(), B, 2, 1, seed) for seed in seeds]
    several = [Lane(seed) for seed in seeds]
    drawn = draws(several, lambda seed: keys(seed)[0])
    state = jax.jit(start_lanes(begin, several))()
    together = jax.jit(lambda s, b, k: over_lanes(lambda hyper: step)(s, b, k, parallel.ONE))
    for i in range(3):
        state, _ = together(state, stack([batch(i) for batch in batches]), drawn)
    by_itself = jax.jit(lambda s, b, k: step(s, b, k, parallel.ONE))
    for n, seed in enumerate(seeds):
        one = jax.jit(begin)(seed, {})
        for i in range(3):
            one, _ = by_itself(one, batches[n](i), keys(seed)[0])
        for part in ("params", "opt", "average", "bad"):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                         lane(getattr(state, part), n), getattr(one, part))  # fmt: skip
    assert averaging.weights(state.average)["generator"]["out"]["w"].shape == (2, 8, 2)


def test_an_unrolled_gradient_is_that_of_the_steps_written_out():
    # Networks without a kink, which differences would stumble over.
    draws = jax.random.split(jax.random.key(0), 3)
    critic = {"w": jax.random.normal(draws[1], (2, 8)), "out": jax.random.normal(draws[2], (8,))}
    params = {"generator": {"w": jax.random.normal(draws[0], (2, 2))}, "discriminator": critic}
    pair = gan.Pair({}, 2, (2,), 1, lambda p, z, labels, statistics, psum: (jnp.tanh(z @ p["w"]), []),
                    lambda p, x, labels, psum: jnp.tanh(x[:, 0] @ p["w"]) @ p["out"])  # fmt: skip
    both, rate = players(pair, Game()), 0.3
    rows = mixtures.batches(mixtures.ring(), B, 1, 1, 0)(0)
    rows["real"] = rows["real"][:, 0]
    key, psum = jax.random.key(1), lambda x: x

    def mean(critic, generator):
        total, (weight, _, _) = both.discriminator(critic, generator, rows, key, {}, psum)
        return total / weight

    def written_out(generator, updates=2):
        critic = params["discriminator"]
        for _ in range(updates):
            slope = jax.grad(mean)(critic, generator)
            critic = jax.tree.map(lambda p, g: p - rate * g, critic, slope)
        return both.generator(generator, critic, rows, key, {}, psum)[0]

    def looked_ahead(generator):
        critic = adversarial.unrolled(
            lambda p, b, k, v: both.discriminator(p, generator, b, k, v, psum), optim.sgd(rate),
            params["discriminator"], optim.sgd(rate).init(params["discriminator"]), rows, key, {}, parallel.ONE, 2,
        )  # fmt: skip
        return both.generator(generator, critic, rows, key, {}, psum)[0]

    got, expected = jax.jit(lambda g: (jax.grad(looked_ahead)(g), jax.grad(written_out)(g)))(params["generator"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, expected)
    # The steps' own dependence on the generator is part of it: as differences have it, along a direction.
    ahead, e = jax.jit(lambda g, t: looked_ahead(jax.tree.map(lambda p, d: p + t * d, g, got))), 1e-2
    length = sum(float((g * g).sum()) for g in jax.tree.leaves(got)) ** 0.5
    along = [float(ahead(params["generator"], t * e / length)) for t in (-1, 1)]
    assert (along[1] - along[0]) / (2 * e) == pytest.approx(length, rel=1e-2)


def test_adam_can_be_differentiated_where_a_gradient_is_nothing():
    tx = adversarial.adam(0.1, 0.5, 0.9)
    slope = jax.grad(lambda g: tx.update({"w": g}, tx.init({"w": g}))[0]["w"])(0.0)
    assert np.isfinite(slope)


def test_a_gaussian_is_learned():
    mean, root = np.array([1.0, -0.5], np.float32), np.array([[1.0, 0.0], [0.6, 0.4]], np.float32)
    pair = gan.point_pair(PointGAN(hidden=16, layers=1, critic_hidden=32, critic_layers=1, batch_norm=False))
    game, steps = Game(lr=1e-2, critic_lr=1e-2, b2=0.9, decay=True, critic_steps=2), 600
    both = players(pair, game)._replace(**{
        f"{name}_tx": adversarial.adam(rate, game.b1, game.b2)
        for name, rate in zip(("generator", "discriminator"), adversarial.rates(game, steps))
    })  # fmt: skip
    averaging, local = adversarial.generator_average(0.99), parallel.local()
    step = local.compile(adversarial.make_step(both, critic_steps=2, averaging=averaging))
    state = local.place(new_state(param.init(pair.specs, jax.random.key(0)), both, (), averaging))
    for i in range(steps):
        z = np.random.default_rng(i).standard_normal((64, 2, 1, 2), np.float32)
        state, _ = step(state, {"real": mean + z @ root.T, "row": np.arange(64)}, jax.random.key(1))
    generator = averaging.weights(state.average)["generator"]
    x = np.asarray(gan.samples(pair, generator, jax.random.normal(jax.random.key(2), (4000, 2))))
    np.testing.assert_allclose(x.mean(0), mean, atol=0.15)
    np.testing.assert_allclose(np.cov(x.T), root @ root.T, atol=0.15)


def watched(real, monkeypatch, game=None, steps=4, scale=1.0, critic=1.0):
    """The lines said after some steps on `real` [B,1,1,2], and the state before and after."""
    monkeypatch.setattr(adversarial, "LONG", 3)
    pair = gan.point_pair(PointGAN(hidden=8, layers=1, critic_hidden=8, critic_layers=1, batch_norm=False))
    both = players(pair, game or Game(), optim.sgd(0.0))

    @jax.jit
    def start(key):
        params = param.init(pair.specs, key)
        params["generator"]["out"]["w"] *= scale
        params["discriminator"]["out"]["w"] *= critic
        return params, new_state(params, both)

    params, state = start(jax.random.key(0))
    step = jax.jit(adversarial.make_step(both, spread=gan.spread), static_argnums=3)
    for _ in range(steps):
        state, metrics = step(state, {"real": real, "row": np.arange(B)}, jax.random.key(0), parallel.ONE)
    said, history = [], [{}]
    adversarial.tell(said.append, history, state)
    adversarial.tell(said.append, [*history, {}], state)  # which says nothing new
    assert adversarial.failures(history) == said
    return said, params, state, metrics


def points():
    return np.random.default_rng(0).normal(size=(B, 1, 1, 2)).astype(np.float32)


def test_no_failure_is_not_said(monkeypatch):
    assert watched(points(), monkeypatch)[0] == []


def test_a_discriminator_that_wins_is_said(monkeypatch):
    monkeypatch.setattr(gan, "judge", lambda *_: (lambda x, labels, psum: jnp.where(x[:, 0, 0] > 50, 9.0, -9.0), {}))
    lines, *_ = watched(points() + 100, monkeypatch)
    assert [line.partition(":")[0] for line in lines] == ["the discriminator has won"]


def test_a_collapsed_generator_is_said(monkeypatch):
    lines, *_ = watched(points(), monkeypatch, scale=1e-4, steps=3)
    assert [line.partition(":")[0] for line in lines] == ["the generator has collapsed"]


def test_a_penalty_that_is_not_finite_is_said_and_changes_nothing(monkeypatch):
    game = Game(loss="wasserstein", penalty=10.0)
    lines, params, state, metrics = watched(points(), monkeypatch, game, critic=1e30)  # slopes too steep to square
    assert len(lines) == 1
    assert "slope penalty was not finite in 4 steps" in lines[0]
    assert int(metrics["bad"]) == 4
    jax.tree.map(np.testing.assert_array_equal, state.params, params)


def test_a_lane_is_named():
    count = jnp.array([0, 500])
    state = new_state({}, optax.identity()).replace(
        opt={"watch": {"won": 0 * count, "collapsed": count, "penalty": 0 * count}}, bad=jnp.zeros((2, 2), jnp.int32)
    )
    (line,) = adversarial.notices(state, ["seed 7", "seed 8"]).values()
    assert line.startswith("seed 8: the generator has collapsed: for 500 steps")
