"""Which arrays of a parameter tree are made small, by their paths.

Weights are what weight decay applies to (train/optim.py): arrays of two axes or more that are neither biases nor the
scales of norms. Patterns name fewer of them as a shell names files: "blocks/*/up/w", "layers/0/*". Trees may be of
Param, of arrays or of shapes.
"""

import fnmatch

import jax

from lmjax import param
from lmjax.errors import UserError
from lmjax.train.optim import NOT_DECAYED


def flat(tree) -> dict:
    """{path: leaf}, in the tree's order."""
    found = {}
    param.map_params(lambda path, leaf: found.update({path: leaf}), tree)
    return found


def replaced(tree, leaves: dict):
    """The tree with the leaves of these paths in place of its own."""
    return param.map_params(lambda path, leaf: leaves.get(path, leaf), tree)


def weights(tree) -> list[str]:
    """The paths of all weights."""
    return [
        path
        for path, leaf in flat(tree).items()
        if len(leaf.shape) > 1 and path.rpartition("/")[2] not in NOT_DECAYED
    ]


def chosen(tree, patterns=(), flag="--layers") -> list[str]:
    """The paths of the weights that match one of `patterns`; without any, of all.

    UserError for a pattern that matches none; flag: what gave it.
    """
    every = weights(tree)
    for pattern in patterns:
        if not fnmatch.filter(every, pattern):
            some = ", ".join(every[:3]) + ", ..." * (len(every) > 3)
            raise UserError(f"{flag}={pattern} names no weights: expected a path, with * for any part, such as {some}")
    return [path for path in every if not patterns or any(fnmatch.fnmatchcase(path, p) for p in patterns)]


def layouts(specs, paths) -> dict[str, tuple[int, ...]]:
    """{path: the axes of the weights that a product contracts}, of a tree of Param.

    Of a linear layer those that it says, beside a bias those in front of the bias's own axes, of a table of vectors the
    last, else the first.
    """
    leaves, found = flat(specs), {}
    for path in paths:
        spec, bias = leaves[path], leaves.get(path.rpartition("/")[0] + "/b")
        layers = int(spec.axes[0] == "layers")  # of a scan, which each have their own outputs
        shape, axes, behind = spec.shape[layers:], spec.axes[layers:], len(bias.shape) - layers if bias else 0
        if spec.inputs:
            inputs = range(spec.inputs)
        elif len(shape) == 2 and axes[0] in ("vocab", None) and axes[1] == "embed":
            inputs = (1,)
        elif 0 < behind < len(shape) and shape[-behind:] == bias.shape[layers:]:
            inputs = range(len(shape) - behind)
        else:
            inputs = (0,)
        found[path] = tuple(layers + axis for axis in inputs)
    return found


def nonzero(params) -> int:
    """Number of scalars that are not 0, all arrays counted."""
    return int(sum((leaf != 0).sum() for leaf in jax.tree.leaves(params)))
