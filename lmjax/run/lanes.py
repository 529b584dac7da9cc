"""Trainings side by side, as --seeds and --lanes ask for them: which form they take, and what each of them gave."""

import json
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax.errors import UserError
from lmjax.machine import cores
from lmjax.run import grid
from lmjax.run.log import of_a_lane
from lmjax.run.workdir import write
from lmjax.train import lanes, parallel

FACTS = "lanes.json"
LONG = 0.25  # seconds of a step alone, from which on a processor is busy with one lane
TIMED, PATIENCE = 3, 1.0  # steps that are timed at most, and seconds of them after which no more are


class Facts(NamedTuple):
    """The lanes of a run. where: for each the place of its seed among the distinct `seeds`."""

    lanes: tuple[lanes.Lane, ...]
    seeds: tuple[int, ...]
    where: tuple[int, ...]


def asked(config, whole: bool = False) -> Facts | None:
    """Of the config, None where it asks for one training alone and the experiment is not one that has always lanes."""
    found = tuple(lanes.Lane(seed, numbers) for seed, numbers in grid.trainings(config))
    if len(found) == 1 and not found[0].values and not whole:
        return None
    seeds = tuple(dict.fromkeys(one.seed for one in found))
    return Facts(found, seeds, tuple(seeds.index(one.seed) for one in found))


def names(facts: Facts) -> list[str]:
    """What each lane is called: what it has not in common with all others."""
    seeds = len(facts.seeds) > 1 or not facts.lanes[0].values
    return [", ".join([f"seed {one.seed}"] * seeds + [said(one.values)] * bool(one.values)) for one in facts.lanes]


def said(numbers: dict) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in numbers.items())


def traced(facts: Facts, function, *given) -> dict:
    """{name: the program} of function({name: number}, *given) for each number of the lanes; UserError where it shapes
    the program."""
    found = {}
    for name, value in facts.lanes[0].values.items():
        try:
            found[name] = jax.make_jaxpr(function)({name: np.float32(value)}, *given).jaxpr
        except Exception as error:  # of whatever Python does with a number that it cannot know yet
            raise UserError(f"--lanes: {name} shapes the program ({type(error).__name__}), so that its values cannot "
                            "share one: give them to launch/sweep.py") from None  # fmt: skip
    return found


def check_values(facts: Facts, make, state, batch, key):
    """UserError where a number of the lanes shapes the step, or does not reach it.

    make(hyper): the step of one lane; state, batch, key: what it takes, or their shapes.
    """

    def step(hyper, state, batch, key):
        return make(hyper)(state, batch, key, parallel.ONE)

    for name, program in traced(facts, step, state, batch, key).items():
        if not any(program.invars[0] is var for eqn in program.eqns for var in eqn.invars):
            raise UserError(f"--lanes: {name} does not reach the training's step, so that all lanes would be the same: "
                            "give its values to launch/sweep.py")  # fmt: skip


def strategy_of(config, axes, facts: Facts, alike: bool):
    """Where the lanes run: spread over several devices where these divide them, else each on all devices."""
    devices, together = jax.device_count(), alike or len(facts.seeds) == 1
    alone = jax.process_count() == 1  # a process evaluates every lane, and needs it at hand
    if alone and config.strategy == "auto" and devices > 1 and len(facts.lanes) % devices == 0 and together:
        return parallel.lane_parallel(shared=len(facts.seeds) == 1)
    return parallel.choose(config.strategy, axes, config.mesh)


def known_form(asked: str, folder, strategy, facts: Facts, alike: bool) -> type | None:
    """The form of a run that began before, or that needs no measuring; None where it does. asked: by --form."""
    forms = {form.name: form for form in (lanes.Together, lanes.InTurn)}
    kept, named = read(folder), asked.replace("_", " ")
    if strategy.name == "lanes":
        return lanes.Together
    if strategy.name.startswith("mesh") or (len(facts.seeds) > 1 and not alike):
        return lanes.InTurn
    if jax.default_backend() != "cpu" or (jax.process_count() > 1 and named not in forms):
        return lanes.Together  # processes could measure differently
    if named in forms:
        return forms[named]
    if kept and kept.get("form") in forms:
        return forms[kept["form"]]
    return lanes.InTurn if len(facts.lanes) == 1 else None


def widths(folder, strategy, facts: Facts) -> list[int]:
    """How many lanes in turn may be under way at any time: the number that a run which goes on was found fastest with,
    else those that are worth a measurement."""
    most = min(cores(), len(facts.lanes))
    alone = strategy.name == "local" and jax.default_backend() == "cpu" and jax.process_count() == 1
    if not alone or most == 1:
        return [1]
    kept = (read(folder) or {}).get("abreast")
    return [int(kept)] if kept in range(1, most + 1) else [1, most]


def called(form) -> str:
    """A form as lines name it."""
    return f"{form.abreast} abreast" if form.abreast > 1 else form.name


