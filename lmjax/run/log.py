"""What a run tells: metrics.jsonl for good, speed.jsonl for times, a bar or plain lines, TensorBoard, curves.png.

metrics.jsonl holds only what the run's seed decides, never a time, so that a run killed anywhere and resumed leaves the
same bytes as one left alone. A line is {"step": 200, "kind": "train", "loss": 1.93, ...}; steps count updates done.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np

from lmjax.run import curves
from lmjax.run.trackers import opener

PLAIN_EVERY = 10.0  # seconds between progress lines where the output is no terminal
DRAW_EVERY = 0.2  # seconds between drawings of the bar: the host has better things to do


class Log:
    """The log of a run in `workdir` (None: nothing is written, as in the processes of a host that is not the first).

    Resuming: call `resume(step)` first; before a checkpoint of step N is committed, all up to N is logged and `sync()`
    called. `train` and `progress` have the loop's signatures (train/loop.py). A context manager, or close() it.
    trackers: who gets the metrics besides, see trackers.opener; default: TensorBoard.
    """

    def __init__(self, workdir, total_steps: int, tokens_per_step=0, quiet: bool = False, out=None, trackers=None):
        self.dir = None if workdir is None else Path(workdir)
        self.total, self.tokens, self.quiet, self.out = total_steps, tokens_per_step, quiet, out or sys.stdout
        self.files, self.boards = {}, None
        self.open_boards = trackers or opener((), "", {})
        self.last: dict[str, int] = {}  # kind -> step of its last line
        self.shown, self.speed = "", ""  # the latest loss, the latest tokens/s and time left
        self.drawn = -math.inf
        self.began = None  # (time, step) at the end of the first interval, so without the compilation
        self.bar = None if quiet or not self.out.isatty() else _bar(total_steps, self.out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def resume(self, step: int):
        """Goes on after `step` updates: what was logged beyond, or was torn as it was written, is dropped."""
        self._shut()
        if self.dir is not None:
            _keep(self.dir / "speed.jsonl", step)
            self.last = {line.get("kind", ""): line["step"] for line in _keep(self.dir / "metrics.jsonl", step)}

    def train(self, step: int, values: dict, seconds: float, steps: int):
        """Mean metrics of the last `steps` updates, which took `seconds`."""
        self._write(step, values, "train")
        rate = steps / max(seconds, 1e-9)
        self._line("speed.jsonl", {"step": step, "seconds": seconds, "tokens_per_second": rate * self.tokens})
        now = time.monotonic()
        self.began = self.began or (now, step)
        done = step - self.began[1]
        left = (now - self.began[0]) / done * (self.total - step) if done else (self.total - step) / rate
        pace = f"{_count(rate * self.tokens)} tokens/s" if self.tokens else f"{rate:.3g} steps/s"
        self.speed = f"{pace}  {_clock(left)} left"
        self.shown = "  ".join(f"{name} {_number(values[name])}" for name in ("loss", "skipped") if name in values)
        if self.bar is None and not self.quiet and (now - self.drawn > PLAIN_EVERY or step >= self.total):
            self.drawn = now
            self.say(f"step {step}/{self.total}  {self.shown}  {self.speed}")

    def metrics(self, step: int, values: dict, kind: str = "valid"):
        """Any other measurement, such as a validation; said on a line of its own. One a kind and step.

        Of lanes, whose own values have their number behind the name of the mean, the mean and the two ends are said.
        """
        self._write(step, values, kind)
        parts = []
        for name, value in values.items():
            if of_a_lane(name, values):
                continue
            own = [values[f"{name}_{i}"] for i in range(len(values)) if f"{name}_{i}" in values]
            ends = f" ({_number(min(own))} to {_number(max(own))})" if len(own) > 1 else ""
            parts.append(f"{name} {_number(value)}{ends}")
        self.say(f"step {step}/{self.total}  {kind}  " + "  ".join(parts))

    def progress(self, step: int):
        """Moves the bar. Cheap: call it after every step."""
        now = time.monotonic()
        if self.bar is not None and (now - self.drawn > DRAW_EVERY or step >= self.total):
            self.drawn = now
            self.bar.start()
            self._draw(completed=step)

    def say(self, text: str):
        """A line to the user, above the bar where there is one."""
        if self.quiet:
            return
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self.out, flush=True)

    def sync(self):
        """Returns once all lines are on the disk."""
        for file in self.files.values():
            os.fsync(file.fileno())

    def curves(self) -> Path | None:
        """Draws curves.png from metrics.jsonl; None where matplotlib is missing or no loss was logged."""
        if self.dir is None:
            return None
        return curves.draw(read(self.dir / "metrics.jsonl"), self.dir / "curves.png", self.dir.resolve().name)

    def close(self):
        if self.bar is not None and self.bar.live.is_started:
            self._draw()
            self.bar.stop()
        self._shut()

    def _draw(self, **moved):
        self.bar.update(self.bar.task_ids[0], shown=self.shown, speed=self.speed, refresh=True, **moved)

    def _shut(self):
        self.sync()
        for file in self.files.values():
            file.close()
        self.files = {}
        for board in self.boards or ():
            board.close()
        self.boards = None

    def _write(self, step, values, kind):
        # A checkpoint that was made while something was still owed for its step makes the resumed run say that again.
        if self.dir is None or step <= self.last.get(kind, -1):
            return
        self.last[kind] = step
        plain = {name: _plain(value) for name, value in values.items()}
        self._line("metrics.jsonl", {"step": step, "kind": kind, **plain})
        if self.boards is None:
            self.boards = self.open_boards(self.dir, step, self.say)
        told = {f"{kind}/{name}": value for name, value in plain.items() if value is not None}
        for board in self.boards:
            board.write(step, told)

    def _line(self, name, line):
        if self.dir is None:
            return
        if name not in self.files:
            self.files[name] = open(self.dir / name, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self.files[name].write(json.dumps(line, allow_nan=False) + "\n")
        self.files[name].flush()


def of_a_lane(name: str, names) -> bool:
    """Whether a figure of that name is one lane's own: loss_3, where there is a loss, the mean of all."""
    stem, _, end = name.rpartition("_")
    return end.isdigit() and stem in names


