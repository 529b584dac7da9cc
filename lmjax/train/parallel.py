"""Where a step runs: one device, several by pmap, or a mesh. The step and the model never know.

Each strategy gives the same eight functions over the same `State`, so a run may change from one to another:

    place(state)   host values -> devices        compile(step) -> a function (state, batch, key) -> (state, metrics)
    host(state)    devices -> canonical numpy    batch(b)      a global batch [B, ...] -> devices, for the compiled step
    plan(state)    the shapes of a state -> what `place` would give, as shapes: to compile a step without its memory
    rows(b)        a global batch -> devices, for a plain `jax.jit` over `near(state.params)`: evaluation, sampling
    near(params)   a state's arrays, or some of them, whole and on devices of this process: for evaluation, sampling
    share(x)       host values that every device needs whole, such as the steps' key

The canonical form, the one in checkpoints, has no device axis anywhere.

The devices may belong to several processes (jax.distributed). Each then calls these with the same values, and keeps
on its devices their rows of them; `host`, and `near` on a mesh, gather the rest, so all processes have to call them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import tree_flatten_with_path, tree_map_with_path

from lmjax.errors import UserError
from lmjax.train.state import State


class Axis(NamedTuple):
    """What a step may ask of the devices it is spread over: sums, concatenation along axis 0, a key of its own. lanes:
    concatenation of what the lanes on each device have, where those are spread in place of the batch."""

    psum: Callable
    all_gather: Callable
    fold: Callable
    lanes: Callable = lambda x: x


ONE = Axis(lambda x: x, lambda x: x, lambda key: key)


class Strategy(NamedTuple):
    name: str
    devices: tuple
    place: Callable
    plan: Callable
    batch: Callable
    compile: Callable
    host: Callable
    rows: Callable
    near: Callable = lambda tree: tree
    share: Callable = lambda tree: tree


def local(device=None) -> Strategy:
    """Everything on one device."""
    device = device or jax.local_devices()[0]

    def place(state):
        return jax.device_put(state, device, may_alias=False)  # the step will donate it

    def batch(tree):
        return jax.device_put(tree, device)

    def compile(step):
        return jax.jit(lambda state, batch, key: step(state, batch, key, ONE), donate_argnums=0)

    return Strategy("local", (device,), place, lambda state: state, batch, compile, jax.device_get, batch)


def data_parallel(devices=None) -> Strategy:
    """pmap: every device holds all parameters and a share of the batch; gradients are summed between them."""
    devices = tuple(devices or jax.devices())
    n = len(devices)
    mesh = Mesh(np.array(devices), ("data",))
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    axis = Axis(
        lambda x: jax.lax.psum(x, "data"),
        lambda x: jax.tree.map(lambda a: jax.lax.all_gather(a, "data", tiled=True), x),
        lambda key: jax.random.fold_in(key, jax.lax.axis_index("data")),
    )
    state_axes = State(step=None, params=None, opt=None, carry=0, average=None, bad=None, best=None)

    def batch(tree):
        rows = {x.shape[0] for x in jax.tree.leaves(tree)}
        for b in rows:
            check_divides(b, n)
        return jax.tree.map(lambda x: put(x.reshape(n, -1, *x.shape[1:]), split), tree)

    def place(state):
        # Replicated first: a state that arrives on one device and returns on all would be traced twice.
        return put(state.replace(carry=()), everywhere, may_alias=False).replace(carry=batch(state.carry))

    def plan(state):
        carry = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, x.shape[0] // n, *x.shape[1:]), x.dtype), state.carry)
        whole = jax.tree.map(lambda x: planned(x, everywhere), state.replace(carry=()))
        return whole.replace(carry=jax.tree.map(lambda x: planned(x, split), carry))

    def host(state):
        state = gathered(state)
        return state.replace(carry=jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), state.carry))

    def compile(step):
        def one(state, batch, key):
            return step(state, batch, key, axis)

        if across(mesh):
            return over_processes(one)
        return jax.pmap(
            one, "data", in_axes=(state_axes, 0, None), out_axes=(state_axes, None), donate_argnums=0, devices=devices
        )

    def over_processes(one):
        """What pmap does, whose own compiled form takes no arrays of several processes."""
        specs = State(step=P(), params=P(), opt=P(), carry=P("data"), average=P(), bad=P(), best=P())

        def squeezed(state, batch, key):
            mine = state.replace(carry=jax.tree.map(lambda x: x[0], state.carry))
            new, metrics = one(mine, jax.tree.map(lambda x: x[0], batch), key)
            return new.replace(carry=jax.tree.map(lambda x: x[None], new.carry)), metrics

        spread_out = jax.shard_map(
            squeezed, mesh=mesh, in_specs=(specs, P("data"), P()), out_specs=(specs, P()), check_vma=False
        )
        return jax.jit(spread_out, donate_argnums=0)

    return Strategy(
        "pmap", devices, place, plan, batch, compile, host, lambda tree: spread(tree, split), nearby(mesh),
        lambda tree: put(tree, everywhere) if across(mesh) else tree,
    )  # fmt: skip


def lane_parallel(shared: bool, devices=None) -> Strategy:
    """Every device holds some of the lanes, each whole with its batch; nothing is exchanged but their metrics.

    shared: one batch [B, ...] serves all lanes; else each has its own, [B, N, ...].
    """
    devices = tuple(devices or jax.devices())
    grid = Mesh(np.array(devices), ("lanes",))
    first, second, everywhere = P("lanes"), P(None, "lanes"), P()
    specs = State(step=everywhere, params=first, opt=first, carry=second, average=first, bad=first, best=first)
    axis = ONE._replace(lanes=lambda x: jax.tree.map(lambda a: jax.lax.all_gather(a, "lanes", tiled=True), x))

    def shardings(state):
        parts = {name: jax.tree.map(lambda _: NamedSharding(grid, getattr(specs, name)), getattr(state, name))  # noqa: B023
                 for name in ("step", "params", "opt", "carry", "average", "bad", "best")}  # fmt: skip
        return State(**parts)

    def place(state):
        return jax.device_put(state, shardings(state), may_alias=False)

    def plan(state):
        return jax.tree.map(planned, state, shardings(state))

    def batch(tree):
        return jax.device_put(tree, NamedSharding(grid, everywhere if shared else second))

    def compile(step):
        spread_out = jax.shard_map(
            lambda state, batch, draws: step(state, batch, draws, axis), mesh=grid,
            in_specs=(specs, everywhere if shared else second, first), out_specs=(specs, everywhere), check_vma=False,
        )  # fmt: skip
        return jax.jit(spread_out, donate_argnums=0)

    def rows(tree):
        return spread(tree, NamedSharding(grid, first))

    return Strategy("lanes", devices, place, plan, batch, compile, jax.device_get, rows)


RULES = {"batch": "data", "embed": "data", "vocab": "model", "heads": "model", "mlp": "model", "cells": "model"}


def mesh(shape: dict[str, int], axes, rules: dict[str, str] = RULES, devices=None) -> Strategy:
    """FSDP and tensor parallelism: parameters split over a mesh by their logical axes, the rest left to the compiler.

    shape: e.g. {"data": 4, "model": 2}. axes: `param.axes(specs)`. rules: logical axis -> mesh axis. A dimension that
    its mesh axis does not divide, or whose mesh axis the array already uses, stays whole.
    """
    devices = tuple(devices or jax.devices())
    need = int(np.prod(list(shape.values())))
    if need > len(devices):
        raise UserError(f"a mesh of {shape} needs {need} devices, here are {len(devices)}: choose a smaller mesh")
    devices = devices[:need]
    if idle := {device.process_index for device in jax.devices()} - {device.process_index for device in devices}:
        raise UserError(f"a mesh of {shape} leaves process {min(idle)} without a device: choose one over all of them")
    grid = Mesh(np.array(devices).reshape(*shape.values()), tuple(shape), axis_types=(AxisType.Auto,) * len(shape))
    rows = NamedSharding(grid, P(rules["batch"]) if rules["batch"] in shape else P())

    names_of = axes_of(axes)

    def sharding(path, x):
        return NamedSharding(grid, partition(names_of(path, x), x.shape, shape, rules))

    def shardings(state):
        whole = tree_map_with_path(sharding, state.replace(carry=()))
        return whole.replace(carry=jax.tree.map(lambda _: rows, state.carry))

    def place(state):
        return put(state, shardings(state), may_alias=False)

    def plan(state):
        return jax.tree.map(planned, state, shardings(state))

    def batch(tree):
        for x in jax.tree.leaves(tree):
            check_divides(x.shape[0], shape.get(rules["batch"], 1))
        return put(tree, rows)

    def compile(step):
        def pinned(state, batch, key):
            with jax.sharding.use_abstract_mesh(grid.abstract_mesh):  # for nn/xla.py's by_rows
                new, metrics = step(state, batch, key, ONE)
            return jax.lax.with_sharding_constraint(new, shardings(state)), metrics

        return jax.jit(pinned, donate_argnums=0)

    name = "mesh of " + " x ".join(f"{size} {axis}" for axis, size in shape.items())
    return Strategy(
        name, devices, place, plan, batch, compile, gathered, lambda tree: spread(tree, rows), nearby(grid),
        lambda tree: put(tree, NamedSharding(grid, P())) if across(grid) else tree,
    )  # fmt: skip


def across(mesh: Mesh) -> bool:
    """Whether its devices belong to several processes."""
    return mesh.is_multi_process


def put(tree, sharding, may_alias=None):
    """Host values, the same in every process, to devices: each process those of its own. sharding: one, or a tree."""

    def mine(x, sharding):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(mine(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
        x = np.asarray(x)
        places = sharding.addressable_devices_indices_map(x.shape).items()
        # A copy of each part: what is donated later must not be memory of numpy's, nor the same for two devices.
        parts = [jax.device_put(np.array(x[index]), device, may_alias=may_alias) for device, index in places]
        return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)

    one = isinstance(sharding, NamedSharding)
    some = sharding if one else next(iter(jax.tree.leaves(sharding)), None)
    if some is None or some.is_fully_addressable:
        return jax.device_put(tree, sharding, may_alias=may_alias)
    return jax.tree.map(lambda x: mine(x, sharding), tree) if one else jax.tree.map(mine, tree, sharding)


def same(x):
    return x


def whole(x):
    """An array that lies anywhere as one that each device has whole; itself where it is that or all in this process."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return x
    return jax.jit(same, out_shardings=NamedSharding(x.sharding.mesh, P()))(x)


