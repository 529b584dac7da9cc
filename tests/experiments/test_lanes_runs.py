"""--seeds and --lanes: each lane of a run is the run alone, the best one is what other commands read, and what cannot
be a lane is one line."""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.run import flags, grid, lanes, models
from lmjax.run.options import Training
from lmjax.train import optim, parallel
from lmjax.train.lanes import AXES, InTurn, Together, draws
from lmjax.train.state import new_state

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))
import classify
import gpt_char

TINY = ["--steps=12", "--batch=2", "--model.context=16", "--model.layers=1", "--model.dim=16", "--model.heads=2",
        "--sample=8", "--evaluate_every=6", "--strategy=local", "--quiet"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lanes")
    (folder / "text.txt").write_text("to be or not to be, that is the question:\n" * 60)
    rows = [f"{'good' if n % 2 else 'bad'}\t{word} {n % 7}" for n, word in enumerate(["fine", "poor"] * 60)]
    (folder / "rows.txt").write_text("\n".join(rows))
    return folder


def run(module, *arguments):
    module.main(flags.parse(module.Config, module.PRESETS, argv=["", *arguments]))


def result(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def alone(data):
    """seed 1 with lr=.003 and dropout: the third of the four lanes."""
    folder = data / "alone"
    run(gpt_char, *TINY, f"--data={data / 'text.txt'}", f"--workdir={folder}", "--seed=1", "--lr=0.003",
        "--model.dropout=0.1")  # fmt: skip
    return folder


@pytest.mark.parametrize("form", ["at_once", "in_turn"])
def test_each_lane_of_a_run_is_the_run_alone(data, alone, form, capsys):
    folder = data / form
    run(gpt_char, *TINY, f"--data={data / 'text.txt'}", f"--workdir={folder}", "--seed=0", "--seeds=2",
        "--lanes=lr=0.001,0.003 x model.dropout=0.1", f"--form={form}")  # fmt: skip
    found, by_itself = result(folder), result(alone)
    assert found["seeds"] == [0, 1, 0, 1]
    assert [one["lr"] for one in found["lanes"]] == [0.001, 0.001, 0.003, 0.003]
    assert found["verdict"] == "own"
    for name, values in found["metrics"].items():
        assert values["values"][3] == pytest.approx(by_itself["metrics"][name]["mean"], rel=1e-4)
        assert len(set(values["values"])) == 4
    kept = lanes.read(folder)
    losses = found["metrics"]["validation_loss"]["values"]
    assert kept["best"] == int(np.argmin(losses))
    assert (folder / "lane-3" / "sample.txt").read_text()
    (folder / "lanes.json").write_text(json.dumps(kept | {"best": 3}))  # as if it were
    best, own = (models.load(str(where), "last").params for where in (folder, alone))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), best, own)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "valid"][-1]
    assert last["loss"] == pytest.approx(np.mean([last[f"loss_{i}"] for i in range(4)]), rel=1e-5)


def test_lanes_are_spread_over_devices_that_divide_them(data, alone):
    folder = data / "spread"
    run(gpt_char, *(flag for flag in TINY if flag != "--strategy=local"), f"--data={data / 'text.txt'}",
        f"--workdir={folder}", "--seeds=8", "--lr=0.003", "--model.dropout=0.1")  # fmt: skip
    for name, values in result(folder)["metrics"].items():
        assert values["values"][1] == pytest.approx(result(alone)["metrics"][name]["mean"], rel=1e-4)


def test_a_lane_that_diverges_has_no_figures_and_the_others_have(data):
    folder = data / "diverged"
    run(gpt_char, *TINY, f"--data={data / 'text.txt'}", f"--workdir={folder}", "--lanes=lr=0.001,1e38",
        "--form=in_turn", "--patience=2", "--clip=0", "--warmup=0")  # fmt: skip
    found = result(folder)["metrics"]["validation_loss"]
    assert found["mean"] is None
    assert found["values"][1] is None
    assert found["values"][0] > 0
    assert lanes.read(folder)["best"] == 0


def test_lanes_with_batches_of_several_shapes_and_the_best_of_each(data):
    folder = data / "classified"
    run(classify, f"--data={data / 'rows.txt'}", f"--workdir={folder}", "--seeds=2", "--epochs=3", "--batch=10",
        "--cnn.embed=8", "--cnn.maps=4", "--quiet", "--show=0", "--strategy=local")  # fmt: skip
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    valid = [line for line in history if line["kind"] == "valid"]
    for i, value in enumerate(result(folder)["metrics"]["validation_accuracy"]["values"]):
        assert value == max(line[f"accuracy_{i}"] for line in valid)
    assert lanes.read(folder)["form"] == "in turn"


