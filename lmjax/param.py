"""A model's parameters declared as data.

`Param(shape, axes, init)` names one array: its shape, a logical name for each axis (what a sharding rule speaks of,
None for an axis that is never split) and its initializer. A model's parameters are a tree of them (dicts by name, lists
for layers), and everything one does to parameters as a whole is a map over that tree.
"""

import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_map_with_path


class Param(NamedTuple):
    """One array to be: `init(key, shape, dtype)` fills it. `axes` has one logical name, or None, for each dimension.

    inputs: of what `nn.linear.linear` multiplies with, how many axes it contracts; 0: another layer reads it. "layers",
    which `stack` puts in front, is none of them.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    init: Callable
    inputs: int = 0


def is_param(x) -> bool:
    return isinstance(x, Param)


def map_params(function, specs):
    """`function(path, param)` over a tree of Param; `path` is a string such as "blocks/0/qkv/w"."""
    return tree_map_with_path(lambda p, s: function(keystr(p, simple=True, separator="/"), s), specs, is_leaf=is_param)


def init(specs, key, dtype=jnp.float32):
    """Arrays for a tree of Param. Each draws from `key` folded with its path, so adding a layer changes no other."""

    def one(path, spec):
        return spec.init(jax.random.fold_in(key, zlib.crc32(path.encode())), spec.shape, dtype)

    return map_params(one, specs)


def begin_with(specs, weights: dict):
    """The tree whose parts named in `weights` are filled with these trees of arrays, the others as they were."""

    def given(spec, value):
        return spec._replace(init=lambda key, shape, dtype: jnp.array(value, dtype))

    return specs | {name: jax.tree.map(given, specs[name], tree, is_leaf=is_param) for name, tree in weights.items()}


def shapes(specs, dtype=jnp.float32):
    """ShapeDtypeStructs for a tree of Param: a paper-size model without its memory."""
    return map_params(lambda _, spec: jax.ShapeDtypeStruct(spec.shape, dtype), specs)


def axes(specs):
    """The logical axes of each array, a tuple in the place of each Param."""
    return map_params(lambda _, spec: spec.axes, specs)


def count(specs) -> int:
    """Number of scalars in a tree of Param or of arrays."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(specs, is_leaf=is_param))


def stack(specs, n: int):
    """`n` layers in one tree: each Param gains a leading "layers" axis, each layer its own draw. For lax.scan."""

    def one(_, spec):
        def init(key, shape, dtype):
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(shape[0]))
            return jax.vmap(lambda k: spec.init(k, shape[1:], dtype))(keys)

        return Param((n, *spec.shape), ("layers", *spec.axes), init, spec.inputs)

    return map_params(one, specs)


def normal(stddev: float):
    """Initializer: normal with mean 0 and the standard deviation."""
    return lambda key, shape, dtype: stddev * jax.random.normal(key, shape, dtype)


def uniform(limit: float):
    """Initializer: uniform in [-limit, limit]."""
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -limit, limit)


def constant(value: float):
    """Initializer: every entry the same."""
    return lambda key, shape, dtype: jnp.full(shape, value, dtype)


zeros, ones = constant(0.0), constant(1.0)
