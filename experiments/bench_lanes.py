"""What lanes save: N seeds in one program beside N runs, one after the other, of the same experiment.

    bash launch/run.sh experiments/bench_lanes.py --of=gpt

starts `--seeds=N`, then N runs of one seed each, as a user would, and `--seeds=N` again, so that a machine that slows
down meanwhile slows both. It compares the steps a second once all is compiled, and the time from the start to the end.
--of=gpt is nanoGPT's CPU recipe and lstm an epoch of the LSTM of 2 x 200 cells, both on Python's documentation; seqgan
the generator's training by likelihood on an oracle.

Measured on two quiet cores, 16 lanes beside single runs, the lanes in turn and two abreast: gpt (200 steps) 1.08 times
the steps a second and 1.80 times as fast in all; seqgan (20 epochs) 2.05 and 7.1; lstm 1.04 and 1.53. With one lane
under way at any time it was 0.87 to 1.06 for gpt, 0.94 to 1.11 for seqgan, 0.96 and 1.08 for lstm.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags

RUNS = {
    "gpt": ["gpt_char.py", "--data=pydoc", "--model.context=64", "--model.bias=false", "--batch=12", "--sample=0"],
    "lstm": ["lstm_ptb.py", "--data=pydoc", "--epochs=1"],
    "seqgan": ["seqgan.py", "--rounds=0"],
}
STEPS = {"gpt": "steps", "seqgan": "epochs"}


@dataclass(frozen=True)
class Config:
    of: str = setting("gpt", "what is trained", choices=tuple(RUNS))
    lanes: int = setting(16, "trainings", low=2)
    runs: int = setting(0, "of one seed each; 0: as many. Fewer are scaled up to all", low=0)
    steps: int = setting(200, "steps of a gpt, epochs of seqgan", low=5)
    flags: str = setting("", "more of the experiment's own, with blanks between")
    data_dir: str = setting("", "folder of the data sets")


def main(config):
    script, *fixed = RUNS[config.of]
    steps = [f"--{STEPS[config.of]}={config.steps}"] if config.of in STEPS else []
    every = [f"--log_every={max(config.steps // 10, 1)}", "--evaluate_every=1000000", "--quiet"]
    data = [f"--data_dir={config.data_dir}"] if config.data_dir else []
    common = [str(Path(__file__).with_name(script)), *fixed, *steps, *every, *data, *config.flags.split()]
    with tempfile.TemporaryDirectory() as folder:

        def lanes(name):
            together, pace = started(common, Path(folder, name), f"--seeds={config.lanes}")
            each = config.lanes * pace
            print(f"{config.lanes} lanes: {together:.1f} s, {each:.2f} steps of a lane a second", flush=True)
            return together, pace

        before = lanes("before")
        count = config.runs or config.lanes
        found = [started(common, Path(folder, str(seed)), f"--seed={seed}", "--seeds=1") for seed in range(count)]
        together, pace = (statistics.fmean(pair) for pair in zip(before, lanes("after")))
    alone, paces = (statistics.fmean(part) for part in zip(*found))
    print(f"alone: {alone:.1f} s each, {paces:.2f} steps a second")
    print(f"steady {config.lanes * pace / paces:.2f} times as fast, in all {config.lanes * alone / together:.2f} times")


def started(command, workdir, *own) -> tuple[float, float]:
    """(seconds of a run from start to end, its steps a second behind the first interval)."""
    from lmjax.run.log import read

    began = time.perf_counter()
    done = subprocess.run([sys.executable, *command, f"--workdir={workdir}", *own], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise UserError(f"{command[0]} ended with status {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
    lines = read(workdir / "speed.jsonl")
    return seconds, (lines[-1]["step"] - lines[0]["step"]) / sum(line["seconds"] for line in lines[1:])


if __name__ == "__main__":
    flags.run(main, Config)