def test_what_cannot_be_a_lane_is_one_line(data):
    refused = {
        "lr has a value twice": "lr=0.1,0.1",
        "unknown setting learning_rate": "learning_rate=0.1",
        "did you mean model.dropout": "dropout=0.1",
        "model.layers shapes the program, so that its values cannot share one": "model.layers=2,4",
        "'lr' names no values": "lr",
        "names lr twice": "lr=0.1 x lr=0.2",
        "expected a finite number of at least 0": "lr=-1,0.1",
        "temperature does not reach the training's step": "temperature=0.5,1",
        "ema shapes the program": "ema=0.5,0.9",
    }
    for number, (message, asked) in enumerate(refused.items()):
        folder = data / f"refused-{number}"
        with pytest.raises(UserError) as caught:
            run(gpt_char, *TINY, f"--data={data / 'text.txt'}", f"--workdir={folder}", f"--lanes={asked}")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="leave one out"):
        run(classify, f"--data={data / 'rows.txt'}", "--runs=2", "--seeds=2")


def test_trainings_are_crossed_and_a_config_takes_their_numbers():
    config = Training(seed=3, seeds=2)
    assert grid.trainings(config) == [(3, {}), (4, {})]
    gpt = flags.parse(gpt_char.Config, argv=["", "--lanes=lr=1e-3,2e-3 x model.dropout=0,0.5"])
    assert [numbers for _, numbers in grid.trainings(gpt)] == [
        {"lr": lr, "model.dropout": rate} for lr in (1e-3, 2e-3) for rate in (0.0, 0.5)
    ]
    one = grid.alone(gpt, 9, {"lr": 0.5, "model.dropout": 0.25})
    assert (one.lr, one.model.dropout, one.seed, one.lanes, gpt.model.dropout) == (0.5, 0.25, 9, "", 0.0)


def test_histories_of_lanes_are_told_apart():
    line = {"step": 3, "loss": 1.5, "bleu_4": 2.0, "loss_0": 1.0, "loss_1": 2.0, "bleu_4_0": 1.0, "bleu_4_1": 3.0}
    assert lanes.own([line], 1) == [{"step": 3, "loss": 2.0, "bleu_4": 3.0}]
    assert lanes.mean_of([{"loss": 1.0}, {"loss": float("nan")}])["loss"] == 1.0
    history = [{"step": 1, "loss": 1.0, "loss_0": 1.0, "loss_1": 2.0}]
    assert [lanes.winner(history, lambda m: m["loss"], 2, stopped, False) for stopped in ((), (0,))] == [0, 1]


def test_as_many_lanes_are_abreast_as_a_measurement_or_the_run_before_or_memory_says(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes, "cores", lambda: 4)
    facts = lanes.asked(Training(seeds=3))
    assert lanes.widths(tmp_path, parallel.local(), facts) == [1, 3]
    assert lanes.widths(tmp_path, parallel.data_parallel(), facts) == [1]  # collectives would wait crosswise
    form = InTurn(parallel.local(), draws(facts.lanes, jax.random.key), facts.where, 3)
    lanes.keep(tmp_path, facts, form)
    assert lanes.widths(tmp_path, parallel.local(), facts) == [3]
    monkeypatch.setattr(lanes, "cores", lambda: 2)  # it goes on elsewhere
    assert lanes.widths(tmp_path, parallel.local(), facts) == [1, 2]

    def sleeping(state, batch, draw):
        time.sleep(0.02)
        return state, {"loss": jnp.float32(0), "bad": jnp.int32(0)}

    def fastest(fits, more=()):
        calls = {InTurn(parallel.local(), form_draws, facts.where, width): sleeping for width in (1, 3)} | dict(more)
        state = jax.vmap(lambda _: state_of_one, out_axes=AXES, axis_size=3)(None)
        return lanes.fastest(calls, state, [{"x": np.zeros(1)}] * 3, lambda form, call: fits, said.append)

    form_draws, said = draws(facts.lanes, jax.random.key), []
    state_of_one = new_state({"w": jnp.zeros(2)}, optim.adamw(0.1))
    assert [fastest(fits).abreast for fits in (True, False)] == [3, 1]
    assert ["taken 3 abreast" in said[0], "abreast" in said[1]] == [True, False]
    # A step of one alone that is long keeps the lanes at once from being tried, however short three abreast are.
    monkeypatch.setattr(lanes, "LONG", 0.01)
    at_once = Together(parallel.local(), form_draws, facts.where)
    assert fastest(True, {at_once: lambda *given: pytest.fail("tried")}).abreast == 3
