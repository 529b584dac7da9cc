"""Comparing runs: what differs, seeds taken together, tests as computed by hand."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments import compare
from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import record
from lmjax.run.log import Log
from lmjax.run.workdir import workdir

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder")
    seed: int = setting(0, "seed")
    lr: float = setting(0.1, "rate")


def made(folder, seeds, losses, lr=0.1, finished=True):
    with workdir(folder, "demo", Config(workdir=str(folder), seed=seeds[0], lr=lr)), Log(folder, 2, quiet=True) as log:
        for step in (1, 2):
            log.metrics(step, {"loss": losses[0] + 2 - step, "accuracy": 50.0 + step})
        if finished:
            record.save(folder, record.result("demo", "", seeds, {"loss": losses}))
    return str(folder)


def squeezed(capsys) -> str:
    return re.sub(r" +", " ", capsys.readouterr().out)


def test_runs_that_differ_in_seed_alone_are_taken_together(tmp_path, capsys):
    few = [made(tmp_path / f"a{n}", [n], [2.0 + n / 10]) for n in range(3)]
    other = made(tmp_path / "b", [0, 1, 2], [1.0, 1.3, 1.2], lr=0.2)
    compare.main(compare.Config(runs=(*few, other), output=str(tmp_path / "out/c.png")))
    said = squeezed(capsys)
    assert "lr 0.1 0.2" in said
    assert "\nseed " not in said
    assert "loss 2.100 ± 0.100 (3) 1.167 ± 0.153 (3)" in said
    assert "accuracy 52.00 ± 0.00 (3); best 52.00 ± 0.00 (3) 52; best 52 at step 2" in said
    x, y = np.array([2.0, 2.1, 2.2]), np.array([1.0, 1.3, 1.2])
    half = stats.t.ppf(0.975, 2) * (y - x).std(ddof=1) / math.sqrt(3)
    low, high = (y - x).mean() - half, (y - x).mean() + half
    assert f"loss {(y - x).mean():+.4g} [{low:+.4g}, {high:+.4g}], p " in said
    assert "paired by 3 seeds; few seeds" in said
    assert (tmp_path / "out/c.png").read_bytes().startswith(b"\x89PNG")


def test_other_seeds_are_tested_by_welch():
    x, y = {0: 1.0, 1: 1.4, 2: 1.1, 3: 0.9, 4: 1.2}, {5: 2.0, 6: 2.6, 7: 2.2, 8: 1.7, 9: 2.4, 10: 2.2}
    a, b = (np.array(list(side.values())) for side in (x, y))
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    gap, half = b.mean() - a.mean(), stats.t.ppf(0.975, freedom) * math.sqrt(va + vb)
    p = 2 * stats.t.sf(gap / math.sqrt(va + vb), freedom)
    said = compare.tested(x, y)
    assert said == f"{gap:+.4g} [{gap - half:+.4g}, {gap + half:+.4g}], p {p:.2g} (Welch, 5 and 6 seeds)"


def test_what_cannot_be_tested_is_said():
    assert "1 and 2 seeds: too few for a test" in compare.tested({0: 1.0}, {0: 1.0, 1: 2.0})
    assert "1 and 2 seeds: too few" in compare.tested({0: 1.0, 1: None}, {0: 1.0, 1: 2.0})  # one was not finite
    assert compare.tested({0: 1.0, 1: 1.0}, {2: 3.0, 3: 3.0}) == "+2, the seeds do not differ: no test"


def test_unfinished_runs_and_kept_records_are_compared(tmp_path, capsys):
    unfinished = made(tmp_path / "a", [0], [2.0], finished=False)
    kept = str(ROOT / "experiments/results/gpt_char/nanogpt_cpu/2026-11-24")
    compare.main(compare.Config(runs=(unfinished, kept), output=""))
    said = squeezed(capsys)
    assert "validation_loss - 1.807 ± 0.004 (3)" in said
    assert "loss 2; best 2 at step 2 1.807 ± 0.004 (3); best 1.807 ± 0.004 (3)" in said
    assert "[95 % interval]" not in said


def test_lanes_of_different_settings_are_no_seeds(tmp_path):
    folder = made(tmp_path / "a", [0], [2.0])
    path = tmp_path / "a/result.json"
    result = json.loads(path.read_text())
    lanes = {"lanes": [{"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0}], "metrics": {"loss": record._spread([1.0, 2.0])}}
    path.write_text(json.dumps(result | lanes))
    assert compare.grouped([compare.load(folder)])[0].values == {}


def test_bad_input_is_one_line(tmp_path):
    a, b = made(tmp_path / "a", [0], [1.0]), made(tmp_path / "b", [0], [1.0], lr=0.2)
    for config, expected in (
        ({"runs": (a,)}, "1 runs are given"),
        ({"runs": (a, a)}, "is given twice"),
        ({"runs": (a, str(tmp_path))}, "neither a workdir nor a kept record"),
        ({"runs": (a, b), "metric": "los", "output": ""}, "is in no validation of these runs: expected loss, accuracy"),
    ):
        with pytest.raises(UserError, match=expected):
            compare.main(compare.Config(**config))
    (tmp_path / "a/result.json").write_text("{}")
    with pytest.raises(UserError, match=r"result\.json is damaged"):
        compare.load(a)
