"""A picture of word vectors: words on a plane, near where their vectors are alike. Needs the plot extra."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmjax.errors import UserError, install
from lmjax.evaluate.embeddings import unit

# Fonts with Chinese, Japanese and Korean signs, which matplotlib's own has not; those installed are asked in turn.
_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
          "WenQuanYi Zen Hei", "PingFang SC", "Heiti SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei",
          "Arial Unicode MS", "Droid Sans Fallback")  # fmt: skip


def draw(words: Sequence[str], vectors, path, title: str, groups: Sequence[int] | None = None) -> str:
    """Write a map of `words` [W] by their vectors [W,D] as a picture; returns what there is to say about it.

    The plane is that of the first two principal components of the unit vectors, stretched where words crowd. Colour
    shows what the plane leaves out, the direction in the third and fourth; or the group, where `groups` [W] gives its
    number for each word, in rising order.
    The first words are the largest, of groups the first of each; a label that would cover an earlier one is left out
    and its word is a dot.
    UserError without the plot extra, with fewer than three words, and where the picture cannot be written.
    """
    try:
        from matplotlib import font_manager
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("a map needs matplotlib: " + install("plot")) from None
    if len(words) < 3:
        raise UserError(f"a map of {len(words)} words: expected at least 3")
    plane, beyond = components(vectors)
    colors = _hues(np.arctan2(beyond[:, 1], beyond[:, 0]) / (2 * np.pi)) if groups is None else _of_groups(groups)
    fonts = ["DejaVu Sans", *(font for font in _FONTS if font in font_manager.get_font_names())]

    figure = Figure(figsize=(12, 9), dpi=130, facecolor="#fbfaf7")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.92), facecolor="none")
    axes.set_axis_off()
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.03, 1.03))
    figure.text(0.03, 0.955, title, fontsize=15, color="#333333", fontfamily=fonts)
    sizes = np.interp(np.arange(len(words)), [0, min(len(words), 400)], [15, 8])
    if groups is not None:
        sizes = np.where(np.diff(groups, prepend=-1) > 0, 17, 11)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shown = _labels(axes, canvas.get_renderer(), words, plane, colors, sizes, fonts)
        try:
            figure.savefig(path, facecolor=figure.get_facecolor())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"--map={path} cannot be written: {reason}; name a picture such as map.png") from None
    said = f"{Path(path)}: {len(words)} words, {shown} of them labelled"
    if missing := next((str(item.message) for item in caught if "missing from" in str(item.message)), None):
        said += f"; no font here draws them all ({missing.partition(' missing')[0]}): install one, as Noto Sans CJK"
    return said


def components(vectors) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components of unit vectors [W,D], stretched to a unit square, [W,2]; the next two."""
    centred = unit(vectors)
    centred = centred - centred.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(centred), 4), np.float32)
    found[:, : min(4, len(s))] = (u * s)[:, :4]
    # An axis's sign is arbitrary: one and the same map from one and the same file, on any machine.
    found *= np.sign(found[np.abs(found).argmax(0), np.arange(4)] + 1e-30)
    plane = found[:, :2]
    low, high = plane.min(0), plane.max(0)
    straight = (plane - low) / np.maximum(high - low, 1e-12)
    ranks = plane.argsort(0).argsort(0) / (len(plane) - 1)
    return 0.35 * straight + 0.65 * ranks, found[:, 2:]


def _labels(axes, renderer, words, plane, colors, sizes, fonts) -> int:
    """Draw the words; returns how many have a label."""
    inside, boxes, dots = axes.get_window_extent(renderer), np.empty((0, 4)), []
    for at in np.argsort(-sizes, kind="stable"):
        (x, y), color = plane[at], colors[at]
        label = axes.text(x, y, words[at], color=color, fontsize=sizes[at], ha="center", va="center", fontfamily=fonts,
                          parse_math=False)  # fmt: skip
        box = label.get_window_extent(renderer)
        left, low, right, high = box.x0 - 2, box.y0, box.x1 + 2, box.y1
        covers = (boxes[:, 0] < right) & (boxes[:, 2] > left) & (boxes[:, 1] < high) & (boxes[:, 3] > low)
        if covers.any() or left < inside.x0 or right > inside.x1:
            label.remove()
            dots.append(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, x, y, color))
        else:
            boxes = np.vstack([boxes, [left, low, right, high]])
    for across, up, x, y, color in dots:
        under = (boxes[:, 0] < across) & (across < boxes[:, 2]) & (boxes[:, 1] < up) & (up < boxes[:, 3])
        if not under.any():  # on a letter a dot would be an accent
            axes.plot(x, y, ".", color=color, markersize=3, alpha=0.5)
    return len(boxes)


def _hues(turns: np.ndarray) -> list[tuple[float, float, float]]:
    """A colour for each angle, in turns; all dark enough to read on white."""
    phase = 2 * np.pi * (turns[:, None] + np.array([0, 1 / 3, 2 / 3]))
    return [tuple(color) for color in 0.38 + 0.30 * np.cos(phase)]


def _of_groups(groups: Sequence[int]) -> list[tuple[float, float, float]]:
    return _hues(np.asarray(groups) / (max(groups) + 1))
