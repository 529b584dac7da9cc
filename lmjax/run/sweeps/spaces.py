"""What a sweep varies: an experiment's settings by name, each with its choices or its range.

    lr=1e-4..1e-2:log x model.dropout=0..0.3 x model.layers=2,4,6

Terms are joined by ` x `. `name=a,b,c` is a choice, `name=low..high` a uniform range of the numbers that the setting
takes (whole ones where it takes whole ones), with `:log` uniform in the logarithm, with `:step=0.1` in steps from low.
"""

import itertools
import math
import random
import re
from typing import NamedTuple

from lmjax.errors import UserError
from lmjax.run.settings import Leaf, leaves, similar, text, value_of

MOST_IN_GRID = 100_000
# What the sweep itself says to each trial.
OURS = ("workdir", "dry_run", "quiet", "profile")


class Term(NamedTuple):
    """One setting that varies: `choices`, or a range of `type` from low to high."""

    name: str
    type: type
    choices: tuple = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None

    def flag(self, value) -> str:
        """The value as the experiment gets it. Six digits of a range: what is shown is what was run."""
        rounded = self.type is float and not self.choices
        return f"--{self.name}={text(float(f'{value:.6g}') if rounded else value)}"

    def grid(self) -> list:
        """The values that a grid has of it; UserError where they have no end."""
        if self.choices:
            return list(self.choices)
        if self.type is float and self.step is None:
            raise UserError(
                f"--space: {self.name}={text(self.low)}..{text(self.high)} has no end of values for --sampler=grid: "
                f"list them ({self.name}=a,b,c) or add :step="
            )
        if self.log:
            raise UserError(f"--space: {self.name}: --sampler=grid knows no :log range; list its values")
        step = self.step or 1
        return [self.type(float(f"{self.low + i * step:.12g}")) for i in range(_steps(self.low, self.high, step) + 1)]

    def distribution(self):
        """As Optuna has it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.type is int:
            return IntDistribution(self.low, self.high, log=self.log, step=self.step or 1)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def holds(self, value) -> bool:
        """Whether the space has this value: a default that has its place in it can be tried first."""
        if self.choices:
            return value in self.choices
        within = type(value) is self.type and self.low <= value <= self.high
        return within and (self.step is None or value == self.low or _steps(self.low, value, self.step) is not None)


def parse(space: str, Config, presets: dict) -> tuple[Term, ...]:
    """The terms of a --space, each name and value checked against the experiment's Config. UserError otherwise."""
    if not space.strip():
        raise UserError('no --space is given: expected the settings to vary, such as --space="lr=1e-4..1e-2:log"')
    known = leaves(Config)
    if presets and "preset" in known:
        known["preset"] = known["preset"]._replace(choices=tuple(presets))
    terms = [_term(word, known) for word in re.split(r"\s+x\s+", space.strip())]
    for i, term in enumerate(terms):
        if term.name in [other.name for other in terms[:i]]:
            raise UserError(f"--space has {term.name} twice: keep one")
    return tuple(terms)


def grid(terms, seed: int) -> list[dict]:
    """All points of the space, {name: value}, in an order that the seed decides. UserError where there are too many."""
    size = math.prod(len(term.grid()) for term in terms)
    if size > MOST_IN_GRID:
        raise UserError(f"--sampler=grid: this --space has {size:,} points: leave some out, or use --sampler=random")
    points = [dict(zip([t.name for t in terms], point)) for point in itertools.product(*(t.grid() for t in terms))]
    random.Random(seed).shuffle(points)
    return points


def _term(word: str, known: dict[str, Leaf]) -> Term:
    name, equals, spec = (part.strip() for part in word.partition("="))
    name = name.removeprefix("--")
    if not equals or not spec or re.search(r"\s", name):
        raise UserError(f"--space: {word!r}: expected name=a,b,c or name=low..high, joined by ' x '")
    if name not in known:
        raise UserError(f"--space: the experiment has no setting {name}{similar(name, list(known))}")
    if name in OURS:
        raise UserError(f"--space: {name} is set by the sweep for each trial; leave it out")
    leaf = known[name]
    if leaf.many:
        raise UserError(f"--space: {name} takes several values with commas between, which cannot be swept")
    if leaf.type in (int, float) and ".." in spec:
        return _range(leaf, spec)
    choices = tuple(value_of(leaf, part.strip(), "--space: ") for part in spec.split(","))
    if len(set(choices)) < max(2, len(choices)):
        raise UserError(f"--space: {name}={spec}: expected two or more different values; one is set as a flag after --")
    return Term(name, leaf.type, choices)


def _range(leaf: Leaf, spec: str) -> Term:
    ends, *options = spec.split(":")
    low, _, high = ends.partition("..")
    plain = leaf._replace(optional=False)
    low, high = (value_of(plain, end.strip(), "--space: ") for end in (low, high))
    where = f"--space: {leaf.name}={spec}"
    log, step = False, None
    for option in options:
        key, _, given = option.partition("=")
        if option == "log":
            log = True
        elif key == "step":
            step = value_of(Leaf(f"{leaf.name}={ends}:step", leaf.type), given, "--space: ")
        else:
            raise UserError(f"{where}: unknown :{option}; expected :log or :step=NUMBER")
    if not low < high:
        raise UserError(f"{where}: expected the lower end first")
    if log and (step is not None or low <= 0):
        raise UserError(f"{where}: :log needs ends above 0, and no :step")
    if step is not None and (step <= 0 or _steps(low, high, step) is None):
        raise UserError(f"{where}: expected a step that leads from {text(low)} to {text(high)}")
    return Term(leaf.name, leaf.type, (), low, high, log, step)


def _steps(low, high, step) -> int | None:
    """Steps from low to high; None where they don't meet it."""
    n = round((high - low) / step)
    return n if n > 0 and math.isclose(low + n * step, high, rel_tol=1e-9, abs_tol=1e-12) else None
