"""Advice to the compiler."""

from functools import wraps

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from lmjax.machine import cores


def written(x):
    """`x`, written to memory once. On CPU only; elsewhere `x` itself.

    XLA on CPU fuses a transpose or a softmax into each of its readers and computes it anew in every one, in the order
    that suits the reader. Where a product reads it, that costs more than the copy.
    """
    return lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x


def by_rows(x):
    """`x` [B, ...], with B split over the devices along the mesh axis "data" that the program is compiled for, if any.

    A mesh splits both rows and weights along that axis (FSDP). Left alone XLA may then keep the weights where they are
    and send all rows' activations round; with the rows told where to stay it gathers the weights (Xu et al. 2021).
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types))
    if kinds.get("data") != AxisType.Auto or x.shape[0] % mesh.shape["data"]:
        return x
    return lax.with_sharding_constraint(x, P("data", *[P.UNCONSTRAINED] * (x.ndim - 1)))


def in_lanes(f, x) -> list:
    """f of the parts of x, leaves [B, ...], cut along B: on CPU a part for each core, if B allows, elsewhere one.

    XLA on CPU computes the small products, gathers and element-wise operations of one chain on one core, one after the
    other; chains that do not depend on each other it computes side by side. To change a table from the parts' results
    concatenate them: a scatter for each part makes XLA copy the table.
    """
    size = jax.tree.leaves(x)[0].shape[0]
    parts = max(n for n in range(1, min(cores(), 8) + 1) if size % n == 0) if jax.default_backend() == "cpu" else 1

    def part(i):
        return jax.tree.map(lambda leaf: leaf[i * size // parts : (i + 1) * size // parts], x)

    return [f(part(i)) for i in range(parts)]


def one_by_one(f):
    """f of arrays, whose lanes under jax.vmap are taken one after the other. On CPU only, for an f that works on what
    just fits the cache (see row_blocks).

    f sees its arrays with an axis of one lane in front: XLA on CPU leaves a product with such an axis as it is written,
    where it would turn one without round, and all that is computed of it, to spare a transpose.
    """

    def lane(*args):
        one = jax.vmap(f)(*jax.tree.map(lambda x: x[None], args))
        return jax.tree.map(lambda x: x[0], one)

    @wraps(f)
    def choose(*args):
        return jax.custom_batching.sequential_vmap(lane)(*args) if jax.default_backend() == "cpu" else f(*args)

    return choose


def row_blocks(f, x, sums=None, rows: int = 128):
    """f of blocks of `rows` rows of x, leaves [R, ...], one after the other, and the results joined. On CPU, where a
    block's arrays stay in the cache; elsewhere f of all rows at once.

    With `sums` f is (sums, block) -> (sums, result), and the sums of the last block come first. The last block is
    filled up with rows of zeros: f's sums must not change by them.
    """
    count = jax.tree.leaves(x)[0].shape[0]
    blocks = -(-count // rows)
    step = f if sums is not None else lambda _, part: (None, f(part))
    if blocks == 1 or jax.default_backend() != "cpu":
        sums, result = step(sums, x)
    else:
        size = -(-count // blocks)
        pad = blocks * size - count

        def cut(leaf):
            filled = jnp.pad(leaf, ((0, pad), *[(0, 0)] * (leaf.ndim - 1))) if pad else leaf
            return filled.reshape(blocks, size, *leaf.shape[1:])

        sums, result = lax.scan(step, sums, jax.tree.map(cut, x))
        result = jax.tree.map(lambda leaf: leaf.reshape(blocks * size, *leaf.shape[2:])[:count], result)
    return result if sums is None else (sums, result)
