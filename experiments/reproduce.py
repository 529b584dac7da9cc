"""Runs the rows of the tables again, unattended: every preset of every experiment, or those that fit into a time.

    launch/run.sh experiments/reproduce.py --list
    launch/run.sh experiments/reproduce.py --budget=30m
    launch/run.sh experiments/reproduce.py gpt_char/nanogpt_cpu lstm_ptb --keep
    LMJAX_EXTRAS=cuda launch/run.sh experiments/reproduce.py --device=gpu --budget=2h

Each row is a process of its own with a folder under --workdir, one after the other. What was stopped goes on when the
same command is given again, what is finished is not run again. A row is expected to take what its newest record took:
with a budget those that fit are chosen, the cheapest first; rows that are named run for as long as the budget lasts.
The end is a table of verdicts. The exit status is 0 unless something crashed; a row whose data or packages are missing
is skipped and the reason told.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lmjax.config import setting
from lmjax.errors import Interrupted, UserError
from lmjax.machine import cores
from lmjax.run import flags

GRACE = 120.0  # seconds that a row may take to save
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Config:
    rows: tuple[str, ...] = setting(
        (), "experiment/preset, preset, or experiment for all of its; default: all that the device is fit for"
    )
    list: bool = setting(False, "name all rows, what they take and what is recorded, and run none")
    budget: str = setting("", "time for all of them, such as 90s, 30m or 2h; empty: as long as it takes")
    each: str = setting("", "time for one row in one start, such as 10m; empty: as long as it takes")
    device: str = setting("cpu", "what they run on; gpu chooses those rows that want one", choices=("cpu", "gpu"))
    workdir: str = setting("runs/reproduce", "folder of the rows' workdirs and of their output")
    data_dir: str = setting("", "folder of data sets; also the variable LMJAX_DATA")
    download: bool = setting(False, "try to fetch data that is not there")
    keep: bool = setting(False, "copy the record of each row that ends to experiments/results")

    def __post_init__(self):
        for name in ("budget", "each"):
            seconds(getattr(self, name), name)


class Job(NamedTuple):
    """A row here: its workdir, what it is expected to take (None: nobody knows), and why it is not run, "" if it is."""

    row: object
    folder: Path
    cost: float | None
    reason: str

    @property
    def finished(self) -> bool:
        return (self.folder / "result.json").exists()


def seconds(text: str, name: str = "") -> float:
    """The seconds of 90s, 30m, 1.5h; infinity where nothing is said."""
    if not text:
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not match or not float(match[1]):
        raise ValueError(f"--{name}={text}: expected a time such as 90s, 30m or 2h")
    return float(match[1]) * UNITS[match[2]]


def jobs(config: Config) -> dict[str, Job]:
    """Every row by its name, with the reason why it is not to be run."""
    from lmjax.run.reports import rows

    found, kept = rows.find(), rows.records()
    named = {row.name for row in rows.select(found, config.rows)}
    made = {}
    for row in found:
        cost = rows.cost(row, kept.get(row.name, []), cores())
        reason = rows.missing(row, config.data_dir or None)
        reason = "" if config.download and reason.startswith("there is no folder") else reason
        if not reason and row.name not in named:
            if row.needs.by_hand:
                reason = f"wants {row.needs.by_hand}"
            elif row.needs.gpu and config.device == "cpu":
                reason = "wants a GPU (--device=gpu)"
            elif cost is None and config.budget:
                reason = "no record says how long it takes: name it to run it"
        folder = Path(config.workdir).expanduser().resolve() / row.experiment / (row.preset or "default")
        made[row.name] = Job(row, folder, cost, reason)
    return made


def choose(config: Config, every: dict[str, Job]) -> tuple[list[Job], dict[str, str]]:
    """The jobs to run, in order, each behind the one it starts from; and why the others asked for are not run."""
    from lmjax.run.reports import rows

    asked = [row.name for row in rows.select([job.row for job in every.values()], config.rows)]
    if not asked:
        asked = [name for name, job in every.items() if config.device == "cpu" or job.row.needs.gpu]
        asked.sort(key=lambda name: every[name].cost or float("inf"))
    chosen, left, spent = [], {}, 0.0
    for name in asked:
        needed = [one for one in (every[name].row.needs.start, name) if one]
        needed = [every[one] for one in needed if not every[one].finished and every[one] not in chosen]
        reason = next((job.reason for job in needed if job.reason), "")
        cost = sum(job.cost or 0.0 for job in needed)
        if not reason and not config.rows and spent + cost > seconds(config.budget):
            reason = f"takes {clock(cost)}, more than the budget leaves"
        if reason:
            left[name] = reason
        else:
            chosen += needed
            spent += cost
    return chosen, left


def clock(value: float) -> str:
    hours, rest = divmod(round(value), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def run_job(job: Job, starts: dict, config: Config, until: float, stopped) -> str:
    """Runs one row, or goes on with it, until it ends, `until` comes or `stopped()`. Says how it ended: "" if well."""
    from lmjax.run.reports import rows

    job.folder.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, *rows.command(job.row, starts), f"--workdir={job.folder}"]
    words += [f"--data_dir={Path(config.data_dir).expanduser().resolve()}"] if config.data_dir else []
    environment = os.environ | ({"JAX_PLATFORMS": "cpu"} if config.device == "cpu" else {})
    output = job.folder.with_name(job.folder.name + ".log")
    with open(output, "ab") as log:
        begin = log.tell()
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                 env=environment, start_new_session=True)  # fmt: skip
        asked = None  # when it was asked to stop
        while child.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            if asked is None and (now > until or stopped()):
                child.send_signal(signal.SIGTERM)
                asked = now
            elif asked is not None and now > asked + GRACE:
                child.kill()
    if child.returncode == 0 and job.finished:
        return ""
    if asked is not None:
        return "stopped; the same command goes on with it"
    said = output.read_bytes()[begin:].decode(errors="replace").strip().splitlines() or [""]
    if child.returncode == 2 and len(said[-1]) < 1000:  # a UserError's one line
        return f"refused: {said[-1]}"
    return f"crashed with status {child.returncode}: {said[-1]:.200} ({output})"


def run_all(config: Config, chosen: list[Job], every: dict[str, Job]) -> dict[str, str]:
    """Runs them one after the other. {row: how it ended}."""
    from lmjax.run import record

    signals, ends, began = [], {}, time.monotonic()
    end = began + seconds(config.budget)
    old = {number: signal.signal(number, lambda number, _: signals.append(number))
           for number in (signal.SIGTERM, signal.SIGINT)}  # fmt: skip
    try:
        for n, job in enumerate(chosen, 1):
            name, start = job.row.name, job.row.needs.start
            now = time.monotonic()
            if signals or now >= end:
                ends[name] = "not begun: stopped by a signal" if signals else "not begun: the budget is spent"
                continue
            if start and not every[start].finished:
                ends[name] = f"not begun: {start}, which it starts from, is not finished"
                continue
            expected = f", some {clock(job.cost)}" if job.cost else ""
            print(f"{n} of {len(chosen)}: {name}{expected}", flush=True)
            starts = {start: every[start].folder} if start else {}
            ends[name] = run_job(job, starts, config, min(end, now + seconds(config.each)), lambda: bool(signals))
            print(f"    {ends[name] or 'finished'} after {clock(time.monotonic() - now)}", flush=True)
            if config.keep and not ends[name]:
                print(f"    kept as {os.path.relpath(record.keep([job.folder]))}", flush=True)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if signals:
        ends["signal"] = signals[0]
    return ends


def table(done: list[Job], ends: dict[str, str], left: dict[str, str]):
    """Prints a line for each figure of the rows that are finished, and for each of the others why it is not."""
    from lmjax.run.reports import report
    from lmjax.run.reports.rows import Kept

    out = [("row", "figure", "ours", "published", "verdict", "time")]
    for job in done:
        result = json.loads((job.folder / "result.json").read_text(encoding="utf-8"))
        line = report.Line(job.row.name, "", "row", Kept(job.folder, result, ""), {})
        beside, others = report.figures(line)
        for n, figure in enumerate(beside or others[:1]):
            ends_of_line = (line.verdict, clock(result["wall_seconds"])) if n == 0 else ("", "")
            out.append((job.row.name if n == 0 else "", figure.name, figure.ours, figure.published, *ends_of_line))
    if len(out) > 1:
        widths = [max(len(row[n]) for row in out) for n in range(6)]
        print("\n" + "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in out))
    for name, reason in ends.items():
        if reason:
            print(f"{name}: {reason}")
    why: dict[str, list[str]] = {}
    for name, reason in left.items():
        why.setdefault(re.sub(r"^takes [\d:]+, ", "each takes ", reason), []).append(name)
    for reason, names in why.items():
        few = ", ".join(names[:3]) + f" and {len(names) - 3} more (--list)" * (len(names) > 3)
        print(f"{few}: {reason if len(names) > 1 else left[names[0]]}")


def show(every: dict[str, Job]):
    """--list: a line for each row."""
    from lmjax.run.reports import rows

    kept = rows.records()
    print(f"{'row':36}{'takes':>9}  {'recorded':12} what it needs, and is")
    for name, job in every.items():
        newest = next((one for one in kept.get(name, []) if not rows.changed(one.result, job.row.config)), None)
        recorded = newest.result["verdict"] if newest else "not run"
        needs = [job.row.needs.start and f"the run of {job.row.needs.start}", job.reason, "finished" * job.finished]
        takes = clock(job.cost) if job.cost else "?"
        print(f"{name:36}{takes:>9}  {recorded:12} {'; '.join([*filter(None, needs), job.row.help])}")


def gpu_found() -> bool:
    """In a process of its own: JAX would hold the memory."""
    code = "import jax; raise SystemExit(jax.default_backend() == 'cpu')"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def main(config: Config):
    from lmjax.run.reports import rows

    every = jobs(config)
    if config.list:
        show(every)
        return
    chosen, left = choose(config, every)
    if chosen and config.device == "gpu" and not gpu_found():
        raise UserError("--device=gpu: JAX finds none; install its extra (LMJAX_EXTRAS=cuda), or say --device=cpu")
    known = sum(job.cost or 0.0 for job in chosen)
    unknown = sum(job.cost is None for job in chosen)
    print(f"{len(chosen)} rows to run, some {clock(known)}{f' and {unknown} of unknown length' * bool(unknown)}, in "
          f"{config.workdir}; {len(left)} are not", flush=True)  # fmt: skip
    ends = run_all(config, chosen, every)
    signum = ends.pop("signal", None)
    asked = {row.name for row in rows.select([job.row for job in every.values()], config.rows)} or set(every)
    asked |= {job.row.name for job in chosen}
    table([job for name, job in every.items() if name in asked and job.finished], ends, left)
    if signum:
        raise Interrupted("stopped by a signal; the same command goes on", signum)
    if any(end.startswith("crashed") for end in ends.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    sys.argv = flags.named(sys.argv, "rows")
    flags.run(main, Config)
