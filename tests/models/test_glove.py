"""GloVe: the gradients against the dense definition, an X that it can fit, and clusters that it finds."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array

from lmjax import config, param
from lmjax.data.cooccurrence import cooccurrences, entries
from lmjax.models import glove
from lmjax.train import parallel
from lmjax.train.sparse import adagrad, make_sparse_step, ones
from lmjax.train.state import State

V = 40
SMALL = {"vocab": V, "dim": 8, "group": 4, "rows": 8}


def model(**changes):
    return config.GloVe(**(SMALL | changes))


def text(n, seed=0):
    p = np.arange(V, 0, -1) ** 2
    return np.random.default_rng(seed).choice(V, n, p=p / p.sum()).astype(np.int32)


def normal(c, seed=0):
    """Parameters of which every column matters."""
    params = param.init(glove.glove_params(c), jax.random.key(seed))
    return jax.tree.map(lambda x: jnp.where(x == 1, 1, 20 * x), params)


def dense(params, c, x):
    """J, from the whole matrix X [V,V] and its parts as the paper names them."""
    D = c.dim
    w, b = params["word"][:, :D], params["word"][:, D]
    v, bias = params["context"][:, :D], params["context"][:, D + 1]
    error = w @ v.T + b[:, None] + bias[None] - jnp.log(jnp.where(x > 0, x, 1))
    f = jnp.where(x > 0, jnp.minimum(1, (jnp.where(x > 0, x, 1) / c.x_max) ** c.alpha), 0)
    return 0.5 * jnp.sum(f * error**2)


def free(gradient, c):
    """Without the columns that stay one."""
    return {"word": gradient["word"].at[:, c.dim + 1].set(0), "context": gradient["context"].at[:, c.dim].set(0)}


def whole(counts, c):
    """All entries of a triangle as one batch."""
    batch, _ = entries(counts, c.group, 300, 1, 0)
    return glove.Entries(*(jnp.asarray(batch(0)[name][:, 0]) for name in ("word", "other", "count")))


def test_gradients_and_loss_are_those_of_the_definition():
    c = model(x_max=3.0)
    counts = cooccurrences(text(300), V, 4)
    x = counts.toarray()
    x = jnp.asarray(x + np.triu(x, 1).T)
    params = normal(c)
    touched, (loss, weight) = glove.glove_gradients(params, c, whole(counts, c))
    expected, gradient = jax.value_and_grad(dense)(params, c, x)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert weight == jnp.sum(x > 0)
    for name, wanted in free(gradient, c).items():
        ids, rows, _ = touched[name]
        summed = jnp.zeros((V, 16)).at[ids].add(rows)
        np.testing.assert_allclose(summed, wanted, rtol=1e-4, atol=1e-5)


def test_squares_are_those_of_each_entry():
    c = model(x_max=3.0)
    counts = cooccurrences(text(60), V, 3)
    params = normal(c)
    touched, _ = glove.glove_gradients(params, c, whole(counts, c))
    wanted = {name: np.zeros((V, 16)) for name in params}
    gradient = jax.jit(jax.grad(lambda p, x: dense(p, c, x)))
    x = counts.toarray()
    x = x + np.triu(x, 1).T
    for i, j in np.argwhere(x):
        alone = free(gradient(params, jnp.zeros((V, V)).at[i, j].set(x[i, j])), c)
        for name in wanted:
            wanted[name] += np.asarray(alone[name]) ** 2
    for name in wanted:
        ids, _, squares = touched[name]
        summed = jnp.zeros((V, 16)).at[ids].add(squares)
        np.testing.assert_allclose(summed, wanted[name], rtol=1e-4, atol=1e-5)


def test_the_weight_is_the_papers():
    c = model(x_max=100.0)
    found = glove.weight(c, jnp.asarray([0.0, 1.0, 50.0, 100.0, 1e6]))
    np.testing.assert_allclose(found, [0, 0.01**0.75, 0.5**0.75, 1, 1], rtol=1e-6)


def test_the_vectors_are_the_sum_of_both_without_biases():
    c = model()
    params = normal(c)
    vectors = glove.glove_vectors(params, c)
    assert vectors.shape == (V, c.dim)
    np.testing.assert_array_equal(vectors, params["word"][:, :8] + params["context"][:, :8])
    assert jnp.all(params["word"][:, 9] == 1)
    assert jnp.all(params["context"][:, 8] == 1)


def train(c, counts, epochs, strategy=None, lr=0.05, turns=2):
    specs = glove.glove_params(c)
    batch, steps = entries(counts, c.group, c.rows, turns, seed=0)

    def draw(_, batch, key):
        return glove.draw_entries(batch)

    def gradients(params, _, entries):
        touched, (loss, _) = glove.glove_gradients(params, c, entries)
        return touched, jnp.isfinite(loss)[None]

    def loss(params, _, entries):
        return glove.glove_gradients(params, c, entries)[1]

    strategy = strategy(param.axes(specs)) if strategy else parallel.local()
    params = param.init(specs, jax.random.key(0))
    state = State(jnp.zeros((), jnp.int32), params, ones(params), (), (), jnp.zeros(2, jnp.int32))
    step = strategy.compile(make_sparse_step(draw, gradients, loss, lambda step: lr, turns, adagrad))
    state, losses = strategy.place(state), []
    for i in range(epochs * steps):
        state, metrics = step(state, strategy.batch(batch(i)), jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return losses, strategy.host(state)


def test_an_x_that_has_such_factors_is_fitted():
    c = model(dim=6, rows=16)
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(V, 4)) / 2, rng.normal(size=V) / 2
    x = np.exp(w @ w.T + b[:, None] + b[None] + 1)
    _, state = train(c, csr_array(np.triu(x).astype(np.float32)), epochs=400, lr=0.2, turns=7)
    p = state.params
    np.testing.assert_allclose(p["word"] @ p["context"].T, np.log(x), atol=0.05)


def test_words_of_one_cluster_find_each_other():
    """Four clusters of ten words that stand only beside each other; and none where the text is shuffled."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(rng.integers(0, 4, 1000), 8)
    tokens = (cluster * 10 + rng.integers(0, 10, len(cluster))).astype(np.int32)

    def agreement(tokens):
        losses, state = train(model(), cooccurrences(tokens, V, 3), epochs=20, lr=0.1)
        x = np.asarray(glove.glove_vectors(state.params, model()))
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        nearest = np.argsort(-(x @ x.T - 2 * np.eye(V)), axis=1)[:, :3]
        assert losses[-1] < losses[0]
        return np.mean(nearest // 10 == np.arange(V)[:, None] // 10)

    assert agreement(tokens) > 0.9
    assert agreement(rng.permutation(tokens)) < 0.5


STRATEGIES = {
    "pmap over 8": lambda axes: parallel.data_parallel(),
    "mesh 4x2": lambda axes: parallel.mesh({"data": 4, "model": 2}, axes),
    "vocabulary over 8": lambda axes: parallel.mesh({"model": 8}, axes),
}


def test_many_devices_are_as_one():
    """Frequent words come again and again in one update, on every device: their gradients must all be summed."""
    counts, c = cooccurrences(text(2000), V, 3), model(rows=16)
    batch, _ = entries(counts, c.group, c.rows, 2, seed=0)
    assert len(np.unique(batch(0)["word"][:, 0])) < c.rows  # so they do
    losses, state = train(c, counts, 1)
    for name, strategy in STRATEGIES.items():
        others, other = train(c, counts, 1, strategy=strategy)
        np.testing.assert_allclose(losses, others, rtol=1e-5, err_msg=name)
        for table in ("word", "context"):
            np.testing.assert_allclose(state.params[table], other.params[table], rtol=1e-4, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(state.opt[table], other.opt[table], rtol=1e-4, atol=1e-6, err_msg=name)
