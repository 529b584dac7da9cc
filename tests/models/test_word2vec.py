"""word2vec: what is drawn, the gradients against the dense definition, and that it learns what stands beside what."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.data.batches import stretches
from lmjax.models import word2vec
from lmjax.run.tasks.vectors import word2vec_objective
from lmjax.train import parallel
from lmjax.train.sparse import make_sparse_step
from lmjax.train.state import State

V = 40
COUNTS = np.arange(V, 0, -1) ** 2
SMALL = {"vocab": V, "dim": 8, "window": 3, "block": 4, "shared": 6, "positions": 32, "sample": 0.0, "calm": 0.0}


def model(**changes):
    return config.Word2Vec(**(SMALL | changes))


def text(n, seed=0):
    return np.random.default_rng(seed).choice(V, n, p=COUNTS / COUNTS.sum()).astype(np.int32)


def drawn(c, tokens, seed=0):
    rows = jnp.arange(c.rows, dtype=jnp.int32)
    tables = word2vec.word2vec_tables(c, COUNTS)
    draw = jax.jit(word2vec.draw_blocks, static_argnums=1)
    blocks = draw(tables, c, jnp.asarray(tokens)[:, None], rows, jax.random.key(seed))
    return tables, jax.tree.map(lambda x: x[0], blocks)


def dense(params, c, blocks):
    """The objective's negative by its definition, pair by pair, noise word by noise word."""
    total = 0.0
    places = np.asarray(blocks.around)
    for b, p in np.ndindex(*blocks.centre.shape):
        w, reach = int(blocks.centre[b, p]), int(blocks.reach[b, p])
        if w < 0:
            continue
        inside = [o for o in range(-reach, reach + 1) if o and places[b, p + c.window + o] >= 0]
        near = [int(places[b, p + c.window + o]) for o in inside]
        if c.cbow and not near:
            continue
        told = [(jnp.mean(jnp.stack([params["input"][x] for x in near]), 0), w)] if c.cbow else []
        told = told or [(params["input"][w], y) for y in near]
        for x, y in told:
            total -= jax.nn.log_sigmoid(x @ params["output"][y])
            for n in blocks.noise[b]:
                total -= c.negative / c.shared * jax.nn.log_sigmoid(-x @ params["output"][int(n)])
    return total