def gathered(tree):
    """On the host, one array after the other: a device needs room for one whole one beside its shares."""
    if all(x.is_fully_addressable for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)):
        return jax.device_get(tree)
    return jax.tree.map(lambda x: jax.device_get(whole(x)), tree)


def nearby(mesh: Mesh) -> Callable:
    """A strategy's `near`: nothing to do in one process; in several, whole on each device of this one."""
    if not across(mesh):
        return lambda tree: tree
    here, everywhere = NamedSharding(mesh.local_mesh, P()), set(mesh.devices.flat)

    def near(tree):
        def one(x):
            if not isinstance(x, jax.Array) or x.sharding.device_set != everywhere:
                return x
            x = whole(x)
            return jax.make_array_from_single_device_arrays(x.shape, here, [s.data for s in x.addressable_shards])

        return jax.tree.map(one, tree)

    return near


def ballot() -> Callable:
    """vote(number) -> an array, the largest number that any process voted: asynchronous, and each has to vote."""
    each = {device.process_index: device for device in reversed(jax.devices())}  # the first of every process
    mesh = Mesh(np.array([each[index] for index in sorted(each)]), ("process",))
    own, all_of_them = NamedSharding(mesh, P("process")), NamedSharding(mesh, P())
    largest = jax.jit(lambda x: x.max(), out_shardings=all_of_them)

    def vote(number: int):
        mine = jax.device_put(np.array([number], np.int32), each[jax.process_index()])
        return largest(jax.make_array_from_single_device_arrays((len(each),), own, [mine]))

    return vote


