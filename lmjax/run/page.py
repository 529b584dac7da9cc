"""The --help page of an experiment: what it reruns, its presets and what each changes, its settings by group."""

import dataclasses
import os
import re
import shutil
import textwrap

from lmjax.run.settings import Leaf, leaves, text, typed_fields


def page(Config, presets: dict[str, dict], doc: str, program: str) -> str:
    """The page as text, wrapped to the terminal. `doc` is the experiment's docstring, `program` its path."""
    width = max(50, min(shutil.get_terminal_size((100, 24)).columns, 110))
    script = os.path.relpath(program) if os.path.isabs(program) else program
    usage = f"launch/run.sh {script} {'[--preset=NAME] ' if presets else ''}[--flagfile=FILE] [--SETTING=VALUE]..."
    parts = [_prose(doc, width)] if doc.strip() else []
    parts.append(_row("Usage:", usage, 8, width))
    if presets:
        column = min(max(map(len, presets)) + 4, 26)
        rows = [_row("  " + name, _changes(preset), column, width) for name, preset in presets.items()]
        parts.append("\n".join(["Presets (--preset=NAME)", *rows]))
    return "\n\n".join(parts + _groups(Config, hidden={"preset"}, width=width))


def _groups(Config, hidden: set[str], width: int) -> list[str]:
    """The experiment's own settings, those of each nested dataclass, and last those that a base class gave it."""
    bases = [base for base in Config.__mro__[1:] if dataclasses.is_dataclass(base)]
    shared = {field.name for base in bases for field in dataclasses.fields(base)}
    own, other = (
        "Settings and their defaults (a switch is also --name or --noname)",
        "Settings shared with other experiments",
    )
    groups: dict[str, list[Leaf]] = {own: []}
    for leaf in leaves(Config).values():
        outer = leaf.name.rpartition(".")[0]
        title = f"--{outer}.*: {_about(Config, outer)}" if outer else other if leaf.name in shared else own
        if leaf.name not in hidden:
            groups.setdefault(title, []).append(leaf)
    groups[other] = groups.pop(other, [])
    names = {leaf.name: f"  --{leaf.name}={_shown(leaf.default)}" for members in groups.values() for leaf in members}
    column = min(max(map(len, names.values())) + 2, 40, width // 2)
    parts = []
    for title, members in groups.items():
        rows = [_row(names[leaf.name], _explain(leaf), column, width) for leaf in members]
        parts += ["\n".join([textwrap.fill(title, width), *rows])] if rows else []
    return parts


def _prose(doc: str, width: int) -> str:
    """Paragraphs refilled to the width; one that holds an indented line (a command, a table) is kept as it stands."""
    first, _, rest = doc.strip().partition("\n")
    paragraphs = re.split(r"\n\s*\n", first + "\n" + textwrap.dedent(rest))
    shown = [p.strip("\n") if re.search(r"^[ \t]+\S", p, re.M) else textwrap.fill(p, width) for p in paragraphs]
    return "\n\n".join(shown)


def _row(left: str, right: str, column: int, width: int) -> str:
    """`left`, then `right` wrapped beyond `column`; on lines of its own where `left` is too long."""
    lines = textwrap.wrap(right, width - column, break_long_words=False, break_on_hyphens=False) or [""]
    if len(left) > column - 2:
        lines.insert(0, "")
    lefts = [left] + [""] * (len(lines) - 1)
    return "\n".join(f"{a:<{column}}{b}".rstrip() for a, b in zip(lefts, lines))


def _changes(preset: dict) -> str:
    sets = " ".join(f"--{name}={text(value)}" for name, value in preset.items() if name != "help")
    return " ".join(part for part in (preset.get("help"), f"[{sets}]" if sets else "") if part)


def _shown(value) -> str:
    return text(value).encode("unicode_escape").decode() if isinstance(value, str) else text(value)


def _explain(leaf: Leaf) -> str:
    return f"{leaf.help} ({' | '.join(map(text, leaf.choices))})" if leaf.choices else leaf.help


def _about(Config, group: str) -> str:
    """What a nested dataclass is: the help of its field, else the first line of its docstring."""
    first, _, rest = group.partition(".")
    field, hint = next((field, hint) for field, hint in typed_fields(Config) if field.name == first)
    if rest:
        return _about(hint, rest)
    return field.metadata.get("help") or (hint.__doc__ or "").partition("\n")[0].rstrip(".")
