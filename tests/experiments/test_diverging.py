"""A run whose loss or weights leave the finite numbers: status 3, one line, and the last finite checkpoint stays."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmjax.train.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--model.context=8", "--model.layers=1", "--model.dim=8", "--model.heads=2", "--batch=2", "--warmup=0"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--lr=1e38", "--patience=3", "--save_every=40"], "3 steps in a row had a non-finite loss or gradient"),
        (["--lr=3e38", "--weight_decay=100", "--save_every=1"], "not finite: not saved"),
    ],
)
def test_it_stops_with_status_3(tmp_path, flags, says):
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 20)
    command = [sys.executable, ROOT / "experiments" / "gpt_char.py", "--data=text.txt", "--workdir=run", *TINY, *flags]
    common = ["--sample=0", "--steps=40", "--log_every=5", "--evaluate_every=40"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    done = subprocess.run([*command, *common], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 3, done.stdout + done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    for step in Checkpoints(tmp_path / "run" / "checkpoints").steps():
        _, meta = Checkpoints(tmp_path / "run" / "checkpoints").read_meta(step=step)
        assert np.isfinite([line["loss"] for line in meta["history"]]).all()
