"""Private trainings as a user starts them: refused in one line, or trained, kept and gone on with."""

import json
from pathlib import Path

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.run import flags, scripts
from lmjax.run.options import Training
from lmjax.run.tasks import private
from lmjax.run.training import Outcome, Session

ROOT = Path(__file__).resolve().parents[2]


def experiment(name):
    return scripts.load(ROOT / f"experiments/{name}.py")


def config_of(name, *words):
    found = experiment(name)
    return flags.parse(found.Config, found.PRESETS, argv=["", *words])


@pytest.mark.parametrize(
    ("script", "word", "said"),
    [
        ("dp_mnist", "--dims_noise=0", "the directions would not be private"),
        ("dp_mnist", "--privacy.noise=1", "privacy.epsilon=8 with --privacy.noise=1: leave one out"),
        ("dp_text", "--privacy.epsilon=1", "this experiment takes --epsilons"),
        ("dp_classify", "--privacy.epsilon=1", "this experiment takes --epsilons"),
        ("dp_audit", "--seeds=2", "set --epsilons in their place"),
    ],
)
def test_settings_that_contradict_each_other(script, word, said):
    with pytest.raises(UserError, match=said):
        config_of(script, word)


def test_each_epsilon_has_a_folder_and_is_not_trained_again(tmp_path):
    from lmjax.privacy.options import Private

    class Config(Training):
        epsilons = (2.0, 0.0)
        privacy = Private(clip=0.7)

    called = []

    def once(run, privacy):
        called.append((run.workdir.name, privacy))
        return {"accuracy": [1.0, 2.0]}, Outcome(None, [], 3.0, 4.0, 5)

    run = Session("x", Config(quiet=True), tmp_path, None)
    metrics, outcome = private.each_epsilon(run, once)
    assert metrics == {"accuracy_epsilon_2": [1.0, 2.0], "accuracy_open": [1.0, 2.0]}
    assert (outcome.seconds, outcome.flops) == (6.0, 8.0)
    assert called == [("epsilon_2", Private(clip=0.7, epsilon=2.0)), ("open", Private(clip=0.0))]
    assert private.each_epsilon(run, once)[0] == metrics
    assert len(called) == 2


def test_the_curve_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    path = private.curve({1.0: [3.0, 3.2], 8.0: [2.5], 0.0: [2.0]}, tmp_path / "curve.png", "bits", "x", {"alone": 4.0})
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_audit_runs(tmp_path):
    """Little trained: what is asked here is that the training is audited and kept."""
    pytest.importorskip("jax_privacy")
    small = ["--strategy=local", "--steps=2", "--epsilons=2", "--examples=20", "--canaries=30", "--quiet"]
    small += ["--privacy.lot=8", "--privacy.delta=1e-3", "--model.dim=8", "--model.context=8", "--model.heads=2"]
    experiment("dp_audit").main(config_of("dp_audit", f"--workdir={tmp_path}", *small))
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert metrics["least_epsilon_epsilon_2"]["mean"] == 0
    assert 1.9 < metrics["epsilon_epsilon_2"]["mean"] <= 2
    assert np.isfinite(metrics["exposure_epsilon_2"]["mean"])
