"""What devices say to each other in a step: how often, and how many bytes, by kind of collective.

Two ways to know it. `of_program` reads a compiled program's text, the truth about XLA for the platform it compiled for;
`asked` counts what the step itself asks for (psum, all_gather), which is all there is under pmap and needs no compiler.

The payload of a collective, a device: what it holds when all is said (all-reduce, all-gather, all-to-all, permute), of
reduce-scatter what it brings. What crosses a device's links is less or more than that, see `sent`.
"""

import math
import re
from typing import NamedTuple

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
ASKED = {
    "psum": "all-reduce", "psum2": "all-reduce", "psum_invariant": "all-reduce", "pmax": "all-reduce",
    "pmin": "all-reduce", "all_gather": "all-gather", "all_gather_invariant": "all-gather",
    "reduce_scatter": "reduce-scatter", "all_to_all": "all-to-all", "ppermute": "collective-permute",
}  # fmt: skip
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "token": 0}  # of the types whose name does not end in their number


class Collective(NamedTuple):
    """All of one kind in one sort of group: how often a step, bytes a step and device, devices in a group and how far
    neighbours of a group are from each other in the mesh's order."""

    kind: str
    count: float
    payload: float
    group: int
    stride: int = 1


def of_program(text: str, devices: int) -> list[Collective]:
    """The collectives of a compiled program's text, `compiled.as_text()`; a loop counts as often as it turns.

    A loop whose turns XLA does not know counts once, a conditional by its dearest branch.
    """
    bodies, entry = {}, None
    for line in text.splitlines():
        if line[:1] in ("%", "E") and line.endswith("{"):
            head = re.match(r"(ENTRY )?%?([\w.\-]+) \(", line)
            now = bodies.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("  ") and bodies:
            now.append(line)
    known = {}

    def total(name):
        if name not in known:
            known[name] = _sum(part for line in bodies.get(name, ()) for part in _of_line(line, devices, total))
        return known[name]

    return total(entry) if entry else []


def _of_line(line: str, devices: int, total) -> list[Collective]:
    found = re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z\-]+)\(", line)
    if not found:
        return []
    shape, kind = found[1], found[2].removesuffix("-start")
    if kind in KINDS:
        group, stride = _group(line, devices)
        size = _bytes(shape)
        if found[2].endswith("-start") and kind == "all-gather":  # its result is (what was brought, what is held)
            size *= group / (group + 1)
        if found[2].endswith("-start") and kind == "collective-permute":
            size /= 2
        return [Collective(kind, 1, size * group if kind == "reduce-scatter" else size, group, stride)] * (group > 1)
    if kind == "while":
        turns = re.search(r'known_trip_count[":{ n]+(\d+)', line)
        body = re.search(r"body=%?([\w.\-]+)", line)
        times = int(turns[1]) if turns else 1
        return [one._replace(count=times * one.count, payload=times * one.payload) for one in total(body[1])]
    if kind == "conditional":
        names = re.search(r"branch_computations=\{(.*?)\}", line)
        names = names[1].split(", ") if names else re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line)
        return max((total(name.lstrip("%")) for name in names), key=lambda parts: sum(one.payload for one in parts))
    called = re.search(r"(?:calls|to_apply)=%?([\w.\-]+)", line)
    return total(called[1]) if called else []


def _sum(parts) -> list[Collective]:
    sums = {}
    for one in parts:
        count, payload = sums.get((one.kind, one.group, one.stride), (0, 0))
        sums[one.kind, one.group, one.stride] = count + one.count, payload + one.payload
    return [Collective(kind, *sums[kind, group, stride], group, stride) for kind, group, stride in sums]


def _bytes(shape: str) -> float:
    """Of "f32[8,64]{1,0}", or of a tuple of such."""
    size = 0
    for kind, dims in re.findall(r"([a-z]\w*)\[([\d,]*)\]", shape):
        bits = BITS.get(kind) or (8 if kind.startswith("f8") else int(re.search(r"\d+$", kind)[0]))
        size += bits / 8 * math.prod(int(d) for d in dims.split(",") if d)
    return size


def _group(line: str, devices: int) -> tuple[int, int]:
    """(size, stride) of a collective's groups, of any of the forms in which XLA writes them."""
    pairs = re.search(r"source_target_pairs=\{(.*?\})\}", line)
    if pairs:
        steps = [abs(int(a) - int(b)) for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs[1])]
        return (devices, min([step for step in steps if step] or [1])) if any(steps) else (1, 1)
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    named = re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(([^ ]*)\))? \{(.*?)\}", line)
    if listed:
        first = [int(i) for i in listed[1].split(",") if i]
    elif iota:
        first = _iota(*iota.groups())[0].tolist()
    elif named:
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        ids = np.arange(math.prod(axes.values()))
        order = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", named[2] or "")
        ids = _iota(str(len(ids)), order[1], order[2]) if order else ids
        used = re.findall(r"'(\w+)'", named[3])
        at = tuple(slice(None) if name in used else 0 for name in axes)
        first = ids.reshape(*axes.values())[at].ravel().tolist()
    else:
        first = range(devices)
    first = sorted(first) if first else range(devices)
    return len(first), (first[1] - first[0] if len(first) > 1 else 1)


def _iota(shape: str, dims: str, order: str | None):
    """XLA's [shape]<=[dims]T(order): the devices in turn, as [dims], transposed and read as [shape]."""
    shape, dims = ([int(i) for i in text.split(",")] for text in (shape, dims))
    ids = np.arange(math.prod(dims)).reshape(dims)
    return (ids.transpose([int(i) for i in order.split(",")]) if order else ids).reshape(shape)


def asked(eqn, devices: int) -> list[Collective]:
    """The collectives of one equation of a jaxpr: what a step asks for by name."""
    kind = ASKED.get(eqn.primitive.name)
    if kind is None or eqn.params.get("axes", ("",)) == ():
        return []
    arrays = [x.aval for x in (eqn.invars if kind == "reduce-scatter" else eqn.outvars)]
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays if hasattr(x, "shape"))
    return [Collective(kind, 1, size, devices)]


def sent(kind: str, payload: float, group: int) -> float:
    """Bytes that each device of a group sends, and receives, in turns along a ring (Patarasuk & Yuan 2009)."""
    if group < 2:
        return 0.0
    if kind == "collective-permute":
        return payload
    return (2 if kind == "all-reduce" else 1) * payload * (group - 1) / group
