"""Gradients of each example against a plain loop over the examples."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.errors import UserError
from lmjax.losses import choice
from lmjax.models import gpt
from lmjax.nn.linear import linear
from lmjax.privacy import clipping, ghost

B, T, V = 6, 8, 32


def language_model():
    """A GPT with its head tied to the embedding, rows of different weight, one that only fills, words that repeat."""
    model = config.GPT(vocab=V, context=T, layers=1, heads=2, dim=16)
    params = param.init(gpt.gpt_params(model), jax.random.key(1))
    params = jax.tree.map(lambda x: 4 * x + 0.01, params)
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, V, (2, B, T), np.int32)
    tokens[0, 2:6] = 7
    weights = (np.arange(T)[None] < np.array([8, 1, 3, 0, 5, 8])[:, None]).astype(np.float32)
    batch = {"tokens": tokens, "targets": targets, "weights": weights}
    return lambda p, b, key, carry: gpt.gpt_loss(p, model, b, key, carry), params, batch


def looped():
    """A recurrent classifier: one matrix in a loop, one product turned round, one used twice and in another way."""
    rng = np.random.default_rng(2)
    params = {
        "inner": {"w": rng.normal(size=(4, 4)).astype(np.float32)},
        "out": rng.normal(size=(3, 4)).astype(np.float32),
        "twice": rng.normal(size=(4, 4)).astype(np.float32),
        "unused": np.ones((5, 5), np.float32),
    }
    batch = {"x": rng.normal(size=(B, T, 4)).astype(np.float32), "labels": rng.integers(0, 3, B, np.int32),
             "weights": np.ones(B, np.float32)}  # fmt: skip

    def loss(params, batch, key, carry):
        def body(h, x):
            return jnp.tanh(linear(params["inner"], h) + x), None

        h, _ = jax.lax.scan(body, jnp.zeros((len(batch["x"]), 4)), batch["x"].swapaxes(0, 1))
        h = jnp.tanh(h @ params["twice"]) + 0.1 * params["twice"].sum()
        return choice((params["out"] @ h.T).T, batch["labels"], batch["weights"], carry)

    return loss, params, batch


def by_loop(loss, params, batch, clip):
    """(the norms, the clipped sum): one example after the other."""
    one = jax.jit(jax.grad(lambda p, b: loss(p, b, None, ())[0] / jnp.maximum(b["weights"].sum(), 1e-12)))
    lengths, total = [], jax.tree.map(np.zeros_like, params)
    for i in range(B):
        row = jax.tree.map(lambda x: x[i : i + 1], batch)  # noqa: B023
        gradient = jax.device_get(one(params, row))
        length = np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in jax.tree.leaves(gradient)))
        share = min(1.0, clip / length) if length else 0.0
        total = jax.tree.map(lambda t, g: t + share * g, total, gradient)  # noqa: B023
        lengths.append(length)
    return np.array(lengths), total


WAYS = [(False, 1), (True, 1), (True, 3)]


@pytest.mark.parametrize(("made", "ways"), [(language_model, WAYS[2:]), (looped, WAYS)], ids=["gpt", "looped"])
def test_gradients_of_examples_are_those_of_a_loop(made, ways):
    loss, params, batch = made()
    every = jax.jit(lambda p, b: clipping.norms(loss, p, b, jax.random.key(0)))(params, batch)
    clip = float(np.median(every)) + 1e-3
    lengths, expected = by_loop(loss, params, batch, clip)
    np.testing.assert_allclose(every, lengths, rtol=1e-5, atol=1e-6)
    for ghostly, accumulate in ways:
        sums = partial(clipping.clipped_sums, loss, accumulate=accumulate, ghost=ghostly)
        found = jax.jit(sums)(params, batch, jax.random.key(0), clip)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), found.gradient, expected)
        assert found.examples == (batch["weights"].reshape(B, -1).sum(1) > 0).sum()
        assert found.longer == (lengths > clip).sum()
        np.testing.assert_allclose(found.norms, lengths.sum(), rtol=1e-5)


def names_of_uses(loss, params, batch):
    row = jax.tree.map(lambda x: x[0], batch)
    closed = jax.make_jaxpr(clipping.of_example(loss))(params, row, jax.random.key(0))
    names = [jax.tree_util.keystr(path, simple=True, separator="/")
             for path, _ in jax.tree_util.tree_leaves_with_path(params)]  # fmt: skip
    return {names[leaf]: len(places) for leaf, places in ghost.uses(closed.jaxpr, len(names)).items()}


def test_matrices_are_found_and_what_is_no_plain_product_is_not():
    found = names_of_uses(*language_model())
    block = {f"blocks/0/{name}/w": 1 for name in ("qkv", "out", "up", "down")}
    assert found == {**block, "embed/token": 2}  # looked up, and the head
    assert names_of_uses(*looped()) == {"out": 1}


def test_no_gradient_of_a_matrix_is_made_for_each_example():
    """The memory that the ghost way is for: of a wide layer nothing of size [B,D,F]."""
    D, F = 64, 128
    params = {"layer": {"w": jnp.ones((D, F)), "b": jnp.zeros(F)}}
    batch = {"x": jnp.ones((B, D)), "labels": jnp.zeros(B, jnp.int32), "weights": jnp.ones(B)}

    def loss(params, batch, key, carry):
        return choice(linear(params["layer"], batch["x"]), batch["labels"], batch["weights"], carry)

    def largest(ghostly):
        sums = jax.make_jaxpr(
            lambda p, b: clipping.clipped_sums(loss, p, b, jax.random.key(0), 1.0, ghost=ghostly).gradient
        )(params, batch)
        return max(var.aval.size for eqn in sums.eqns for var in eqn.outvars)

    assert largest(True) <= D * F
    assert largest(False) >= B * D * F


@pytest.mark.filterwarnings("ignore:optax.global_norm")  # of its own
def test_agrees_with_jax_privacy():
    pytest.importorskip("jax_privacy")
    from jax_privacy import clipped_grad

    rng, key = np.random.default_rng(0), jax.random.key(0)
    batch = {"x": rng.normal(size=(B, T)).astype(np.float32), "labels": rng.integers(0, 3, B), "weights": np.ones(B)}
    params = {"w": rng.normal(size=(T, 3)).astype(np.float32), "b": np.zeros(3, np.float32)}

    def loss(params, batch, key, carry):
        return choice(linear(params, batch["x"]), batch["labels"], batch["weights"], carry)

    theirs = clipped_grad(lambda p, b: loss(p, b, key, ())[0], l2_clip_norm=0.5)(params, batch)
    ours = clipping.clipped_sums(loss, params, batch, key, 0.5).gradient
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), ours, theirs)


def test_what_cannot_be_cut_or_carries_is_refused():
    loss, params, batch = looped()
    key = jax.random.key(0)
    with pytest.raises(UserError, match="no multiple of accumulate=4"):
        clipping.clipped_sums(loss, params, batch, key, 1.0, accumulate=4)

    def carrying(params, batch, key, carry):
        total, (weight, metrics, _) = loss(params, batch, key, carry)
        return total, (weight, metrics, jnp.zeros(1))

    with pytest.raises(UserError, match="carries a state"):
        clipping.clipped_sums(carrying, params, batch, key, 1.0)
