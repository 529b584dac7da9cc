"""Compares runs: what differs in their settings, their figures, whether the difference is more than the seeds', curves.

    launch/run.sh experiments/compare.py runs/gpt_char/001 runs/gpt_char/002
    launch/run.sh experiments/compare.py experiments/results/seqgan/{mle,pg_bleu}/2026-11-25

Workdirs and the folders of kept records alike, finished or not. Runs that differ in nothing but their seed are taken
together. Each group is held against the first: Welch's t-test of the means over seeds, with the difference and its 95 %
interval; pairs of seeds where both have the same. The p values are of one metric at a time: of twenty, one is below
0.05 by chance.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    runs: tuple[str, ...] = setting((), "two or more workdirs or folders of kept records, also without --runs=")
    metric: str = setting("", "of the validations, to draw; default: the loss where all have one")
    output: str = setting("runs/compare.png", "where the curves are drawn; empty: nowhere")


class Run(NamedTuple):
    """One folder. settings: flat, without where it ran. logs: the lines of metrics*.jsonl. result: {} if unfinished."""

    folder: Path
    experiment: str
    settings: dict
    logs: list
    result: dict


class Group(NamedTuple):
    """Runs that differ in their seed alone. values: {metric: {seed: value}}, or {} where lanes differ in settings."""

    name: str
    runs: list
    values: dict


def load(folder: str) -> Run:
    from lmjax.run.log import read
    from lmjax.run.settings import flatten
    from lmjax.run.workdir import MAY_CHANGE, stored

    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise UserError(f"{folder} is neither a workdir nor a kept record: expected a config.json in it")
    config = stored(path)
    settings = {name: value for name, value in flatten(config["config"]).items() if name not in MAY_CHANGE}
    result = {}
    if (path / "result.json").exists():
        try:
            result = json.loads((path / "result.json").read_text(encoding="utf-8"))
            result["metrics"], result["seeds"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{path / 'result.json'} is damaged: move it away, or compare another run") from None
    return Run(path, config["experiment"], settings, [read(log) for log in sorted(path.glob("metrics*.jsonl"))], result)


def grouped(runs: list[Run]) -> list[Group]:
    from lmjax.run.record import seeds_of_values

    found: dict[tuple, list[Run]] = {}
    for run in runs:
        same = tuple((name, str(value)) for name, value in run.settings.items() if name != "seed")
        found.setdefault((run.experiment, same, _command(run)), []).append(run)
    names = labels([mine[0].folder for mine in found.values()])
    groups = []
    for name, mine in zip(names, found.values()):
        values: dict[str, dict] = {}
        for run in mine:
            seeds = seeds_of_values(run.result) if run.result else []
            for metric, figure in run.result.get("metrics", {}).items() if len(set(seeds)) == len(seeds) else ():
                values.setdefault(metric, {}).update(zip(seeds, figure["values"]))
        groups.append(Group(name + f" and {len(mine) - 1} more" * (len(mine) > 1), mine, values))
    return groups


def _command(run: Run) -> str:
    """Nothing for workdirs; kept records of several seeds have the first one's settings alone."""
    return str(run.result.get("preset", "")) if run.result else ""


