"""The loop: what it logs, when it stops, and that a stop leaves no trace in the log."""

import signal
from types import SimpleNamespace

import numpy as np
import pytest

from lmjax.errors import Diverged, Interrupted
from lmjax.train import loop


def run(steps=10, start=0, stop_after=None, bad=(), unfinished=None, state=0, stop_in_evaluation=None, **options):
    """A run whose state is a number; returns (state, what was logged, saved, evaluated), or the error beside them."""
    logged, saved, evaluated = [], [], []
    interrupt = SimpleNamespace(requested=None, publish=lambda save: None, withdraw=lambda: None, leaving=lambda: None)

    def step(state, batch, key):
        row = 1 + step.row if batch in bad else 0
        step.row = row
        return state + batch, {"loss": np.float32(np.nan if row else batch), "bad": np.int32(row)}

    def evaluate(now, state):
        if now == stop_in_evaluation:
            raise Interrupted("stop", signal.SIGTERM)
        evaluated.append(now)
        return state

    def progress(now):
        if now == stop_after:
            interrupt.requested = signal.SIGTERM

    step.row = 0
    hooks = loop.Hooks(
        lambda now, metrics, seconds, n: logged.append((now, metrics, n)),
        evaluate,
        lambda now, state, unfinished, wait: saved.append((now, state, unfinished)),
        progress,
        interrupt,
    )
    options = {"log_every": 3, "evaluate_every": 4, "save_every": 4} | options
    error = None
    try:
        state = loop.train(
            step, state, lambda i: i, None, hooks, start=start, steps=steps, unfinished=unfinished, **options
        )
    except (Interrupted, Diverged) as e:
        error = e
    return SimpleNamespace(state=state, logged=logged, saved=saved, evaluated=evaluated, error=error)


def test_lines_cover_every_step_once():
    done = run()
    assert done.state == sum(range(10))
    assert [(now, n) for now, _, n in done.logged] == [(3, 3), (4, 1), (6, 2), (8, 2), (9, 1), (10, 1)]
    assert [m["loss"] for _, m, _ in done.logged][:2] == [1.0, 3.0]
    assert done.evaluated == [4, 8, 10]
    assert [now for now, _, _ in done.saved] == [4, 8, 10]


@pytest.mark.parametrize("at", range(1, 10))
def test_a_run_stopped_anywhere_goes_on_to_the_same_log(at):
    whole, first = run(), run(stop_after=at)
    assert first.error.status == 128 + signal.SIGTERM
    now, state, unfinished = first.saved[-1]
    assert now == at
    rest = run(start=now, state=state, unfinished=unfinished)
    assert rest.state == whole.state
    assert first.logged + rest.logged == whole.logged
    assert first.evaluated + rest.evaluated == whole.evaluated


def test_a_stop_inside_an_evaluation_saves_and_owes_it():
    whole, first = run(), run(stop_in_evaluation=4)
    assert first.error.status == 143
    now, state, unfinished = first.saved[-1]
    rest = run(start=now, state=state, unfinished=unfinished)
    assert (rest.state, first.logged + rest.logged, rest.evaluated) == (whole.state, whole.logged, whole.evaluated)


def test_skipped_steps_are_left_out_of_the_means_and_counted():
    done = run(bad=(1, 2), steps=3, evaluate_every=0, save_every=0)
    assert done.logged == [(3, {"loss": 0.0, "skipped": 2}, 3)]


def test_too_many_skipped_steps_in_a_row_stop_the_run():
    done = run(steps=20, bad=range(5, 20), patience=4)
    assert done.error.status == 3
    assert "step 9" in str(done.error)
    assert [now for now, _, _ in done.saved] == [4, 8]  # what was saved before stands


def test_patience_starts_anew_after_a_good_step():
    assert run(steps=20, bad=(1, 2, 3, 5, 6, 7), patience=4).error is None


def test_a_metric_that_a_step_had_not_is_left_out_and_a_bad_steps_is_shown():
    nan = float("nan")
    steps = [{"loss": 1.0, "reward": nan, "bad": 0}, {"loss": 3.0, "reward": 0.5, "bad": 0}]
    assert loop.mean_metrics(steps) == {"loss": 2.0, "reward": 0.5}
    assert loop.mean_metrics(steps[:1]) == {"loss": 1.0}
    found = loop.mean_metrics([*steps, {"loss": nan, "reward": nan, "bad": 1}])
    assert found == {"loss": 2.0, "reward": 0.5, "skipped": 1}
    assert np.isnan(loop.mean_metrics([{"loss": nan, "bad": 1}])["loss"])
