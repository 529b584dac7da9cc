"""The trained parameters of a run, from its workdir."""

from pathlib import Path

import jax
import numpy as np

from lmjax import param
from lmjax.compress import store
from lmjax.errors import UserError
from lmjax.run import lanes
from lmjax.train.checkpoint import Checkpoints
from lmjax.train.lanes import lane


def trained(folder, specs, which="best", flag="--workdir"):
    """The parameters of a run's checkpoint, the "best" or the "last", on the device. specs: their tree of Param.

    Of a run with lanes those of the lane that validated best; of a model made small (compress.py) those it has, its
    linear layers in factors where they are kept so. UserError where there is none yet; flag: what named the folder.
    """
    if is_small(folder):
        return jax.device_put(store.running(store.load(Path(folder) / store.FILE, specs), specs))
    facts = lanes.read(Path(folder))
    if facts is None:
        return _restored(folder, param.shapes(specs), which, "params", flag)
    return lane(all_trained(folder, specs, len(facts["lanes"]), which, flag), facts.get("best", 0))


def all_trained(folder, specs, count: int, which="best", flag="--workdir"):
    """The same of all lanes of a run, [N, ...]; of one without lanes N is 1. UserError where it has other than N."""
    facts = lanes.read(Path(folder))
    there = len(facts["lanes"]) if facts else None
    if (there or count) != count:
        raise UserError(f"{flag}={folder} holds {there} trainings side by side, {count} are asked for: set --seeds")
    if facts and facts.get("keeps_best") and which == "best":
        return _restored(folder, param.shapes(param.stack(specs, count)), "last", "best", flag)
    return _restored(folder, param.shapes(param.stack(specs, count)), which, "params", flag)


def averaged(folder, specs, flag="--workdir"):
    """The mean of the last snapshots of a run that keeps it (optim.last_snapshots), as of `trained`."""
    if is_small(folder):
        return trained(folder, specs, flag=flag)
    count = jax.ShapeDtypeStruct((), np.int32)
    return _restored(folder, {"mean": param.shapes(specs), "count": count}, "last", "average", flag)["mean"]


def is_small(folder) -> bool:
    """The folder holds a model made small, and no checkpoints."""
    return (Path(folder) / store.FILE).is_file()


def _restored(folder, like, which, part, flag):
    found = Checkpoints(Path(folder) / "checkpoints", best="min").restore(like, which=which, part=part)
    if found is None:
        raise UserError(f"{flag}={folder} holds no checkpoint yet: train longer, or lower --save_every")
    return jax.device_put(found[1])