def partition(logical, dims, shape: dict[str, int], rules: dict[str, str] = RULES):
    """Which mesh axis each of an array's dimensions is split over, by its logical axes."""
    used, names = set(), []
    for name, size in zip(logical, dims, strict=True):
        target = rules.get(name) if name else None
        fits = target in shape and target not in used and size % shape[target] == 0
        names.append(target if fits else None)
        used.add(target if fits else None)
    return P(*names)


def axes_of(axes):
    """A function (path, array) -> the array's logical axes, None for each where it is no parameter's."""
    logical = dict(tree_flatten_with_path(axes, is_leaf=lambda x: isinstance(x, tuple))[0])

    def names_of(path, x):
        # An optimizer's or an average's copy of a parameter lies at a path that ends in the parameter's own.
        for start in range(len(path)):
            names = logical.get(path[start:])
            if names is not None and len(names) == x.ndim:
                return names
        return (None,) * x.ndim

    return names_of


def planned(x, sharding):
    """The shape of an array that is to lie so."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def spread(tree, sharding):
    """Rows over the devices of this process where they divide evenly; else whole on each."""
    sharding = NamedSharding(sharding.mesh.local_mesh, sharding.spec)

    def one(x):
        whole = NamedSharding(sharding.mesh, P())
        even = np.ndim(x) and x.shape[0] % len(sharding.device_set) == 0
        return jax.device_put(x, sharding if even else whole)

    return jax.tree.map(one, tree)


def check_divides(rows: int, n: int):
    """A batch that the devices cannot share evenly is the user's to mend."""
    if rows % n:
        raise UserError(f"a batch of {rows} rows does not divide over {n} devices: make it a multiple of {n}")


def choose(name: str, axes: Any, shape: tuple[int, ...] = ()) -> Strategy:
    """The strategy of a flag: "local", "pmap", "mesh", or "auto": local on one device, pmap on several."""
    devices = jax.devices()
    if name == "local" and jax.process_count() > 1:
        raise UserError("--strategy=local in several processes: each would train the same; use auto, pmap or mesh")
    if name == "mesh":
        return mesh(dict(zip(("data", "model"), shape or (len(devices),), strict=False)), axes)
    if name == "pmap" or (name == "auto" and len(devices) > 1):
        return data_parallel(devices)
    return local()
