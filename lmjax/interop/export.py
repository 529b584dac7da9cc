"""A model's forward pass as a file that other programs run: StableHLO by jax.export, ONNX by jax2onnx.

StableHLO keeps the weights beside the program, in safetensors, and serves CPUs, CUDA GPUs and TPUs alike. Dimensions
that a Program names stay open: any batch, any length that its limits allow. ONNX leaves the batch open. Nothing of
lmjax is needed to run either; see `load` for how.
"""

import json
import struct
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import SequenceKey, tree_flatten_with_path

from lmjax.errors import UserError
from lmjax.interop.files import safetensors_library

PLATFORMS = ("cpu", "cuda", "tpu")
STABLEHLO, WEIGHTS, FACTS, ONNX = "model.stablehlo", "weights.safetensors", "program.json", "model.onnx"


class Input(NamedTuple):
    """dims: sizes, and names of those that stay open; dtype: numpy's name; most: {name: largest size}."""

    dims: tuple[int | str, ...]
    dtype: str
    most: dict[str, int] = {}  # noqa: RUF012 (never written to)


class Program(NamedTuple):
    """function(params, {name: array}) -> {name: array}, and what it takes."""

    function: Callable
    params: Any
    inputs: dict[str, Input]

    @property
    def open(self) -> dict[str, int | None]:
        """{name of each dimension that stays open: the largest size that an input has for it, None for any}."""
        most = {dim: size for given in self.inputs.values() for dim, size in given.most.items()}
        return {dim: most.get(dim) for given in self.inputs.values() for dim in given.dims if isinstance(dim, str)}


class Open(NamedTuple):
    """A shape with open dimensions, as jax2onnx takes it."""

    shape: tuple[int | str, ...]
    dtype: Any


def stablehlo(program: Program, platforms=PLATFORMS) -> jax.export.Exported:
    """The program over (params, {name: array}), with open dimensions."""
    open_dims = {}
    if program.open:
        limits = [f"{name} <= {size}" for name, size in program.open.items() if size]
        open_dims = dict(zip(program.open, jax.export.symbolic_shape(", ".join(program.open), constraints=limits)))
    inputs = {
        name: jax.ShapeDtypeStruct([open_dims.get(dim, dim) for dim in given.dims], given.dtype)
        for name, given in program.inputs.items()
    }
    weights, structure = named(program.params), jax.tree.structure(program.params)
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()}

    def call(weights, given):
        return program.function(structure.unflatten([weights[name] for name in shapes]), given)

    return jax.export.export(jax.jit(call), platforms=platforms)(shapes, inputs)


def named(params) -> dict:
    """{path: array} of a tree of dicts and lists, in the tree's order."""

    def name(path):
        return "/".join(f"[{key.idx}]" if isinstance(key, SequenceKey) else key.key for key in path)

    return {name(path): leaf for path, leaf in tree_flatten_with_path(params)[0]}


def save(folder: Path, program: Program, platforms=PLATFORMS) -> int:
    """Writes STABLEHLO, WEIGHTS and FACTS into the folder; the bytes of all."""
    library = safetensors_library()
    exported = stablehlo(program, platforms)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STABLEHLO).write_bytes(exported.serialize())
    library.numpy.save_file({name: np.asarray(x) for name, x in named(program.params).items()}, folder / WEIGHTS)
    facts = {
        "inputs": {name: given._asdict() for name, given in program.inputs.items()},
        "platforms": list(platforms), "calling_convention": exported.calling_convention_version,
        "jax": metadata.version("jax"),
    }  # fmt: skip
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return sum((folder / name).stat().st_size for name in (STABLEHLO, WEIGHTS, FACTS))


def load(folder: Path) -> Callable:
    """What `save` wrote, as a function {name: array} -> {name: array}. It takes JAX and safetensors alone:

        exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
        exported.call(safetensors.numpy.load_file("weights.safetensors"), {"tokens": tokens})

    UserError where the folder holds no such program, or it is damaged.
    """
    library, folder = safetensors_library(), Path(folder)
    try:
        exported = jax.export.deserialize(bytearray((folder / STABLEHLO).read_bytes()))
        weights = jax.device_put(library.numpy.load_file(folder / WEIGHTS))
    except OSError as error:
        raise UserError(f"{folder} holds no exported program: {error.filename} cannot be read") from None
    except (ValueError, library.SafetensorError, IndexError, AssertionError, struct.error):
        raise UserError(f"{folder} is damaged: export the model again") from None
    call = jax.jit(exported.call)
    return lambda inputs: call(weights, inputs)


