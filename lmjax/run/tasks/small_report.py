"""What compress.py reports: of a model as it is and as each method leaves it numbers, bytes, quality and time."""

import json
import math
import statistics
from pathlib import Path
from typing import NamedTuple

from lmjax import param
from lmjax.compress import store
from lmjax.errors import UserError
from lmjax.run import record
from lmjax.run.workdir import write

WHOLE, FILE = "float32", "compression.json"


class Row(NamedTuple):
    """numbers: what the model is made of, see store.numbers. bytes: of weights on disk; of the original those of its
    float32 arrays. quality: {metric: number}, None of what is timed alone. milliseconds: the median of a batch.
    ratio: (median, lower, upper quartile) of its time over the original's in the same round."""

    name: str
    numbers: int
    bytes: int
    quality: dict | None
    milliseconds: float
    ratio: tuple[float, float, float]


def whole(subject) -> Row:
    """Of a run as it is; its time is still to come."""
    count = param.count(subject.specs)
    return Row(WHOLE, count, 4 * count, subject.quality(subject.params), math.nan, (math.nan,) * 3)


def made(subject, name: str, small: store.Small, params, size: int) -> Row:
    """Of a model made small, which computes with `params` and has `size` bytes; its time is still to come."""
    return Row(name, store.numbers(small, subject.specs), size, subject.quality(params), math.nan, (math.nan,) * 3)


def timed(rows: list[Row], taken: dict[str, list[float]]) -> list[Row]:
    """The rows with their times, and a row for whatever else was timed: it is made of what the row before it is."""
    known, found = {row.name: row for row in rows}, []
    for name, seconds in taken.items():
        row = known.get(name) or found[-1]._replace(name=name, quality=None)
        low, middle, high = statistics.quantiles([a / b for a, b in zip(seconds, taken[WHOLE])], n=4)
        found.append(row._replace(milliseconds=1000 * statistics.median(seconds), ratio=(middle, low, high)))
    return found


def save(folder, config, rows: list[Row], seconds: float):
    """Writes compression.json, and result.json as any experiment does: the original's figures under their names, the
    others' behind the method's."""
    write(Path(folder) / FILE, {"rows": [row._asdict() for row in rows]})
    metrics = {"parameters": rows[0].numbers}
    for row in rows:
        head = "" if row.name == WHOLE else row.name.replace(", ", "_") + "_"
        metrics |= {head + name: value for name, value in (row.quality or {}).items()}
        if row.quality is not None:
            metrics[f"{head}bytes"] = row.bytes
        metrics[f"{head}milliseconds"] = row.milliseconds
        if head:
            metrics[f"{head}time_ratio"] = row.ratio[0]
    notes = f"{', '.join(row.name for row in rows)}; left {config.left:g}, group {config.group}"
    values = {name: [value] for name, value in metrics.items()}
    record.save(folder, record.result("compress", config.preset, [0], values, wall_seconds=seconds, notes=notes))


def load(folder) -> list[Row]:
    """The rows that `save` wrote. UserError where there are none."""
    path = Path(folder) / FILE
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return [Row(**row)._replace(ratio=tuple(row["ratio"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} cannot be read: expected the report of a run of compress.py") from None


def table(rows: list[Row], batch: str) -> str:
    """The report as text; batch: what was timed, in words."""
    metrics = list(rows[0].quality)
    head = ["", "numbers", "bytes", "of float32", *metrics, "ms", "time over float32's"]
    lines = [head]
    for row in rows:
        low, high = row.ratio[1:]
        lines.append([
            row.name, f"{row.numbers:,}", f"{row.bytes:,}", f"{100 * row.bytes / rows[0].bytes:.1f} %",
            *(f"{row.quality[name]:.4g}" if row.quality else "" for name in metrics), f"{row.milliseconds:.2f}",
            "1" if row.name == WHOLE else f"{row.ratio[0]:.2f} ({low:.2f} to {high:.2f})",
        ])  # fmt: skip
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    text = ["  ".join(cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(line, widths)))
            for line in lines]  # fmt: skip
    return "\n" + "\n".join(text) + f"\n\ntime: of {batch}, on {record.device()}\n"
