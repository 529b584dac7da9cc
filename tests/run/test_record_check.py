"""Kept records: of one form, their arithmetic right, their figures in their logs; and an edit of any is seen.

pinned_records.txt has the digests (checks.digest) of the records that were made before a run wrote its figures
into its log: what no log line repeats is held by them. A record made since needs none; one whose run had
begun before is added by launch/run.sh -m lmjax.run.reports.checks --digests.
"""

import copy
import json
import sys
from pathlib import Path

import pytest

from lmjax.run import record
from lmjax.run.log import Log
from lmjax.run.reports import checks, rows
from lmjax.run.workdir import write

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments/results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/*/*/result.json"))
PINNED = dict(line.split() for line in (Path(__file__).parent / "pinned_records.txt").read_text().splitlines())


def name(folder):
    return str(folder.relative_to(RESULTS))


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_a_kept_record_holds(folder):
    assert checks.complaints(folder) == []
    result = json.loads((folder / "result.json").read_text())
    if not any(map(checks.ended, checks.logs(folder, result))):
        assert checks.digest(result) == PINNED.get(name(folder)), "edited, or kept without its log"


def test_no_pinned_record_is_lost():
    assert set(PINNED) <= set(map(name, FOLDERS))


def test_published_figures_are_the_experiments():
    known = {row.name: row for row in rows.find()}
    for folder in FOLDERS:
        result = json.loads((folder / "result.json").read_text())
        row = known.get(f"{result['experiment']}/{result['preset'] or 'default'}")
        for metric, figure in result["published"].items():
            values = [of[metric][0] for of in (row.published, row.otherwise) if metric in of]
            assert figure["value"] in values, (name(folder), metric)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A record of two seeds as `keep` leaves it."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / "experiments/lstm_ptb.py"), "--preset=zaremba_small"])
    folders = []
    for seed in (3, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with Log(folder, 10, quiet=True) as log:
            log.metrics(10, {"loss": 4.5 + seed, "perplexity": 120.25 + seed})
        metrics = {"validation_perplexity": [120.25 + seed], "test_perplexity": [114.0 + seed / 3]}
        published = {"test_perplexity": record.Published(114.5, "Zaremba et al. 2014, table 1", "R")}
        record.save(folder, record.result("lstm_ptb", "zaremba_small", [seed], metrics, published))
        write(folder / "config.json", {"experiment": "lstm_ptb", "config": {}})
        folders.append(folder)
    return record.keep(folders, tmp_path / "results")


def test_a_record_of_merged_seeds_holds(kept):
    assert checks.complaints(kept) == []


EDITS = {
    "test_perplexity is": lambda r: spread(r, "test_perplexity", [100.0, 100.0]),
    "test_perplexity has mean": lambda r: r["metrics"]["test_perplexity"].update(mean=90.0),
    "test_perplexity has sd": lambda r: r["metrics"]["test_perplexity"].update(sd=0.0),
    "which no validation": lambda r: spread(r, "validation_perplexity", [100.0, 100.0]),
    "judged reproduced": lambda r: r.update(verdict="short"),
    "the log says complete": lambda r: r.update(verdict="partial"),
    "seeds are [3, 2], the log": lambda r: r.update(seeds=[3, 2]),
    "2 values for 1 seeds": lambda r: r.update(seeds=[3]),
    "unknown field extra": lambda r: r.update(extra=1),
    "flops is missing": lambda r: r.pop("flops"),
    "commit is 7": lambda r: r.update(commit=7),
    "wall_seconds or flops": lambda r: r.update(wall_seconds=-1),
    "holds what is no number": lambda r: r["metrics"]["test_perplexity"].update(mean="114"),
    "published test_perplexity is": lambda r: r["published"]["test_perplexity"].update(mark="?"),
    "expected launch/run.sh": lambda r: r.update(command="experiments/lstm_ptb.py --preset=zaremba_small"),
    "command has": lambda r: r.update(command="launch/run.sh experiments/lstm_ptb.py --preset=awd"),
    "names a path": lambda r: r.update(notes="from /home/me/runs/a"),
    "is a record of seqgan": lambda r: r.update(experiment="seqgan"),
    "there is no experiments/lost.py": lambda r: r.update(
        experiment="lost", command="launch/run.sh experiments/lost.py --preset=zaremba_small"
    ),
}


def spread(result, metric, values):
    result["metrics"][metric] = record._spread(values)


@pytest.mark.parametrize("expected", EDITS)
def test_an_edit_is_caught(kept, expected):
    result = json.loads((kept / "result.json").read_text())
    edited = copy.deepcopy(result)
    EDITS[expected](edited)
    (kept / "result.json").write_text(json.dumps(edited))
    found = checks.complaints(kept)
    assert any(expected in line for line in found), found


def test_damaged_records_are_told(kept):
    (kept / "result.json").write_text('{"experiment": NaN}')
    assert "cannot be read as JSON" in checks.complaints(kept)[0]
    (kept / "result.json").write_text("[]")
    assert checks.complaints(kept) == ["result.json holds no object"]


def test_a_digest_tells_an_edit():
    result = json.loads((FOLDERS[0] / "result.json").read_text())
    edited = copy.deepcopy(result)
    next(iter(edited["metrics"].values()))["mean"] += 1e-3
    assert checks.digest(edited) != checks.digest(result)
    assert checks.digest(result | {"notes": "more"}) == checks.digest(result)


def test_a_run_that_is_asked_again_says_its_figures_once(tmp_path):
    for value, step in ((3.0, 10), (2.0, 20)):  # trained for longer, then judged again
        with Log(tmp_path, 20, quiet=True) as log:
            log.resume(10)
            log.train(step, {"loss": 1.0}, 0.1, 1)
        record.save(tmp_path, record.result("demo", "", [4, 5], {"loss": [value, float("nan")]}))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "train", "result", "result"]
    assert lines[2:] == [
        {"step": 20, "kind": "result", "seed": 4, "complete": True, "loss": 2.0},
        {"step": 20, "kind": "result", "seed": 5, "complete": True, "loss": None},
    ]


def test_lanes_that_share_a_seed_are_told_apart():
    result = {"seeds": [0, 1], "lanes": [{"lr": 1}, {"lr": 1}, {"lr": 2}, {"lr": 2}],
              "metrics": {"loss": {"values": [1, 2, 3, 4]}}}  # fmt: skip
    assert record.seeds_of_values(result) == [0, 0, 1, 1]
    lanes = [{"seed": 0}, {"seed": 1}, {"seed": 0}, {"seed": 1}]
    assert record.seeds_of_values(result | {"lanes": lanes}) == [0, 1, 0, 1]
    assert record.seeds_of_values({"seeds": [5, 6], "metrics": {"loss": {"values": [1, 2]}}}) == [5, 6]
