"""launch/plan.py: an experiment's twin, its plan, and the page, JSON and picture of it."""

import dataclasses
import json
import os
import tempfile

from lmjax.errors import UserError, install
from lmjax.run import flags, scripts
from lmjax.run.output import written
from lmjax.run.plans.chips import CHIPS


def run(config, script: str, rest: list[str]):
    """config: launch/plan.py's Config."""
    experiment = trains(script)
    theirs = flags.parse(experiment.Config, getattr(experiment, "PRESETS", {}), argv=[script, *rest])
    split, model, counts = asked(config, theirs)
    most = max(config.exact, 8 * model if split else 2)
    os.environ["XLA_FLAGS"] = (  # the code that LLVM makes is never run: no time for its optimization
        os.environ.get("XLA_FLAGS", "")
        + f" --xla_force_host_platform_device_count={most} --xla_backend_optimization_level=0"
    )
    from lmjax.run.plans import planning

    twin = twin_of(experiment, theirs)
    plan = planning.plan(twin, counts, split=split, model=model, grow=config.grow)
    checks = check(planning, twin, plan, split, config) if config.exact else {}
    page(config, plan, split, checks)
    record = as_json(config, plan, split, checks, [script, *rest])
    if config.json:
        with written(config.json, "--json") as file:
            file.write(json.dumps(record, indent=1) + "\n")
    if config.plot:
        draw(record, config.plot)


def trains(script: str):
    """The module of an experiment that can be planned. UserError for another script."""
    if not script:
        raise UserError("no experiment is given: expected one such as experiments/gpt_char.py")
    module = scripts.load(script)
    if "dry_run" not in {field.name for field in dataclasses.fields(module.Config)}:
        raise UserError(f"{script} has no --dry_run, so nothing of it can be planned: choose an experiment that trains")
    return module


def asked(config, theirs) -> tuple[bool, int, list[int]]:
    """(whether parameters are split, devices along the model axis, numbers of devices)."""
    split = theirs.strategy == "mesh"
    data, model = (*theirs.mesh, 1, 1)[:2] if len(theirs.mesh) != 1 else (*theirs.mesh, 1)
    counts = list(config.devices) or ([data * model] if theirs.mesh else [1, 2, 4, 8])
    counts = sorted(set(counts))
    if getattr(theirs, "seeds", 1) > 1 or getattr(theirs, "lanes", ""):
        raise UserError("a plan is of one training: leave out --seeds and --lanes")
    if theirs.strategy == "local" and counts != [1]:
        raise UserError("--strategy=local has one device: leave it out, or give --devices=1")
    return split, model, counts


def twin_of(experiment, theirs):
    """The experiment's training as `fit` would begin it. UserError where it comes to none."""
    from lmjax.run.training import Planned

    with tempfile.TemporaryDirectory() as folder:
        alone = dataclasses.replace(
            theirs, strategy="local", mesh=(), dry_run=True, quiet=True, workdir=theirs.workdir or folder
        )
        try:
            experiment.main(alone)
        except Planned as ended:
            return ended.twin
    raise UserError(f"{experiment.__name__.removeprefix('experiment_')}.py trained nothing by steps with these flags")


def check(planning, twin, plan, split, config) -> dict:
    """By how much the estimates miss what XLA compiles: devices -> (memory, bytes of collectives), as fractions."""
    found = {}
    for one in plan.estimates:
        if isinstance(one, planning.Estimate) and not one.compiled and one.devices <= config.exact:
            true = planning.compiled(twin, one, split, config.grow)
            says = [sum(payload for _, payload in talk.values()) for talk in (one.talk, true.talk)]
            memory = one.memory / (one.state + true.scratch) - 1
            found[one.devices] = (memory, says[0] / says[1] - 1 if says[1] else 0.0)
    return found


def page(config, plan, split: bool, checks: dict):
    """On the terminal: a line for each number of devices, then what they say to each other."""
    from lmjax.run.plans.planning import Estimate, timed

    chip = CHIPS[config.chip]
    tokens = plan.tokens / plan.rows
    print(f"{plan.parameters:,} parameters, batches of {plan.rows} rows{' a device' if config.grow else ''}, "
          f"{'mesh' if split else 'pmap'}; {config.chip}: {size(chip.memory)}B")  # fmt: skip
    print(f"{'devices':>9} {'rows':>6} {'memory':>8} {'= state':>8} {'+ scratch':>9} {'fits':>5} {'sends':>8} "
          f"{'step':>9} {'bound by':>9} {'tokens/s':>9} {'MFU':>5} {'run':>9}")  # fmt: skip
    for one in plan.estimates:
        if not isinstance(one, Estimate):
            print(f"{one[0]:>9} {one[1]}")
            continue
        time = timed(one, chip, config.share, config.link_share, config.overlap)
        name = f"{one.devices // one.model}x{one.model}" if one.model > 1 else str(one.devices)
        note = f"  {one.whole} parameters do not divide and stay whole" if one.whole else ""
        print(f"{name:>9} {one.rows:>6} {size(one.memory):>8} {size(one.state):>8} {size(one.scratch):>9} "
              f"{'yes' if one.memory <= chip.memory else 'NO':>5} {size(time.sent):>8} {seconds(time.step):>9} "
              f"{time.bound:>9} {size(one.rows * tokens / time.step):>9} {time.utilisation:>5.2g} "
              f"{seconds(time.step * plan.steps):>9}{note}")  # fmt: skip
    known = [one for one in plan.estimates if isinstance(one, Estimate)]
    if any(one.talk for one in known):
        print("collectives a step and device: number, bytes")
    for one in known:
        kinds = {}
        for (kind, _), (count, payload) in one.talk.items():
            old = kinds.get(kind, (0, 0))
            kinds[kind] = (old[0] + count, old[1] + payload)
        if kinds:
            said = ", ".join(f"{round(count)} {kind} {size(payload)}B" for kind, (count, payload) in kinds.items())
            print(f"{one.devices:>9} {said}")
    guessed = [str(one.devices) for one in known if not one.compiled]
    if guessed:
        print(f"from compiles for fewer devices: {', '.join(guessed)}; the others as XLA compiled them")
    for n, (memory, said) in checks.items():
        print(f"{n:>9} estimated against compiled: memory {memory:+.1%}, bytes of collectives {said:+.1%}")
    if known and not any(one.memory <= chip.memory for one in known):
        spread = "" if split else "--strategy=mesh, "
        print(f"none of these fits: more devices, {spread}a smaller batch, accumulate, or remat")


