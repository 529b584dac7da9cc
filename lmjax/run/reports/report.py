"""The table of results: every row of every experiment beside its newest record, drawn from the records alone.

A row's record is the newest whose command has the row's settings. Records with other settings stand below it under the
flags that they differ by, earlier records below what they were made before.
"""

import collections
import math
import re
from pathlib import Path
from typing import NamedTuple

from lmjax.run.record import Published
from lmjax.run.reports import rows as tables
from lmjax.run.reports.rows import Kept, Row

ORDER = ("reproduced", "short", "partial", "own", "not run")
MEANING = {
    "reproduced": "the mean over seeds is as good as published, or within 1 % (points of accuracy, F1 and BLEU: 0.5)",
    "short": "ran as published and fell short in one figure or more",
    "partial": "shortened, or with other settings, networks or data than published",
    "own": "no published figure compares",
    "not run": "no record is kept",
}
HEAD = "Results"
ABOUT = (
    "Every figure here is drawn from the records under `experiments/results` by `launch/run.sh experiments/report.py`; "
    "none is written by hand. Means ± standard deviations are over the seeds in brackets. Published figures are marked "
    "V where they were read in the source, R where they are recalled. A command is one of the commit beside it: its "
    "flags may have changed since."
)


class Line(NamedTuple):
    """A record, or the lack of one, in the table. title: the row's name or what the record differs by. standing: row,
    other (with other settings) or earlier. kept: None where nothing was run."""

    title: str
    help: str
    standing: str
    kept: Kept | None
    published: dict[str, Published]
    remark: str = ""

    @property
    def verdict(self) -> str:
        return self.kept.result["verdict"] if self.kept else "not run"


class Figure(NamedTuple):
    """A metric as the table shows it; published: the value, or ""; source: with its mark."""

    name: str
    ours: str
    published: str = ""
    source: str = ""


def lines(rows: list[Row], records: dict[str, list[Kept]]) -> dict[str, list[Line]]:
    """{experiment: its lines, in order}. Records of presets that are no more come last."""
    found: dict[str, list[Line]] = {}
    for row in rows:
        kept = records.get(row.name, [])
        if row.preset or kept:
            found.setdefault(row.experiment, []).extend(_of_row(row, kept))
    known = {row.name for row in rows}
    for name, kept in records.items():
        if name not in known:
            experiment, preset = name.split("/")
            for n, one in enumerate(kept):
                line = Line(preset, "no preset any more", "earlier" if n else "row", one, {})
                found.setdefault(experiment, []).append(line)
    return dict(sorted(found.items()))


def _of_row(row: Row, kept: list[Kept]) -> list[Line]:
    by_change: dict[str, list[Kept]] = {"": []}
    for one in kept:
        by_change.setdefault(tables.changed(one.result, row.config), []).append(one)
    found, title = [], row.preset or "default"
    for change, mine in by_change.items():
        if not change and not mine:
            remark = f"wants {row.needs.by_hand}" if row.needs.by_hand else "wants a GPU" * row.needs.gpu
            found.append(Line(title, row.help, "row", None, row.published, remark))
        for n, one in enumerate(mine):
            standing = "earlier" if n else "other" if change else "row"
            found.append(Line(f"{title} {change}".strip(), row.help, standing, one, {}))
    return found


def figures(line: Line) -> tuple[list[Figure], list[Figure]]:
    """(those with a published one beside them, the others)."""
    if line.kept is None:
        return [Figure(name, "", number(f.value), f"{f.source} ({f.mark})") for name, f in line.published.items()], []
    metrics, published = line.kept.result["metrics"], line.kept.result["published"]
    beside = [
        Figure(name, spread(metrics[name]), number(f["value"]), f"{f['source']} ({f['mark']})")
        for name, f in published.items()
    ]
    return beside, [Figure(name, spread(figure)) for name, figure in metrics.items() if name not in published]


def spread(figure: dict) -> str:
    """114.4 ± 1.1 (2): the mean, the deviation and how many seeds."""
    if figure["mean"] is None:
        lost = sum(value is None for value in figure["values"])
        return f"not finite in {lost} of {len(figure['values'])}"
    places = decimals(figure["mean"])
    shown = f"{figure['mean']:.{places}f}"
    if figure["sd"] is None:
        return f"{figure['mean']:.0f}" if figure["mean"].is_integer() else shown
    return f"{shown} ± {figure['sd']:.{max(places, decimals(figure['sd']) - 2)}f} ({len(figure['values'])})"


def decimals(value: float) -> int:
    """Places after the point that leave four digits, four places at most."""
    return min(4, max(0, 3 - math.floor(math.log10(abs(value))))) if value else 0


def number(value: float) -> str:
    return f"{value:.6g}"


def words(name: str) -> str:
    return name.replace("_", " ")


def duration(seconds: float) -> str:
    if not seconds:
        return "time not recorded"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def device(result: dict) -> str:
    return re.sub(r"^1 cores of", "1 core of", result["device"])


def counts(table: dict[str, list[Line]]) -> dict[str, int]:
    """How many rows have each verdict: of their own settings' newest record."""
    found = collections.Counter(line.verdict for mine in table.values() for line in mine if line.standing == "row")
    return {verdict: found[verdict] for verdict in ORDER}


def markdown(table: dict[str, list[Line]], folder: Path) -> str:
    """experiments/RESULTS.md; `folder` is where it will lie, for the links to records."""
    parts = [f"# {HEAD}", ABOUT]
    top = ["| verdict | rows | |", "|---|---|---|"]
    top += [f"| {verdict} | {count} | {MEANING[verdict]} |" for verdict, count in counts(table).items()]
    parts.append("\n".join(top))
    for experiment, mine in table.items():
        out = ["| row | figure | ours | published | verdict | record |", "|---|---|---|---|---|---|"]
        for line in mine:
            out += _table_lines(line, folder)
        parts += [f"## {experiment}", "\n".join(out)]
    return "\n\n".join(parts) + "\n"


def _table_lines(line: Line, folder: Path) -> list[str]:
    beside, others = figures(line)
    title = {"row": f"**{line.title}**: {line.help}", "other": f"↳ {line.title}", "earlier": "↳ earlier"}[line.standing]
    body = [(words(f.name), f.ours, f"{f.published}, {f.source}") for f in beside]
    if others:
        body.append(("also" if beside else "", "; ".join(f"{words(f.name)} {f.ours}" for f in others), ""))
    record = line.remark
    if line.kept:
        result, place = line.kept.result, line.kept.folder.relative_to(folder).as_posix()
        command = result["command"].removeprefix("launch/run.sh experiments/")
        record = (f"[{line.kept.day}]({place}), {duration(result['wall_seconds'])}, {device(result)}, `{command}` "
                  f"at {result['commit']}")  # fmt: skip
    found = []
    for n, (name, ours, published) in enumerate(body or [("", "", "")]):
        ends = (line.verdict, record) if n == 0 else ("", "")
        cells = [title if n == 0 else "", name, ours, published, *ends]
        found.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return found
