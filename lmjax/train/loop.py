"""The training loop: launch a step, read the step before, and stop to log, evaluate and save where it is due.

The host never waits for the device between those stops, and everything it does is a function of the step's number, so
a run that is stopped anywhere and started again from its checkpoint ends in the same bits and the same log.
"""

import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax.errors import Diverged, Interrupted

IN_FLIGHT = 2  # steps the host may be ahead of the device: enough to keep it busy, few enough to stop soon


class Hooks(NamedTuple):
    """What the loop calls. Steps are counted as taken so far.

    log(step, metrics, seconds, steps): the mean metrics of the last `steps` steps, which took `seconds`.
    evaluate(step, state) -> state: every `evaluate_every` steps and at the end; it may decide to change the state, and
        raises `Interrupted` where it finds a signal has come.
    save(step, state, unfinished, wait): every `save_every` steps, at the end, and when interrupted; `wait`: return when
        it is on the disk. `unfinished` is JSON: what `train` wants back, as its argument, when it goes on from there.
    progress(step): after each step is launched. interrupt: see interrupt.py.
    """

    log: Callable[[int, dict[str, float], float, int], None]
    evaluate: Callable[[int, Any], Any]
    save: Callable[[int, Any, dict, bool], None]
    progress: Callable[[int], None]
    interrupt: Any


def train(
    step,
    state,
    batch,
    key,
    hooks: Hooks,
    *,
    start: int,
    steps: int,
    log_every=10,
    evaluate_every=0,
    save_every=0,
    patience=10,
    unfinished=None,
):
    """Take steps `start` to `steps`; returns the state.

    step: compiled, (state, batch, key) -> (state, metrics). batch(i): the batch of step i, on the devices. patience: so
    many steps in a row with a non-finite loss raise `Diverged`. Where a signal came: saves, then raises `Interrupted`.
    """
    unfinished = unfinished or {}
    pending, owed = list(unfinished.get("metrics", [])), unfinished.get("evaluation", False)
    since = time.perf_counter()

    def flush(now):
        nonlocal pending, since
        values = jax.device_get(pending)
        check_finite(values, now, patience)
        seconds, since = time.perf_counter() - since, time.perf_counter()
        if values:
            hooks.log(now, mean_metrics(values), seconds, len(values))
        pending = []

    def save(now, evaluation_owed=False, wait=True):
        metrics = [{name: float(x) for name, x in m.items()} for m in jax.device_get(pending)]
        hooks.save(now, state, {"metrics": metrics, "evaluation": evaluation_owed}, wait)

    def pause(now, evaluation):
        """The places where the host waits for the device: evaluate, save, leave."""
        nonlocal state, since
        if evaluation or due(save_every, now) or now == steps:
            flush(now)  # not for a signal: the log must not show that there was one
        waited = time.perf_counter()
        if evaluation:
            hooks.interrupt.publish(lambda: save(now, evaluation_owed=True))
            try:
                state = hooks.evaluate(now, state)
            except Interrupted:
                hooks.interrupt.leaving()
                save(now, evaluation_owed=True)
                raise
            finally:
                hooks.interrupt.withdraw()
        stop = hooks.interrupt.requested
        if stop:
            hooks.interrupt.leaving()
        if stop or due(save_every, now) or now == steps:
            save(now, wait=bool(stop) or now == steps)
        since += time.perf_counter() - waited
        if stop and now < steps:
            raise Interrupted(
                f"{signal.Signals(stop).name}: saved at step {now} of {steps}; the same command goes on from there",
                stop,
            )

    def due(every, now):
        return every > 0 and now % every == 0

    hooks.interrupt.withdraw()  # from here on a step may own the state
    if owed:
        pause(start, evaluation=True)
    for i in range(start, steps):
        now = i + 1
        state, metrics = step(state, batch(i), key)
        if due(log_every, i) and pending:
            flush(i)  # the steps before this one, which is under way
        pending.append(metrics)
        if len(pending) > IN_FLIGHT:
            jax.block_until_ready(pending[-1 - IN_FLIGHT])
        hooks.progress(now)
        evaluation = due(evaluate_every, now) or now == steps
        if evaluation or due(save_every, now) or hooks.interrupt.requested:
            pause(now, evaluation)
    hooks.interrupt.publish(None)  # all is on the disk
    return state


def check_finite(values: list[dict], now: int, patience: int):
    """Raises `Diverged` where the metrics of the steps up to `now` show `patience` bad ones in a row."""
    for step, metrics in enumerate(values, now - len(values) + 1):
        if metrics["bad"] >= patience:
            raise Diverged(
                f"stopped at step {step}: {patience} steps in a row had a non-finite loss or gradient. The last finite "
                "checkpoint is kept: lower the learning rate, clip, or raise --patience"
            )


def mean_metrics(values: list[dict]) -> dict[str, float]:
    """The mean over steps of each metric, over the finite steps where there are any; `skipped` counts the others.

    A metric that is no number in a finite step is one that this step had not: a game's, before it begins.
    """
    good = [m for m in values if m["bad"] == 0]
    kept = {name: [m[name] for m in good or values if not (good and np.isnan(m[name]))] for name in values[0]}
    means = {name: float(np.mean(x, dtype=np.float64)) for name, x in kept.items() if x and name != "bad"}
    skipped = sum(int(m["bad"] > 0) for m in values)
    return means | ({"skipped": skipped} if skipped else {})
