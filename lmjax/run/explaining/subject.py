"""What every kind of run brings to explain.py, and how layers are picked."""

from collections.abc import Callable
from typing import Any, NamedTuple

from lmjax.errors import UserError


class Subject(NamedTuple):
    """views: by name, view(item, asked) -> [views.View] of one input; whole: by name, view(asked) -> [View] of the
    model as a whole. items(asked, lines) -> [(heading, item)]; lines: None where no --input is given."""

    experiment: str
    views: dict[str, Callable]
    whole: dict[str, Callable]
    items: Callable


class Absent(NamedTuple):
    """A view that is not drawn, and why: said where the view was not asked for by name."""

    why: str


def items(lines, asked, missing: str, read: Callable, heading: Callable = lambda line, item: line):
    """[(heading, read(line))] of the first --count lines that are not blank. UserError, `missing`, where all are."""
    lines = [line for line in lines or () if line.strip()][: asked.count]
    if not lines:
        raise UserError(missing)
    found = [(heading(line, item), item) for line, item in ((line, read(line)) for line in lines)]
    return [(title if len(title) < 70 else title[:67] + "...", item) for title, item in found]


def layers_of(asked, count: int) -> list[int]:
    """The layers whose attention is drawn. UserError for one that the model has not."""
    if unknown := [n for n in asked.layers if n >= count]:
        raise UserError(f"--layers={unknown[0]}: the model has layers 0 to {count - 1}")
    return list(asked.layers) or list(range(count))


def panels(layers, asked) -> dict[str, Any]:
    """The panels of a Grid: of the layers that are asked for [H,T,S] the mean over heads, with --heads each head."""
    found = {}
    for n in layers_of(asked, len(layers)):
        H = len(layers[n])
        found[f"layer {n}" + (f", mean of {H} heads" if H > 1 else "")] = layers[n].mean(0)
        if asked.heads and H > 1:
            found |= {f"layer {n}, head {head}": layers[n][head] for head in range(H)}
    return found
