"""The pictures of a sweep: history, curves, a setting at a time, all settings beside each other, importance."""

import math
from pathlib import Path

from lmjax.run.pictures import COLORS, canvas
from lmjax.run.settings import text

GREY, BLUE, RED, GREEN = COLORS
PALE = "#c9c9c9"


def draw(place, study, trials, best, curves: dict, metric: str) -> dict[str, Path]:
    """name -> the picture's path, of those that there is something to see in; {} without the plot extra."""
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not done or canvas(1, 1) is None:
        return {}
    values = sorted(trial.value for trial in done)
    higher = place.plan.direction == "maximize"
    own = [trial.value for trial in done if trial.user_attrs.get("default")]
    shown = limits(values[::-1] if higher else values, own)
    found = {
        "history": history(trials, done, best, higher, metric, shown),
        "curves": draw_curves(trials, best, curves, metric, higher),
        "slices": slices(place, done, best, metric, shown),
        "parallel": parallel(place, trials, done, best, metric, shown) if len(done) > 1 else None,
        "importance": importance(study, done, metric),
    }
    paths = {}
    for name, figure in found.items():
        if figure is not None:
            paths[name] = place.folder / f"{name}.png"
            figure.savefig(paths[name])
    return paths


def limits(values, own=()) -> tuple[float, float]:
    """The ends of an axis on which the good values have room: those of a trial that went wrong are cut at its end.

    values: the best first; own: those that the axis must hold in any case.
    """
    best, middle, worst = values[0], values[len(values) // 2], values[-1]
    reach = 3 * abs(middle - best)
    end = worst if reach == 0 or abs(worst - best) <= reach else best + math.copysign(reach, worst - best)
    low, high = min(best, end, *own), max(best, end, *own)
    room = 0.06 * (high - low) or 0.01 * abs(high) or 0.01
    return low - room, high + room


def history(trials, done, best, higher, metric, shown):
    figure = canvas(7, 3.8)
    axes = figure.add_subplot()
    low, high = shown
    pruned = [t for t in trials if t.state.name == "PRUNED" and t.value is not None]
    failed = [t.number for t in trials if t.state.name == "FAIL"]

    def dots(found, **style):
        """What lies beyond the axis is a triangle at its edge."""
        within = [t for t in found if low <= t.value <= high]
        beyond = [t for t in found if t not in within]
        axes.scatter([t.number for t in within], [t.value for t in within], clip_on=False, **style)
        style |= {"marker": "v" if higher else "^", "label": None}
        axes.scatter([t.number for t in beyond], [low if higher else high] * len(beyond), clip_on=False, **style)

    dots(pruned, s=18, marker="x", color=PALE, label="pruned, where it was")
    dots(done, s=22, color=BLUE, label="complete")
    if failed:
        bad = low if higher else high
        axes.scatter(failed, [bad] * len(failed), s=26, marker="|", color="#333333", label="failed", clip_on=False)
    line, so_far = [], None
    for trial in sorted(done, key=lambda t: t.number):
        so_far = trial.value if so_far is None else (max if higher else min)(so_far, trial.value)
        line.append((trial.number, so_far))
    line.append((max(t.number for t in trials), so_far))
    axes.step(*zip(*line), where="post", color=GREEN, linewidth=1.5, label="best so far")
    axes.scatter([best.number], [best.value], s=70, facecolor="none", edgecolor=RED, linewidth=1.8, zorder=5,
                 label=f"trial {best.number}: {best.value:.4g}")  # fmt: skip
    _own(axes, done)
    axes.set(xlabel="trial", ylabel=metric, ylim=shown)
    axes.grid(alpha=0.3)
    _legend(axes)
    return figure


def _own(axes, done):
    own = next((trial for trial in done if trial.user_attrs.get("default")), None)
    if own is not None:
        axes.axhline(own.value, color="#555555", linestyle=":", linewidth=1, label=f"own settings: {own.value:.4g}")


def _legend(axes):
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def draw_curves(trials, best, curves, metric, higher):
    if sum(len(points) > 1 for points in curves.values()) == 0:
        return None
    figure = canvas(7, 4)
    axes = figure.add_subplot()
    named = set()
    for trial in trials:
        points, state = curves[trial.number], trial.state.name
        if not points or trial.number == best.number:
            continue
        color = {"COMPLETE": "#7a9cc6", "PRUNED": PALE}.get(state, "#e0b8a8")
        label = None if state in named else state.lower()
        named.add(state)
        marker = "o" if len(points) == 1 else None
        axes.plot(*zip(*points), color=color, linewidth=1, marker=marker, markersize=2.5, label=label)
    own = next((t for t in trials if t.user_attrs.get("default") and t.number != best.number), None)
    if own is not None and curves[own.number]:
        axes.plot(*zip(*curves[own.number]), color="#333333", linewidth=1.4, linestyle="--", label="own settings")
    axes.plot(*zip(*curves[best.number]), color=RED, linewidth=2, label=f"trial {best.number}: {best.value:.4g}")
    ends = [points[-1][1] for points in curves.values() if points]
    seen = sorted([v for points in curves.values() for _, v in points[len(points) // 4 :]] + ends, reverse=higher)
    axes.set(xlabel="step", ylabel=metric, ylim=limits(seen))
    axes.grid(alpha=0.3)
    _legend(axes)
    return figure


def slices(place, done, best, metric, shown):
    terms = place.terms
    across = min(3, len(terms))
    down = math.ceil(len(terms) / across)
    figure = canvas(1.2 + 2.7 * across, 0.4 + 2.6 * down)
    low, high = shown
    for i, term in enumerate(terms):
        axes = figure.add_subplot(down, across, i + 1)
        scale = Scale(term)
        x = [scale.at(trial.params[term.name]) for trial in done]
        y = [min(max(trial.value, low), high) for trial in done]
        axes.scatter(x, y, c=[trial.number for trial in done], cmap="Blues", vmin=-0.4 * len(done), s=24, linewidth=0.4,
                     edgecolor="#33556f", clip_on=False)  # fmt: skip
        axes.scatter([scale.at(best.params[term.name])], [best.value], s=80, facecolor="none", edgecolor=RED,
                     linewidth=1.8)  # fmt: skip
        axes.set_xticks(*scale.ticks(), fontsize=8)
        axes.set_xlim(-0.06, 1.06)
        axes.set_ylim(shown)
        axes.set_xlabel(term.name)
        axes.tick_params(axis="y", labelsize=8)
        if i % across == 0:
            axes.set_ylabel(metric)
        else:
            axes.tick_params(axis="y", labelleft=False)
        axes.grid(alpha=0.3)
    return figure


def parallel(place, trials, done, best, metric, shown):
    names = [term.name for term in place.terms]
    scales, (low, high) = [Scale(term) for term in place.terms], shown
    figure = canvas(max(6.0, 1.4 + 1.6 * (len(names) + 1)), 4.2)
    axes = figure.add_subplot()
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    shades = matplotlib.colormaps["viridis"]
    order = {trial.number: i for i, trial in enumerate(sorted(done, key=lambda t: abs(t.value - best.value)))}

    def line(trial):
        value = min(max(trial.value, low), high)
        return [scale.at(trial.params[n]) for scale, n in zip(scales, names)] + [(value - low) / (high - low)]

    for trial in sorted(done, key=lambda t: -order[t.number]):
        shade = shades(order[trial.number] / max(len(done) - 1, 1))
        axes.plot(range(len(names) + 1), line(trial), color=shade, linewidth=1, alpha=0.75, clip_on=False)
    axes.plot(range(len(names) + 1), line(best), color=RED, linewidth=2.6, clip_on=False)
    for i, scale in enumerate(scales):
        axes.axvline(i, color="#444444", linewidth=0.8)
        for at, label in zip(*scale.ticks()):
            _tick(axes, i, at, label)
    last = len(names)
    axes.axvline(last, color="#444444", linewidth=0.8)
    for value in MaxNLocator(5).tick_values(low, high):
        if low <= value <= high:
            _tick(axes, last, (value - low) / (high - low), f"{value:.4g}", left=False)
    axes.set_xticks(range(last + 1), [*names, metric], fontsize=9)
    axes.set_yticks([])
    axes.set(xlim=(-0.35, last + 0.35), ylim=(-0.03, 1.03))
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _tick(axes, x, y, label, left=True):
    axes.text(x - 0.04 if left else x + 0.04, y, label, fontsize=7.5, ha="right" if left else "left", va="center",
              bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}, zorder=4)  # fmt: skip


def importance(study, done, metric):
    if len(done) < 4:
        return None
    import optuna

    try:
        found = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):  # all values equal, say
        return None
    found = {name: share for name, share in found.items() if math.isfinite(share)}
    if not found:
        return None
    names = sorted(found, key=found.get)
    figure = canvas(6, 0.9 + 0.42 * len(names))
    axes = figure.add_subplot()
    axes.barh(names, [found[name] for name in names], color=BLUE, height=0.6)
    for i, name in enumerate(names):
        axes.text(found[name] + 0.01, i, f"{found[name]:.2f}", va="center", fontsize=9)
    axes.set(xlabel=f"share of what decides the {metric}", xlim=(0, max(found.values()) * 1.15))
    return figure


class Scale:
    """A setting's values on a line from 0 to 1, with its ticks."""

    def __init__(self, term):
        self.term = term
        self.choices = sorted(term.choices) if term.type in (int, float) else list(term.choices)

    def at(self, value) -> float:
        term = self.term
        if term.choices:
            return self.choices.index(value) / (len(self.choices) - 1)
        if term.log:
            return math.log(value / term.low) / math.log(term.high / term.low)
        return (value - term.low) / (term.high - term.low)

    def ticks(self) -> tuple[list[float], list[str]]:
        term = self.term
        if term.choices:
            return [self.at(choice) for choice in self.choices], [text(choice) for choice in self.choices]
        parts = (0, 1 / 3, 2 / 3, 1)
        if term.log:
            values = [term.low * (term.high / term.low) ** part for part in parts]
        else:
            values = [term.low + part * (term.high - term.low) for part in parts]
        if term.type is int:
            values = sorted({round(value) for value in values})
        return [self.at(value) for value in values], [
            f"{value:.3g}" if term.type is float else str(value) for value in values
        ]
