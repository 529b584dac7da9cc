"""Gradients of each example, clipped and summed (Abadi et al. 2016, algorithm 1), for any loss of the house's form.

An example is a row of the batch; its loss is the mean over what counts in it, so that a long row has no more to say
than a short one. What comes of it is a sum: whoever has all of a lot's adds the noise, once, and divides.

B examples.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmjax.errors import UserError
from lmjax.nn.dropout import absent
from lmjax.privacy import ghost as places


class Clipped(NamedTuple):
    """Sums over the examples: of the loss, its weight and its metrics as the loss gives them; of the clipped gradients;
    of the examples that count, of their gradients' norms, and of those that were longer than clip."""

    total: Any
    weight: Any
    metrics: Any
    gradient: Any
    examples: Any
    norms: Any
    longer: Any


def clipped_sums(loss, params, batch, key, clip, *, accumulate: int = 1, ghost: bool = True) -> Clipped:
    """Of a batch [B, ...], in `accumulate` micro-batches one after the other: the memory of one.

    loss(params, batch, key, carry), as in train/step.py; clip: the longest gradient, 0: none is clipped. Without
    `ghost` every example of a micro-batch has its gradient in memory. With it those of the matrices that the model
    multiplies with or looks up are not made; what is inside of a loop (an LSTM's weights) or used otherwise is.
    """
    if accumulate == 1:
        return _micro_batch(loss, params, batch, key, clip, ghost)

    def split(x):
        if x.shape[0] % accumulate:
            raise UserError(f"a batch of {x.shape[0]} rows on each device is no multiple of accumulate={accumulate}")
        return x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1)

    def of(piece):
        i, batch = piece
        return _micro_batch(loss, params, batch, jax.random.fold_in(key, i), clip, ghost)

    pieces = jnp.arange(accumulate), jax.tree.map(split, batch)
    first = jax.tree.map(lambda x: x[0], pieces)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of, first))
    return jax.lax.scan(lambda sums, piece: (jax.tree.map(jnp.add, sums, of(piece)), None), zeros, pieces)[0]


def of_example(loss):
    """one(params, row, key) -> (mean loss, (sum, weight, metrics)) of a row without the batch's axis."""

    def one(params, row, key):
        total, (weight, metrics, carry) = loss(params, jax.tree.map(lambda x: x[None], row), key, ())
        if jax.tree.leaves(carry):
            raise UserError("this loss carries a state from batch to batch: private examples stand alone")
        return total / jnp.maximum(weight, 1e-12), (total, weight, metrics)

    return one


def norms(loss, params, batch, key):
    """Of each example's gradient its norm [B], by making them: what `clipped_sums` clips by."""
    keys = jax.random.split(key, jax.tree.leaves(batch)[0].shape[0])
    one = jax.vmap(jax.grad(lambda p, row, key: of_example(loss)(p, row, key)[0]), (None, 0, 0))
    return jnp.sqrt(sum(map(_squares, jax.tree.leaves(one(params, batch, keys)))))


def _squares(gradients):
    """[B, ...] -> [B]."""
    return (gradients.reshape(gradients.shape[0], -1).astype(jnp.float32) ** 2).sum(1)


def _micro_batch(loss, params, batch, key, clip, ghost: bool) -> Clipped:
    leaves, tree = jax.tree.flatten(params)
    size = jax.tree.leaves(batch)[0].shape[0]
    keys = jax.random.split(key, size)
    one = of_example(loss)
    first = jax.eval_shape(lambda rows: jax.tree.map(lambda x: x[0], rows), (batch, keys))
    closed, shape = jax.make_jaxpr(one, return_shape=True)(params, *first)
    matrices = places.uses(closed.jaxpr, len(leaves)) if ghost else {}
    sites = [use for uses in matrices.values() for use in uses]
    made = [i for i in range(len(leaves)) if i not in matrices]

    def example(row, key):
        def mean_loss(some, taps):
            merged = list(leaves)
            for i, value in zip(made, some):
                merged[i] = value
            out, inputs = places.evaluate(closed, sites, [*merged, *jax.tree.leaves((row, key))], taps)
            mean, sums = jax.tree.unflatten(jax.tree.structure(shape), out)
            return mean, (sums, inputs)

        taps = [jnp.zeros(x.shape, x.dtype) for x in places.tap_shapes(closed, sites)]
        given = [leaves[i] for i in made], taps
        (gradients, dy), (sums, inputs) = jax.grad(mean_loss, (0, 1), has_aux=True)(*given)
        found = [places.factors(*site) for site in zip(sites, inputs, dy)]
        squares = sum(places.squared_norm(*_of_leaf(leaf, sites, found)) for leaf in matrices)
        return gradients, found, squares, sums

    with jax.named_scope("examples"):
        gradients, found, squares, (total, weight, metrics) = jax.vmap(example)(batch, keys)
    with jax.named_scope("clip"):
        squares = sum(map(_squares, gradients), jnp.broadcast_to(squares, (size,)))
        norm, counts = jnp.sqrt(squares), (weight > 0).astype(jnp.float32)
        share = counts
        if not absent(clip):
            share = counts * jnp.where(clip > 0, jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-12)), 1.0)
        summed = [None] * len(leaves)
        for i, gradient in zip(made, gradients):
            summed[i] = jnp.tensordot(share.astype(gradient.dtype), gradient, 1)
        for use, (u, v) in zip(sites, found):
            new = places.weighted_sum(use, u, v, share, leaves[use.leaf])
            summed[use.leaf] = new if summed[use.leaf] is None else summed[use.leaf] + new
    longer = (counts * (norm > clip)).sum() if not absent(clip) else jnp.zeros(())
    sums = jax.tree.map(lambda x: x.sum(0), (total, weight, metrics))
    return Clipped(*sums, jax.tree.unflatten(tree, summed), counts.sum(), (counts * norm).sum(), longer)


def _of_leaf(leaf: int, sites: list, found: list):
    mine = [(use, pair) for use, pair in zip(sites, found) if use.leaf == leaf]
    return [use for use, _ in mine], [pair for _, pair in mine]
