"""Pictures of what a run found, where the plot extra is installed."""

from pathlib import Path


def canvas(width: float, height: float, **options):
    """A matplotlib figure of that many inches that can be saved; None without the plot extra."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained", **options)
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
