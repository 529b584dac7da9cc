"""Reproducing: every row of ours can be started, the right ones are chosen, and what becomes of each is told."""

import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import reproduce
from lmjax.errors import Interrupted, UserError
from lmjax.run import flags, record
from lmjax.run.reports import rows

ROW = """
import json, os, signal, sys, time
from dataclasses import dataclass
from lmjax.config import setting

@dataclass(frozen=True)
class Config:
    preset: str = ""
    start: str = ""
    size: int = 1

PRESETS = {"well": {"help": "ends", "size": 2}, "slow": {"help": "is stopped", "size": 3},
           "again": {"help": "after well", "size": 4},
           "crash": {"help": "crashes", "size": 5}, "refuse": {"help": "has no data", "size": 6},
           "gpu": {"help": "wants one", "size": 7}, "never": {"help": "is never asked", "size": 8}}
PUBLISHED = {"well": {"test_accuracy": (90.0, "A 2000", "V")}}
NEEDS = {"again": {"start": "one/well", "minutes": 1}, "gpu": {"gpu": True}, "never": {"by_hand": "a cluster"},
         "slow": {"minutes": 2}, "crash": {"minutes": 3}, "refuse": {"minutes": 4}, "well": {"minutes": 0.5}}

if __name__ == "__main__":
    words = dict(word.lstrip("-").split("=") for word in sys.argv[1:])
    folder, preset = words["workdir"], words.get("preset", "")
    os.makedirs(folder, exist_ok=True)
    print("began", preset, flush=True)
    if preset == "crash":
        raise RuntimeError("no good")
    if preset == "refuse":
        sys.exit(print("one.py: ptb.train.txt cannot be fetched", file=sys.stderr) or 2)
    if preset == "slow" and not os.path.exists(folder + "/saved"):
        def save(*_):
            open(folder + "/saved", "w").close()
            sys.exit(143)
        signal.signal(signal.SIGTERM, save)
        open(folder + "/waiting", "w").close()
        time.sleep(60)
    if preset == "again":
        assert os.path.exists(words["start"] + "/result.json")
    result = {"verdict": "reproduced", "wall_seconds": 61.0,
              "published": {"test_accuracy": {"value": 90.0, "source": "A", "mark": "V"}},
              "metrics": {"test_accuracy": {"mean": 91.0, "sd": None, "values": [91.0]}}}
    json.dump(result, open(folder + "/result.json", "w"))
"""


@pytest.fixture(scope="module")
def found():
    return rows.find()


def test_every_row_of_ours_can_be_started(found):
    assert len({row.name for row in found}) == len(found) > 80
    for row in found:
        starts = {row.needs.start: Path("somewhere")} if row.needs.start else {}
        script, *words = rows.command(row, starts)
        module = sys.modules[f"lmjax_experiment_{row.experiment}"]
        config = flags.parse(type(row.config), module.PRESETS, argv=[script, *words])
        own = {field.name: getattr(row.config, field.name) for field in dataclasses.fields(config)}
        assert config == type(config)(**own | ({"start": "somewhere"} if starts else {}))
        assert Path(script).is_file()
        assert all(record.judge({name: [figure.value]}, {name: figure._asdict()}) == "reproduced"
                   for name, figure in row.published.items())  # fmt: skip


def test_what_a_row_reads_is_known(found):
    known = {row.name: row for row in found}
    assert rows.data_folders(known["text_gan/tang_mle"]) == ["chinese-poetry"]
    assert rows.data_folders(known["word2vec/novels_imdb"]) == ["english-novels", "imdb"]
    assert rows.data_folders(known["seqgan/mle"]) == ["seqgan-oracle"]
    assert rows.data_folders(known["gpt_char/default"]) == rows.data_folders(known["gan_mixtures/ring_gan"]) == []


def test_missing_data_is_told(tmp_path, monkeypatch, found):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    row = next(row for row in found if row.name == "ngram_ptb/kn5")
    assert "there is no folder ptb in " in rows.missing(row, tmp_path)
    (tmp_path / "ptb").mkdir()
    assert rows.missing(row, tmp_path) == ""
    monkeypatch.setitem(rows.EXTRAS, "privacy", ("no_such_package",))
    remedy = "set LMJAX_EXTRAS=privacy before launch/run.sh, or pip install 'lmjax[privacy]'"
    said = f"the package no_such_package is not installed: {remedy}"
    assert rows.missing(row._replace(needs=rows.Needs(extra="privacy")), tmp_path) == said


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Experiments of one file, whose rows end in all ways."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "one.py").write_text(ROW)
    monkeypatch.setattr(rows, "EXPERIMENTS", folder)
    monkeypatch.setattr(reproduce, "GRACE", 10.0)
    return tmp_path


def config(place, **settings):
    return reproduce.Config(workdir=str(place / "runs"), **settings)


def chosen(place, **settings):
    asked = config(place, **settings)
    jobs, left = reproduce.choose(asked, reproduce.jobs(asked))
    return [job.row.preset for job in jobs], left


def test_a_budget_chooses_what_fits_cheapest_first(place):
    assert chosen(place, budget="4m")[0] == ["well", "again", "slow"]  # 0.5, 1 and 2 minutes
    assert chosen(place, budget="90s")[0] == ["well", "again"]
    assert chosen(place, budget="80s")[0] == ["well"]  # the second would fit alone, not with what it starts from
    names, left = chosen(place)
    assert names == ["well", "again", "slow", "crash", "refuse", ""]  # the default, of which nobody knows, last
    assert left == {"one/gpu": "wants a GPU (--device=gpu)", "one/never": "wants a cluster"}
    left = chosen(place, budget="4m")[1]
    assert left["one/refuse"] == "takes 4:00, more than the budget leaves"
    assert left["one/default"] == "no record says how long it takes: name it to run it"
    assert chosen(place, device="gpu")[0] == ["gpu"]
    assert chosen(place, rows=("never", "one/gpu"), budget="1s") == (["never", "gpu"], {})
    (place / "runs/one/well").mkdir(parents=True)
    (place / "runs/one/well/result.json").write_text("{}")
    assert chosen(place, budget="80s")[0] == ["again"]