def labels(folders: list[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart."""
    parts = [path.resolve().parts for path in folders]
    for n in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-n:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"{folders[0]} is given twice: name each run once")


def differences(groups: list[Group]) -> list[list[str]]:
    """[setting, its value in each group] of those that differ."""
    from lmjax.run.settings import text

    sides = [{"experiment": group.runs[0].experiment, **group.runs[0].settings} for group in groups]
    names = dict.fromkeys(name for side in sides for name in side if name != "seed")
    if len({side["experiment"] for side in sides}) > 1:
        names = [name for name in names if all(name in side for side in sides)]
    rows = [[name, *(text(side[name]) if name in side else "-" for side in sides)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def mean_of(values) -> str:
    from lmjax.run import record
    from lmjax.run.reports import report

    return report.spread(record._spread([math.nan if value is None else value for value in values]))


def final_figures(groups: list[Group]) -> list[list[str]]:
    """[metric, mean ± sd (seeds) of each group] as their results have it."""
    names = dict.fromkeys(name for group in groups for name in group.values)
    return [[name, *(mean_of(g.values[name].values()) if name in g.values else "-" for g in groups)] for name in names]


def validations(group: Group, metric: str) -> list[list[tuple[int, float]]]:
    """The (step, value) of each log."""
    from lmjax.run.reports.pages import points

    logs = [[line for line in log if line.get("kind") == "valid"] for run in group.runs for log in run.logs]
    return [found for log in logs if (found := points(log, metric))]


def metrics_of(group: Group) -> list[str]:
    from lmjax.run.log import of_a_lane

    lines = [line for run in group.runs for log in run.logs for line in log if line.get("kind") == "valid"]
    names = dict.fromkeys(name for line in lines for name in line if name not in ("step", "kind"))
    return [name for name in names if not of_a_lane(name, names)]


def validated(groups: list[Group]) -> list[list[str]]:
    """[metric, last and best of each group] as the logs have it, for metrics of which is known what is better."""
    from lmjax.run.record import RULES

    rows = []
    for name in dict.fromkeys(name for group in groups for name in metrics_of(group)):
        better = next((rule[0] for part, rule in RULES.items() if part in name), None)
        if better is None:
            continue
        row = [name]
        for group in groups:
            logs = validations(group, name)
            best = [(min if better == "lower" else max)(log, key=lambda point: point[1]) for log in logs]
            at = f" at step {best[0][0]:,}" if len(best) == 1 else ""
            last = mean_of([log[-1][1] for log in logs]) if logs else "-"
            row.append(last + (f"; best {mean_of([value for _, value in best])}{at}" if logs else ""))
        rows.append(row)
    return rows


def tested(first: dict, other: dict) -> str:
    """What a t-test says of {seed: value} of two groups: the difference other - first, its 95 % interval, p."""
    from scipy import stats

    a, b = ({seed: value for seed, value in side.items() if value is not None} for side in (first, other))
    if min(len(a), len(b)) < 2:
        return f"{len(a)} and {len(b)} seeds: too few for a test, two of each are needed"
    pairs = sorted(a) == sorted(b)
    x, y = [a[seed] for seed in sorted(a)], [b[seed] for seed in sorted(b)]
    gap = [v - u for u, v in zip(x, y)] if pairs else []
    if len(set(x)) == len(set(y)) == 1 or (pairs and len(set(gap)) == 1):
        return f"{sum(y) / len(y) - sum(x) / len(x):+.4g}, the seeds do not differ: no test"
    test = stats.ttest_rel(y, x) if pairs else stats.ttest_ind(y, x, equal_var=False)
    low, high = test.confidence_interval(0.95)
    which = f"paired by {len(x)} seeds" if pairs else f"Welch, {len(x)} and {len(y)} seeds"
    few = "; few seeds, the interval leans on their spread being normal" if min(len(x), len(y)) < 5 else ""
    return f"{sum(y) / len(y) - sum(x) / len(x):+.4g} [{low:+.4g}, {high:+.4g}], p {test.pvalue:.2g} ({which}{few})"


def draw(groups: list[Group], metric: str, path: Path) -> bool:
    """The metric in validation against the step: a colour for each group, a line for each log."""
    from lmjax.run.pictures import COLORS, canvas

    figure = canvas(7.5, 4.5)
    if figure is None:
        return False
    axes = figure.add_subplot()
    colors = (*COLORS[1:], COLORS[0], "#8a5fb0", "#c99a2e", "#3f9c9c")
    for n, group in enumerate(groups):
        for k, points in enumerate(validations(group, metric)):
            axes.plot(*zip(*points), color=colors[n % len(colors)], linestyle="-" if n < len(colors) else "--",
                      linewidth=1.4, marker="o", markersize=2.5, label=group.name if k == 0 else None)  # fmt: skip
    axes.set(xlabel="step", ylabel=metric.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True


def show(title: str, head: list[str], rows: list[list[str]]):
    if not rows:
        return
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows] if any(head) else rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main(config: Config):
    if len(config.runs) < 2:
        raise UserError(f"{len(config.runs)} runs are given: name two or more workdirs or folders of kept records")
    runs = [load(folder) for folder in config.runs]
    labels([run.folder for run in runs])
    groups = grouped(runs)
    names = [group.name for group in groups]
    show("settings that differ", ["", *names], differences(groups))
    show("figures", ["", *names], final_figures(groups))
    show("validations in the log: last; best", ["", *names], validated(groups))
    for group in groups[1:]:
        both = [name for name in groups[0].values if name in group.values]
        rows = [[name, tested(groups[0].values[name], group.values[name])] for name in both]
        show(f"{group.name} less {names[0]}: difference [95 % interval], p", ["", ""], rows)
    shared = [name for name in metrics_of(groups[0]) if all(name in metrics_of(group) for group in groups)]
    metric = config.metric or ("loss" if "loss" in shared else next(iter(shared), ""))
    if config.metric and not any(config.metric in metrics_of(group) for group in groups):
        raise UserError(f"--metric={config.metric} is in no validation of these runs: expected {', '.join(shared)}")
    if config.output and metric and draw(groups, metric, Path(config.output).expanduser()):
        print(f"\n{metric} against the step: {config.output}")


if __name__ == "__main__":
    import sys

    sys.argv = flags.named(sys.argv, "runs")
    flags.run(main, Config)
