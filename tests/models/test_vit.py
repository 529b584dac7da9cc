"""ViT: its published size, its patches beside a convolution, its twin in flax, who sees whom, and that it learns."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from lmjax import config, param
from lmjax.errors import UserError
from lmjax.explain.attention import patch_rollout
from lmjax.models.vit import hidden, patches, vit, vit_loss, vit_params
from lmjax.nn.linear import linear

SMALL = config.ViT(size=12, patch=4, channels=3, classes=5, layers=2, heads=4, dim=32, epsilon=1e-12)
IMAGES = np.random.default_rng(0).normal(size=(6, 12, 12, 3)).astype(np.float32)
BATCH = {"images": IMAGES, "labels": np.arange(6, dtype=np.int32) % 5, "weights": np.ones(6, np.float32)}


@cache
def start(model=SMALL):
    """Weights larger than a run's first, and none that is zero: every part of the network shows."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), jnp.float32) + (x.ndim == 1), param.shapes(vit_params(model))
    )


@partial(jax.jit, static_argnums=1)
def forward(params, model, images):
    return vit(params, model, images)


@partial(jax.jit, static_argnums=1)
def loss_and_gradient(params, model, batch, key=None):
    (total, (weight, metrics, _)), gradient = jax.value_and_grad(vit_loss, has_aux=True)(params, model, batch, key, ())
    return total / weight, metrics["accuracy"] / weight, gradient


@pytest.mark.parametrize(
    ("layers", "heads", "dim", "patch", "count"),
    [(12, 12, 768, 16, 86_567_656), (12, 12, 768, 32, 88_224_232), (24, 16, 1024, 16, 304_326_632)],
    ids=["B/16", "B/32", "L/16"],
)
def test_published_sizes_and_a_run_by_shape(layers, heads, dim, patch, count):
    """The published weights' counts with 1,000 classes, which Dosovitskiy et al. 2021, table 1, rounds."""
    model = config.ViT(224, patch, 3, 1000, layers, heads, dim)
    specs = vit_params(model)
    assert param.count(specs) == count
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.uint8)
    logits = jax.eval_shape(lambda p, x: vit(p, model, x), param.shapes(specs), images)
    assert logits.shape == (2, 1000)


def test_patches_are_a_convolution_of_their_stride():
    kernel = start()["embed"]["patch"]
    there = jax.lax.conv_general_dilated(
        IMAGES, kernel["w"], (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    ours = linear(kernel, patches(jnp.asarray(IMAGES), SMALL), inputs=3)
    np.testing.assert_allclose(ours, (there + kernel["b"][None, None, None]).reshape(6, 9, 32), atol=1e-5)


class Flax(linen.Module):
    """The same network from flax's parts, its patches by a convolution."""

    model: config.ViT

    @linen.compact
    def __call__(self, images):
        c = self.model
        norm = partial(linen.LayerNorm, epsilon=c.epsilon, use_fast_variance=False)
        x = linen.Conv(c.dim, (c.patch, c.patch), (c.patch, c.patch), "VALID", name="patch")(images)
        x = x.reshape(len(x), -1, c.dim)
        first = self.param("class", linen.initializers.zeros, (c.dim,))
        x = jnp.concatenate([jnp.tile(first[None, None], (len(x), 1, 1)), x], axis=1)
        x = x + self.param("position", linen.initializers.zeros, x.shape[1:])[None]
        for i in range(c.layers):
            h = norm(name=f"norm1_{i}")(x)
            x = x + linen.MultiHeadDotProductAttention(num_heads=c.heads, name=f"attention{i}")(h)
            y = linen.Dense(4 * c.dim, name=f"up{i}")(norm(name=f"norm2_{i}")(x))
            x = x + linen.Dense(c.dim, name=f"down{i}")(jax.nn.gelu(y, approximate=False))
        return linen.Dense(c.classes, name="head")(norm(name="norm")(x)[:, 0])


def as_flax(params):
    """The tree of our arrays (weights or gradients) under flax's names."""

    def dense(p):
        return {"kernel": p["w"], "bias": p["b"]}

    tree = params["embed"] | {"patch": dense(params["embed"]["patch"]), "head": dense(params["head"])}
    tree["norm"] = params["norm"]
    for i, block in enumerate(params["blocks"]):
        attention = {"out": dense(block["out"])}
        for j, name in enumerate(("query", "key", "value")):
            attention[name] = dense({k: x.take(j, axis=-2) for k, x in block["qkv"].items()})
        tree |= {f"norm1_{i}": block["norm1"], f"norm2_{i}": block["norm2"], f"attention{i}": attention}
        tree |= {f"up{i}": dense(block["up"]), f"down{i}": dense(block["down"])}
    return tree


def test_logits_and_gradients_are_flax():
    @jax.jit
    def theirs(weights):
        logits = Flax(SMALL).apply({"params": weights}, IMAGES)
        picked = optax.softmax_cross_entropy_with_integer_labels(logits, BATCH["labels"])
        return picked.mean(), logits

    (loss, logits), gradient = jax.value_and_grad(theirs, has_aux=True)(as_flax(start()))
    np.testing.assert_allclose(forward(start(), SMALL, IMAGES), logits, atol=2e-4)
    ours, accuracy, ours_gradient = loss_and_gradient(start(), SMALL, BATCH)
    np.testing.assert_allclose(ours, loss, rtol=1e-5)
    np.testing.assert_allclose(accuracy, (logits.argmax(-1) == BATCH["labels"]).mean(), rtol=1e-6)
    mean = jax.tree.map(lambda g: g / 6, as_flax(ours_gradient))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), mean, gradient)


