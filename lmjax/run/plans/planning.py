"""A training on paper: what a step would need and take on 1 to 4096 devices, from compiles for a few simulated ones.

Under pmap each device runs the program of its own rows and adds up gradients, so the program for two devices with as
many rows each as n would have is that of n; between the numbers of rows that were compiled, memory is interpolated. On
a mesh XLA's partitioner decides what is split and exchanged. With one batch, whatever is split over n devices is a / n
and whatever is not is b: two compiles, along 4 and 8 devices of the data axis, give both for each kind of collective
and for scratch memory (where the batch grows with the devices, a third gives what grows with it). What the state takes
is computed, from the parameters' logical axes.

XLA compiles here for the CPU. Elsewhere its scratch is smaller, seldom larger: GPUs have fused attention, and keep
bfloat16 as it is where a CPU widens it, also in collectives.

B rows of a batch, d devices along the data axis, m along the model axis, n = d m.
"""

import math
from collections import defaultdict
from fractions import Fraction
from typing import NamedTuple

import jax
import numpy as np

from lmjax import param
from lmjax.errors import UserError
from lmjax.run import preflight
from lmjax.run.learner import Twin
from lmjax.run.plans import collectives
from lmjax.run.plans.chips import Chip
from lmjax.train import parallel

MOST = 8  # devices along the data axis that are compiled for


class Work(NamedTuple):
    """What a device computes in a step: FLOPs of its products by type, and bytes they read and write."""

    flops: dict
    traffic: float


class Measured(NamedTuple):
    """What XLA, or a fit of it, says of one device: scratch bytes, and (kind, scope) -> (count, payload bytes) a step.
    scope: the devices that talk together, "data" or "model" for a mesh's axes, "all"."""

    scratch: float
    talk: dict


class Estimate(NamedTuple):
    """One device of n: bytes of its state and batch and of scratch, its work, what it says; `whole` parameters that do
    not divide; `compiled`: it is what XLA compiled for n devices, nothing was extrapolated."""

    devices: int
    model: int
    rows: int
    state: float
    scratch: float
    work: Work
    talk: dict
    whole: int
    compiled: bool

    @property
    def memory(self) -> float:
        return self.state + self.scratch


class Plan(NamedTuple):
    parameters: int
    tokens: int  # a step of the batch that the twin has
    steps: int
    rows: int
    estimates: list  # of Estimate, or (devices, why there is none)


# What is compiled, and traced.


def resized(tree, share: Fraction):
    """Shapes with `share` of the rows: leaves [B,...]."""

    def one(x):
        rows = x.shape[0] * share
        if rows.denominator > 1 or rows < 1:
            raise UserError(f"{x.shape[0] * share.numerator} rows do not divide over {share.denominator} devices")
        return jax.ShapeDtypeStruct((int(rows), *x.shape[1:]), x.dtype)

    return jax.tree.map(one, tree)


def measure(twin: Twin, strategy: parallel.Strategy, share=Fraction(1), model: int = 1) -> Measured:
    """The step for the strategy's devices, compiled with `share` of the batch."""
    state = twin.state.replace(carry=resized(twin.state.carry, share))
    batch = strategy.batch(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), resized(twin.batch, share)))
    compiled = strategy.compile(twin.step).lower(strategy.plan(state), batch, twin.key).compile()
    return Measured(scratch(compiled), talk(compiled.as_text(), len(strategy.devices), model))


def scratch(compiled) -> float:
    """Bytes of a compiled step beside its arguments."""
    return preflight.memory(compiled) - compiled.memory_analysis().argument_size_in_bytes


def talk(text: str, devices: int, model: int = 1) -> dict:
    """A program's collectives, (kind, scope) -> (count, payload)."""
    sums = defaultdict(lambda: (0.0, 0.0))
    for one in collectives.of_program(text, devices):
        data = devices // model
        scope = "data" if (one.group, one.stride) == (data, model) else "all"
        scope = "model" if (one.group, one.stride) == (model, 1) and model > 1 else scope
        count, payload = sums[one.kind, scope]
        sums[one.kind, scope] = count + one.count, payload + one.payload
    return dict(sums)


