"""An experiment for the tests of sweeps: no JAX, steps of a few milliseconds, resumes from a file.

Its validation loss falls from 1 + (x - 0.3)^2 to (x - 0.3)^2. starts.log has a line for each start and each end.
"""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lmjax.config import setting
from lmjax.errors import Diverged, Interrupted, UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder of the run")
    x: float = setting(0.5, "where", low=-10.0, high=10.0)
    layers: int = setting(2, "how many", low=1)
    kind: str = setting("a", "which", choices=("a", "b", "bad", "diverge", "silent"))
    steps: int = setting(10, "steps", low=1)
    pause: float = setting(0.02, "seconds a step", low=0.0)


def main(config):
    folder, state = Path(config.workdir), Path(config.workdir) / "state"
    if config.kind == "bad":
        raise UserError(f"kind=bad does not go with x={config.x}")
    if config.kind == "diverge":
        raise Diverged("stopped at step 3: lower the learning rate")
    stopped = []
    signal.signal(signal.SIGTERM, lambda signum, frame: stopped.append(signum))
    if (folder / "alive").exists() and runs(int((folder / "alive").read_text())):
        sys.exit("two of one trial")
    (folder / "alive").write_text(str(os.getpid()))
    done = int(state.read_text()) if state.exists() else 0
    tell(folder, f"start {done} {time.time()} {config.x!r}")
    with open(folder / "metrics.jsonl", "a") as log:
        for step in range(done, config.steps):
            time.sleep(config.pause)
            loss = (config.x - 0.3) ** 2 + 1 - (step + 1) / config.steps
            both = {"loss": loss, "loss_0": loss - 0.1, "loss_1": loss + 0.1, "accuracy": 100 - loss, "test_loss": -9.0}
            if config.kind != "silent":
                log.write(json.dumps({"step": step + 1, "kind": "valid", **both}) + "\n")
                log.flush()
            (folder / "state.new").write_text(str(step + 1))
            os.replace(folder / "state.new", state)
            if stopped:
                raise Interrupted("saved", stopped[0])
    figures = {"validation_loss": {"mean": 0.5, "values": [0.5]}, "macro_f1": {"mean": 1.0, "values": [1.0]}}
    (folder / "result.json").write_text(json.dumps({"metrics": figures}))
    tell(folder, f"end {config.steps} {time.time()}")


def runs(pid: int) -> bool:
    """Whether that process is at work: one that was killed may wait for its parent to hear of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def tell(folder, line):
    with open(folder / "starts.log", "a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    flags.run(main, Config)
