"""What --seeds and --lanes ask for: trainings that differ in their seed and in numbers that shape no program."""

import copy
import itertools

from lmjax.errors import UserError
from lmjax.run.settings import leaves, similar, value_of

EXAMPLE = '--lanes="lr=1e-3,3e-4 x model.dropout=0.1,0.3"'


def values(config) -> list[dict[str, float]]:
    """The numbers of each training, by dotted name, as --lanes crosses them: [{}] where it is empty."""
    known, terms = leaves(type(config)), {}
    for term in config.lanes.split(" x ") if config.lanes.strip() else []:
        name, equals, numbers = (part.strip() for part in term.partition("="))
        name = name.removeprefix("--")
        if not equals or not name:
            raise UserError(f"--lanes={config.lanes}: {term.strip()!r} names no values; write {EXAMPLE}")
        if name not in known:
            raise UserError(f"--lanes: unknown setting {name}{similar(name, list(known))}")
        leaf = known[name]
        if leaf.type is not float or leaf.many or leaf.optional:
            raise UserError(f"--lanes: {name} shapes the program, so that its values cannot share one: "
                            f"give them to launch/sweep.py, --space=\"{name}={numbers}\"")  # fmt: skip
        if name in terms:
            raise UserError(f"--lanes names {name} twice: keep one")
        terms[name] = [value_of(leaf, number, "--lanes: ") for number in numbers.split(",")]
        if len(set(terms[name])) < len(terms[name]):
            raise UserError(f"--lanes: {name} has a value twice; keep one, and take --seeds=N for N trainings of each")
    return [dict(zip(terms, row)) for row in itertools.product(*terms.values())]


def trainings(config) -> list[tuple[int, dict[str, float]]]:
    """(seed, numbers) of each training, the seeds of one setting beside each other."""
    return [(config.seed + n, row) for row in values(config) for n in range(config.seeds)]


def with_values(config, numbers: dict, **changes):
    """The config with `numbers` by dotted name, which may be traced, and other fields by name. Nothing is checked."""
    new = copy.copy(config)
    for name, value in changes.items():
        object.__setattr__(new, name, value)
    for name, value in numbers.items():
        first, _, rest = name.partition(".")
        value = with_values(getattr(new, first), {rest: value}) if rest else value
        object.__setattr__(new, first, value)
    return new


def dropouts(network) -> dict:
    """The rates among a network's settings: what a lane may have of its own of them."""
    return {name: value for name, value in vars(network).items() if name.startswith("dropout")}


def alone(config, seed: int, numbers: dict):
    """The config of one of the trainings, as if it ran alone."""
    return with_values(config, numbers, seed=seed, seeds=1, lanes="")
