"""Pictures of what a run found, where the plot extra is installed."""

from pathlib import Path

import numpy as np


def canvas(width: float, height: float, dpi: int = 130):
    """A matplotlib figure of that many inches that can be saved; None without the plot extra."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def confusion(matrix, classes, path: Path) -> Path | None:
    """How often each class [rows] was called each class [columns]: counts, and the share of the row as a shade."""
    K = len(classes)
    figure = canvas(2.2 + 0.55 * K, 1.8 + 0.5 * K) if K <= 40 else None
    if figure is None:
        return None
    axes = figure.add_subplot()
    share = matrix / matrix.sum(1, keepdims=True).clip(1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i in range(K):
        for j in range(K):
            if matrix[i, j]:
                axes.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", fontsize=8,
                          color="white" if share[i, j] > 0.6 else "black")  # fmt: skip
    axes.set_xticks(range(K), classes, rotation=45, ha="right", fontsize=9)
    axes.set_yticks(range(K), classes, fontsize=9)
    axes.set(xlabel="called", ylabel="is")
    figure.savefig(path)
    return path


COLORS = ("#7a7a7a", "#2e6f9e", "#c1440e", "#5a9e4b")


def accuracy_curves(curves: dict, places, largest: float, path: Path, xlabel: str, title: str) -> Path | None:
    """Mean and spread of accuracies in percent, for each curve [[a draw's, ...] of each place], the places side by side
    at even steps. largest: the share of the largest class, a line to be above."""
    figure = canvas(6, 4)
    if figure is None:
        return None
    axes = figure.add_subplot()
    for n, (label, values) in enumerate(curves.items()):
        at = np.arange(len(places)) + 0.06 * (n - (len(curves) - 1) / 2)  # side by side, where they agree
        mean, spread = ([f(one) for one in values] for f in (np.mean, np.std))
        axes.errorbar(at, mean, spread, color=COLORS[n % len(COLORS)], marker="o", markersize=4, capsize=3, label=label)
    axes.axhline(largest, color="#aaaaaa", linestyle=":", label="largest class")
    axes.set(xlabel=xlabel, ylabel="accuracy, %", title=title)
    axes.set_xticks(range(len(places)), [f"{place:,}" for place in places])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
    return path
