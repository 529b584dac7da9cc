"""The training loop: launch a step, read the step before, and stop to log, evaluate and save where it is due.

The host never waits for the device between those stops, and everything it does is a function of the step's number, so
a run that is killed and started again from a checkpoint ends in the same bits and the same log.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from lmjax.errors import Diverged, Interrupted


@dataclass(frozen=True)
class Hooks:
    """What the loop calls, all in steps taken so far.

    log(step, metrics, seconds, steps): mean metrics of the last `steps` steps, which took `seconds`.
    evaluate(step, state) -> state: every `evaluate_every` steps and at the end; it may decide to change the state.
    save(step, state): every `save_every` steps, at the end and when interrupted.
    progress(step): after each step is launched. interrupt: see interrupt.py.
    """

    log: Callable[[int, dict[str, float], float, int], None]
    evaluate: Callable[[int, Any], Any]
    save: Callable[[int, Any], None]
    progress: Callable[[int], None]
    interrupt: Any


def train(step, state, batch, key, *, start: int, steps: int, hooks: Hooks, log_every=10, evaluate_every=0, save_every=0, patience=10):
    """Steps `start` to `steps`. Returns the state.

    step: compiled, (state, batch, key) -> (state, metrics). batch(i): the batch of step i, on the devices. patience: so
    many steps with a non-finite loss in a row raise `Diverged`. Raises `Interrupted` after saving where a signal came.
    """
    pending, since = [], time.perf_counter()

    def flush(now):
        nonlocal pending, since
        if not pending:
            return
        values = jax.device_get(pending)
        seconds, since = time.perf_counter() - since, time.perf_counter()
        bad = [int(m["bad"]) for m in values]
        if max(bad) >= patience:
            at = now - len(values) + next(i for i, b in enumerate(bad) if b >= patience) + 1
            raise Diverged(
                f"stopped at step {at}: {patience} steps in a row had a non-finite loss or gradient; the last finite "
                "checkpoint is kept. Lower the learning rate or clip the gradient, or raise --run.patience"
            )
        hooks.log(now, mean_metrics(values), seconds, len(values))
        pending = []

    def due(every, now):
        return every and now % every == 0

    def pause(now, stop):
        """Evaluate, save, leave: the places where the host waits."""
        nonlocal state, since
        flush(now)
        waited = time.perf_counter()
        hooks.interrupt.publish(lambda: hooks.save(now, state))
        if due(evaluate_every, now) or (now == steps and start < steps):
            state = hooks.evaluate(now, state)
        if stop or due(save_every, now) or now == steps:
            hooks.save(now, state)
        hooks.interrupt.withdraw()
        since += time.perf_counter() - waited
        if stop:
            name = signal.Signals(stop).name
            raise Interrupted(f"{name}: saved at step {now} of {steps}; the same command goes on from there", stop)

    for i in range(start, steps):
        now = i + 1
        state, metrics = step(state, batch(i), key)
        if due(log_every, i) and pending:
            flush(i)  # the step just launched is under way; those before it are done
        pending.append(metrics)
        hooks.progress(now)
        stop = hooks.interrupt.requested
        if stop or now == steps or due(evaluate_every, now) or due(save_every, now):
            pause(now, stop)
    return state


def mean_metrics(values: list[dict]) -> dict[str, float]:
    """Mean over steps of each metric, over the finite steps where there are any; `skipped` counts the others."""
    good = [m for m in values if m["bad"] == 0] or values
    means = {name: float(np.mean([m[name] for m in good], dtype=np.float64)) for name in good[0] if name != "bad"}
    skipped = sum(int(m["bad"] > 0) for m in values)
    return means | ({"skipped": skipped} if skipped else {})
