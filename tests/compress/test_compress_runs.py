"""compress.py on a run: what it writes is a run to the loaders, its report reads back, and mistakes are one line."""

import json
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

from lmjax import config, param
from lmjax.compress import store
from lmjax.data.tokenizers import Character
from lmjax.models import gpt
from lmjax.run import flags, models, scripts
from lmjax.run.record import ROOT
from lmjax.run.settings import to_json
from lmjax.run.tasks import small_report
from lmjax.run.weights import trained
from lmjax.train.checkpoint import Checkpoints

pytest.importorskip("qwix", reason="the compress extra is absent")
pytest.importorskip("safetensors", reason="the weights extra is absent")

TEXT = "to be or not to be, that is the question.\n" * 60
MODEL = config.GPT(context=8, layers=1, heads=2, dim=16)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A workdir of gpt_char as training leaves it, but for the training."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    tokenizer = Character.train(TEXT)
    specs = gpt.gpt_params(config.sized(MODEL, tokenizer.vocab))
    folder = tmp_path / "run"
    rng = np.random.default_rng(0)
    params = param.map_params(lambda _, spec: 0.1 * rng.normal(size=spec.shape).astype(np.float32), specs)
    with Checkpoints(folder / "checkpoints", best="min") as checkpoints:
        checkpoints.save(1, {"params": params}, score=1.0)
    tokenizer.save(folder / "tokenizer.json")
    settings = scripts.load(ROOT / "experiments" / "gpt_char.py").Config(data="text.txt", model=MODEL)
    (folder / "config.json").write_text(json.dumps({"experiment": "gpt_char", "config": to_json(settings)}))
    return folder


@pytest.fixture
def compress(monkeypatch, capsys):
    """compress(*words) -> (status, stdout, stderr)."""
    module = scripts.load(ROOT / "experiments" / "compress.py")

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["compress.py", "--rounds=2", *words])
        try:
            flags.run(module.main, module.Config, module.PRESETS)
            status = 0
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return call


def test_a_small_model_is_a_run_and_its_report_reads_back(run, compress):
    status, out, err = compress("--start=run", "--workdir=small", "--method=int8,low_rank", "--layers=blocks/*")
    assert (status, err) == (0, "")
    rows = small_report.load("small")
    assert [row.name for row in rows] == ["float32", "int8", "int8, integers", "low_rank"]
    whole = models.load(run)
    assert rows[0].numbers == param.count(whole.params)
    for row in rows:
        assert row.name in out
        assert f"{row.bytes:,}" in out
        assert row.milliseconds > 0
        folder = run.parent / "small" / row.name
        if folder.is_dir():
            assert row.bytes == (folder / store.FILE).stat().st_size
            assert abs(row.quality["validation_loss"] - rows[0].quality["validation_loss"]) < 0.1
    metrics = json.loads((run.parent / "small/result.json").read_text())["metrics"]
    assert metrics["int8_bytes"]["values"] == [rows[1].bytes]
    assert metrics["validation_loss"]["values"] == [rows[0].quality["validation_loss"]]

    eight, thin = models.load("small/int8"), models.load("small/low_rank")
    both = zip(jax.tree.leaves(eight.params), jax.tree.leaves(whole.params), strict=True)
    assert max(float(abs(a - b).max()) for a, b in both) < 3e-3
    np.testing.assert_array_equal(eight.params["embed"]["token"], whole.params["embed"]["token"])  # not asked for
    assert set(thin.params["blocks"][0]["up"]) == {"left", "right", "b"}
    specs = gpt.gpt_params(replace(whole.model, dim=32))
    with pytest.raises(ValueError, match="it is of another model"):
        trained("small/int8", specs)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "no --start is given"),
        ("--start=nope", "--start=nope holds no run"),
        ("--start=other", "--start=other is a run of word2vec: expected one of gpt_char, lstm_ptb, bert_pretrain, "),
        ("--start=empty", "empty holds no checkpoint yet"),
        ("--start=run --layers=heads/*", "--layers=heads/* names no weights: expected a path"),
        ("--start=run --method=int8,int8", "--method=int8,int8: expected each once"),
        ("--start=run --method=int2", "expected one of prune, int8, int4, low_rank"),
        ("--start=run --left=2", "--left=2: expected a finite number from 0 to 1"),
        ("--start=run --workdir=run", "--workdir=run is a run of gpt_char: choose another for compress"),
        ("--start=small", "--start=small is small already"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(run, compress, words, says):
    for name, experiment in (("other", "word2vec"), ("empty", "gpt_char"), ("small", "gpt_char")):
        (run.parent / name).mkdir()
        kept = json.loads((run / "config.json").read_text()) | {"experiment": experiment}
        (run.parent / name / "config.json").write_text(json.dumps(kept))
        (run.parent / name / "tokenizer.json").write_bytes((run / "tokenizer.json").read_bytes())
    (run.parent / "small" / store.FILE).write_bytes(b"")
    status, out, err = compress(*words.split())
    assert (status, err.count("\n"), out) == (2, 1, "")
    assert says in err
    assert not (run.parent / "runs").exists()


def test_nothing_is_trained_in_the_folder_of_a_small_model(run, monkeypatch, capsys):
    module = scripts.load(ROOT / "experiments" / "gpt_char.py")
    (run / store.FILE).write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["gpt_char.py", "--data=text.txt", "--workdir=run"])
    with pytest.raises(SystemExit) as ended:
        flags.run(module.main, module.Config, module.PRESETS)
    assert ended.value.code == 2
    assert "holds a model made small by compress.py" in capsys.readouterr().err
