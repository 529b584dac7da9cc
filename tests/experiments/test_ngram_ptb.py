"""experiments/ngram_ptb.py from its flags to its record: on generated text, and on the Penn Treebank where at hand."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments import ngram_ptb
from lmjax.errors import UserError
from lmjax.run import flags


def run(*words: str):
    ngram_ptb.main(flags.parse(ngram_ptb.Config, ngram_ptb.PRESETS, argv=["ngram_ptb.py", *words]))


def figures(workdir: Path) -> tuple[dict, dict]:
    result = json.loads((workdir / "result.json").read_text())
    return {name: spread["mean"] for name, spread in result["metrics"].items()}, result


@pytest.fixture
def text(tmp_path):
    """A folder of three splits, whose topic, and so whose words, changes every 20 sentences."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "text"
    folder.mkdir()
    for split, lines in (("train", 3000), ("valid", 300), ("test", 300)):
        topics = rng.integers(0, 20, lines // 20 + 1)
        with open(folder / f"{split}.txt", "w") as file:
            for line in range(lines):
                own = 5 * topics[line // 20] + rng.integers(0, 5, 8)
                words = np.where(rng.random(8) < 0.3, own, 100 + rng.integers(0, 30, 8))
                file.write(" ".join(f"w{word}" for word in words) + "\n")
    return folder


def test_all_rows_on_generated_text(text, tmp_path, capsys):
    run(f"--data={text}", f"--workdir={tmp_path / 'run'}", "--sentences=1")
    metrics, result = figures(tmp_path / "run")
    assert {f"{row}_{split}_perplexity" for row in ngram_ptb.TABLE for split in ("validation", "test")} == set(metrics)
    assert result["verdict"] == "own"
    assert result["published"] == {}
    assert all(1 < metrics[name] < 131 for name in metrics)  # fewer than the word types: something was learnt
    for split in ("validation", "test"):  # the cache knows the topic
        assert metrics[f"kn5_cache_{split}_perplexity"] < 0.9 * metrics[f"kn5_{split}_perplexity"]
    shown = capsys.readouterr().out
    assert "train 27,000" in shown
    assert all(row.title in shown for row in ngram_ptb.TABLE.values())
    assert "published" in shown
    assert "141.2" not in shown
    assert "cache: " in result["notes"]


def test_one_model_agrees_with_its_row(text, tmp_path):
    run(f"--data={text}", f"--workdir={tmp_path / 'all'}")
    run(f"--data={text}", f"--workdir={tmp_path / 'one'}", "--order=5", "--cache")
    every, (one, record) = figures(tmp_path / "all")[0], figures(tmp_path / "one")
    assert set(one) == {"validation_perplexity", "test_perplexity"}
    assert one["test_perplexity"] == every["kn5_cache_test_perplexity"]
    assert record["preset"] == ""
    run(f"--data={text}", f"--workdir={tmp_path / 'single'}", "--order=2", "--smoothing=single", "--vocab=50")
    assert figures(tmp_path / "single")[0]["test_perplexity"] < 50


def test_a_single_file_has_no_test_split(text, tmp_path, capsys):
    run(f"--data={text / 'train.txt'}", f"--workdir={tmp_path / 'run'}", "--order=3")
    assert set(figures(tmp_path / "run")[0]) == {"validation_perplexity"}
    assert "validation" in capsys.readouterr().out


def test_published_figures_stand_only_beside_the_thesis_setting():
    def published(**settings):
        return [row.published for row in ngram_ptb.rows(ngram_ptb.Config(**settings)).values()]

    assert published() == [165.2, 162.3, 148.3, 141.2, 125.7]
    assert published(order=5) == [141.2]
    assert published(order=5, cache=True) == [125.7]
    assert published(order=3, smoothing="katz") == [165.2]
    assert published(order=4) == published(order=5, smoothing="single") == published(order=3, cache=True) == [None]
    assert published(data="wikitext-2") == published(vocab=5000) == [None] * 5


@pytest.mark.parametrize(
    "words", [["--cache"], ["--order=-1"], ["--smoothing=witten"], ["--data=nowhere"], ["--order=x"]]
)
def test_bad_settings_are_one_line(words):
    with pytest.raises(UserError) as error:
        run(*words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("preset", [*ngram_ptb.PRESETS, ""])
def test_penn_treebank(preset, tmp_path, capsys):
    folder = Path(os.environ.get("LMJAX_DATA", "/nonexistent"))
    if not (folder / "ptb").is_dir():
        pytest.skip("LMJAX_DATA holds no ptb")
    run(*([f"--preset={preset}"] if preset else []), f"--workdir={tmp_path / 'run'}")
    metrics, result = figures(tmp_path / "run")
    assert result["verdict"] == "reproduced"
    assert result["preset"] == preset
    assert len(result["published"]) == (1 if preset else 5)
    for name, figure in result["published"].items():
        assert abs(metrics[name] - figure["value"]) < (1 if "cache" in preset + name else 0.1)
