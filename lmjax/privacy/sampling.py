"""Poisson sampling: each example is in a step's batch by itself, with one probability, as the accountant assumes.

A batch is a function of (seed, step), as every other one. How many it has varies; its shape does not: rows of weight 0
fill it, and of more examples than it holds, one step in 10^12, a random part is taken. What that changes of epsilon,
no printed digit, dp-accounting can tell: accounting.Mechanism.most.
"""

import numpy as np

from lmjax.data.batches import drawn_from
from lmjax.errors import UserError

OVERFLOW = 1e-12  # probability that a step draws more than its batch holds


def room(examples: int, lot: float, multiple: int = 1) -> int:
    """Rows of a batch, a multiple of `multiple`, into which nearly every draw fits."""
    from scipy.stats import binom

    if lot > examples:
        raise UserError(f"a lot of {lot:g} of {examples:,} examples: expected at most all of them")
    rows = int(min(binom.isf(OVERFLOW, examples, lot / examples) + 1, examples))
    return -(-rows // multiple) * multiple


def poisson(examples: int, lot: float, seed: int, most: int = 0):
    """`draw(step)`: the numbers, rising, of the examples of a step, each with probability lot / examples; at most
    `most` of them (0: all)."""

    def draw(step: int) -> np.ndarray:
        rng = drawn_from(seed, step)
        taken = np.flatnonzero(rng.random(examples) < lot / examples)
        if most and len(taken) > most:
            taken = np.sort(rng.permutation(taken)[:most])
        return taken

    return draw


def batches(rows: dict, lot: float, seed: int, most: int):
    """`batch(step)` of examples that lie in arrays [N, ...]: {name: [most, ...]}, with "weights" 0 where it is filled.

    Without "weights" among `rows` they are float32 [most].
    """
    examples = len(next(iter(rows.values())))
    draw = poisson(examples, lot, seed, most)

    def batch(step: int) -> dict:
        taken = draw(step)
        padded = np.zeros(most, np.int64)
        padded[: len(taken)] = taken
        found = {name: values[padded] for name, values in rows.items()}
        weights = found.get("weights", np.ones(most, np.float32))
        weights[len(taken) :] = 0
        return found | {"weights": weights}

    return batch


def disjoint(tokens, length: int) -> dict:
    """A text as examples of `length` targets each, {"tokens", "targets" int32, "weights" float32: [N, length]}.

    A token is in one example alone: of each length + 1 the first is read and never told, what fills no example is left
    out. UserError where the text is too short for two.
    """
    tokens = np.asarray(tokens, np.int32)
    count = len(tokens) // (length + 1)
    if count < 2:
        raise UserError(f"a text of {len(tokens):,} tokens makes {count} examples of {length}: give more text")
    rows = tokens[: count * (length + 1)].reshape(count, length + 1)
    return {"tokens": rows[:, :-1], "targets": rows[:, 1:], "weights": np.ones((count, length), np.float32)}
