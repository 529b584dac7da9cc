"""The two networks and what they play for: penalties against differences, packs, classes, paper-size parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import param
from lmjax.config import Game, ImageGAN, PointGAN
from lmjax.models import gan


def begin(pair):
    return jax.jit(lambda key: param.init(pair.specs, key))(jax.random.key(0))


def batch(pair, B=6, labels=False):
    rng = np.random.default_rng(1)
    rows = {"real": rng.normal(size=(B, pair.pack, *pair.shape)).astype(np.float32), "row": np.arange(B)}
    return rows | ({"labels": rng.integers(0, 3, (B, pair.pack))} if labels else {})


def test_the_slope_penalty_is_that_of_differences():
    w = jax.random.normal(jax.random.key(0), (2, 5))

    def score(x, w=w):
        return jnp.sin(x.reshape(-1, 2) @ w).sum(-1)

    real, fake = jax.random.normal(jax.random.key(1), (2, 7, 1, 2))
    key, rows, e = jax.random.key(2), jnp.arange(7), 1e-2
    got = jax.jit(lambda real: gan.slope_penalty(score, real, fake, key, rows, 10.0))(real)
    share = jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row)))(rows)[:, None, None]
    assert 0 < float(share.min()) < float(share.max()) < 1
    between = share * real + (1 - share) * fake
    slopes = [(score(between + e * d) - score(between - e * d)) / (2 * e) for d in jnp.eye(2)[:, None, None]]
    expected = 10 * (np.hypot(*slopes) - 1) ** 2
    np.testing.assert_allclose(got, expected, rtol=5e-3, atol=5e-3)

    @jax.jit
    def total(w):
        return gan.slope_penalty(lambda x: score(x, w), real, fake, key, rows, 10.0).sum()

    direction = jax.random.normal(jax.random.key(3), w.shape)
    along = (total(w + e * direction) - total(w - e * direction)) / (2 * e)
    assert float((jax.grad(total)(w) * direction).sum()) == pytest.approx(float(along), rel=5e-3)


def test_a_flat_critic_has_a_finite_penalty_and_gradient():
    real = jnp.ones((3, 1, 2))
    slope = jax.grad(lambda w: gan.slope_penalty(lambda x: w * x.sum((1, 2)), real, 0 * real, jax.random.key(0),
                                                 jnp.arange(3), 10.0).sum())(0.0)  # fmt: skip
    assert np.isfinite(slope)


@pytest.mark.parametrize("loss", ["minimax", "non-saturating", "wasserstein", "hinge"])
def test_losses_are_the_papers(loss):
    pair, game = gan.point_pair(PointGAN(hidden=8, critic_hidden=8)), Game(loss=loss)
    params, rows, key = begin(pair), batch(pair), jax.random.key(0)
    fake = gan.make(pair, params["generator"], rows, key, lambda x: x)
    real, made = (np.asarray(pair.score(params["discriminator"], x)) for x in (rows["real"], fake))
    p, q = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-made))
    log = -np.log(p) - np.log(1 - q)
    expected = {
        "minimax": (log, np.log(1 - q)), "non-saturating": (log, -np.log(q)), "wasserstein": (made - real, -made),
        "hinge": (np.maximum(0, 1 - real) + np.maximum(0, 1 + made), -made),
    }[loss]  # fmt: skip
    total, (weight, _, _) = gan.discriminator_loss(
        pair, game, params["discriminator"], params["generator"], rows, key, {}
    )
    assert (float(total), float(weight)) == (pytest.approx(expected[0].sum(), rel=1e-4), len(real))
    total, _ = gan.generator_loss(pair, game, params["generator"], params["discriminator"], rows, key, {})
    assert float(total) == pytest.approx(expected[1].sum(), rel=1e-4)


def test_a_pack_is_judged_together_and_a_row_without_others():
    for pair in (gan.point_pair(PointGAN(pack=3)), gan.image_pair(ImageGAN(size=8, latent=8, width=8, pack=3))):
        params, rows, score = begin(pair)["discriminator"], batch(pair), jax.jit(pair.score)
        before = score(params, rows["real"])
        assert before.shape == (6,)
        changed = rows["real"].copy()
        changed[0, 2] += 1.0  # the last of the first row's pack
        after = score(params, changed)
        np.testing.assert_allclose(before[1:], after[1:], rtol=1e-5)
        assert abs(float(before[0] - after[0])) > 1e-4


def test_a_class_reaches_both_players():
    pair = gan.image_pair(ImageGAN(size=8, latent=8, width=8, classes=3))
    params, rows = begin(pair), batch(pair, labels=True)
    others = {**rows, "labels": (rows["labels"] + 1) % 3}
    make = jax.jit(lambda rows: gan.make(pair, params["generator"], rows, jax.random.key(0), lambda x: x))
    one, two = make(rows), make(others)
    assert one.shape == rows["real"].shape
    assert float(abs(one - two).max()) > 1e-3
    score = jax.jit(pair.score)
    a, b = (score(params["discriminator"], rows["real"], r["labels"]) for r in (rows, others))
    assert float(abs(a - b).min()) > 1e-6


def test_noise_of_a_row_is_its_number_s_alone():
    rows, key = jnp.arange(8), jax.random.key(0)
    np.testing.assert_array_equal(gan.noise(key, rows, (2, 3))[4:], gan.noise(key, rows[4:], (2, 3)))


def test_samples_by_given_statistics_do_not_depend_on_their_batch():
    pair = gan.point_pair(PointGAN(hidden=8, layers=2))
    params, z = begin(pair)["generator"], jax.random.normal(jax.random.key(0), (32, 2))
    generate = jax.jit(pair.generate)
    x, statistics = generate(params, z)
    np.testing.assert_allclose(generate(params, z[:3], None, statistics)[0], x[:3], atol=1e-5)
    assert float(abs(generate(params, z[:3])[0] - x[:3]).max()) > 1e-2


def test_spread_is_the_ratio_of_deviations():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(500, 1, 2)), 0.1 * rng.normal(size=(500, 1, 2)) + 3
    sums = {name: jnp.asarray(x, jnp.float32) / 500 for name, x in gan.moments(real, fake).items()}
    width, rest = gan.spread(sums | {"loss": 1.0})
    assert float(width) == pytest.approx(np.sqrt(fake.var(0).sum() / real.var(0).sum()), rel=1e-2)
    assert rest == {"loss": 1.0}


def test_pacgan_s_networks_have_the_published_sizes():
    pair = gan.point_pair(PointGAN(hidden=400, layers=4, critic_hidden=200, critic_layers=3, pieces=5))
    # 2-400-400-400-400-2 with scale and shift of each unit; 2-200-200-200-1 of 5 pieces. Biases in front of the norms,
    # which theirs leave out, are 4 x 400.
    assert param.count(pair.specs["generator"]) == 2 * 400 + 3 * 400**2 + 400 * 2 + 2 + 4 * 2 * 400 + 4 * 400
    assert param.count(pair.specs["discriminator"]) == 5 * (2 * 200 + 2 * 200**2 + 3 * 200) + 201


@pytest.mark.parametrize(
    ("changes", "line"),
    [({"size": 10}, "model.size=10"), ({"classes": 3, "pack": 2}, "a pack has no one class")],
)
def test_what_cannot_be_is_one_line(changes, line):
    with pytest.raises(ValueError, match=line):
        gan.image_pair(ImageGAN(**{"size": 8, **changes}))
