"""A parameter tree made small, and its file: one safetensors file of codes, factors, or what is left of the weights.

    weights    Sparse      bits, one for each weight, and the values that are not 0
               Quantized   8 bits: codes and a scale for each output; 4 bits: two codes a byte, scales in 16 bits
               Factors     two thin matrices
    the rest   float32 as they are
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lmjax import param
from lmjax.compress.low_rank import Factors, factors, rank_of
from lmjax.compress.prune import mask
from lmjax.compress.quantize import Quantized, dequantized, matrix, quantized, unfolded
from lmjax.compress.select import flat, layouts
from lmjax.errors import UserError
from lmjax.interop.files import safetensors_library, whole

FILE = "weights.safetensors"  # in the workdir of a model made small
METHODS = ("prune", "int8", "int4", "low_rank")


class Sparse(NamedTuple):
    """values [N] that are not 0, at the True of the bool array `kept`, of the weights' shape."""

    kept: np.ndarray
    values: np.ndarray


class Small(NamedTuple):
    """A parameter tree by paths: forms {path: Sparse, Quantized or Factors}, and the arrays of all others."""

    arrays: dict
    forms: dict


def compressed(params, specs, method: str, paths, *, left: float = 0.5, group: int = 32) -> Small:
    """The tree with the weights at `paths` made small. specs: its tree of Param.

    method: one of METHODS. left: prune: the share of the weights that stays, the largest; low_rank: the share of the
    numbers that both factors have; a matrix that they would not make smaller is left out. group: int4: inputs of an
    output that share a scale.
    """
    leaves, found = flat(params), {}
    for path, inputs in layouts(specs, paths).items():
        weights = np.asarray(leaves[path], np.float32)
        if method == "prune":
            kept = np.asarray(mask(weights, 1 - left)) & (weights != 0)
            found[path] = Sparse(kept, weights[kept])
            continue
        values = matrix(weights, inputs)
        if method == "low_rank":
            rank = rank_of(values.shape, left)
            if rank * sum(values.shape) < values.size:
                found[path] = factors(values, rank)
        else:
            found[path] = quantized(values, int(method.removeprefix("int")), group)
    return Small({path: leaf for path, leaf in leaves.items() if path not in found}, found)


def dense(form, shape, inputs):
    """The float32 weights of `shape` that a form stands for; inputs: the axes that are contracted."""
    if isinstance(form, Sparse):
        array = np.zeros(shape, np.float32)
        array[form.kept] = form.values
        return jnp.asarray(array)
    if isinstance(form, Factors):
        return jnp.asarray(unfolded(form.left @ form.right, shape, inputs))
    values = np.asarray(dequantized(form.codes, form.scale, size(shape, inputs)))
    return jnp.asarray(unfolded(values, shape, inputs))


def size(shape, inputs) -> int:
    return math.prod(shape[axis] for axis in inputs)


def numbers(small: Small, specs) -> int:
    """How many numbers it is made of: values that are kept, codes, entries of factors, and all other arrays'."""
    leaves, count = flat(specs), sum(leaf.size for leaf in small.arrays.values())
    for path, form in small.forms.items():
        if isinstance(form, Sparse):
            count += len(form.values)
        else:
            count += sum(part.size for part in form) if isinstance(form, Factors) else math.prod(leaves[path].shape)
    return int(count)


def expanded(small: Small, specs):
    """The tree of parameters with all weights in float32 arrays, as any model reads them."""
    axes = layouts(specs, small.forms)
    return param.map_params(
        lambda path, spec: small.arrays[path]
        if path in small.arrays
        else dense(small.forms[path], spec.shape, axes[path]),
        specs,
    )


def running(small: Small, specs, integers: bool = False):
    """The tree to compute with: linear layers keep their factors and, with `integers`, 8-bit codes, whose products are
    integers' then; all else is in float32 arrays."""
    leaves, layers, arrays = flat(specs), {}, dict(small.arrays)
    for path, form in small.forms.items():
        spec, eight = leaves[path], integers and isinstance(form, Quantized) and form.scale.dtype == np.float32
        alone = spec.inputs and spec.axes[0] != "layers" and path.endswith("/w")
        if not (alone and (isinstance(form, Factors) or eight)):
            continue
        inputs, outputs = spec.shape[: spec.inputs], spec.shape[spec.inputs :]
        if eight:
            parts = {"codes": form.codes.reshape(spec.shape), "scale": form.scale.reshape(outputs)}
        else:
            parts = {"left": form.left.reshape(*inputs, -1), "right": form.right.reshape(-1, *outputs)}
        layers[path.removesuffix("/w")] = {name: jnp.asarray(part) for name, part in parts.items()}
        arrays[path] = None  # its layer gets the parts
    return _with_layers(expanded(Small(arrays, small.forms), specs), layers, "")


