"""The trained parameters of a run, from its workdir."""

from pathlib import Path

import jax
import numpy as np

from lmjax import param
from lmjax.errors import UserError
from lmjax.train.checkpoint import Checkpoints


def trained(folder, specs, which="best", flag="--workdir"):
    """The parameters of a run's checkpoint, the "best" or the "last", on the device. specs: their tree of Param.

    UserError where there is none yet; flag: what named the folder.
    """
    return _restored(folder, param.shapes(specs), which, "params", flag)


def averaged(folder, specs, flag="--workdir"):
    """The mean of the last snapshots of a run that keeps it (optim.last_snapshots), as of `trained`."""
    count = jax.ShapeDtypeStruct((), np.int32)
    return _restored(folder, {"mean": param.shapes(specs), "count": count}, "last", "average", flag)["mean"]


def _restored(folder, like, which, part, flag):
    found = Checkpoints(Path(folder) / "checkpoints", best="min").restore(like, which=which, part=part)
    if found is None:
        raise UserError(f"{flag}={folder} holds no checkpoint yet: train longer, or lower --save_every")
    return jax.device_put(found[1])
