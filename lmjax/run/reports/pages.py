"""The table of results as one page of HTML that holds all it shows: curves as SVG, pictures, samples; no library.

Wide, it is tables; narrow, each record is a card. Light or dark as the reader's system is.
"""

import base64
import html
import math
from pathlib import Path

from lmjax.run.log import read
from lmjax.run.reports import report
from lmjax.run.reports.report import Figure, Line

WIDTH, HEIGHT, POINTS = 320, 130, 120  # of a curve


def page(table: dict[str, list[Line]]) -> str:
    counts = report.counts(table)
    verdicts = "".join(
        f'<li><span class="verdict {_class(verdict)}">{verdict}</span> <b>{count}</b> '
        f"<span class=what>{_text(report.MEANING[verdict])}</span></li>"
        for verdict, count in counts.items()
    )
    links = " ".join(f'<a href="#{name}">{name}</a>' for name in table)
    options = "".join(f"<option>{verdict}</option>" for verdict in counts)
    sections = "".join(_section(name, lines) for name, lines in table.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>lmjax: {report.HEAD.lower()}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>lmjax: {report.HEAD.lower()}</h1>
<p>{_text(report.ABOUT)}</p>
<ul class="counts">{verdicts}</ul>
<nav aria-label="Experiments">{links}</nav>
<form role="search" onsubmit="return false">
<label>Find <input id="find" type="search" placeholder="preset, metric, source"></label>
<label>Verdict <select id="verdict"><option value="">all</option>{options}</select></label>
</form>
</header>
<main>{sections}</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _text(text) -> str:
    parts = html.escape(str(text)).split("`")  # what stands between two of them is code
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))


def _class(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _section(name: str, lines: list[Line]) -> str:
    head = "".join(f'<th scope="col">{cell}</th>' for cell in ("row", "ours", "published", "verdict", "record"))
    body = "".join(map(_line, lines))
    folder = next((line.kept.folder.parent.parent for line in lines if line.kept), None)
    shown = "".join(_picture(path, name) for path in sorted(folder.glob("*.png"))) if folder else ""
    shown = f"<details><summary>pictures</summary>{shown}</details>" if shown else ""
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{name}</h2>{shown}<div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead>{body}</table></div></section>\n"
    )


