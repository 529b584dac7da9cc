"""curves.png: a run's training and validation loss against the step, where the plot extra is installed."""

from pathlib import Path

from lmjax.run.pictures import canvas


def draw(lines: list[dict], path: Path, title: str) -> Path | None:
    """Training and validation loss against the step, as a picture; None without the plot extra or a loss."""
    train, valid = _points(lines, "train"), _points(lines, "valid")
    figure = canvas(7, 4) if train or valid else None
    if figure is None:
        return None
    axes = figure.add_subplot()
    if train:
        axes.plot(*zip(*train), color="#7a9cc6", linewidth=1, label="training")
    if valid:
        step, best = min(valid, key=lambda point: point[1])
        label = f"validation: best {best:.4f} at step {step}"
        axes.plot(*zip(*valid), color="#c1440e", marker="o", markersize=4, label=label)
    # The first steps fall from the loss of a guess; without them the rest has room.
    seen = sorted([loss for _, loss in train[len(train) // 50 :]] + [loss for _, loss in valid])
    low, high = seen[0], seen[-1]
    axes.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
    return path


def _points(lines: list[dict], kind: str) -> list[tuple[int, float]]:
    names = ("loss", "validation_loss")
    mine = [line for line in lines if line.get("kind") == kind]
    found = [(line["step"], next((line[name] for name in names if name in line), None)) for line in mine]
    return [(step, loss) for step, loss in found if loss is not None]  # null: it was not finite
