"""Holds a kept record against itself: its form, arithmetic, verdict and command, and its figures against its log.

`complaints(folder)` says in lines what is wrong with experiments/results/<experiment>/<preset>/<date>/. A figure is
supported by the "result" lines of metrics.jsonl, which `record.save` wrote as the run ended. Records from before there
were such lines are told apart by `digest`; of those only the figures of validation can be held against the log.

    launch/run.sh -m lmjax.run.reports.checks             all kept records: what is wrong, status 2 if something is
    launch/run.sh -m lmjax.run.reports.checks --digests   the digests of those whose log has no such lines
"""

import hashlib
import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags, record
from lmjax.run.log import read

FORM = {
    "experiment": str, "preset": str, "seeds": list, "metrics": dict, "published": dict, "verdict": str, "device": str,
    "wall_seconds": (int, float), "flops": int, "commit": str, "versions": dict, "command": str, "notes": str,
}  # fmt: skip
OPTIONAL = {"lanes": list}
VERDICTS = ("reproduced", "short", "partial", "own")
PATH = re.compile(r"(?:^|[\s\"'=])(?:~|/|[A-Za-z]:\\)[\w.-]+[/\\]")  # an absolute path of some machine


def complaints(folder, root=record.ROOT) -> list[str]:
    """What is wrong with the record in `folder`, a line each; [] where nothing is."""
    folder = Path(folder)
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError) as error:
        return [f"result.json cannot be read as JSON: {error}"]
    found = form(result)
    if found:
        return found  # the rest would trip over it
    found += arithmetic(result) + command(result, root) + supported(result, logs(folder, result))
    if (result["experiment"], result["preset"] or "default") != (folder.parent.parent.name, folder.parent.name):
        found.append(f"is a record of {result['experiment']}/{result['preset'] or 'default'}, and lies elsewhere")
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jsonl") and PATH.search(path.read_text(encoding="utf-8")):
            found.append(f"{path.name} names a path of a machine")
    return found


def _refuse(word: str):
    raise ValueError(f"{word} is no number of JSON's")


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def form(result) -> list[str]:
    """Fields that are missing, unknown or of another type than agreed."""
    if not isinstance(result, dict):
        return ["result.json holds no object"]
    found = [f"{name} is missing" for name in FORM if name not in result]
    found += [f"unknown field {name}" for name in result if name not in FORM | OPTIONAL]
    for name, kind in (FORM | OPTIONAL).items():
        if name in result and (not isinstance(result[name], kind) or isinstance(result[name], bool)):
            found.append(f"{name} is {result[name]!r:.60}")
    if found:
        return found
    if not result["seeds"] or not all(type(seed) is int for seed in result["seeds"]):
        found.append(f"seeds are {result['seeds']}")
    if result["verdict"] not in VERDICTS:
        found.append(f"verdict is {result['verdict']}")
    if not (_number(result["wall_seconds"]) and result["wall_seconds"] >= 0 and result["flops"] >= 0):
        found.append("wall_seconds or flops is negative or no finite number")
    count = len(result.get("lanes") or result["seeds"])
    for name, figure in result["metrics"].items():
        if not isinstance(figure, dict) or set(figure) != {"mean", "sd", "values"}:
            found.append(f"{name} has not mean, sd and values")
        elif not all(value is None or _number(value) for value in [figure["mean"], figure["sd"], *figure["values"]]):
            found.append(f"{name} holds what is no number")
        elif len(figure["values"]) != count:
            found.append(f"{name} has {len(figure['values'])} values for {count} seeds or lanes")
    for name, figure in result["published"].items():
        if not isinstance(figure, dict) or set(figure) != {"value", "source", "mark"}:
            found.append(f"published {name} has not value, source and mark")
        elif not (_number(figure["value"]) and figure["source"] and figure["mark"] in ("V", "R")):
            found.append(f"published {name} is {figure}")
        elif name not in result["metrics"]:
            found.append(f"published {name} has no figure of ours")
    return found


def arithmetic(result: dict) -> list[str]:
    """Means, deviations and the verdict, made again of the values."""
    found, values = [], {}
    for name, figure in result["metrics"].items():
        values[name] = [math.nan if value is None else value for value in figure["values"]]
        whole = all(map(math.isfinite, values[name]))
        mean = statistics.fmean(values[name]) if whole else None
        sd = statistics.stdev(values[name]) if whole and len(values[name]) > 1 else None
        for what, of_record, again in (("mean", figure["mean"], mean), ("sd", figure["sd"], sd)):
            if not _same(of_record, again):
                found.append(f"{name} has {what} {of_record}, its values give {again}")
    try:
        verdict = record.judge(values, result["published"], result["verdict"] != "partial")
    except ValueError as error:
        return [*found, str(error)]
    return found if verdict == result["verdict"] else [*found, f"verdict is {result['verdict']}, judged {verdict}"]


