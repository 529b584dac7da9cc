"""Trainings that differ in how private they are, one after the other in a run's folder, and the curve of them."""

import json
import math
from dataclasses import replace
from pathlib import Path

from lmjax.run.pictures import COLORS, canvas
from lmjax.run.training import Outcome
from lmjax.run.workdir import write


def named(epsilon: float) -> str:
    return f"epsilon_{epsilon:g}" if epsilon else "open"


def each_epsilon(run, once):
    """({metric_NAME: value of each}, the outcome of all) of once(run, privacy) -> (metrics, outcome), for every one of
    config.epsilons, 0 the open one, in a folder of its own. What is finished there is not trained again."""
    found, whole = {}, None
    for epsilon in run.config.epsilons:
        name, config = named(epsilon), run.config
        privacy = replace(config.privacy, epsilon=epsilon, noise=0.0, clip=config.privacy.clip if epsilon else 0.0)
        part = run._replace(workdir=run.workdir / name)
        part.workdir.mkdir(exist_ok=True)
        run.say(f"\n{name}")
        metrics, outcome = _done(part.workdir) or _kept(part.workdir, *once(part, privacy))
        found |= {f"{metric}_{name}": value for metric, value in metrics.items()}
        whole = outcome if whole is None else whole._replace(
            seconds=whole.seconds + outcome.seconds, flops=whole.flops + outcome.flops
        )  # fmt: skip
    return found, whole


def _done(folder):
    path = folder / "figures.json"
    if not path.exists():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    return kept["metrics"], Outcome(None, [], kept["seconds"], kept["flops"], kept["parameters"])


def _kept(folder, metrics, outcome):
    spent = {name: getattr(outcome, name) for name in ("seconds", "flops", "parameters")}
    write(folder / "figures.json", {"metrics": metrics, **spent})
    return metrics, outcome._replace(params=None, lanes=None)


def curve(points: dict, path: Path, ylabel: str, title: str, lines: dict | None = None) -> Path | None:
    """A picture of values over epsilon: points {epsilon: [a seed's, ...]}, 0 the open one, a line beside the others, as
    are lines {name: value}. None without the plot extra."""
    figure = canvas(6, 4)
    if figure is None:
        return None
    axes = figure.add_subplot()
    some = sorted(epsilon for epsilon in points if epsilon)
    mean = [sum(points[e]) / len(points[e]) for e in some]
    spread = [math.sqrt(sum((v - m) ** 2 for v in points[e]) / max(len(points[e]) - 1, 1)) for e, m in zip(some, mean)]
    axes.errorbar(some, mean, spread, color=COLORS[1], marker="o", markersize=5, capsize=3, label="private")
    open_one = {"without privacy": sum(points[0.0]) / len(points[0.0])} if points.get(0.0) else {}
    for n, (name, value) in enumerate((open_one | (lines or {})).items()):
        axes.axhline(value, color=COLORS[(2 + n) % len(COLORS)], linestyle=("--", ":", "-.")[n % 3], label=name)
    axes.set_xscale("log")
    axes.set_xticks(some, [f"{e:g}" for e in some])
    axes.minorticks_off()
    axes.set(xlabel="epsilon", ylabel=ylabel, title=Path(title).name)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
    return path