def test_every_position_sees_every_patch():
    reach = jax.jit(jax.jacrev(lambda images: hidden(start(), SMALL, images)[0, :, :2]))(IMAGES[:1])
    seen = np.abs(reach).sum((1, 2, 5))  # [1+N,Y,X]
    assert seen.shape == (10, 12, 12)
    assert (seen > 0).all()


def test_weights_of_zero_hide_an_image():
    weights = np.array([1, 1, 1, 1, 0, 0], np.float32)
    other = np.where(np.arange(6) < 4, BATCH["labels"], 3).astype(np.int32)
    a = loss_and_gradient(start(), SMALL, BATCH | {"weights": weights})
    b = loss_and_gradient(start(), SMALL, BATCH | {"weights": weights, "labels": other})
    jax.tree.map(np.testing.assert_array_equal, a, b)
    np.testing.assert_allclose(a[0], loss_and_gradient(start(), SMALL, {k: v[:4] for k, v in BATCH.items()})[0], 1e-5)


def test_dropout_needs_a_key_and_changes_with_it():
    model = replace(SMALL, dropout=0.3)
    losses = [loss_and_gradient(start(), model, BATCH, key)[0] for key in (None, jax.random.key(0), jax.random.key(1))]
    assert losses[0] == loss_and_gradient(start(), SMALL, BATCH)[0]
    assert len({float(x) for x in losses}) == 3


def test_rollout_is_the_product_of_mixed_attentions():
    """By hand in numpy, from the weights that the blocks themselves gave; and a share of 1 in all."""
    _, seen = jax.jit(lambda p: hidden(p, SMALL, IMAGES, look=True))(start())
    rollout = np.eye(10)
    for layer in seen:
        mixed = np.asarray(layer.weights, np.float64).mean(1) + np.eye(10)
        rollout = mixed / mixed.sum(-1, keepdims=True) @ rollout
    found = jax.jit(lambda p: patch_rollout(p, SMALL, IMAGES))(start())
    assert found.shape == (6, 3, 3)
    np.testing.assert_allclose(found, rollout[:, 0, 1:].reshape(6, 3, 3), rtol=1e-4)
    np.testing.assert_allclose(found.sum((1, 2)) + rollout[:, 0, 0], 1, rtol=1e-4)


def test_rollout_points_at_the_patch_that_is_attended_to():
    """Queries of nothing but a key that one bright patch has: the map's largest place is there."""
    params = jax.tree.map(lambda x: x, start())
    for block in params["blocks"]:
        # Every query asks for what the residual stream of a bright patch holds, before any block: one direction.
        w = np.asarray(block["qkv"]["w"]).copy()
        w[..., 0, :], w[..., 1, :] = 0, 0
        w[0, :, 1, :] = 4.0
        b = np.asarray(block["qkv"]["b"]).copy()
        b[:, 0], b[:, 1] = 2.0, 0
        block["qkv"] = {"w": jnp.asarray(w), "b": jnp.asarray(b)}
        block["out"] = jax.tree.map(jnp.zeros_like, block["out"])
        block["down"] = jax.tree.map(jnp.zeros_like, block["down"])
    params["embed"] = jax.tree.map(jnp.zeros_like, params["embed"])
    params["embed"]["patch"]["w"] = params["embed"]["patch"]["w"].at[..., 0].set(1.0)
    images = np.zeros((2, 12, 12, 3), np.float32)
    images[0, 4:8, 8:12], images[1, 8:12, :4] = 1, 1
    found = np.asarray(patch_rollout(params, SMALL, images)).reshape(2, 9)
    assert found.argmax(1).tolist() == [5, 6]
    assert (np.sort(found, 1)[:, -1] > 3 * np.sort(found, 1)[:, -2]).all()


def test_images_of_another_size_are_one_line():
    with pytest.raises(UserError, match=r"images of 12 x 10 pixels and 3 channels: expected 12 x 12 and 3"):
        vit(start(), SMALL, jnp.zeros((1, 12, 10, 3)))
    with pytest.raises(ValueError, match=r"model.size=28 is not a multiple of model.patch=5"):
        config.ViT(size=28, patch=5)


def test_a_batch_is_learnt_by_heart():
    tx, params = optax.adam(3e-3), param.init(vit_params(SMALL), jax.random.key(0))

    @jax.jit
    def train(params):
        def step(state, _):
            params, opt = state
            loss, accuracy, gradient = loss_and_gradient(params, SMALL, BATCH)
            updates, opt = tx.update(gradient, opt)
            return (optax.apply_updates(params, updates), opt), (loss, accuracy)

        return jax.lax.scan(step, (params, tx.init(params)), None, length=100)[1]

    losses, accuracies = train(params)
    np.testing.assert_allclose(losses[0], np.log(5), rtol=1e-5)  # the head starts at zero
    assert losses[-1] < 0.05
    assert accuracies[-1] == 1
