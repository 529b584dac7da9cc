"""The settings that every training shares: where it runs, how often it looks up, what it keeps."""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.run import grid


@dataclass(frozen=True)
class Run:
    """Base of an experiment's Config: its fields become --workdir, --seed, ..."""

    workdir: str = setting("", "folder of the run; the same one resumes it. Default: a new one under runs/")
    data_dir: str = setting("", "folder to look for data sets in before downloading; also the variable LMJAX_DATA")
    seed: int = setting(0, "start of all randomness: initial weights, order of data, dropout", low=0)
    strategy: str = setting(
        "auto", "auto: one device alone, several by pmap. mesh: parameters split as well (FSDP, tensor parallel)",
        choices=("auto", "local", "pmap", "mesh"),
    )  # fmt: skip
    mesh: tuple[int, ...] = setting(
        (), "with --strategy=mesh: devices along data,model, e.g. 4,2; default: all along data"
    )
    log_every: int = setting(50, "steps between lines of metrics.jsonl", low=1)
    evaluate_every: int = setting(0, "steps between validations; 0: the experiment's choice", low=0)
    save_every: int = setting(0, "steps between checkpoints; 0: at each validation", low=0)
    keep: int = setting(2, "newest checkpoints to keep, beside the best", low=1)
    patience: int = setting(10, "non-finite steps in a row, each skipped, that stop the run with status 3", low=1)
    track: tuple[str, ...] = setting(
        (), "services that get the metrics besides TensorBoard; the same run there goes on with this one",
        choices=("wandb", "mlflow", "trackio"),
    )  # fmt: skip
    profile: bool = setting(False, "write a trace of steps 20 to 25 to WORKDIR/trace")
    dry_run: bool = setting(False, "compile, print the pre-flight line and stop")
    quiet: bool = setting(False, "print nothing but the results")

    def __post_init__(self):
        if self.mesh and self.strategy != "mesh":
            raise ValueError(f"--mesh={','.join(map(str, self.mesh))} needs --strategy=mesh beside it")
        if len(self.mesh) > 2 or any(size < 1 for size in self.mesh):
            raise ValueError(f"--mesh={','.join(map(str, self.mesh))}: expected devices along data,model, such as 4,2")


@dataclass(frozen=True)
class Training(Run):
    """Base of a Config whose `fit` may train several at once, as lanes of one program."""

    seeds: int = setting(1, "trainings side by side in one program: of --seed, and those that follow it", low=1)
    lanes: str = setting(
        "", 'trainings side by side with other numbers: "lr=1e-3,3e-4 x model.dropout=0.1,0.3" is four, of each seed'
    )
    form: str = setting(
        "measured", "of lanes on a CPU: all in each operation, one after the other with so many abreast as is fastest, "
        "or what a few steps show to be faster; elsewhere they run at once", choices=("measured", "at_once", "in_turn"),
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        grid.values(self)