def test_rows_are_run_and_what_became_of_them_is_told(place, capsys):
    asked = config(place, each="1s", rows=("well", "again", "crash", "refuse"))
    with pytest.raises(SystemExit) as end:
        reproduce.main(asked)
    said = capsys.readouterr().out
    assert end.value.code == 1
    assert "one/crash: crashed with status 1: RuntimeError: no good" in said
    assert "one/refuse: refused: one.py: ptb.train.txt cannot be fetched" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["one/well", "test_accuracy", "91", "90", "reproduced", "1:01"] in lines
    assert (place / "runs/one/well.log").read_text() == "began well\n"
    before = (place / "runs/one/well/result.json").stat().st_mtime_ns
    reproduce.main(config(place, rows=("well", "again")))
    said = capsys.readouterr().out
    assert "0 rows to run" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["one/again", "test_accuracy", "91", "90", "reproduced", "1:01"] in lines
    assert (place / "runs/one/well/result.json").stat().st_mtime_ns == before


def test_what_a_budget_stops_goes_on(place, capsys):
    reproduce.main(config(place, rows=("slow", "well"), budget="2s"))
    said = capsys.readouterr().out
    assert "one/slow: stopped; the same command goes on with it" in said
    assert "one/well: not begun: the budget is spent" in said
    assert (place / "runs/one/slow/saved").exists()
    reproduce.main(config(place, rows=("slow",), budget="9s"))
    assert "one/slow  test_accuracy" in capsys.readouterr().out


def test_a_signal_ends_all_of_it(place, capsys):
    def send():
        while not (place / "runs/one/slow/waiting").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(Interrupted) as end:
        reproduce.main(config(place, rows=("slow", "well")))
    sender.join()
    assert end.value.status == 143
    assert "one/well: not begun: stopped by a signal" in capsys.readouterr().out
    assert (place / "runs/one/slow/saved").exists()


def test_a_row_that_ends_is_kept_when_asked(place, monkeypatch):
    kept = []
    monkeypatch.setattr(record, "keep", lambda folders: kept.append(folders) or place)
    reproduce.main(config(place, rows=("well", "refuse"), keep=True))
    assert kept == [[place / "runs/one/well"]]


def test_rows_that_are_not_run_are_told_by_their_reason(place, capsys):
    left = {f"one/{n}": f"takes {n}:00, more than the budget leaves" for n in range(5)} | {"one/gpu": "wants a GPU"}
    reproduce.table([], {}, left)
    assert capsys.readouterr().out == (
        "one/0, one/1, one/2 and 2 more (--list): each takes more than the budget leaves\none/gpu: wants a GPU\n"
    )


def test_lanes_of_other_settings_are_another_run():
    command = "launch/run.sh experiments/seqgan.py --preset=mle --keep=1"
    assert rows.changed({"command": f"{command} --lanes=5 --seeds=5 --form=turns"}) == ""
    assert rows.changed({"command": f"{command} --lanes=lr=1e-3,1e-2"}) == "--lanes=lr=1e-3,1e-2"


def test_a_row_is_expected_to_take_what_its_record_took(found):
    row = next(row for row in found if row.name == "ngram_ptb/default")
    result = {"wall_seconds": 100.0, "device": "2 cores of X", "command": "launch/run.sh experiments/ngram_ptb.py"}
    kept = rows.Kept(Path("x"), result, "2026-01-01")
    assert rows.cost(row, [kept], 1) == 220
    assert rows.cost(row, [kept], 4) == 120
    other = kept._replace(result=result | {"command": result["command"] + " --order=3"})
    assert rows.cost(row, [other], 1) is None
    assert rows.cost(row._replace(needs=rows.Needs(minutes=2)), [other], 1) == 120
    gpu = kept._replace(result=result | {"device": "1 x NVIDIA H200"})
    assert rows.cost(row, [gpu], 1) is None
    assert rows.cost(row._replace(needs=rows.Needs(gpu=True)), [gpu], 1) == 120


def test_names_and_times(place):
    every = rows.find()
    assert [row.name for row in rows.select(every, ["one/well", "again", "well"])] == ["one/well", "one/again"]
    assert len(rows.select(every, ["one"])) == 8
    with pytest.raises(UserError, match="there is no row one/wel; did you mean one/well"):
        rows.select(every, ["one/wel"])
    assert [reproduce.seconds(text) for text in ("90s", "1.5m", "2h", "")] == [90, 90, 7200, float("inf")]
    for text in ("90", "m", "0m", "-1m"):
        with pytest.raises(ValueError, match="expected a time such as"):
            reproduce.Config(budget=text)
    words = flags.named(["x.py", "a/b", "--list", "--budget", "3m", "c"], "rows")
    assert words == ["x.py", "--list", "--budget", "3m", "--rows=a/b,c"]


def test_rows_that_speak_of_no_preset_are_refused(place):
    path = place / "experiments/one.py"
    path.write_text(ROW.replace('"slow": {"minutes"', '"slwo": {"minutes"'))
    sys.modules.pop("lmjax_experiment_one", None)
    with pytest.raises(ValueError, match=r"one\.py speaks of slwo"):
        rows.find()
    path.write_text(ROW.replace('"one/well"', '"one/wll"'))
    sys.modules.pop("lmjax_experiment_one")
    with pytest.raises(ValueError, match="one/again needs one/wll, which is no row"):
        rows.find()