def read(path) -> list[dict]:
    """The lines of a .jsonl log, without torn ones; [] where there is no file."""
    lines = []
    for raw in Path(path).read_bytes().splitlines() if Path(path).exists() else []:
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def _keep(path: Path, step: int) -> list[dict]:
    """Leaves the lines up to `step` in the file, replacing it as a whole; returns them."""
    lines = [line for line in read(path) if line["step"] <= step]
    if path.exists():
        replace_lines(path, lines)
    return lines


def replace_lines(path: Path, lines: list[dict]):
    """Makes these the lines of a log, all of them or none; a file that holds them already is left as it is."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    if path.exists() and path.read_bytes() == text.encode():
        return
    new = path.with_suffix(".new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def _plain(value):
    """A scalar as JSON has it: a float32 by its own shortest digits, what is not finite as null."""
    value = np.asarray(value)
    if value.dtype.kind in "biu":
        return value.item()
    number = float(value) if value.dtype == np.float64 else float(str(np.float32(value)))
    return number if math.isfinite(number) else None


def _number(value) -> str:
    value = float(value)
    return f"{value:.4f}" if 1e-2 <= abs(value) < 1e3 else f"{value:.4g}"


def _count(n: float) -> str:
    return f"{n / 1e6:.2f}M" if n >= 1e6 else f"{n / 1e3:.1f}k" if n >= 1e3 else f"{n:.0f}"


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(max(seconds, 0)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def _bar(total: int, out):
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    step, shown, speed = "step {task.completed}/{task.total}", "{task.fields[shown]}", "{task.fields[speed]}"
    columns = TextColumn(step), BarColumn(bar_width=30), TextColumn(shown), TextColumn(speed)
    bar = Progress(*columns, console=Console(file=out), auto_refresh=False)  # no thread beside the training
    bar.add_task("", total=total, shown="", speed="")
    return bar
