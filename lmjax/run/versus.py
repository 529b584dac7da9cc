"""Two programs measured against each other on a machine that others use too: in turn, and by the ratio."""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmjax.config import setting
from lmjax.errors import UserError


@dataclass(frozen=True)
class Versus:
    """Base of a benchmark's Config."""

    peer: str = setting(
        "", "script to compare with: it takes the sizes as flags and prints one JSON line with tokens_per_s"
    )
    peer_python: str = setting("python3", "the Python that has what the peer needs")
    rounds: int = setting(3, "times that each of the two runs, in turn", low=1)
    threads: int = setting(2, "CPU threads of the peer; lmjax takes all cores it may use", low=1)


def alternate(
    config: Versus, name: str, ours: Callable[[], float], peer_flags: list[str], figure: str = "tokens_per_s"
) -> float | None:
    """Runs the peer and ours in turn and prints each run and the median ratio; None where there is no peer.

    ours() -> the figure of one run, which the peer prints under that name: what is done, "per_s".
    """
    unit = figure.replace("_per_", "/")
    if not config.peer:
        for _ in range(config.rounds):
            print(f"{name}: lmjax {ours():,.0f} {unit}", flush=True)
        print("To compare: --peer=SCRIPT --peer_python=PYTHON, run in turn with this.")
        return None
    ratios = []
    for round in range(config.rounds):
        theirs = run_peer(config, peer_flags, figure)
        mine = ours()
        ratios.append(mine / theirs)
        print(f"{name} {round + 1}: lmjax {mine:,.0f}, peer {theirs:,.0f} {unit}, ratio {ratios[-1]:.2f}", flush=True)
    middle = statistics.median(ratios)
    print(
        f"{name}: median ratio {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of {len(ratios)} rounds",
        flush=True,
    )
    return middle


def seconds_a_step(step, state, batch, key, steps: int) -> float:
    """The median time of `steps` training steps, each waited for, after three that do not count.

    step: compiled, (state, batch, key) -> (state, metrics); it may take its state for its own. batch() -> a batch.
    """
    times = []
    for _ in range(3 + steps):
        began = time.perf_counter()
        state, metrics = step(state, batch(), key)
        float(metrics["loss"])
        times.append(time.perf_counter() - began)
    return statistics.median(times[3:])


def seconds_a_pass(step, state, batches, key, runs: int) -> float:
    """The median time of `runs` passes over batches of several shapes, each step waited for, after one that does not
    count. step: as of seconds_a_step."""
    times = []
    for _ in range(1 + runs):
        began = time.perf_counter()
        for batch in batches:
            state, metrics = step(state, batch, key)
            float(metrics["loss"])
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def run_peer(config: Versus, flags: list[str], figure: str = "tokens_per_s") -> float:
    """A figure of one run of the peer. Its environment has none of our settings."""
    if not Path(config.peer).is_file():
        raise UserError(f"--peer={config.peer}: there is no such script")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [config.peer_python, config.peer, f"--threads={config.threads}", *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        return float(json.loads(done.stdout.strip().splitlines()[-1])[figure])
    except OSError as error:
        raise UserError(f"--peer_python={config.peer_python} cannot be started ({error.strerror})") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"--peer={config.peer} failed: {last}; see that --peer_python has what it needs") from None
    except (ValueError, KeyError, IndexError):
        raise UserError(f"--peer={config.peer} printed no JSON line with {figure}") from None
