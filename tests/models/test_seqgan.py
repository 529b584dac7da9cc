"""SeqGAN's generator against plain numpy and against its own probabilities, counted out where they can be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import param
from lmjax.config import Generator
from lmjax.losses import blocked_cross_entropy, cross_entropy
from lmjax.models import seqgan

SMALL = Generator(vocab=3, length=3, embed=4, cells=5, start=1, init=1.0)


def drawn(config, seed=0):
    return param.init(seqgan.generator_params(config), jax.random.key(seed))


def every(config):
    """All sequences there are, and the log-likelihood of each."""
    tokens = jnp.array(list(itertools.product(range(config.vocab), repeat=config.length)), jnp.int32)
    return tokens, lambda params: -jax.vmap(lambda row: seqgan.nll(params, config, row[None])[0])(tokens)


def jitted(function, config):
    """seqgan's function of (params, config, ...), compiled as a whole."""
    return jax.jit(lambda params, *rest: function(params, config, *rest))


def plain_nll(params, config, tokens):
    """Gate by gate, step by step: nats of each token [B,T]."""
    p = jax.tree.map(np.asarray, params)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    h = c = np.zeros((len(tokens), config.cells))
    before, found = np.full(len(tokens), config.start), []
    for now in np.asarray(tokens).T:
        x = p["embed"][before]
        i, f, g, o = (x @ p["lstm"]["w"][:, n] + h @ p["lstm"]["u"][:, n] + p["lstm"]["b"][n] for n in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        scores = h @ p["softmax"]["w"] + p["softmax"]["b"]
        found.append(np.log(np.exp(scores).sum(1)) - scores[np.arange(len(now)), now])
        before = now
    return np.array(found).T


def test_likelihood_is_that_of_a_plain_lstm():
    config = Generator(vocab=11, length=6, embed=4, cells=5, start=3, init=1.0)
    params, tokens = drawn(config), np.random.default_rng(0).integers(0, 11, (150, 6))
    weights = np.random.default_rng(1).random((150, 6)).astype(np.float32)
    expected = plain_nll(params, config, tokens)
    nll = jitted(seqgan.nll, config)
    total, count = nll(params, jnp.asarray(tokens))
    assert np.isclose(total, expected.sum(), rtol=1e-5)
    assert count == 900
    total, count = nll(params, jnp.asarray(tokens), jnp.asarray(weights))
    assert np.isclose(total, (weights * expected).sum(), rtol=1e-5)
    assert np.isclose(count, weights.sum())


@pytest.mark.parametrize("rows", [7, 300])  # less than a block, and three blocks of which the last is not full
def test_loss_by_blocks_is_cross_entropy_and_so_are_its_gradients_in_lanes(rows):
    keys = jax.random.split(jax.random.key(0), 5)
    x, w, b = (jax.random.normal(k, s) for k, s in zip(keys, ((2, rows, 4), (2, 4, 9), (2, 9))))
    targets, weights = jax.random.randint(keys[3], (2, rows), 0, 9), jax.random.uniform(keys[4], (2, rows))

    def blocked(x, w, b, targets, weights):
        return blocked_cross_entropy(x, w, b, targets, weights)[0]

    def plain(x, w, b, targets, weights):
        return cross_entropy(x @ w + b[None], targets, weights)[0]

    def both(f):
        return jax.jit(jax.vmap(jax.value_and_grad(f, (0, 1, 2, 4))))(x, w, b, targets, weights)

    for ours, theirs in zip(jax.tree.leaves(both(blocked)), jax.tree.leaves(both(plain)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(blocked))(x, w, b, targets, weights), both(plain)[0], rtol=2e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_come_as_often_as_they_are_likely(temperature):
    params, count = drawn(SMALL), 40_000
    tokens, likelihood = every(SMALL)
    sharp = params | {"softmax": jax.tree.map(lambda x: x / temperature, params["softmax"])}
    expected = np.exp(jax.jit(likelihood)(sharp))
    assert np.isclose(expected.sum(), 1, atol=1e-5)
    rows = np.asarray(jax.jit(lambda: seqgan.sample(params, SMALL, jax.random.key(5), count, temperature))())
    found = np.array([(rows == row[None]).all(1).mean() for row in np.asarray(tokens)])
    assert np.abs((found - expected) / np.sqrt(expected / count)).max() < 4.5


def test_a_token_is_the_first_whose_cumulative_probability_exceeds_the_draw():
    config = Generator(vocab=50, length=2, embed=4, cells=5, init=1.0)
    params = drawn(config)
    h, u = jax.random.normal(jax.random.key(1), (400, 5)), jnp.linspace(0, 0.9999, 400)
    probabilities = jax.nn.softmax(h @ params["softmax"]["w"] + params["softmax"]["b"][None])
    expected = (np.cumsum(np.asarray(probabilities, np.float64), 1) <= np.asarray(u)[:, None]).sum(1)
    found = np.asarray(jax.jit(lambda h, u: seqgan.drawer(params, 1.0)(h, u))(h, u))
    assert (found == expected).mean() > 0.99  # the last bit decides where a draw falls on a border
    assert np.abs(found - expected).max() <= 1


def test_draws_depend_on_a_rows_number_alone():
    params, key, some = drawn(SMALL), jax.random.key(0), jnp.array([5, 2])
    sample, rollout = jitted(seqgan.sample, SMALL), jitted(lambda *args: seqgan.rollout(*args, 3), SMALL)
    whole = sample(params, key, jnp.arange(8))
    np.testing.assert_array_equal(sample(params, key, some), whole[some])
    done = rollout(params, key, whole, jnp.arange(8))
    np.testing.assert_array_equal(rollout(params, key, whole[some], some), done[:, :, some])


@pytest.mark.parametrize("length", [2, 4, 5])
def test_rollouts_keep_their_prefix_and_go_on_as_likely(length):
    """Each completion comes as often as its probability given the prefix says, for even and odd lengths."""
    config, count = Generator(vocab=2, length=length, embed=4, cells=5, init=1.5), 20_000
    params = drawn(config)
    tokens, likelihood = every(config)
    probability = np.exp(jax.jit(likelihood)(params))
    start = tokens[jnp.array([1, len(tokens) - 2])]
    done = np.asarray(jax.jit(lambda: seqgan.rollout(params, config, jax.random.key(2), start, jnp.arange(2), count))())
    assert done.shape == (length - 1, count, 2, length)
    for t, row in itertools.product(range(1, length), range(2)):
        found, prefix = done[t - 1, :, row], np.asarray(start[row, :t])
        assert (found[:, :t] == prefix[None]).all()
        begins = (np.asarray(tokens)[:, :t] == prefix[None]).all(1)
        expected = np.where(begins, probability, 0) / probability[begins].sum()
        share = np.array([(found == other[None]).all(1).mean() for other in np.asarray(tokens)])
        assert np.abs((share - expected) / np.sqrt(np.maximum(expected, 1e-9) / count))[begins].max() < 4.5


def test_scheduled_sampling_without_chance_is_teacher_forcing_and_with_certainty_its_own():
    params, key, rows = drawn(SMALL), jax.random.key(3), jnp.arange(40)
    inputs = jitted(seqgan.scheduled_inputs, SMALL)
    tokens = jax.random.randint(jax.random.key(9), (40, 3), 0, 3)
    never = inputs(params, key, tokens, rows, 0.0)
    np.testing.assert_array_equal(never, seqgan.shifted(SMALL, tokens))
    always = [inputs(params, key, other, rows, 1.0) for other in (tokens, 2 - tokens)]
    np.testing.assert_array_equal(*always)  # the true tokens are not looked at
    some = inputs(params, key, tokens, rows, 0.5)
    assert 0.1 < float((some != never)[:, 1:].mean()) < 0.6
    assert (np.asarray(some)[:, 0] == SMALL.start).all()


def test_policy_gradient_is_the_exact_gradient():
    """Over all sequences, each as likely as it is: sum_t grad log G(y_t) Q(y_1..t) is the gradient of the reward."""
    params = drawn(SMALL)
    tokens, likelihood = every(SMALL)
    table = jax.random.uniform(jax.random.key(4), (27,))
    exact = jax.jit(jax.grad(lambda params: (jnp.exp(likelihood(params)) * table).sum()))(params)
    probability, rows = np.exp(jax.jit(likelihood)(params)), np.asarray(tokens)
    values = np.zeros((27, 3), np.float32)
    for i, t in itertools.product(range(27), range(3)):
        same = (rows[:, : t + 1] == rows[i, : t + 1][None]).all(1)
        values[i, t] = (probability * table)[same].sum() / probability[same].sum()
    weights = jnp.asarray(probability[:, None] * values)
    found = jax.jit(jax.grad(lambda params: -seqgan.nll(params, SMALL, tokens, weights)[0]))(params)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
