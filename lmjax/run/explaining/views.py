"""What explain.py shows: marked words, shaded grids, bars, tables and pictures, each as HTML, as PNG and as text.

A value v is shaded by v / the largest |v| beside it: blue speaks for, orange against. Texts come from outside, so all
that goes into a page is escaped.
"""

import html
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.errors import install
from lmjax.run.pictures import canvas

FOR, AGAINST = (46, 111, 158), (214, 106, 40)
STYLE = """
body{font:16px/1.6 system-ui,sans-serif;margin:1.5rem auto;max-width:60rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.4rem;margin:0 0 .5rem} h2{font-size:1.15rem;margin:2.2rem 0 .4rem;border-top:1px solid #ddd}
h2{padding-top:1rem} h3{font-size:1rem;margin:1.3rem 0 .2rem} p.note{color:#666;font-size:.9rem;margin:.1rem 0 .5rem}
.words span{padding:.1rem .12rem;border-radius:.2rem;white-space:pre-wrap} .wide{overflow-x:auto}
.words span.own{outline:1px solid #888} table{border-collapse:collapse;font-size:.85rem}
td,th{padding:.15rem .45rem;text-align:left;white-space:pre;border:1px solid #eee} td.n{text-align:right}
.bar{display:inline-block;height:.7rem;background:#2e6f9e;vertical-align:middle} img{max-width:100%;height:auto}
"""


class Words(NamedTuple):
    """pieces [T] with a value each [T], None for one that is no part; own: the piece that is explained, or None."""

    title: str
    note: str
    pieces: list[str]
    values: list[float | None]
    own: int | None = None


class Grid(NamedTuple):
    """Panels side by side, each of values float [R,C] from 0 on, shaded; rows, columns: what they are."""

    title: str
    note: str
    panels: dict[str, np.ndarray]
    rows: list[str]
    columns: list[str]


class Bars(NamedTuple):
    """A number for each label, with a spread or None."""

    title: str
    note: str
    labels: list[str]
    values: list[float]
    spreads: list[float] | None = None


class Table(NamedTuple):
    """Cells of text; shades [R,C] from 0 to 1, or None."""

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]
    shades: np.ndarray | None = None


class Picture(NamedTuple):
    """pixels uint8 [Y,X,C], and over them values float [Y',X'], for (from 0 up) or against."""

    title: str
    note: str
    pixels: np.ndarray
    values: np.ndarray


View = Words | Grid | Bars | Table | Picture


def shade(value: float, largest: float) -> str:
    """A CSS colour."""
    share = min(abs(value) / largest, 1.0) if largest > 0 else 0.0
    red, green, blue = FOR if value >= 0 else AGAINST
    return f"rgba({red},{green},{blue},{0.85 * share:.3f})"


def seen(piece: str) -> str:
    """A piece whose blanks and line ends can be seen where it is nothing else."""
    return piece if piece.strip() else piece.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣") or "∅"


# HTML.


def as_html(view: View, picture: str = "") -> str:
    """picture: the name of its PNG beside the page, or none."""
    head = f"<h3>{html.escape(view.title)}</h3><p class=note>{html.escape(view.note)}</p>"
    match view:
        case Words():
            return head + _words(view)
        case Bars():
            return head + _bars(view)
        case Table():
            return head + _table(view)
    image = f'<img alt="{html.escape(view.title)}" src="{html.escape(picture)}">' if picture else ""
    return head + (image or f"<p class=note>The picture needs matplotlib: {install('plot')}.</p>")


def _words(view: Words) -> str:
    largest, parts = _largest(view), []
    for n, (piece, value) in enumerate(zip(view.pieces, view.values)):
        own = " class=own" if n == view.own else ""
        if value is None:
            parts.append(f"<span{own} style='color:#999'>{html.escape(piece)}</span>")
        else:
            parts.append(f"<span{own} style='background:{shade(value, largest)};color:{_ink(value, largest)}' "
                         f"title='{value:+.4f}'>{html.escape(piece)}</span>")  # fmt: skip
    return f"<p class=words>{''.join(parts)}</p>"


def _largest(view: Words) -> float:
    return max((abs(value) for value in view.values if value is not None), default=0.0)


def _ink(value, largest) -> str:
    return "#fff" if largest and abs(value) > 0.7 * largest else "#222"


