"""What a run leaves: result.json with its figures beside the published ones, and the copy of it that is kept.

Kept records lie under experiments/results/ and name no path of the machine; runs of several seeds become one record:

    launch/run.sh -m lmjax.run.record --runs=runs/lstm_ptb/001,runs/lstm_ptb/002
"""

import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.machine import cores
from lmjax.run import flags
from lmjax.run.log import read, replace_lines
from lmjax.run.settings import text
from lmjax.run.workdir import stored, write

ROOT = Path(__file__).resolve().parents[2]
PRIVATE = ("workdir", "data_dir")  # where, not what
TRAIN_LINES = 400  # of metrics.jsonl in a kept record
SAMPLE, PICTURE = 4000, 200_000  # characters of samples, and the bytes of a picture, in it at most

# How a figure is judged, by what its name holds: what is better, and how many points off still count as reproduced
# (None: 1 %). Accuracies and the like are in percent, as papers print them.
RULES = {
    "perplexity": ("lower", None),
    "loss": ("lower", None),
    "bits_per_character": ("lower", None),
    "nll": ("lower", 0.02),
    "accuracy": ("higher", 0.5),
    "f1": ("higher", 0.5),
    "exact_match": ("higher", 0.5),
    "self_bleu": ("lower", 0.5),  # before bleu, which its name holds
    "bleu": ("higher", 0.5),
    "matthews": ("higher", 0.01),
    "modes": ("higher", 0.5),
    "high_quality": ("higher", 1.0),
    "reverse_kl": ("lower", 0.02),
    "class_kl": ("lower", 0.02),
    "caught": ("higher", 1.0),
    "blocked": ("lower", 0.1),
    "error": ("lower", None),
    "compression": ("higher", None),
}


class Published(NamedTuple):
    """A paper's figure, in the units of our metric. mark: V, read in the source; R, recalled."""

    value: float
    source: str
    mark: str = "R"


def verdict(values, published: float, better: str = "lower", points: float | None = None) -> str:
    """reproduced: the mean is as good as published, or within `points` (None: 1 %) of it; else short."""
    slack = abs(published) * 0.01 if points is None else points
    worse = statistics.fmean(values) - published
    worse = worse if better == "lower" else -worse
    return "reproduced" if worse <= slack + 1e-9 else "short"  # a mean that is no number falls short


def judge(metrics: dict[str, list], published: dict[str, dict], complete: bool = True) -> str:
    """The verdict of a record: own without published figures, partial where incomplete, else its worst figure's."""
    if not published:
        return "own"
    found = []
    for name, figure in published.items():
        rule = next((rule for part, rule in RULES.items() if part in name), None)
        if rule is None or name not in metrics:
            raise ValueError(f"{name} is published: expected a metric of this run whose name holds {', '.join(RULES)}")
        found.append(verdict(metrics[name], figure["value"], *rule))
    return "partial" if not complete else "short" if "short" in found else "reproduced"


def result(experiment, preset, seeds, metrics, published=None, *, complete=True, wall_seconds=0.0, flops=0, notes="",
           lanes=()):  # fmt: skip
    """The record of a finished run, a dict for result.json.

    metrics: name -> a value for each seed. published: name -> Published; leave it empty on data other than the paper's.
    complete: trained as long as published. lanes: the settings {name: number} of each value, where they differ.
    """
    published = {name: figure._asdict() for name, figure in (published or {}).items()}
    return {
        "experiment": experiment,
        "preset": preset,
        "seeds": list(seeds),
        "metrics": {name: _spread(values) for name, values in metrics.items()},
        "published": published,
        "verdict": judge(metrics, published, complete),
        "device": device(),
        "wall_seconds": round(wall_seconds, 1),
        "flops": int(flops),
        "commit": commit(),
        "versions": versions(),
        "command": command(sys.argv),
        "notes": notes,
        **({"lanes": list(lanes)} if any(lanes) else {}),
    }


def save(folder, result: dict):
    """Writes a run's result.json, and its figures as the last lines of metrics.jsonl, one for each seed or lane, so
    that a figure in a kept record can be held against its log: {"step", "kind": "result", "seed", "complete", figures}.

    A run that is asked again, with other settings of decoding, says them anew.
    """
    folder = Path(folder)
    lines = [line for line in read(folder / "metrics.jsonl") if line.get("kind") != "result"]
    step = max((line["step"] for line in lines), default=0)
    columns = {name: figure["values"] for name, figure in result["metrics"].items()}
    complete = result["verdict"] != "partial"
    for n, seed in enumerate(seeds_of_values(result)):
        figures = {name: values[n] for name, values in columns.items()}
        lines.append({"step": step, "kind": "result", "seed": seed, "complete": complete} | figures)
    replace_lines(folder / "metrics.jsonl", lines)
    write(folder / "result.json", result)