def fastest(calls: dict, state, rows, fits: Callable, say) -> Any:
    """The form whose step takes the shortest: calls {form: its compiled step}, tried on copies of a canonical state.

    The lanes at once are not tried where a step of one alone is long, for a processor has enough to do with it; more
    lanes in turn than one at any time not where memory does not hold them: fits(form, call).
    """
    taken = {}
    for form, call in calls.items():
        long = max(taken.values(), default=0.0) >= LONG * len(form.where)
        wide = form.abreast > 1
        if (long and isinstance(form, lanes.Together)) or (wide and not fits(form, call)):
            continue
        now, batch, seconds = form.place(state), form.batch(rows), []
        if not wide:  # which has the same program as those behind one another
            now, _ = jax.block_until_ready(form.launch(call, now, batch))  # compiles
        while len(seconds) < TIMED and sum(seconds) < PATIENCE:
            began = time.perf_counter()
            now, _ = jax.block_until_ready(form.launch(call, now, batch))
            seconds.append(time.perf_counter() - began)
        taken[form] = min(seconds)
    best = min(taken, key=taken.get)
    tried = ", ".join(f"{called(form)} {1000 * seconds:.0f} ms" for form, seconds in taken.items())
    say(f"{len(best.where)} lanes, a step: {tried}; taken {called(best)}")
    return best


def read(folder) -> dict | None:
    """lanes.json of a workdir, None where its run has no lanes."""
    path = folder / FACTS
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found["lanes"], list) and 0 <= found.get("best", 0) < len(found["lanes"]):
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is damaged: remove it and start the same command again")


def keep(folder, facts: Facts, form, **more):
    """Writes lanes.json."""
    said = {"form": form.name, "abreast": form.abreast}
    write(folder / FACTS, said | {"lanes": [{"seed": one.seed, **one.values} for one in facts.lanes], **more})


def mean_of(found: list[dict]) -> dict:
    """Of the lanes' metrics their mean, over those that have a finite one, and each lane's own behind its number."""
    line = {}
    for name in found[0]:
        values = [metrics[name] for metrics in found]
        finite = [value for value in values if math.isfinite(value)]
        line[name] = statistics.fmean(finite) if finite else math.nan
    return line | {f"{name}_{i}": value for i, metrics in enumerate(found) for name, value in metrics.items()}


def own(history: list, i: int) -> list:
    """Lane i's history out of that of all: the mean's names with its own values."""
    return [
        {"step": line["step"]}
        | {name: line[f"{name}_{i}"] for name in line if f"{name}_{i}" in line and not of_a_lane(name, line)}
        for line in history
    ]


def ranks(history: list, rank, count: int) -> list[list[float]]:
    """rank(metrics) of each lane's validations, the lowest is best."""
    return [[rank(line) for line in own(history, i)] for i in range(count)]


def winner(history: list, rank, count: int, stopped, best: bool) -> int:
    """The lane that validated best, by its best validation or its last one; one that stopped only where all did."""
    found = [min(r) if best else r[-1] for r in ranks(history, rank, count)]
    return min(range(count), key=lambda i: (i in stopped, not math.isfinite(found[i]), found[i]))


def each(session, outcome, judge, tell=True) -> dict:
    """What judge(session, outcome) says, {name: number}: of the run, or of each of its lanes, {name: [number, ...]}.

    A lane's session has its own folder, lane-0, lane-1, ..., and its config as if it ran alone. Where a lane stopped
    because of non-finite steps its numbers are none. tell: judge prints something, so say whose it is.
    """
    if not outcome.lanes:
        return judge(session, outcome)
    found, count = [], len(outcome.lanes.lanes)
    for i, (one, name) in enumerate(zip(outcome.lanes.lanes, names(outcome.lanes))):
        folder = session.workdir / f"lane-{i}"
        folder.mkdir(exist_ok=True)
        if tell:
            session.say(f"\nlane {i + 1} of {count}: {name}")
        alone = session._replace(workdir=folder, config=grid.alone(session.config, one.seed, one.values))
        part = outcome._replace(
            params=lanes.lane(outcome.params, i), history=own(outcome.history, i), lanes=None, stopped=()
        )
        metrics = judge(alone, part)
        found.append(dict.fromkeys(metrics, math.nan) if i in outcome.stopped else metrics)
    return {key: [metrics[key] for metrics in found] for key in found[0]}


def spread(values) -> tuple[float, float]:
    """Mean and sample deviation of those that are finite; no numbers where they are too few."""
    finite = [value for value in values if math.isfinite(value)]
    mean = statistics.fmean(finite) if finite else math.nan
    return mean, statistics.stdev(finite) if len(finite) > 1 else math.nan


def shown(value: float) -> str:
    """A figure as a table has it."""
    return f"{value:.4g}" if abs(value) >= 1e6 else f"{value:.4f}"


def table(facts: Facts, metrics: dict, best: int | None, stopped=()) -> str:
    """Each lane's figures, and mean and sd over the seeds of each setting."""
    columns = list(metrics)[:6]
    width = [max(len(key), 9) + 2 for key in columns]
    called = names(facts)
    left = max(max(map(len, called)) + 8, 16)
    lines = ["", " " * left + "".join(f"{key:>{w}}" for key, w in zip(columns, width))]

    def row(name, values, note=""):
        lines.append(f"{name:{left}}" + "".join(f"{shown(value):>{w}}" for value, w in zip(values, width)) + note)

    for i, name in enumerate(called):
        note = "  stopped: not finite" if i in stopped else "  best on validation" if i == best else ""
        row(name, [metrics[key][i] for key in columns], note)
    settings = {}
    for i, one in enumerate(facts.lanes):
        settings.setdefault(tuple(one.values.items()), []).append(i)
    if len(facts.seeds) > 1:
        for numbers, members in settings.items():
            label = said(dict(numbers)) or f"{len(members)} seeds"
            spreads = [spread([metrics[key][i] for i in members]) for key in columns]
            row(f"mean {label}", [mean for mean, _ in spreads])
            row("sd", [sd for _, sd in spreads])
    return "\n".join(lines)