def onnx(program: Program, path: Path, sizes: dict[str, int]) -> int:
    """Writes an ONNX file, its inputs named as the Program's; its bytes. The weights are in it.

    sizes: of dimensions that are to be fixed, by name. Lengths have to be, and for LSTMs that read both ways the batch:
    jax2onnx knows no arange of an open one.

    UserError where jax2onnx has no translation of an operation.
    """
    from jax2onnx import to_onnx

    names = list(program.inputs)

    def call(*given):
        found = program.function(program.params, dict(zip(names, given)))
        return tuple(found[name] for name in sorted(found))

    def shapes(kind, fill):
        fixed = [tuple(sizes.get(dim, fill(dim)) for dim in given.dims) for given in program.inputs.values()]
        return [kind(dims, np.dtype(given.dtype)) for dims, given in zip(fixed, program.inputs.values())]

    small = shapes(jax.ShapeDtypeStruct, lambda dim: dim if isinstance(dim, int) else 2)
    outputs = sorted(jax.eval_shape(program.function, program.params, dict(zip(names, small))))
    try:
        with warnings.catch_warnings(action="ignore"):  # of its own translation
            made = to_onnx(call, shapes(Open, lambda dim: dim), input_names=names, output_names=outputs)
    except NotImplementedError as error:
        raise UserError(f"jax2onnx cannot write this model: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        if "batch" not in str(error):
            raise
        raise UserError("jax2onnx cannot leave this model's batch open: fix it, such as --batch=1") from None
    return path.write_bytes(made.SerializeToString())


def example(program: Program, sizes: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Random input of these sizes: numbers 0 and 1, True everywhere, normal floats."""
    rng, made = np.random.default_rng(seed), {}
    for name, given in program.inputs.items():
        dims, dtype = [sizes.get(dim, dim) for dim in given.dims], np.dtype(given.dtype)
        draw = {"f": rng.normal, "b": lambda size: np.ones(size)}.get(dtype.kind, partial(rng.integers, 0, 2))
        made[name] = draw(size=dims).astype(dtype)
    return made


def written(program: Program, folder: Path, form: str, length: int, batch: int = 0) -> tuple[int, float]:
    """Writes the program as "stablehlo" or "onnx" and runs it: (its bytes, the largest difference from the model, in
    parts of the model's largest number). length, batch: of an ONNX file; batch 0 stays open.

    UserError where an ONNX file is further than 1e-4 from the model.
    """
    sizes = {dim: min(most or length, length) for dim, most in program.open.items()} | {"batch": batch or 2}
    given = example(program, sizes)
    if form == "stablehlo":
        size, found = save(folder, program), load(folder)(given)
    else:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph

        fixed = {dim: size for dim, size in sizes.items() if batch or dim != "batch"}
        size = onnx(program, folder / ONNX, fixed)
        try:
            session = onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
        except (Fail, InvalidGraph) as error:
            reason = str(error).splitlines()[0].rpartition("failed:")[2]
            raise UserError(f"onnxruntime refuses what jax2onnx made of this model: {reason}") from None
        there = {one.name for one in session.get_inputs()}
        found = session.run(None, {name: x for name, x in given.items() if name in there})
        found = dict(zip([one.name for one in session.get_outputs()], found))
    wanted = jax.device_get(jax.jit(program.function)(program.params, given))
    scale = max(float(np.abs(x).max()) for x in wanted.values()) or 1.0
    missed = max(float(np.abs(wanted[name] - np.asarray(found[name])).max()) for name in wanted) / scale
    if not missed < 1e-4:
        raise UserError(f"{form} misses the model by {missed:.1e} of its largest number: nothing is kept")
    return size, missed
