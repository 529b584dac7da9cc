"""Searches an experiment's settings with Optuna: each trial a run of its own, as many at a time as there are workers.

    export LMJAX_EXTRAS=sweep
    bash launch/run.sh launch/sweep.py experiments/gpt_char.py --space="lr=3e-4..1e-2:log x model.layers=2,4" \\
        --trials=40 --workers=2 --pruner=median --workdir=runs/sweep/gpt -- --steps=500

What stands behind ` -- ` is given to every trial. A space joins its terms by ` x `: name=a,b,c is a choice,
name=low..high a range of the numbers that the setting takes, :log behind it in the logarithm, :step=0.1 in steps. Names
and values are those of the experiment's own flags, and are checked before anything starts.

A trial counts for its best validation (--metric, of the lines of kind "valid" in its metrics.jsonl; where it writes
none, a validation figure of its result.json), never for a test figure. Trials that the pruner ends early save first.

The same command with the same --workdir goes on where it was stopped or killed, and a worker's death costs no trial: it
goes back in the queue and on from its last checkpoint. --trials may grow. WORKDIR has the trials' own workdirs under
trials/, and at the end sweep.html with its pictures, and trials.csv.

Trials that share a GPU want XLA_PYTHON_CLIENT_PREALLOCATE=false in the environment, or one worker.

Several machines: begin the sweep on one, then on each other, with the same WORKDIR on a file system that all share (NFS
4 has the locks it takes),

    bash launch/run.sh launch/sweep.py --join --workdir=WORKDIR --workers=4 --storage=postgresql://USER@HOST/DATABASE

The database (LMJAX_EXTRAS=sweep,postgres) is for those; without --storage a file in WORKDIR serves the workers of one
machine. Leave its password to ~/.pgpass or PGPASSWORD; one in the address is neither shown nor kept.

Papers: Akiba et al. 2019 (Optuna), Bergstra et al. 2011 (TPE), Hansen & Ostermeier 2001 (CMA-ES), Li et al. 2018
(Hyperband).
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    space: str = setting("", 'what varies, such as "lr=1e-4..1e-2:log x model.layers=2,4,6"')
    trials: int = setting(20, "trials, with those that are pruned or fail; a grid has no more than its points", low=1)
    workers: int = setting(1, "trials at a time on this machine", low=1)
    sampler: str = setting(
        "tpe", "how values are chosen; cmaes is for ranges, and draws choices at random",
        choices=("tpe", "random", "grid", "cmaes"),
    )  # fmt: skip
    pruner: str = setting(
        "none", "ends a trial whose validations fall behind: below the median, or by Hyperband's halving",
        choices=("none", "median", "hyperband"),
    )  # fmt: skip
    metric: str = setting("", "validation figure that a trial counts for; default: loss")
    direction: str = setting("auto", "what is better; auto knows by the metric's name",
                             choices=("auto", "minimize", "maximize"))  # fmt: skip
    objective: str = setting("mean", "of a trial with lanes or seeds: their mean, or the best one",
                             choices=("mean", "best_lane"))  # fmt: skip
    seed: int = setting(0, "start of the sampler's randomness", low=0)
    default_first: bool = setting(True, "try the experiment's own settings first, where the space has them all")
    give_up: int = setting(5, "trials in a row that fail with one and the same line end the sweep; 0: never", low=0)
    pin: bool = setting(True, "share this machine's cores out among the workers, where there are enough of them")
    workdir: str = setting(
        "", "folder of the sweep; the same one goes on with it. Default: a new one under runs/sweep/"
    )
    storage: str = setting("", "postgresql://USER@HOST/DATABASE for many machines; default: a file in the workdir")
    join: bool = setting(False, "add this machine's workers to the sweep that was begun in --workdir")


def main(config, script, rest):
    from lmjax.run.sweeps import sweeping

    sweeping.sweep(config, script, rest)


if __name__ == "__main__":
    flags.run(main, Config, starts=True)