def _with_layers(tree, layers: dict, path: str):
    """The tree with `layers` {path of a layer: arrays} in the place of their "w"."""
    if path in layers:
        return {name: x for name, x in tree.items() if name != "w"} | layers[path]
    if not isinstance(tree, dict | list | tuple):
        return tree
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    made = {name: _with_layers(part, layers, f"{path}/{name}" if path else str(name)) for name, part in items}
    return made if isinstance(tree, dict) else type(tree)(made.values())


def save(file: Path, small: Small, about: dict) -> int:
    """Writes the file and gives its bytes. about: what is kept beside the arrays, for `about_of`."""
    arrays = {path: np.asarray(leaf, np.float32) for path, leaf in small.arrays.items()}
    for path, form in small.forms.items():
        arrays |= {path + name: part for name, part in _packed(form).items()}
    library, file = safetensors_library(), Path(file)
    with whole(file) as part:
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        library.numpy.save_file(arrays, part, metadata={"lmjax": json.dumps(about)})
    return file.stat().st_size


def _packed(form) -> dict:
    """{suffix: array} of a form, as small as it can be."""
    if isinstance(form, Sparse):
        return {":bits": np.packbits(form.kept), ":values": np.asarray(form.values, np.float32)}
    if isinstance(form, Factors):
        return {":left": np.asarray(form.left), ":right": np.asarray(form.right)}
    codes, scale = np.asarray(form.codes), np.asarray(form.scale)
    if scale.dtype != np.float16:
        return {":codes": codes, ":scale": scale}
    codes = np.pad(codes, ((0, len(codes) % 2), (0, 0))).view(np.uint8) & 15
    return {":nibbles": codes[::2] | codes[1::2] << 4, ":scale": scale}


def load(file, specs) -> Small:
    """What `save` wrote. UserError where it is damaged, or of a model of other sizes."""
    library, file = safetensors_library(), Path(file)
    try:
        stored = library.numpy.load_file(file)
    except (library.SafetensorError, OSError) as error:
        raise UserError(f"{file} is no whole safetensors file ({error}): compress the run again") from None
    leaves, small = flat(specs), Small({}, {})
    axes = layouts(specs, leaves)
    for path, spec in leaves.items():
        try:
            if path in stored:
                small.arrays[path] = jnp.asarray(stored[path].reshape(spec.shape))
            else:
                small.forms[path] = _unpacked(path, stored, spec.shape, axes[path])
        except (KeyError, ValueError):
            raise UserError(f"{file} holds no {path} of shape {spec.shape}: it is of another model, or damaged; "
                            "compress the run again") from None  # fmt: skip
    return small


def _unpacked(path: str, arrays: dict, shape, inputs):
    count = size(shape, inputs)
    if path + ":bits" in arrays:
        kept = np.unpackbits(arrays[path + ":bits"], count=math.prod(shape)).astype(bool).reshape(shape)
        values = arrays[path + ":values"]
        if kept.sum() != len(values):
            raise ValueError
        return Sparse(kept, values)
    if path + ":left" in arrays:
        left, right = arrays[path + ":left"], arrays[path + ":right"]
        return Factors(left.reshape(count, -1), right.reshape(left.shape[-1], -1))
    scale = arrays[path + ":scale"]
    if path + ":codes" in arrays:
        return Quantized(arrays[path + ":codes"].reshape(count, -1), scale)
    both = arrays[path + ":nibbles"]
    codes = np.stack([both & 15, both >> 4], axis=1).reshape(-1, both.shape[1]).astype(np.int8)
    codes = (codes ^ 8) - 8  # the sign of 4 bits
    rows = len(codes) // len(scale) * len(scale)
    if rows < count:
        raise ValueError
    return Quantized(codes[:rows], scale)


def about_of(file) -> dict:
    """What `save` was given beside the arrays."""
    with safetensors_library().safe_open(file, "numpy") as opened:
        return json.loads((opened.metadata() or {}).get("lmjax", "{}"))
