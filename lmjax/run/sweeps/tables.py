"""What a sweep shows as it runs: a table on a terminal, a line for each trial that ends in a log."""

import sys

from lmjax.run.settings import text

ROWS = 12  # of finished trials in the table


class Table:
    """A context manager: `show(trials)` brings it up to date, `say(line)` writes a line above it."""

    def __init__(self, plan, terms, out=None):
        self.plan, self.terms, self.out, self.seen, self.live = plan, terms, out or sys.stdout, set(), None
        if self.out.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(file=self.out), auto_refresh=False)

    def __enter__(self):
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_):
        if self.live:
            self.live.stop()

    def say(self, line: str):
        if self.live:
            self.live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self.out, flush=True)

    def show(self, trials):
        done = [trial for trial in trials if trial.state.is_finished()]
        values = [trial.value for trial in done if trial.state.name == "COMPLETE"]
        best = (max if self.plan.direction == "maximize" else min)(values, default=None)
        if self.live:
            self.live.update(self._table(trials, done, best), refresh=True)
            return
        for trial in done:
            if trial.number not in self.seen:
                self.seen.add(trial.number)
                left = f"{len(done)}/{self.plan.trials}"
                self.say(f"{left}  trial {trial.number}  " + "  ".join([*_row(trial), *self._settings(trial)]))

    def _settings(self, trial):
        return [f"{t.name}={_short(trial.params[t.name])}" for t in self.terms if t.name in trial.params]

    def _table(self, trials, done, best):
        from rich.table import Table as Rich

        shown = f"best {best:.5g}" if best is not None else "no value yet"
        table = Rich(title=f"{len(done)} of {self.plan.trials} trials, {shown}", title_justify="left")
        for name in ("trial", "state", "value", "time", *(term.name for term in self.terms)):
            table.add_column(name, justify="left" if name == "state" else "right")
        under_way = [trial for trial in trials if not trial.state.is_finished()]
        top = sorted(done, key=lambda trial: trial.number)[-ROWS:]
        kept = [t for t in done if t.value == best and t.state.name == "COMPLETE" and best is not None][:1]
        for trial in [t for t in kept if t not in top] + top + under_way:
            state, value, spent = _row(trial)
            style = {"COMPLETE": "", "PRUNED": "dim", "FAIL": "red"}.get(trial.state.name, "cyan")
            settings = [_short(trial.params[t.name]) if t.name in trial.params else "" for t in self.terms]
            table.add_row(str(trial.number), state.lower(), value, spent, *settings,
                          style="bold green" if trial in kept else style)  # fmt: skip
        return table


def _row(trial) -> tuple[str, str, str]:
    """(state, value or error, seconds)."""
    value = "" if trial.value is None else f"{trial.value:.5g}"
    if trial.state.name == "FAIL":
        value = trial.user_attrs.get("error", "")
    elif not trial.state.is_finished() and trial.intermediate_values:
        value = f"{trial.intermediate_values[max(trial.intermediate_values)]:.5g}"
    spent = f"{trial.duration.total_seconds():.0f} s" if trial.duration else ""
    return trial.state.name, value, spent


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text(value)