@pytest.mark.parametrize("cbow", [False, True], ids=["skip-gram", "cbow"])
def test_gradients_and_loss_are_those_of_the_definition(cbow):
    c = model(cbow=cbow, positions=8)
    tokens = np.array([[3, 1, 3, 0, -1, 2, 1, 7]], np.int32)
    tables, blocks = drawn(c, tokens)
    rng = np.random.default_rng(1)
    params = {name: jnp.asarray(rng.normal(size=(V, 8)), jnp.float32) for name in ("input", "output")}
    touched, finite = word2vec.word2vec_gradients(params, tables, c, blocks)
    loss, pairs = word2vec.word2vec_loss(params, c, blocks)
    expected, gradient = jax.value_and_grad(partial(dense, c=c, blocks=blocks))(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert finite
    assert pairs > 0
    for name, (ids, rows, factor) in touched.items():
        np.testing.assert_array_equal(factor, 1)  # nothing is calmed
        summed = np.asarray(jnp.zeros((V, 8)).at[ids].add(rows))
        if cbow and name == "input":
            # The authors' program gives every context the whole gradient of the mean; the sums' direction stays.
            assert np.abs(summed).sum() > np.abs(gradient[name]).sum()
            continue
        np.testing.assert_allclose(summed, gradient[name], rtol=1e-4, atol=1e-5)


def test_a_context_of_cbow_gets_the_whole_gradient_of_the_mean():
    c = model(cbow=True, positions=4, window=1)
    tables, blocks = drawn(c, np.array([[5, 6, 7, -1]], np.int32))
    params = {name: jax.random.normal(jax.random.key(i), (V, 8)) for i, name in enumerate(("input", "output"))}
    touched, _ = word2vec.word2vec_gradients(params, tables, c, blocks)
    _, gradient = jax.value_and_grad(partial(dense, c=c, blocks=blocks))(params)
    ids, rows, _ = touched["input"]
    summed = np.asarray(jnp.zeros((V, 8)).at[ids].add(rows))
    np.testing.assert_allclose(summed[6], gradient["input"][6], rtol=1e-4)  # alone around 5, and around 7
    np.testing.assert_allclose(summed[5], 2 * gradient["input"][5], rtol=1e-4)  # one of two around 6


def test_frequent_words_are_thinned_by_the_papers_share():
    c = model(sample=0.01, positions=1 << 16)
    _, blocks = drawn(c, text(1 << 16)[None])
    f = COUNTS / COUNTS.sum()
    kept = np.bincount(np.asarray(blocks.centre)[np.asarray(blocks.centre) >= 0], minlength=V)
    expected = f * np.minimum(np.sqrt(0.01 / f) + 0.01 / f, 1) * (1 << 16)
    assert np.all(np.abs(kept - expected) < 5 * np.sqrt(expected) + 1)


def test_what_stays_moves_together_and_in_order():
    c = model(sample=0.01, positions=64)
    tokens = np.arange(V, dtype=np.int32)[None]
    _, blocks = drawn(c, tokens)
    kept = np.asarray(blocks.centre).reshape(-1)
    kept = kept[: np.argmax(kept < 0)]
    assert 0 < len(kept) < V
    assert np.all(np.diff(kept) > 0)
    np.testing.assert_array_equal(blocks.around[0, 3 : 3 + 4], blocks.centre[0])
    np.testing.assert_array_equal(blocks.around[1, :3], blocks.centre[0, 1:])


def test_noise_and_reach_follow_their_distributions():
    c = model(positions=1 << 15)
    _, blocks = drawn(c, text(1 << 15)[None])
    q = COUNTS**0.75 / np.sum(COUNTS**0.75)
    noise = np.bincount(np.asarray(blocks.noise).reshape(-1), minlength=V)
    assert np.all(np.abs(noise - q * noise.sum()) < 5 * np.sqrt(q * noise.sum()) + 1)
    reach = np.bincount(np.asarray(blocks.reach).reshape(-1), minlength=4)[1:] / (1 << 15)
    np.testing.assert_allclose(reach, 1 / 3, atol=0.02)


def test_a_rows_words_seldom_overflow_its_places():
    c = model(sample=1e-3, positions=1024, block=16)
    counts = (1e6 / np.arange(1, V + 1)).astype(int)
    assert word2vec.words_a_row(c, counts) > 1024
    assert word2vec.words_a_row(model(positions=1024), counts) == 1024


def test_a_frequent_words_update_is_calmed_by_its_expected_pairs():
    tables = word2vec.word2vec_tables(model(calm=4.0, positions=1024), COUNTS)
    kept = COUNTS / COUNTS.sum()
    np.testing.assert_allclose(tables["input"], np.minimum(1, 4 / (1024 * 4 * kept * 6)), rtol=1e-5)
    assert np.all(word2vec.word2vec_tables(model(), COUNTS)["output"] == 1)


def step_of(c, turns, lr=0.05):
    objective = word2vec_objective(c, COUNTS)
    draw, gradients, loss, update = objective[2:]
    return objective, make_sparse_step(draw, gradients, loss, lambda step: lr, turns, update)


def train(c, tokens, steps, turns=4, strategy=None, lr=0.05):
    objective, step = step_of(c, turns, lr)
    specs, tables = objective[:2]
    batch, _ = stretches(tokens, c.rows, turns, word2vec.words_a_row(c, COUNTS))
    strategy = strategy(param.axes(specs)) if strategy else parallel.local()
    params = param.init(specs, jax.random.key(0))
    state = State(jnp.zeros((), jnp.int32), params, tables, (), (), jnp.zeros(2, jnp.int32))
    state, step = strategy.place(state), strategy.compile(step)
    losses = []
    for i in range(steps):
        state, metrics = step(state, strategy.batch(batch(i)), jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return losses, strategy.host(state)


KINDS = {
    "skip-gram": {}, "cbow": {"cbow": True}, "hierarchical": {"hierarchical": True},
    "hierarchical cbow": {"cbow": True, "hierarchical": True},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_one_cluster_find_each_other(kind):
    """Four clusters of ten words that stand only beside each other: any word's nearest are of its own."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(rng.integers(0, 4, 3000), 8)
    tokens = (cluster * 10 + rng.integers(0, 10, len(cluster))).astype(np.int32)
    c = model(**KINDS[kind], positions=64, block=8, dim=16, calm=32.0)
    losses, state = train(c, tokens, steps=140, turns=8, lr=0.05)
    x = np.asarray(state.params["input"])
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    likeness = x @ x.T - 2 * np.eye(V)
    nearest = np.argsort(-likeness, axis=1)[:, :3]
    assert np.mean(nearest // 10 == np.arange(V)[:, None] // 10) > 0.9
    assert losses[-1] < losses[0]


STRATEGIES = {
    "pmap over 8": lambda axes: parallel.data_parallel(),
    "mesh 4x2": lambda axes: parallel.mesh({"data": 4, "model": 2}, axes),
    "vocabulary over 8": lambda axes: parallel.mesh({"model": 8}, axes),
}


@pytest.mark.parametrize("kind", ["skip-gram", "cbow", "hierarchical"])
def test_many_devices_are_as_one(kind):
    """Frequent words come again and again in one update, in every row: their gradients must all be summed."""
    c = model(**KINDS[kind], rows=8, positions=64, sample=0.05)
    tokens = text(2000)
    losses, state = train(c, tokens, 3)
    for name in ["pmap over 8"] if kind == "cbow" else STRATEGIES:
        others, other = train(c, tokens, 3, strategy=STRATEGIES[name])
        np.testing.assert_allclose(losses, others, rtol=1e-5, err_msg=name)
        for table in ("input", "output"):
            np.testing.assert_allclose(
                state.params[table], other.params[table], rtol=1e-4, atol=1e-6, err_msg=f"{name}, {table}"
            )


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_that_is_not_finite_is_skipped_and_counted(kind):
    objective, step = step_of(model(**KINDS[kind]), turns=2)
    params = param.init(objective.specs, jax.random.key(0))
    params["output"] = params["output"].at[0].set(jnp.inf)
    state = State(jnp.zeros((), jnp.int32), params, objective.tables, (), (), jnp.zeros(2, jnp.int32))
    batch, _ = stretches(text(400), 1, 2, 32)
    new, metrics = jax.jit(lambda s, b, k: step(s, b, k, parallel.ONE))(state, batch(0), jax.random.key(0))
    assert metrics["bad"] == 2
    np.testing.assert_array_equal(new.params["input"], params["input"])


def test_every_word_is_read_once_an_epoch():
    tokens = np.arange(103, dtype=np.int32)
    batch, steps = stretches(tokens, rows=3, turns=2, length=5)
    read = np.concatenate([batch(i)["tokens"].reshape(-1) for i in range(steps)])
    np.testing.assert_array_equal(np.sort(read[read >= 0]), tokens)
    np.testing.assert_array_equal(batch(steps)["tokens"], batch(0)["tokens"])
    assert batch(0)["tokens"].shape == (3, 2, 5)
