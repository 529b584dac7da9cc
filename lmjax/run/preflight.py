"""Before training: how large the model is, what a step costs, whether it fits, and where it runs."""

import math
import os
from pathlib import Path

import jax


def preflight(compiled, params_count: int, devices, strategy_name: str, compile_seconds: float, flops: int = 0,
              lanes: int = 1, beside: int = 0) -> str:  # fmt: skip
    """One line for the user, and a second, a warning, where the step needs more memory than its device has.

    compiled: the step from `.lower(...).compile()`. flops: a step's over all devices, from `flops` below; 0 takes XLA's
    count, which sees the body of a scan once. lanes: trainings side by side, of which `beside` bytes of the device wait
    or are at work while one is stepped.
    """
    count = flops or int((compiled.cost_analysis() or {}).get("flops", 0)) * len(devices)
    need, have = memory(compiled) + beside, device_memory(devices)
    line = (
        f"{params_count:,} parameters, {_unit(count, 'FLOP')} a step, {_unit(need, 'B')} of {_unit(have, 'B')} memory; "
        f"{strategy_name} on {len(devices)} x {devices[0].device_kind}, compiled in {compile_seconds:.1f} s"
    )
    if lanes > 1:
        line = f"{lanes} lanes of " + line
    if need > have > 0:
        line += f"\nwarning: a step needs {_unit(need, 'B')} and the device has {_unit(have, 'B')}: "
        fit = max(have * lanes // need, 1)
        starts = -(-lanes // fit)
        split = f"train the {lanes} lanes in {starts} starts of {-(-lanes // starts)}, " if lanes > 1 else ""
        line += f"{split}take a smaller batch, accumulate, or recompute blocks (remat)"
    return line


def size(tree) -> int:
    """Bytes of arrays or of their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


PRODUCTS = ("dot_general", "conv_general_dilated")


def flops(function, *args) -> int:
    """Floating-point operations in the products (matmul, convolution) of function(*args), over all its devices.

    args: arrays or ShapeDtypeStructs. A scan counts its length, a conditional its dearest branch, a while loop a turn.
    """
    return jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr)


def jaxpr_flops(jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if name in PRODUCTS:
            total += product_flops(eqn)
        else:
            parts = [jaxpr_flops(part) for part in inner(params)]
            if parts:
                times = params["length"] if name == "scan" else params["mesh"].size if name == "shard_map" else 1
                total += times * (max(parts) if name == "cond" else sum(parts))
    return total


def product_flops(eqn) -> int:
    """Of one equation of PRODUCTS."""
    result = 2 * math.prod(eqn.outvars[0].aval.shape)
    if eqn.primitive.name == "dot_general":
        (summed, _), _ = eqn.params["dimension_numbers"]
        return result * math.prod(eqn.invars[0].aval.shape[i] for i in summed)
    kernel, layout = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
    return result * math.prod(kernel) // kernel[layout[0]]


def inner(params):
    """The jaxprs an equation holds: bodies, branches."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)  # a closed one
            if hasattr(item, "eqns"):
                yield item


def memory(compiled) -> int:
    """Bytes on each device that XLA plans for a step: arguments, results that reuse none of them, and scratch."""
    plan = compiled.memory_analysis()
    return plan.argument_size_in_bytes + plan.generated_code_size_in_bytes + scratch(compiled) if plan else 0


def scratch(compiled) -> int:
    """Those of `memory` that the step takes while it runs."""
    plan = compiled.memory_analysis()
    return plan.output_size_in_bytes - plan.alias_size_in_bytes + plan.temp_size_in_bytes if plan else 0


def device_memory(devices) -> int:
    """Bytes each device has for us; simulated CPU devices share the machine's."""
    here = [device for device in devices if device.process_index == jax.process_index()]
    if devices[0].platform != "cpu":
        return (here[0].memory_stats() or {}).get("bytes_limit", 0)
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's
    text = limit.read_text().strip() if limit.exists() else "max"
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, int(text) if text.isdigit() else machine) // len(here)


def _unit(number: float, unit: str) -> str:
    power = min(int(math.log10(max(number, 1))) // 3, 5)
    return f"{number / 1000**power:.3g} {' kMGTP'[power].strip()}{unit}"
