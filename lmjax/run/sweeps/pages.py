"""What a sweep leaves: trials.csv, pictures of its trials where the plot extra is installed, and one page of both."""

import base64
import csv
import html
import io
import shlex
from pathlib import Path

from lmjax.run.log import read
from lmjax.run.settings import text
from lmjax.run.sweeps import charts
from lmjax.run.sweeps.studies import folder_of
from lmjax.run.sweeps.workers import value_of
from lmjax.run.workdir import write as write_json

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:70rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.4rem;margin:0 0 .5rem} h2{font-size:1.1rem;margin:2rem 0 .4rem}
img{max-width:100%;height:auto} pre{background:#f4f4f2;padding:.7rem;overflow-x:auto;white-space:pre-wrap}
.wide{overflow-x:auto} table{border-collapse:collapse;font-size:.9rem}
td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #e3e3e0;white-space:nowrap}
td.t{text-align:left;white-space:normal;min-width:12rem} tr.best{font-weight:600;background:#eef5ea} tr.dim{color:#888}
"""
CAPTIONS = {
    "history": "Trials' values in the order they began, and the best so far. What lies beyond an axis is at its edge.",
    "curves": "Validation of each trial as it trained.",
    "slices": "Value against each setting, later trials darker.",
    "parallel": "Each line a trial: its settings from left to right, its value at the far right; the best in red.",
    "importance": "How much each setting decides whether a trial is among the best (PED-ANOVA, Watanabe et al. 2023). "
    "Of few trials it is a hint.",
}


def complete(trials) -> list:
    return [trial for trial in trials if trial.state.name == "COMPLETE"]


def best_of(done, plan):
    return (max if plan.direction == "maximize" else min)(done, key=lambda trial: trial.value)


def metric_of(plan) -> str:
    """What a trial's value is, in words."""
    lanes = ", best lane" if plan.objective == "best_lane" else ""
    return f"validation {(plan.metric or 'loss').removeprefix('validation_')}{lanes}"


def command(place, trial) -> str:
    """The command line that runs a trial's settings again."""
    plan = place.plan
    script = plan.script if not Path(plan.script).is_absolute() else Path(plan.script).name
    swept = [term.flag(trial.params[term.name]) for term in place.terms]
    return shlex.join(["launch/run.sh", str(script), *plan.flags, *swept])


def write(place, study, trials) -> list[Path]:
    """Writes trials.csv, best.json, the pictures and sweep.html to the sweep's workdir; the paths."""
    folder, plan, done = place.folder, place.plan, complete(trials)
    best, kept = None, []
    if done:
        best = best_of(done, plan)
        write_json(folder / "best.json", {
            "trial": best.number, "metric": metric_of(plan), "value": best.value, "settings": best.params,
            "command": command(place, best), "trials": len(trials),
        })  # fmt: skip
        kept.append(folder / "best.json")
    (folder / "trials.csv").write_text(table(place, trials), encoding="utf-8")
    pictures = charts.draw(place, study, trials, best, curves(place, trials), metric_of(plan))
    page = _page(place, trials, best, pictures, command(place, best) if best else "")
    (folder / "sweep.html").write_text(page, encoding="utf-8")
    return [*kept, folder / "trials.csv", *pictures.values(), folder / "sweep.html"]


def curves(place, trials) -> dict[int, list[tuple[int, float]]]:
    """Trial -> [(step, validation)]."""
    found = {}
    for trial in trials:
        lines = [l for l in read(folder_of(place, trial.number) / "metrics.jsonl") if l.get("kind") == "valid"]
        points = [(line["step"], value_of(line, place.plan)) for line in lines]
        found[trial.number] = [(step, value) for step, value in points if value is not None]
    return found


def table(place, trials) -> str:
    """All trials as CSV."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["trial", "state", "value", "seconds", "starts", *(term.name for term in place.terms), "error"])
    for trial in trials:
        settings = [text(trial.params[term.name]) if term.name in trial.params else "" for term in place.terms]
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        asked = trial.user_attrs.get("starts", 0), *settings, trial.user_attrs.get("error", "")
        rows.writerow([trial.number, trial.state.name, "" if trial.value is None else trial.value, seconds, *asked])
    return out.getvalue()


def _page(place, trials, best, pictures, again) -> str:
    plan, count = place.plan, {}
    for trial in trials:
        count[trial.state.name.lower()] = count.get(trial.state.name.lower(), 0) + 1
    counted = ", ".join(f"{n} {state}" for state, n in sorted(count.items()))
    title = f"{Path(plan.script).stem}: {len(trials)} trials"
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts.append(f"<p>{html.escape(f'{plan.sampler}, pruner {plan.pruner}, seed {plan.seed}; {counted}.')}<br>"
                 f"Space: {html.escape(plan.space)}</p>")  # fmt: skip
    if best:
        parts.append(f"<p>Best: {html.escape(metric_of(plan))} <b>{best.value:.6g}</b>, trial {best.number}"
                     f"{_beside(trials)}. Validation chose it, so it flatters.</p>")  # fmt: skip
        parts.append(f"<pre>{html.escape(again)}</pre>")
    for name, path in pictures.items():
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(f"<h2>{name.capitalize()}</h2><p>{CAPTIONS[name]}</p>"
                     f'<img alt="{html.escape(CAPTIONS[name])}" src="data:image/png;base64,{data}">')  # fmt: skip
    parts.append("<h2>Trials</h2>" + _rows(place, trials, best))
    head = ('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(title)}</title><style>{STYLE}</style>")  # fmt: skip
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _beside(trials) -> str:
    own = next((trial for trial in complete(trials) if trial.user_attrs.get("default")), None)
    return f"; the experiment's own settings {own.value:.6g}, trial {own.number}" if own else ""


def _rows(place, trials, best) -> str:
    names = "".join(f"<th>{html.escape(term.name)}</th>" for term in place.terms)
    rows = [f"<tr><th>trial</th><th>state</th><th>value</th><th>seconds</th>{names}<th></th></tr>"]
    for trial in sorted(trials, key=lambda trial: _order(trial, place.plan)):
        cells = [str(trial.number), trial.state.name.lower(), "" if trial.value is None else f"{trial.value:.6g}"]
        cells.append(f"{trial.duration.total_seconds():.0f}" if trial.duration else "")
        for term in place.terms:
            value = trial.params.get(term.name)
            cells.append(
                f"{value:.4g}" if isinstance(value, float) else text(value) if term.name in trial.params else ""
            )
        kind = "best" if best and trial.number == best.number else "" if trial.state.name == "COMPLETE" else "dim"
        error = html.escape(trial.user_attrs.get("error", ""))
        rows.append(f'<tr class="{kind}">' + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
                    + f'<td class="t">{error}</td></tr>')  # fmt: skip
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _order(trial, plan):
    """Best first, then the pruned, then the failed."""
    place = ("COMPLETE", "PRUNED").index(trial.state.name) if trial.state.name in ("COMPLETE", "PRUNED") else 2
    value = 0.0 if trial.value is None else -trial.value if plan.direction == "maximize" else trial.value
    return place, value, trial.number
