"""--dry_run plans a model that no machine here could hold: four terabytes, and no array of them is made."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.param import Param, zeros
from lmjax.run.options import Training
from lmjax.run.training import fit, session
from lmjax.train import optim
from lmjax.train.step import Recipe

SPECS = {"w": Param((1_000_000, 1_000_000), ("embed", "mlp"), zeros)}


def loss(params, batch, key, carry):
    return jnp.square(batch["x"] @ params["w"][:, :4]).sum(), (jnp.float32(8), {}, carry)


@pytest.mark.parametrize("strategy", ["local", "pmap", "mesh"])
def test_a_plan_needs_no_memory(strategy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = replace(Training(workdir="run", dry_run=True), strategy=strategy)
    with session("twin", config) as run, pytest.raises(SystemExit) as left:
        fit(run, specs=SPECS, recipe=lambda config: Recipe(optim.sgd(0.1), loss), steps=10, evaluate_every=5,
            tokens_per_step=8, batches=lambda seed: lambda step: {"x": np.ones((8, 1_000_000), np.float32)},
            evaluate=lambda params: {})  # fmt: skip
    assert left.value.code == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("1,000,000,000,000 parameters")
    # The plan is a device's: all of it, or under FSDP over 8 an eighth and what is gathered.
    planned = float(line.split(" TB of")[0].split()[-1])
    assert planned >= 4 if strategy != "mesh" else planned < 3
    assert not list((tmp_path / "run").glob("checkpoints/*"))