def _picture(path: Path, of: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    about = f"{path.stem.replace('_', ' ')} of {of}"
    return f'<img alt="{_text(about)}" loading="lazy" src="data:image/png;base64,{data}">'


def _line(line: Line) -> str:
    beside, others = report.figures(line)
    title = {"row": _text(line.title), "other": f"↳ {_text(line.title)}", "earlier": "↳ earlier"}[line.standing]
    help = f"<p>{_text(line.help)}</p>" if line.standing == "row" else ""
    cells = {
        "ours": _figures(beside, others) if line.kept else "",
        "published": _published(beside),
        "verdict": f'<span class="verdict {_class(line.verdict)}">{line.verdict}</span>',
        "record": _record(line),
    }
    made = f'<th scope="row"><span class="name">{title}</span>{help}</th>'
    made += "".join(f'<td data-label="{name}">{cell and f"<div>{cell}</div>"}</td>' for name, cell in cells.items())
    return f'<tbody class="{line.standing}" data-verdict="{line.verdict}"><tr>{made}</tr>{_more(line)}</tbody>\n'


def _published(figures: list[Figure]) -> str:
    """A source is named behind the last of its figures."""
    out = []
    for figure, after in zip(figures, [*figures[1:], None]):
        source = "" if after and after.source == figure.source else f" <small>{_text(figure.source)}</small>"
        out.append(f"<div>{_text(report.words(figure.name))} <b>{figure.published}</b>{source}</div>")
    return "".join(out)


def _figures(beside: list[Figure], others: list[Figure]) -> str:
    def said(figure):
        value, bracket, seeds = figure.ours.partition(" (")
        return f"<div>{_text(report.words(figure.name))} <b>{value}</b>{bracket}{seeds}</div>"

    shown = 0 if beside else 4 if len(others) == 4 else 3
    few, many = others[:shown], others[shown:]
    more = f"<details><summary>{len(many)} more</summary>{''.join(map(said, many))}</details>" if many else ""
    return "".join(map(said, [*beside, *few])) + more


def _record(line: Line) -> str:
    if line.kept is None:
        return _text(line.remark)
    result = line.kept.result
    return (f"<div><time>{line.kept.day}</time>, {report.duration(result['wall_seconds'])}</div>"
            f"<div>{_text(report.device(result))}</div>")  # fmt: skip


def _more(line: Line) -> str:
    """What can be opened below a record: its command, notes, curve, pictures and samples."""
    if line.kept is None:
        return ""
    result, folder = line.kept.result, line.kept.folder
    parts = [f"<p><code>{_text(result['command'])}</code> at <code>{_text(result['commit'])}</code>, seeds "
             f"{', '.join(map(str, result['seeds']))}</p>"]  # fmt: skip
    parts += [f"<p>{_text(result['notes'])}</p>"] if result["notes"] else []
    what = ["command"]
    if drawn := curve(folder, list(result["published"])):
        parts.append(drawn)
        what.append("curve")
    pictures = sorted(folder.glob("*.png"))
    parts += [_picture(path, f"{result['experiment']} {result['preset']}".strip()) for path in pictures]
    what += ["pictures"] if pictures else []
    for path in sorted(folder.glob("sample*.txt")):
        parts.append(f"<pre>{html.escape(path.read_text(encoding='utf-8', errors='replace'))}</pre>")
        what.append("samples")
    summary = ", ".join(dict.fromkeys(what))
    return f'<tr class="more"><td colspan="5"><details><summary>{summary}</summary>{"".join(parts)}</details></td></tr>'


def curve(folder: Path, wanted: list[str]) -> str:
    """The validations of a record against the step, of all its seeds and lanes, with the training loss where it is the
    loss: an SVG, or "" where fewer than two were logged. wanted: metrics that would be shown first."""
    logs = [read(path) for path in sorted(folder.glob("metrics*.jsonl"))]
    valid = [[line for line in lines if line.get("kind") == "valid"] for lines in logs]
    names = [name for line in (valid[0][:1] if valid else []) for name in line if name not in ("step", "kind")]
    short = {name.removeprefix(start) for name in wanted for start in ("", "validation_", "test_", "best_validation_")}
    name = next((name for name in names if name in short), "loss" if "loss" in names else next(iter(names), None))
    if name is None:
        return ""
    lanes = [one for one in names if one.startswith(f"{name}_") and one[len(name) + 1 :].isdigit()]
    thin = [points(lines, one) for lines in valid for one in lanes]
    main = [found for lines in valid if len(found := points(lines, name)) > 1]
    train = [[line for line in lines if line.get("kind") == "train"] for lines in logs if name == "loss"]
    train = [found[len(found) // 50 :] for lines in train if len(found := points(lines, name)) > 1]
    if not main:
        return ""
    everything = [point for found in (*thin, *main, *train) for point in found]
    low, high = (f(value for _, value in everything) for f in (min, max))
    last = max(step for step, _ in everything)
    ends = [found[-1][1] for found in main]
    shown = f"{min(ends):.4g}" if len(ends) == 1 else f"{min(ends):.4g} to {max(ends):.4g}"
    title = f"{report.words(name)} in validation against the step: {shown} at step {last:,}"

    def path(found, kind):
        every = -(-len(found) // POINTS)
        kept = found[::every] + ([found[-1]] if (len(found) - 1) % every else [])
        x = [36 + step / max(last, 1) * (WIDTH - 42) for step, _ in kept]
        y = [10 + (high - value) / ((high - low) or 1) * (HEIGHT - 32) for _, value in kept]
        return f'<polyline class="{kind}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))}"/>'

    def label(x, y, text, end=True):
        return f'<text x="{x}" y="{y}"{" text-anchor=end" * end}>{text}</text>'

    kinds = (("lane", thin), ("train", train), ("valid", main))
    lines = "".join(path(found, kind) for kind, many in kinds for found in many)
    labels = label(33, 14, f"{high:.3g}") + label(33, HEIGHT - 21, f"{low:.3g}") + label(36, HEIGHT - 6, "0", False)
    labels += label(WIDTH - 4, HEIGHT - 6, f"step {last:,}")
    legend = f"{report.words(name)}: validation" + ", training (thin)" * bool(train) + ", each lane (thin)" * bool(thin)
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_text(title)}">'
        f'<path class="axis" d="M36 8V{HEIGHT - 20}H{WIDTH - 4}"/>{labels}{lines}</svg>'
        f"<figcaption>{_text(legend)}</figcaption></figure>"
    )


def points(lines: list[dict], name: str) -> list[tuple[int, float]]:
    """The (step, value) of the lines where it is a finite number."""
    found = [(line["step"], line.get(name)) for line in lines]
    return [(step, value) for step, value in found if isinstance(value, int | float) and math.isfinite(value)]


STYLE = """
:root{--ink:#1c2128;--soft:#57606a;--paper:#fff;--line:#d0d7de;--shade:#f6f8fa;--link:#0a58ca;
--good:#116329;--short:#9a3412;--part:#6639ba;--own:#4b5563;--valid:#c1440e;--train:#2e6f9e}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b3;--paper:#0f141a;--line:#333c47;--shade:#171e26;
--link:#79b8ff;--good:#56d364;--short:#ffa657;--part:#c4a5ff;--own:#adb8c4;--valid:#ff9062;--train:#7fb8e0}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1rem;font:16px/1.45 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}
h1{margin:.2rem 0}h2{margin:2rem 0 .5rem;font-size:1.2rem}p{margin:.4rem 0;max-width:60rem}
a{color:var(--link)}code{font-size:.85em;overflow-wrap:anywhere}small,.what,th p{color:var(--soft);font-weight:400}
nav{display:flex;flex-wrap:wrap;gap:.3rem .9rem;margin:.8rem 0}nav a{padding:.25rem 0}
.counts{list-style:none;padding:0;margin:.8rem 0}.counts li{margin:.25rem 0}
form{display:flex;flex-wrap:wrap;gap:.5rem 1rem}input,select{font:inherit;padding:.3rem;color:inherit;
background:var(--shade);border:1px solid var(--line);border-radius:4px;max-width:100%}
.verdict{font-weight:600;white-space:nowrap;color:var(--own)}.reproduced{color:var(--good)}.short{color:var(--short)}
.partial{color:var(--part)}.verdict::before{content:"\\25CF\\00A0"}.not-run::before{content:"\\25CB\\00A0"}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;min-width:52rem;table-layout:fixed;font-size:.92rem}
b,time{white-space:nowrap}th:nth-child(4){width:9rem}th:nth-child(5){width:13rem}
th,td{padding:.4rem .6rem;text-align:left;vertical-align:top}
thead th{border-bottom:2px solid var(--line);color:var(--soft)}
tbody{border-bottom:1px solid var(--line)}th p{font-size:.85rem;margin:.1rem 0}
.other .name,.earlier .name{font-weight:400;overflow-wrap:anywhere}.earlier{color:var(--soft)}
.other th,.earlier th{padding-left:1.4rem}
td:nth-child(4),td:nth-child(5){font-size:.85rem}tr.more td{padding-top:0;font-size:.85rem}
summary{cursor:pointer;color:var(--link);padding:.15rem 0}
figure{margin:.5rem 0}svg{width:100%;max-width:32rem;height:auto;font:9px system-ui,sans-serif}
svg text{fill:var(--soft)}figcaption{color:var(--soft)}polyline{fill:none;stroke-width:1.4;stroke:var(--valid)}
.train{stroke:var(--train);stroke-width:.7}
.lane{stroke-width:.5;opacity:.5}.axis{fill:none;stroke:var(--line)}
img{max-width:100%;height:auto;background:#fff;border-radius:4px}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--shade);padding:.6rem;border-radius:4px;
max-height:20rem;overflow:auto}
[hidden]{display:none}
@media(max-width:46rem){
thead{position:absolute;left:-9999px}table,tbody,tr,th,td{display:block;width:auto!important;min-width:0}
td:empty{display:none!important}
.scroll{overflow:visible}tbody{border:1px solid var(--line);border-radius:6px;margin:.6rem 0;padding:.4rem}
.other,.earlier{margin-left:.8rem}.other th,.earlier th{padding-left:.6rem}
th,td{padding:.2rem .4rem}td[data-label]{display:grid;grid-template-columns:5.4rem 1fr;gap:.4rem}
td[data-label]::before{content:attr(data-label);color:var(--soft)}}
@media print{form,nav{display:none}}
"""
SCRIPT = """
const find=document.getElementById('find'),verdict=document.getElementById('verdict');
function show(){const words=find.value.toLowerCase().split(/\\s+/);
for(const section of document.querySelectorAll('section')){let any=false;
for(const one of section.querySelectorAll('tbody')){
const text=(section.firstChild.textContent+' '+one.textContent).toLowerCase();
one.hidden=!words.every(w=>text.includes(w))||(verdict.value&&one.dataset.verdict!==verdict.value);any=any||!one.hidden}
section.hidden=!any}}
find.oninput=verdict.onchange=show;
"""