def _bars(view: Bars) -> str:
    largest, rows = max(map(abs, view.values), default=0) or 1, []
    for n, (label, value) in enumerate(zip(view.labels, view.values)):
        spread = f" ± {view.spreads[n]:.3g}" if view.spreads else ""
        width = 16 * abs(value) / largest
        rows.append(f"<tr><td>{html.escape(label)}</td><td class=n>{value:.4g}{spread}</td>"
                    f"<td><span class=bar style='width:{width:.2f}rem'></span></td></tr>")  # fmt: skip
    return f"<div class=wide><table>{''.join(rows)}</table></div>"


def _table(view: Table) -> str:
    rows = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in view.header) + "</tr>"]
    for i, row in enumerate(view.rows):
        cells = []
        for j, cell in enumerate(row):
            value = 0.0 if view.shades is None else float(view.shades[i, j])
            style = f" style='background:{shade(value, 1)};color:{_ink(value, 1)}'" if value else ""
            cells.append(f"<td{style}>{html.escape(cell)}</td>")
        rows.append("<tr>" + "".join(cells) + "</tr>")
    return f"<div class=wide><table>{''.join(rows)}</table></div>"


def page(title: str, about: str, parts: list[tuple[str, list[tuple[View, str]]]]) -> str:
    """One HTML page. parts: (heading, [(view, name of its PNG)])."""
    body = [f"<h1>{html.escape(title)}</h1><p class=note>{html.escape(about)}</p>"]
    for heading, views in parts:
        body.append(f"<h2>{html.escape(heading)}</h2>")
        body += [as_html(view, picture) for view, picture in views]
    head = ('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(title)}</title><style>{STYLE}</style>")  # fmt: skip
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


# PNG.


def draw(view: View, path: Path) -> Path | None:
    """The path; None without the plot extra, and for a table, which a page shows better."""
    match view:
        case Words():
            return _draw_words(view, path)
        case Grid():
            return _draw_grid(view, path)
        case Bars():
            return _draw_bars(view, path)
        case Picture():
            return _draw_picture(view, path)
    return None


def _draw_words(view: Words, path: Path, width=88) -> Path | None:
    """In letters of one width: a place for each is known beforehand."""
    places, row, column = [], 0, 0
    for piece in view.pieces:
        text = seen(piece).replace("\n", "⏎").replace("\t", " ")
        if column and column + len(text) > width:
            row, column = row + 1, 0
        places.append((row, column, text))
        column += len(text)
    width = max(column, 40) if row == 0 else width
    figure = canvas(0.105 * width + 0.3, 0.24 * (row + 1) + 0.4)
    if figure is None:
        return None
    axes, largest = figure.add_subplot(), _largest(view)
    axes.set(xlim=(0, width), ylim=(row + 1, 0))
    axes.set_title(view.title, fontsize=9, loc="left")
    axes.axis("off")
    for n, ((row, column, text), value) in enumerate(zip(places, view.values)):
        share = 0 if value is None or not largest else abs(value) / largest
        color = tuple(x / 255 for x in (FOR if (value or 0) >= 0 else AGAINST))
        axes.add_patch(_box(column, row, len(text), color, 0.85 * share, n == view.own))
        for i, letter in enumerate(text[: width - column]):
            ink = "white" if share > 0.7 else "#999999" if value is None else "#222222"
            axes.text(column + i + 0.5, row + 0.5, letter, ha="center", va="center", fontsize=9, family="monospace",
                      color=ink, parse_math=False)  # fmt: skip
    return _saved(figure, path)


def _box(column, row, width, color, alpha, own):
    from matplotlib.patches import Rectangle

    return Rectangle((column, row + 0.06), width, 0.88, facecolor=(*color, alpha),
                     edgecolor="#555555" if own else "none", linewidth=1)  # fmt: skip


def _draw_grid(view: Grid, path: Path) -> Path | None:
    R, C = len(view.rows), len(view.columns)
    across = 1 if len(view.panels) == 1 else 2 if max(R, C) > 24 else 3
    down = -(-len(view.panels) // across)
    wide, high = min(0.9 + 0.21 * C, 13 / across), min(0.9 + 0.21 * R, 13 / across)
    figure = canvas(max(wide * across, 3), high * down)
    if figure is None:
        return None
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(view.panels) :]:
        axes.axis("off")
    for axes, (name, values) in zip(grid.flat, view.panels.items()):
        axes.imshow(values, cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
        for axis, names in ((axes.xaxis, view.columns), (axes.yaxis, view.rows)):
            shown = range(0, len(names), max(1, len(names) // 60))
            axis.set_ticks(list(shown), [_tick(names[n]) for n in shown], fontsize=6, family="monospace")
            for label in axis.get_ticklabels():
                label.set_parse_math(False)
        axes.tick_params(axis="x", rotation=90 if max(map(len, view.columns)) > 1 else 0)
        axes.set_title(name, fontsize=8)
    return _saved(figure, path)


def _tick(name: str) -> str:
    return seen(name) if len(name) < 15 else name[:13] + "…"


def _draw_bars(view: Bars, path: Path) -> Path | None:
    figure = canvas(6, 0.8 + 0.24 * len(view.labels))
    if figure is None:
        return None
    axes, at = figure.add_subplot(), np.arange(len(view.labels))
    axes.barh(at, view.values, xerr=view.spreads, color="#2e6f9e", height=0.7, capsize=2, ecolor="#222222")
    axes.set_yticks(at, [name[:40] for name in view.labels], fontsize=8)
    axes.invert_yaxis()
    axes.set_title(view.title, fontsize=9)
    return _saved(figure, path)


def _signed():
    """Orange over white to blue."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = [tuple(x / 255 for x in color) for color in (AGAINST, (255, 255, 255), FOR)]
    return LinearSegmentedColormap.from_list("signed", ends)


def _draw_picture(view: Picture, path: Path) -> Path | None:
    figure = canvas(5.2, 2.9)
    if figure is None:
        return None
    left, right = figure.subplots(1, 2)
    Y, X = view.pixels.shape[:2]
    largest = np.abs(view.values).max() or 1.0
    for axes in (left, right):
        axes.axis("off")
        axes.imshow(view.pixels, cmap="gray_r", vmin=0, vmax=255)
    right.imshow(view.values, cmap=_signed(), vmin=-largest, vmax=largest, alpha=0.8, interpolation="nearest",
                 extent=(-0.5, X - 0.5, Y - 0.5, -0.5))  # fmt: skip
    figure.suptitle(view.title, fontsize=9)
    return _saved(figure, path)


def _saved(figure, path: Path) -> Path:
    import warnings

    with warnings.catch_warnings():  # a script that matplotlib's own font lacks: the page has it
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(path)
    return path


# Text.


def as_text(view: View, most: int = 8) -> list[str]:
    """A few lines for the terminal: of words the strongest."""
    match view:
        case Words():
            there = [(abs(v), v, p) for p, v in zip(view.pieces, view.values) if v is not None]
            best = sorted(there, key=lambda one: -one[0])[:most]
            said = ", ".join(f"{seen(piece).strip()} {value:+.3g}" for _, value, piece in best)
            return [f"{view.title}: {said}" + (f"   {view.note}" if view.note else "")]
        case Bars():
            return [f"{view.title}"] + [
                f"  {label:24} {value:.4g}" + (f" ± {view.spreads[n]:.3g}" if view.spreads else "")
                for n, (label, value) in enumerate(zip(view.labels[:most], view.values))
            ]
        case Table():
            wide = [max(len(row[j]) for row in [view.header, *view.rows[:most]]) for j in range(len(view.header))]
            wide = [min(w, 60) for w in wide]
            lines = [[cell.replace("\n", "⏎")[:w] for cell, w in zip(row, wide)] for row in view.rows[:most]]
            return [view.title] + [
                "  " + "  ".join(f"{cell:{w}}" for cell, w in zip(row, wide)).rstrip()
                for row in [view.header, *lines]
            ]
    return [f"{view.title}" + (f"   {view.note}" if view.note else "")]


def as_json(view: View) -> dict:
    """Its fields as plain values, without pixels."""

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(one) for name, one in value.items()}
        return value.tolist() if isinstance(value, np.ndarray) else value

    fields = {name: plain(value) for name, value in view._asdict().items() if name != "pixels"}
    return {"kind": type(view).__name__.lower()} | fields