def seeds_of_values(result: dict) -> list:
    """The seed of each value of a record's metrics: lanes that differ in other settings may repeat one."""
    count = max((len(figure["values"]) for figure in result["metrics"].values()), default=0)
    seeds = [lane.get("seed") for lane in result.get("lanes") or []]
    seeds = seeds if seeds and None not in seeds else result["seeds"]
    return list(seeds) if len(seeds) == count else [result["seeds"][n * len(seeds) // count] for n in range(count)]


def _spread(values) -> dict:
    """Mean and sample deviation over seeds; null where a value isn't finite, and the deviation of a single one."""
    values = [float(value) for value in values]
    whole = all(map(math.isfinite, values))
    return {
        "mean": statistics.fmean(values) if whole else None,
        "sd": statistics.stdev(values) if whole and len(values) > 1 else None,
        "values": [value if math.isfinite(value) else None for value in values],
    }


def device() -> str:
    """What the run ran on, in words: 8 x NVIDIA H200; 2 cores of AMD EPYC."""
    import jax

    first = jax.devices()[0]
    if first.platform != "cpu":
        return f"{jax.device_count()} x {first.device_kind}"
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{cores()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def commit() -> str:
    """The commit the code is at, with "-dirty" where tracked files are changed; "unknown" outside git."""
    try:
        git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def command(argv: list[str]) -> str:
    """The command line to run this again, without what is only this machine's: workdir, data_dir, absolute paths."""
    script, words, rest = Path(argv[0]).resolve(), [], iter(argv[1:])
    script = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    for word in rest:
        name, equals, value = word.partition("=")
        if name.lstrip("-") in PRIVATE:
            if not equals:
                next(rest, None)
            continue
        words.append(f"{name}={_public(value)}" if equals else _public(word))
    launched = os.environ.get("LMJAX_LAUNCHED", "").split()  # by launch/multiprocess.py
    return shlex.join(["launch/run.sh", *launched, str(script), *words])


def _public(value):
    """A path of this machine cut to its last part, as are those in a list with commas; anything else as it is."""
    if isinstance(value, str) and "," in value:
        return ",".join(map(_public, value.split(",")))
    private = isinstance(value, str) and (value.startswith("~") or os.path.isabs(value))
    return os.path.basename(value.rstrip("/")) if private else value


def keep(workdirs, results=ROOT / "experiments" / "results") -> Path:
    """Copies the records of finished runs to results/<experiment>/<preset>/<date>/, merged where there are several.

    Kept are result.json, config.json, of metrics.jsonl every evaluation and some of the training lines, and of the
    first run the beginning of its samples and its pictures, but curves.png, which the report draws anew.
    """
    records = [_record(folder) for folder in workdirs]
    merged = merge(records)
    day = Path(results) / merged["experiment"] / (merged["preset"] or "default") / datetime.date.today().isoformat()
    target, n = day, 1
    while target.exists():
        n += 1
        target = day.with_name(f"{day.name}-{n}")
    target.mkdir(parents=True)
    write(target / "result.json", merged)
    for folder, record in zip(workdirs, records):
        end = "" if folder == workdirs[0] else "-" + "-".join(map(str, record["seeds"]))
        config = stored(folder)
        settings = {name: _scrub(value) for name, value in config["config"].items() if name not in PRIVATE}
        write(target / f"config{end}.json", config | {"config": settings})
        if (Path(folder) / "metrics.jsonl").exists():
            lines = thin(read(Path(folder) / "metrics.jsonl"))
            (target / f"metrics{end}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for path in sorted(Path(workdirs[0]).iterdir()):
        if path.name in ("sample.txt", "samples.txt"):
            sample = path.read_text(encoding="utf-8", errors="replace")[:SAMPLE]
            (target / path.name).write_text(sample, encoding="utf-8")
        elif path.suffix == ".png" and path.name != "curves.png" and path.stat().st_size <= PICTURE:
            shutil.copyfile(path, target / path.name)
    return target


def _record(folder) -> dict:
    path = Path(folder) / "result.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{folder} holds no finished run: {path} cannot be read") from None


def _scrub(value):
    if isinstance(value, list):
        return [_scrub(v) for v in value]
    return {name: _scrub(v) for name, v in value.items()} if isinstance(value, dict) else _public(value)


def merge(records: list[dict]) -> dict:
    """One record from those of runs that differ only in their seeds; the verdict is that of all seeds' mean."""
    first = records[0]
    for record in records:
        for name in ("experiment", "preset", "published"):
            if record[name] != first[name]:
                raise UserError(f"records differ in {name}: {first[name]} and {record[name]}; merge runs of one kind")
    seeds = [seed for record in records for seed in record["seeds"]]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"records repeat a seed: {text(seeds)}; merge runs of different seeds")
    values = {name: [] for name in first["metrics"]}
    for record in records:
        for name in values:
            values[name] += [math.nan if value is None else value for value in record["metrics"][name]["values"]]
    return first | {
        "seeds": seeds,
        "metrics": {name: _spread(of_seeds) for name, of_seeds in values.items()},
        "verdict": judge(values, first["published"], all(record["verdict"] != "partial" for record in records)),
        "wall_seconds": round(sum(record["wall_seconds"] for record in records), 1),
        "flops": sum(record["flops"] for record in records),
    }


def thin(lines: list[dict], most: int = TRAIN_LINES) -> list[dict]:
    """All evaluations, and at most `most` training lines, evenly spaced."""
    train = sum(line.get("kind") == "train" for line in lines)
    every, seen, kept = max(1, math.ceil(train / most)), 0, []
    for line in lines:
        if line.get("kind") == "train":
            seen += 1
            if seen % every:
                continue
        kept.append(line)
    return kept


@dataclass(frozen=True)
class Keep:
    runs: tuple[str, ...] = setting((), "the workdirs of finished runs, with commas between; they differ in seed alone")


def main(config: Keep):
    if not config.runs:
        raise UserError("no --runs are given: name the workdirs of finished runs, with commas between")
    print(os.path.relpath(keep(config.runs)))


if __name__ == "__main__":
    flags.run(main, Keep)
