"""RelGAN's players against their own probabilities, counted out, and against what their equations say."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import param
from lmjax.config import MemoryGenerator, ViewsDiscriminator
from lmjax.models import relgan

SMALL = MemoryGenerator(vocab=3, length=3, embed=4, slots=2, heads=2, head_size=3, start=1)
JUDGE = ViewsDiscriminator(vocab=7, views=3, embed=2, windows=(1, 2), maps=(4, 3), hidden=5, dropout=0.0)


def drawn(specs, seed=0):
    """Parameters all of which matter: those of a start, and noise."""
    params = param.init(specs, jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    noise = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return tree.unflatten([x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, noise, strict=True)])


@pytest.fixture(scope="module")
def generator():
    """Parameters, all sequences there are, and each one's probability."""
    params = drawn(relgan.generator_params(SMALL))
    tokens = jnp.array(list(itertools.product(range(3), repeat=3)), jnp.int32)
    nll = jax.jit(jax.vmap(lambda row: relgan.nll(params, SMALL, row[None])[0]))
    probability = np.exp(-nll(tokens))
    assert np.isclose(probability.sum(), 1, atol=1e-5)
    return params, np.asarray(tokens), probability


@pytest.mark.parametrize("writes", ["sample", "relaxed"])
def test_sequences_come_as_often_as_they_are_likely(generator, writes):
    params, tokens, probability = generator
    count = 40_000
    if writes == "sample":
        rows = jax.jit(lambda: relgan.sample(params, SMALL, jax.random.key(5), count))()
    else:
        rows = jax.jit(lambda: relgan.relaxed(params, SMALL, jax.random.key(5), count, 1.0)[0])()
    found = (np.asarray(rows)[:, None] == tokens[None]).all(-1).mean(0)
    assert np.abs((found - probability) / np.sqrt(probability / count)).max() < 4.5


def test_relaxed_tokens_are_shares_that_lean_to_the_token_the_sharper_the_more(generator):
    params = generator[0]
    draw = jax.jit(lambda sharpness: relgan.relaxed(params, SMALL, jax.random.key(2), 50, sharpness))
    (tokens, soft), (same, sharp) = draw(1.0), draw(300.0)
    np.testing.assert_array_equal(tokens, same)
    np.testing.assert_allclose(soft.sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(soft.argmax(-1), tokens)
    assert np.median(sharp.max(-1)) > 0.999 > 0.9 > np.median(soft.max(-1))


def test_the_gradient_is_that_of_the_relaxed_tokens(generator):
    """A difference in a weight small enough to change no token: what moves is softmax(sharpness (scores + noise))."""
    params, way = generator[0], jax.random.normal(jax.random.key(9), generator[0]["softmax"]["w"].shape)
    to = jax.random.normal(jax.random.key(8), (5, 3, 3))

    @jax.jit
    def value(by):
        moved = params | {"softmax": params["softmax"] | {"w": params["softmax"]["w"] + by * way}}
        tokens, soft = relgan.relaxed(moved, SMALL, jax.random.key(3), 5, 1.7)
        return (soft * to).sum(), tokens

    (up, above), (down, below) = value(2e-3), value(-2e-3)
    np.testing.assert_array_equal(above, below)
    slope = jax.jit(jax.grad(lambda by: value(by)[0]))(0.0)
    assert abs(slope) > 0.1
    np.testing.assert_allclose((up - down) / 4e-3, slope, rtol=1e-2)


def test_draws_depend_on_a_rows_number_alone(generator):
    params, some = generator[0], jnp.array([5, 2])
    for write in (relgan.sample, lambda *args: relgan.relaxed(*args, 1.3)[1]):
        draw = jax.jit(lambda rows, write=write: write(params, SMALL, jax.random.key(0), rows))
        np.testing.assert_allclose(draw(some), draw(jnp.arange(8))[some], atol=1e-6)


def test_a_likelihood_reads_no_later_token(generator):
    params = generator[0]
    # Nats of each token, by the factor each has.
    each = jax.jit(jax.grad(lambda weights, tokens: relgan.nll(params, SMALL, tokens, weights)[0]))
    one, other = (each(jnp.ones((1, 3)), jnp.array([[0, 2, last]])) for last in (0, 1))
    np.testing.assert_allclose(one[:, :2], other[:, :2], rtol=1e-6)


def test_the_discriminator_takes_tokens_and_shares_alike_and_each_view_by_itself():
    params = drawn(relgan.discriminator_params(JUDGE))
    tokens = jax.random.randint(jax.random.key(0), (4, 6), 0, 7)
    score = jax.jit(lambda params, sequences: relgan.discriminator(params, JUDGE, sequences))
    scores = score(params, tokens)
    assert scores.shape == (4, 3)
    np.testing.assert_allclose(score(params, jax.nn.one_hot(tokens, 7)), scores, rtol=1e-4, atol=1e-5)
    moved = score(params | {"embed": params["embed"].at[:, 2:4].add(1.0)}, tokens)  # the second view's
    np.testing.assert_array_equal((moved != scores).any(0), [False, True, False])


def test_the_loss_is_of_pairs():
    made, true = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    expected = -np.log(1 / (1 + np.exp(-(true - made)))).mean(1).sum()
    np.testing.assert_allclose(relgan.relativistic(jnp.asarray(true), jnp.asarray(made)), expected, rtol=1e-5)
    params = drawn(relgan.discriminator_params(JUDGE))
    tokens = jax.random.randint(jax.random.key(0), (4, 6), 0, 7)
    assert np.isclose(relgan.fools(params, JUDGE, tokens, tokens), 0.5)