def survey(twin: Twin, share: Fraction) -> tuple[Work, dict]:
    """(work, what it says under pmap with two devices) of a device that has `share` of the batch, by tracing alone."""
    strategy = parallel.data_parallel(jax.devices()[:2])
    state = strategy.plan(twin.state.replace(carry=resized(twin.state.carry, 2 * share)))
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((2, x.shape[0] // 2, *x.shape[1:]), x.dtype), resized(twin.batch, 2 * share)
    )
    jaxpr = jax.make_jaxpr(strategy.compile(twin.step))(state, batch, twin.key).jaxpr
    flops, traffic, said = defaultdict(float), 0.0, defaultdict(lambda: (0.0, 0.0))
    for eqn, times in _equations(jaxpr):
        if eqn.primitive.name in preflight.PRODUCTS:
            flops[str(eqn.invars[0].aval.dtype)] += times * preflight.product_flops(eqn)
            traffic += times * sum(preflight.size(x.aval) for x in (*eqn.invars, *eqn.outvars))
        for one in collectives.asked(eqn, 2):
            count, payload = said[one.kind, "data"]
            said[one.kind, "data"] = count + times, payload + times * one.payload
    return Work(dict(flops), traffic), dict(said)


def _equations(jaxpr, times=1):
    """(equation, how often it is computed): a scan counts its length, a conditional its dearest branch."""
    for eqn in jaxpr.eqns:
        parts = list(preflight.inner(eqn.params))
        if eqn.primitive.name == "cond":
            parts = [max(parts, key=preflight.jaxpr_flops)]
        for part in parts:
            yield from _equations(part, times * (eqn.params["length"] if eqn.primitive.name == "scan" else 1))
        if not parts:
            yield eqn, times


# What is estimated from it.


def plan(twin: Twin, counts, *, split: bool = False, model: int = 1, grow: bool = False) -> Plan:
    """Estimates for each number of devices.

    split: parameters over a mesh with `model` devices along its model axis, else whole on each (pmap). grow: the twin's
    batch is that of one device (of one place of the data axis), else all of them share it. UserError where the model
    axis does not divide a count.
    """
    rows = jax.tree.leaves(twin.batch)[0].shape[0]
    estimates, shares = [], {}
    for n in counts:
        if n % model:
            raise UserError(f"{n} devices are no multiple of {model} along the model axis: choose others")
        share = Fraction(1) if grow else Fraction(model, n)  # of the batch, on each place of the data axis
        try:
            resized((twin.batch, twin.state.carry), share)
            own = rows * share
            if own % twin.accumulate:
                raise UserError(f"{own} rows a device are no multiple of accumulate={twin.accumulate}")
            shares[n] = share
        except UserError as error:
            estimates.append((n, str(error)))
    works = Between({share: survey(twin, share) for share in ends(set(shares.values()), 2)}) if shares else None
    known = Mesh(twin, shares, model, grow) if split else Copies(twin, shares)
    for n, share in shares.items():
        work, said = works.at(share)
        found, compiled = known.at(n)
        if not split and n > 1:
            found = found._replace(talk=said_by(said, found.talk, n))
        held, whole = known.state(n, share)
        work = Work({kind: flops / model for kind, flops in work.flops.items()}, work.traffic / model)
        estimates.append(Estimate(n, model, int(rows * share * n / model), held, found.scratch, work, found.talk, whole,
                                  compiled))  # fmt: skip
    order = {n: i for i, n in enumerate(counts)}
    return Plan(param.count(twin.specs), twin.tokens, twin.steps, rows, sorted(estimates, key=lambda e: order[e[0]]))


def ends(values, most: int) -> list:
    """At most `most` of the values, the least and the largest among them and, of three, one between."""
    values = sorted(values)
    if len(values) <= most:
        return values
    middle = min(values, key=lambda x: abs(math.log(x * x / (values[0] * values[-1]))))
    return [values[0], middle, values[-1]] if most == 3 else [values[0], values[-1]]


class Between:
    """Trees of numbers by share of the batch, and straight lines between them."""

    def __init__(self, points: dict):
        self.points = points

    def at(self, share):
        if share in self.points:
            return self.points[share]
        known = sorted(self.points)
        above = next(i for i, x in enumerate(known) if x > share)
        low, high = known[above - 1], known[above]
        part = float((share - low) / (high - low))
        return jax.tree.map(lambda a, b: a + part * (b - a), self.points[low], self.points[high])


class Copies:
    """pmap: the state on every device."""

    def __init__(self, twin: Twin, shares: dict):
        self.twin, self.shares, two = twin, shares, parallel.data_parallel(jax.devices()[:2])
        wanted = ends({share for n, share in shares.items() if n > 1}, 3)
        points = {share: measure(twin, two, 2 * share) for share in wanted}
        self.scratch = Between({share: point.scratch for share, point in points.items()})
        # How many collectives XLA makes of those that were asked for does not depend on the rows.
        self.talk = points[wanted[-1]].talk if wanted else {}

    def at(self, n: int):
        if n == 1:
            return alone(self.twin), True
        return Measured(self.scratch.at(self.shares[n]), self.talk), n == 2

    def state(self, n: int, share: Fraction):
        twin, batch = self.twin, resized((self.twin.batch, self.twin.state.carry), share)
        return preflight.size((twin.state.replace(carry=()), batch)), 0


class Mesh:
    """FSDP and tensor parallel: the state split by its logical axes."""

    def __init__(self, twin: Twin, shares: dict, model: int, grow: bool):
        self.twin, self.model, self.grow = twin, model, grow
        self.axes = param.axes(twin.specs)
        along = {n // model for n in shares}
        anchors = self.anchors() if max(along, default=1) > 1 else []
        far = max(along, default=1) > max(anchors, default=1)
        wanted = {d for d in along if d <= MOST} | set(anchors if far else ())
        self.points = {d: self.compiled(d) for d in sorted(wanted)}
        self.known = {d: self.points[d] for d in anchors if d in self.points}

    def anchors(self) -> list[int]:
        """Devices along the data axis whose programs stand for more: 4 and 8, and 2 where the batch grows; where the
        batch does not divide over these, the largest that it does."""
        if self.grow:
            return [2, 4, 8]
        sizes = {x.shape[0] for x in jax.tree.leaves((self.twin.batch, self.twin.state.carry))}
        order = [d for d in (8, 4, 2, 6, 7, 5, 3) if d <= MOST]
        found = [d for d in order if all(size % (d * self.twin.accumulate) == 0 for size in sizes)][:2]
        if not found:
            raise UserError(f"batches of {min(sizes)} rows do not divide over 2 to {MOST} devices: choose a --batch")
        return sorted(found)

    def compiled(self, d: int) -> Measured:
        if d * self.model == 1:
            return alone(self.twin)
        strategy = parallel.mesh({"data": d, "model": self.model}, self.axes)
        return measure(self.twin, strategy, Fraction(d if self.grow else 1), self.model)

    def at(self, n: int):
        d = n // self.model
        return (self.points[d], True) if d in self.points else (self.beyond(d), False)

    def beyond(self, d: int) -> Measured:
        """Each number as b + a / d, and + c d where the batch grows, through what was compiled."""
        known = sorted(self.known)
        kinds = {kind for point in self.known.values() for kind in point.talk}
        terms = np.array([[1, 1 / x, x][: len(known)] for x in known], float)
        now = np.array([1, 1 / d, d][: len(known)], float)

        def at(values):
            return max(float(now @ np.linalg.solve(terms, np.array(values, float))), 0.0)

        talk = {
            kind: tuple(at([self.known[x].talk.get(kind, (0.0, 0.0))[i] for x in known]) for i in (0, 1))
            for kind in kinds
        }
        return Measured(at([self.known[x].scratch for x in known]), talk)

    def state(self, n: int, share: Fraction):
        """(bytes of state and batch on each device, parameters that stay whole though a rule would split them)."""
        shape = {"data": n // self.model, "model": self.model}
        names_of, whole = parallel.axes_of(self.axes), 0

        def one(path, x):
            nonlocal whole
            names = names_of(path, x)
            split = parallel.partition(names, x.shape, shape)
            meant = {parallel.RULES.get(name) for name in names if name} & {name for name in shape if shape[name] > 1}
            whole += path[0].name == "params" and bool(meant - set(split))
            return preflight.size(x) / math.prod(shape[axis] for axis in split if axis)

        sizes = jax.tree_util.tree_map_with_path(one, self.twin.state.replace(carry=()))
        batch = resized((self.twin.batch, self.twin.state.carry), share)
        return sum(jax.tree.leaves(sizes)) + preflight.size(batch), whole


def compiled(twin: Twin, one: Estimate, split: bool, grow: bool) -> Measured:
    """What XLA says of an estimate's devices, to check it. UserError where fewer are simulated."""
    if split:
        shape = {"data": one.devices // one.model, "model": one.model}
        strategy = parallel.mesh(shape, param.axes(twin.specs))
    else:
        strategy = parallel.data_parallel(jax.devices()[: one.devices])
    return measure(twin, strategy, Fraction(one.devices // one.model if grow else 1), one.model)


def alone(twin: Twin) -> Measured:
    return Measured(scratch(twin.compiled), {}) if twin.compiled else measure(twin, parallel.local())


def said_by(said: dict, made: dict, n: int) -> dict:
    """What was asked for on two devices, and in how many collectives XLA put it, for n: gathered arrays grow with the
    devices, sums do not."""
    grown = {"all-gather": n / 2, "reduce-scatter": n / 2}
    return {
        key: (made.get(key, (count, 0))[0], payload * grown.get(key[0], 1)) for key, (count, payload) in said.items()
    }


# How long a step takes.


class Timed(NamedTuple):
    """Seconds of a step on a chip: its products, its memory, its links, and all; what bounds it; the share of the
    chip's peak that it uses, and bytes that a device sends."""

    compute: float
    memory: float
    links: float
    step: float
    bound: str
    utilisation: float
    sent: float


def timed(one: Estimate, chip: Chip, share: float, link_share: float, overlap: float) -> Timed:
    """share: of a chip's peak that products attain; link_share: of memory's and links' bandwidth. overlap: share of the
    communication that passes while products are computed. Latency is left out."""
    peak = sum(flops / chip.peak(kind) for kind, flops in one.work.flops.items())
    compute = peak / share
    memory = (one.work.traffic + 2 * one.state) / (chip.bandwidth * link_share)
    near = far = 0.0
    for (kind, scope), (_, payload) in one.talk.items():
        close, distant = across(kind, payload, scope, one, chip.island)
        near, far = near + close, far + distant
    links = (near / chip.link + far / chip.network) / link_share
    own = max(compute, memory)
    step = own + links - min(overlap * links, own)
    bound = "links" if links > own else "products" if compute >= memory else "memory"
    return Timed(compute, memory, links, step, bound, peak / step, near + far)


def across(kind: str, payload: float, scope: str, one: Estimate, island: int) -> tuple[float, float]:
    """Bytes that a device sends within its island of fast links, and out of it: along rings, first inside, then each
    device its part to its likes in other islands. The model axis lies innermost."""
    group = {"data": one.devices // one.model, "model": one.model, "all": one.devices}[scope]
    inside = max(min(group, island // one.model if scope == "data" else island), 1)
    outside = -(-group // inside)
    if kind == "all-to-all":
        return payload * (inside - 1) / group, payload * (group - inside) / group
    if kind == "collective-permute":
        return (payload, 0.0) if outside == 1 else (0.0, payload)
    return collectives.sent(kind, payload, inside), collectives.sent(kind, payload / inside, outside)
