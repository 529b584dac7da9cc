"""Settings as data: what a frozen dataclass lets a user set, checking a value against it, and config.json.

A field's type is int, float, str, bool, a tuple[int, ...] of one of those, or any of them `| None`; a field that is a
dataclass gives its own fields under its name: `model.dim`. Its limits come from `lmjax.config.setting`.
"""

import dataclasses
import math
import types
import typing

from lmjax.errors import UserError

TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")
NOUN = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


class Leaf(typing.NamedTuple):
    """One settable value: its dotted name, the type of it or of its elements, what surrounds the type, its limits."""

    name: str
    type: type
    many: bool = False  # tuple[type, ...]
    optional: bool = False  # type | None
    default: object = None
    help: str = ""
    choices: tuple | None = None
    low: float | None = None
    high: float | None = None


def leaves(Config, prefix: str = "", start=None) -> dict[str, Leaf]:
    """Every settable value of a dataclass by its dotted name, in order of declaration. `start` overrides defaults."""
    found = {}
    for field, hint in typed_fields(Config):
        name = prefix + field.name
        default = _default(field) if start is None else getattr(start, field.name)
        if dataclasses.is_dataclass(hint):
            found |= leaves(hint, name + ".", default)
            continue
        limits = {key: field.metadata.get(key) for key in ("choices", "low", "high")}
        found[name] = Leaf(name, *_spread(hint, name), default, field.metadata.get("help") or "", **limits)
    return found


def typed_fields(Config) -> list:
    """[(field, its type)] of a dataclass; the types are resolved where annotations are strings."""
    hints = typing.get_type_hints(Config)
    return [(field, hints[field.name]) for field in dataclasses.fields(Config)]


def _default(field):
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if value is dataclasses.MISSING:
        raise TypeError(f"setting {field.name} has no default; give it one (None where the user must set it)")
    return value


def defaults(Config) -> dict:
    """The default of each setting that has one, by its dotted name."""
    found = {}
    for field, hint in typed_fields(Config):
        if field.default is field.default_factory is dataclasses.MISSING:
            continue
        value = _default(field)
        nested = dataclasses.is_dataclass(hint)
        found |= {f"{field.name}.{k}": v for k, v in flatten(to_json(value)).items()} if nested else {field.name: value}
    return found


def _spread(hint, name: str) -> tuple[type, bool, bool]:
    """tuple[int, ...] | None -> (int, many, optional)."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    parts = typing.get_args(hint) if union else (hint,)
    (inner,) = (part for part in parts if part is not types.NoneType)
    many = typing.get_origin(inner) is tuple
    if many:
        inner, _ = typing.get_args(inner)
    if inner not in NOUN:
        raise TypeError(f"{name} has type {hint}: expected int, float, str, bool, a tuple of one, or one | None")
    return inner, many, types.NoneType in parts


def value_of(leaf: Leaf, value, where: str):
    """`value` (a flag's text or a plain value) as the leaf's type, within its limits.

    UserError otherwise; `where` is what its line puts before the name: "--", or "config.json: ".
    """
    if leaf.optional and (value is None or value == "none"):
        return None
    try:
        if not leaf.many:
            return _one(leaf, value)
        if isinstance(value, str):
            value = value.split(",") if value else []
        if not isinstance(value, list | tuple):
            raise ValueError
        return tuple(_one(leaf, item) for item in value)
    except ValueError:
        shown = value if isinstance(value, str) else text(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        hint = similar(shown, list(leaf.choices)) if leaf.choices and leaf.type is str else ""
        raise UserError(f"{where}{leaf.name}={shown}: expected {_expected(leaf)}{hint}") from None


def _one(leaf: Leaf, value):
    """One element as the leaf's type; ValueError where it isn't one or passes a limit."""
    if isinstance(value, str) and leaf.type is not str:
        value = _from_text(leaf.type, value.strip())
    if leaf.type is float and type(value) is int and abs(value) < 2**63:
        value = float(value)
    fits = (
        type(value) is leaf.type  # a bool is no int here
        and (leaf.type is not float or math.isfinite(value))
        and (leaf.type is not int or abs(value) < 2**63)
        and (leaf.choices is None or value in leaf.choices)
        and (leaf.low is None or value >= leaf.low)
        and (leaf.high is None or value <= leaf.high)
    )
    if not fits:
        raise ValueError
    return value


def _from_text(kind: type, word: str):
    if kind is bool and word.lower() in TRUE + FALSE:
        return word.lower() in TRUE
    if kind is bool or not word.isascii() or "_" in word:
        raise ValueError
    return kind(word)


def _expected(leaf: Leaf) -> str:
    noun = NOUN[leaf.type]
    if leaf.choices is not None:
        noun = "one of " + ", ".join(map(str, leaf.choices))
    elif leaf.low is not None and leaf.high is not None:
        noun += f" from {text(leaf.low)} to {text(leaf.high)}"
    elif leaf.low is not None:
        noun += f" of at least {text(leaf.low)}"
    elif leaf.high is not None:
        noun += f" of at most {text(leaf.high)}"
    return noun + ", or several with commas between" * leaf.many + ", or none" * leaf.optional


def text(value) -> str:
    """A value as one would type it after `--name=`."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(text, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def similar(name: str, names: list[str], prefix: str = "") -> str:
    """'; did you mean ...?' with the names nearest to `name`, or ''. lr finds optim.lr."""
    import difflib  # needed only where something went wrong

    ends = [n for n in names if n.rpartition(".")[2] == name.rpartition(".")[2]]
    near = ends + [n for n in difflib.get_close_matches(name, names, 2, 0.75) if n not in ends]
    return f"; did you mean {' or '.join(prefix + n for n in near[:2])}?" if near else ""


def build(Config, values: dict, prefix: str = ""):
    """The dataclass from a value for every dotted name; UserError where its __post_init__ refuses the combination."""
    fields = {}
    for field, hint in typed_fields(Config):
        name = prefix + field.name
        fields[field.name] = build(hint, values, name + ".") if dataclasses.is_dataclass(hint) else values[name]
    try:
        return Config(**fields)
    except ValueError as error:
        raise UserError(str(error)) from None


def to_json(config) -> dict:
    """The config as nested plain values, for json.dump."""
    return dataclasses.asdict(config)  # json writes a tuple as a list


def from_json(Config, data: dict, source: str = "config.json"):
    """The Config whose `to_json` gave `data`, perhaps before there were all of its settings: those have their defaults.

    UserError names an unknown or bad setting.
    """
    known, values = leaves(Config), flatten(data, source)
    other = "it was written by another experiment or version"
    for name in values:
        if name not in known:
            raise UserError(f"{source}: unknown setting {name}{similar(name, list(known))}; {other}")
    for name, leaf in known.items():
        if name not in values:
            values[name] = leaf.default
            continue
        if isinstance(values[name], str) and (leaf.type is not str or leaf.many):  # "3" is no number in JSON
            raise UserError(f"{source}: {name}={values[name]!r}: expected {_expected(leaf)}, not a string")
        values[name] = value_of(leaf, values[name], f"{source}: ")
    return build(Config, values)


def flatten(data, source: str = "config.json", prefix: str = "") -> dict:
    """{"model": {"dim": 1}} -> {"model.dim": 1}."""
    if not isinstance(data, dict):
        raise UserError(f"{source} holds {type(data).__name__}, expected an object of settings")
    flat = {}
    for name, value in data.items():
        flat |= flatten(value, source, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