def as_json(config, plan, split: bool, checks: dict, command: list[str]) -> dict:
    from lmjax.run.plans.planning import Estimate, timed

    chip, rows = CHIPS[config.chip], []
    for one in plan.estimates:
        if not isinstance(one, Estimate):
            rows.append({"devices": one[0], "error": one[1]})
            continue
        time = timed(one, chip, config.share, config.link_share, config.overlap)
        said = [{"kind": kind, "between": scope, "count": count, "payload_bytes": payload}
                for (kind, scope), (count, payload) in one.talk.items()]  # fmt: skip
        rows.append({
            "devices": one.devices, "model_axis": one.model, "rows": one.rows, "memory_bytes": one.memory,
            "state_bytes": one.state, "scratch_bytes": one.scratch, "fits": one.memory <= chip.memory,
            "flops": one.work.flops, "memory_traffic_bytes": one.work.traffic, "collectives": said,
            "sent_bytes": time.sent, "seconds": {"products": time.compute, "memory": time.memory, "links": time.links,
                                                 "step": time.step, "run": time.step * plan.steps},
            "bound_by": time.bound, "utilisation": time.utilisation,
            "tokens_per_second": one.rows * plan.tokens / plan.rows / time.step, "whole_parameters": one.whole,
            "compiled": one.compiled,
        })  # fmt: skip
        if one.devices in checks:
            rows[-1]["missed"] = dict(zip(("memory", "collectives"), checks[one.devices]))
    assumed = {name: getattr(config, name) for name in ("share", "link_share", "overlap", "grow")}
    return {"command": command, "strategy": "mesh" if split else "pmap", "parameters": plan.parameters,
            "steps": plan.steps, "chip": {"name": config.chip, **chip._asdict()}, "assumed": assumed,
            "devices": rows}  # fmt: skip


def draw(record: dict, path: str):
    """Memory of a device and time of a step against the number of devices. UserError without the plot extra."""
    from lmjax.run.pictures import canvas

    rows = [row for row in record["devices"] if "error" not in row]
    figure = canvas(9, 4)
    if figure is None:
        raise UserError("--plot needs matplotlib: " + install("plot"))
    x = [row["devices"] for row in rows]
    left, right = figure.subplots(1, 2)
    for name, label, color in (("memory_bytes", "needed", "#222222"), ("state_bytes", "state", "#7a9cc6"),
                               ("scratch_bytes", "scratch", "#d9b382")):  # fmt: skip
        left.plot(x, [row[name] / 1e9 for row in rows], marker="o", markersize=3, color=color, label=label)
    left.axhline(record["chip"]["memory"] / 1e9, color="#c1440e", label=f"{record['chip']['name']} has")
    left.set(yscale="log", xlabel="devices", ylabel="GB a device", title="memory")
    for name, color in (("products", "#7a9cc6"), ("memory", "#7fa37f"), ("links", "#d9b382"), ("step", "#222222")):
        y = [row["seconds"][name] for row in rows]
        right.plot(x, [value or float("nan") for value in y], marker="o", markersize=3, color=color, label=name)
    right.set(yscale="log", xlabel="devices", ylabel="seconds", title="a step")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(n) for n in x])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise UserError(f"--plot={path} cannot be written ({error.strerror}): choose another file") from None


def size(number: float) -> str:
    """1234567 -> "1.23 M"."""
    power = 0
    while number >= 999.5 and power < 5:
        number, power = number / 1000, power + 1
    return f"{number:.3g} {' kMGTP'[power]}" if power else f"{number:.3g} "


def seconds(number: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, length in (("years", 31557600), ("days", 86400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3)):
        if number >= 0.995 * length * (2 if unit in ("days", "years", "min") else 1):
            return f"{number / length:.3g} {unit}"
    return f"{number * 1e6:.3g} us"
