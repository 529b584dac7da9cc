"""AdaGrad over the touched rows: the authors' updates one by one, what duplicates do, and what is skipped."""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.train import parallel
from lmjax.train.sparse import adagrad, make_sparse_step, ones
from lmjax.train.state import State

RATE = 0.5


def parts(ids, rows):
    rows = jnp.asarray(rows, jnp.float32)
    return {"t": (jnp.asarray(ids), rows, rows * rows)}


def test_updates_are_those_of_the_authors_program():
    """w -= rate g / sqrt(G), then G += (rate g)^2, for a row at a time."""
    rng = np.random.default_rng(0)
    w, G = rng.normal(size=(5, 3)), np.ones((5, 3))
    params, opt = {"t": jnp.asarray(w, jnp.float32)}, ones({"t": jnp.zeros((5, 3))})
    for _ in range(4):
        ids, g = rng.permutation(5)[:2], rng.normal(size=(2, 3))
        for i, row in zip(ids, g, strict=True):
            w[i] -= RATE * row / np.sqrt(G[i])
            G[i] += (RATE * row) ** 2
        params, opt = adagrad(params, opt, parts(ids, g), RATE)
    np.testing.assert_allclose(params["t"], w, rtol=1e-5)
    np.testing.assert_allclose(opt["t"], G, rtol=1e-5)


def test_a_row_that_comes_again_adds_up_gradients_and_each_ones_square():
    params, opt = {"t": jnp.zeros((2, 1))}, {"t": jnp.full((2, 1), 4.0)}
    params, opt = adagrad(params, opt, parts([1, 1, 1], [[1.0], [2.0], [-0.5]]), RATE)
    np.testing.assert_allclose(params["t"], [[0], [-RATE * 2.5 / 2]])
    np.testing.assert_allclose(opt["t"], [[4], [4 + RATE**2 * 5.25]])


def test_an_update_that_is_not_finite_is_skipped_and_counted():
    def draw(opt, batch, key):
        return batch["g"].swapaxes(0, 1)

    def gradients(params, opt, g):
        return parts([0, 1], g), jnp.isfinite(g.sum())[None]

    step = make_sparse_step(draw, gradients, lambda *_: (0.0, 1.0), lambda step: RATE, 2, adagrad)
    state = State(jnp.zeros((), jnp.int32), {"t": jnp.ones((3, 1))}, {"t": jnp.ones((3, 1))}, bad=jnp.zeros(2, int))
    batch = {"g": jnp.asarray([[[1.0], [jnp.nan]], [[1.0], [1.0]]])}  # [rows,turns,1]
    new, metrics = jax.jit(lambda s, b, k: step(s, b, k, parallel.ONE))(state, batch, jax.random.key(0))
    assert metrics["bad"] == 1
    np.testing.assert_allclose(new.params["t"], [[0.5], [0.5], [1]])
    np.testing.assert_allclose(new.opt["t"], [[1.25], [1.25], [1]])
