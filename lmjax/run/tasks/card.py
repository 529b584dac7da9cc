"""The model card of an exported model (Mitchell et al. 2019), written from its run's config and record alone."""

import json
from pathlib import Path

from lmjax.interop.export import ONNX, STABLEHLO, WEIGHTS
from lmjax.run.workdir import stored


def of_run(workdir: str) -> str:
    """What was trained on what, with which settings, and what it reached; Markdown. A run that has not ended says so.

    Folders of the machine it ran on are left out.
    """
    run = stored(workdir)
    settings = {name: x for name, x in run["config"].items() if name not in ("workdir", "data_dir")}
    lines = [f"# {run['experiment']}", ""]
    lines += [f"Trained by `experiments/{run['experiment']}.py` of lmjax."]
    if settings.get("data"):
        lines += [f"Data: {settings['data']}."]
    try:
        record = json.loads((Path(workdir) / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    lines += [""] + (figures(record) if record else ["The run has not ended: there are no figures of it."])
    lines += ["", "## Settings", "", "```json", json.dumps(settings, indent=1), "```"]
    return "\n".join(lines) + "\n"


def figures(record: dict) -> list[str]:
    """The figures of a result.json beside the published ones, and where and how they came about."""
    published = record.get("published") or {}
    lines = ["## Figures", "", "| | measured | published |", "|---|---|---|"]
    for name, found in record["metrics"].items():
        spread = "" if found.get("sd") is None else f" ± {found['sd']:.4g}"
        beside = published.get(name)
        told = "-" if beside is None else f"{beside['value']} ({beside['source']})"
        lines += [f"| {name.replace('_', ' ')} | {found['mean']:.4g}{spread} | {told} |"]
    seeds = ", ".join(map(str, record["seeds"]))
    lines += ["", f"Verdict: {record['verdict']}. Seeds: {seeds}. On {record['device']}."]
    for name, what in (("command", "Command"), ("commit", "Commit")):
        lines += [f"{what}: `{record[name]}`."] if record.get(name) else []
    return lines


def of_published(where: str) -> str:
    return f"# {Path(where).name}\n\nPublished weights, read from {Path(where).name}. Their own card holds for them.\n"


def usage(program, forms, length: int, batch: int = 0) -> str:
    """How to run what was written."""
    given = "{" + ", ".join(f'"{name}": {name}' for name in program.inputs) + "}"
    lines = ["", "## What goes in", "", "| input | shape | type |", "|---|---|---|"]
    for name, one in program.inputs.items():
        dims = ", ".join(f"{dim} (at most {one.most[dim]})" if dim in one.most else str(dim) for dim in one.dims)
        lines += [f"| {name} | {dims} | {one.dtype} |"]
    if "stablehlo" in forms:
        lines += [
            "", "## With JAX", "", "```python", "import jax, safetensors.numpy", "",
            f'program = jax.export.deserialize(bytearray(open("{STABLEHLO}", "rb").read()))',
            f'weights = safetensors.numpy.load_file("{WEIGHTS}")',
            f"outputs = program.call(weights, {given})", "```",
        ]  # fmt: skip
    if "onnx" in forms:
        lines += [
            "", "## With onnxruntime", "", f"Batches of {batch or 'any size'}; lengths are fixed at {length}.", "",
            "```python", "import onnxruntime", "", f'session = onnxruntime.InferenceSession("{ONNX}")',
            f"outputs = session.run(None, {given})", "```",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"
