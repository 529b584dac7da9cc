"""The table of results: every preset beside its published figures, from the kept records alone.

    launch/run.sh experiments/report.py            draws experiments/RESULTS.md, and runs/report/RESULTS.html
    launch/run.sh experiments/report.py --check    says whether RESULTS.md is what the records give, status 2 if not

The page holds all that it shows: tables, curves, pictures and samples; it can be sent as one file. A record that does
not hold (lmjax/run/reports/checks.py) is named on the screen.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    check: bool = setting(False, "draw nothing, compare RESULTS.md with the records")
    output: str = setting("runs/report", "folder for RESULTS.html; empty: no page")
    results: str = setting("", "folder of records, and RESULTS.md beside it; default: experiments/results")


def main(config: Config):
    from lmjax.run.reports import checks, pages, report, rows

    results = Path(config.results).expanduser() if config.results else rows.EXPERIMENTS / "results"
    if not results.is_dir():
        raise UserError(f"--results={config.results} is no folder: expected one of records, as experiments/results is")
    records = rows.records(results)
    for kept in (one for mine in records.values() for one in mine):
        for complaint in checks.complaints(kept.folder):
            print(f"{kept.folder}: {complaint}")
    table = report.lines(rows.find(), records)
    path = results.parent / "RESULTS.md"
    drawn = report.markdown(table, path.parent)
    if config.check:
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        differing = [line for line in difflib.unified_diff(there.splitlines(), drawn.splitlines(), n=0, lineterm="")
                     if line[0] in "+-" and line[:3] not in ("+++", "---")]  # fmt: skip
        print("\n".join(differing[:20]))
        if differing:
            raise UserError(f"{path} differs from the records in {len(differing)} lines: draw it by "
                            "launch/run.sh experiments/report.py")  # fmt: skip
        return
    path.write_text(drawn, encoding="utf-8")
    print(", ".join(f"{count} {verdict}" for verdict, count in report.counts(table).items()))
    print(path)
    if config.output:
        folder = Path(config.output).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "RESULTS.html").write_text(pages.page(table), encoding="utf-8")
        print(folder / "RESULTS.html")


if __name__ == "__main__":
    flags.run(main, Config)