def _same(a, b, rel_tol=1e-9) -> bool:
    return a is b if a is None or b is None else math.isclose(a, b, rel_tol=rel_tol, abs_tol=1e-12)


def command(result: dict, root: Path) -> list[str]:
    """A command that starts no script of ours, or another experiment or preset than the record's."""
    words = result["command"].split()
    if words[1:2] == ["launch/multiprocess.py"]:  # which has flags of its own before the script
        words = words[:1] + words[next((i for i, w in enumerate(words) if w.startswith("experiments/")), 1) :]
    preset = f"--preset={result['preset']}"
    if words[:2] != ["launch/run.sh", f"experiments/{result['experiment']}.py"]:
        return [f"command is {result['command']}: expected launch/run.sh experiments/{result['experiment']}.py"]
    found = [] if (root / words[1]).is_file() else [f"there is no {words[1]}"]
    given = [word for word in words if word.startswith("--preset")]
    return found if given == ([preset] if result["preset"] else []) else [*found, f"command has {given}, not {preset}"]


def logs(folder: Path, result: dict) -> list[list[dict]]:
    """The lines of each of a record's logs but those of training: several runs may have been merged, in order of their
    seeds."""
    found = [[line for line in read(path) if line.get("kind") != "train"] for path in folder.glob("metrics*.jsonl")]
    order = {seed: n for n, seed in enumerate(result["seeds"])}
    return sorted(found, key=lambda lines: min((order.get(line.get("seed"), 0) for line in ended(lines)), default=0))


def ended(lines: list[dict]) -> list[dict]:
    return [line for line in lines if line.get("kind") == "result"]


def supported(result: dict, logged: list[list[dict]]) -> list[str]:
    """Figures that differ from what the log says of them."""
    found, said = [], [line for lines in logged for line in ended(lines)]
    for name, figure in result["metrics"].items():
        if said:
            of_log = [line.get(name) for line in said]
            if len(of_log) != len(figure["values"]) or not all(map(_same, of_log, figure["values"])):
                found.append(f"{name} is {figure['values']}, the log says {of_log}")
        column = name.removeprefix("validation_")
        names = {name, column} | {f"{column}_{n}" for n in range(len(figure["values"]))}
        lines = [line for lines in logged for line in lines if line.get("kind") == "valid"]
        seen = [line[one] for line in lines for one in names if line.get(one) is not None]
        if column != name and seen:
            lost = [value for value in figure["values"] if value is not None and not _among(value, seen)]
            found += [f"{name} is {lost}, which no validation in the log says"] if lost else []
    if said and [line["seed"] for line in said] != record.seeds_of_values(result):
        found.append(f"seeds are {result['seeds']}, the log says {[line['seed'] for line in said]}")
    if said and result["published"] and all(line["complete"] for line in said) != (result["verdict"] != "partial"):
        found.append(f"verdict is {result['verdict']}, the log says complete={[line['complete'] for line in said]}")
    return found


def _among(value: float, seen: list[float]) -> bool:
    return any(_same(value, one, 1e-6) for one in seen)  # the log has float32's shortest digits


def digest(result: dict) -> str:
    """Of what a record claims: its figures, seeds and verdict. For those whose log does not repeat them."""
    claims = {name: result[name] for name in ("experiment", "preset", "seeds", "metrics", "published", "verdict")}
    return hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Config:
    results: str = setting("", "folder of records; default: experiments/results")
    digests: bool = setting(False, "print the digests of records whose log does not repeat their figures, to be pinned")


def main(config: Config):
    results = Path(config.results).expanduser() if config.results else record.ROOT / "experiments" / "results"
    wrong = 0
    for folder in sorted(path.parent for path in results.glob("*/*/*/result.json")):
        name = folder.relative_to(results).as_posix()
        found = complaints(folder)
        wrong += bool(found)
        if not config.digests:
            print("".join(f"{name}: {line}\n" for line in found), end="")
        elif not found:
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            if not any(map(ended, logs(folder, result))):
                print(name, digest(result))
    if wrong:
        raise UserError(f"{wrong} records of {results} do not hold")


if __name__ == "__main__":
    flags.run(main, Config)
