"""How much each part of an input speaks for an answer.

    gradient x input        x_i df/dx_i                                       Shrikumar et al. 2016
    integrated gradients    (x_i - x'_i) ∫ df/dx_i (x' + a (x - x')) da       Sundararajan et al. 2017, eq. 1
    occlusion               f(x) - f(x with part i replaced)                  Zeiler & Fergus 2014, section 4

f(x [N,...]) -> [N] is any score of N inputs. The parts of a text are its words, given as rows of vectors [T,E]: see
`by_vectors`, which makes of a model of tokens one of their vectors. Those of an image are its pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(4)
SHARES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2  # on 0..1


def by_vectors(logits: Callable, place: Callable) -> Callable:
    """A model of tokens as one of their vectors: score(params, vectors [N,T,E], ...) -> logits(params', tokens, ...).

    The vectors themselves are the table that the model looks its tokens up in, and the tokens its rows one after the
    other, so that a gradient by the table is one by each place. place(params, table) -> params with that table.
    """

    def score(params, vectors, *given):
        N, T, E = vectors.shape
        tokens = jnp.arange(N * T, dtype=jnp.int32).reshape(N, T)
        return logits(place(params, vectors.reshape(-1, E)), tokens, *given)

    return score


def log_odds(logits, answer: int):
    """log p / (1 - p) of a class, [N] of logits [N,K]: the weight of evidence for it, in nats."""
    others = jnp.where(jnp.arange(logits.shape[-1])[None] == answer, -jnp.inf, logits)
    return logits[:, answer] - jax.nn.logsumexp(others, axis=-1)


def with_gradient(f: Callable) -> Callable:
    """at(points [N,...], *given) -> (f(points, *given) [N], the gradient at each point [N,...])."""

    def at(points, *given):
        values, back = jax.vjp(lambda points: f(points, *given), points)
        return values, back(jnp.ones_like(values))[0]

    return at


def evaluated(at: Callable, points, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """at(points), `batch` of them at a time, the last filled up: (values float64 [N], gradients [N,...])."""
    values, gradients = [], []
    for start in range(0, len(points), batch):
        now = points[start : start + batch]
        filled = np.concatenate([now, np.repeat(now[-1:], batch - len(now), axis=0)])
        some = jax.device_get(at(filled))
        values.append(some[0][: len(now)])
        gradients.append(some[1][: len(now)])
    return np.concatenate(values).astype(np.float64), np.concatenate(gradients)


# `at` is of `with_gradient`, compiled: one program for `batch` points serves all three.


def gradient_input(at: Callable, x, *, batch=24) -> np.ndarray:
    """x [...] times the gradient there: exact where the score is linear."""
    return np.asarray(x) * evaluated(at, np.asarray(x, np.float32)[None], batch)[1][0]


class Integrated(NamedTuple):
    """attribution float64 [...], of x's shape; whole: f(x) - f(baseline); gap: its sum less that, which an exact
    integral does not have (completeness, proposition 1); points: where gradients were taken."""

    attribution: np.ndarray
    whole: float
    gap: float
    points: int


def integrated_gradients(at: Callable, x, baseline, *, tolerance=1e-3, most=2000, batch=24) -> Integrated:
    """Integrated gradients from `baseline` to x, both [...], complete to `tolerance`.

    Completeness is what tells how good the integral is, on each stretch of the path too: a stretch that misses what the
    score gained on it is halved, and gradients are taken at four nodes of Gauss and Legendre in each half. So points
    gather where the score bends, at a ReLU's or a maximum's kinks. Ends with a larger gap once `most` are taken.
    """
    x, baseline = np.asarray(x, np.float32), np.asarray(baseline, np.float32)
    step = x.astype(np.float64) - baseline

    def along(shares):
        """Values and gradients at shares [P] of the path."""
        points = baseline[None] + shares.reshape(-1, *[1] * x.ndim).astype(np.float32) * (x - baseline)[None]
        return evaluated(at, points, batch)

    def stretches(ends):
        """Of the stretches [S] between `ends` [S,2]: the integral of the gradient over each [S,...]."""
        nodes = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * SHARES[None]
        _, gradients = along(nodes.reshape(-1))
        gradients = gradients.reshape(len(ends), len(SHARES), *x.shape)
        lengths = (ends[:, 1] - ends[:, 0]).reshape(-1, *[1] * x.ndim)
        return lengths * np.tensordot(gradients, WEIGHTS, ((1,), (0,)))

    marks = np.linspace(0, 1, 9)
    known = dict(zip(marks, along(marks)[0]))
    total, points, open_ends = np.zeros(x.shape), 0, np.stack([marks[:-1], marks[1:]], 1)
    while len(open_ends):
        integrals = stretches(open_ends)
        points += len(SHARES) * len(open_ends)
        gained = np.array([known[end] - known[start] for start, end in open_ends])
        misses = np.abs((integrals * step[None]).sum(axis=tuple(range(1, x.ndim + 1))) - gained)
        # A stretch may miss its share of the tolerance, and what float32 can't tell from nothing.
        allowed = tolerance * np.maximum((open_ends[:, 1] - open_ends[:, 0]) / 2, 1 / 64)
        wrong = misses > allowed
        affordable = max(most - points, 0) // (2 * len(SHARES))
        wrong[np.argsort(-misses * wrong)[affordable:]] = False  # the worst are mended first
        total += integrals[~wrong].sum(0)
        open_ends = open_ends[wrong]
        middles = open_ends.mean(1)
        known |= dict(zip(middles, along(middles)[0] if len(middles) else ()))
        open_ends = np.concatenate([np.stack([open_ends[:, 0], middles], 1), np.stack([middles, open_ends[:, 1]], 1)])
    whole = known[1.0] - known[0.0]
    attribution = step * total
    return Integrated(attribution, whole, float(attribution.sum() - whole), points)


def occlusion(at: Callable, x, baseline, parts, *, batch=24) -> np.ndarray:
    """What the score loses by each part of x [...]: float [P] for masks `parts` bool [P,...], True where `baseline`
    [...] stands instead. Masks have the leading axes of x: [P,T] for words of x [T,E]."""
    x, parts = np.asarray(x, np.float32), np.asarray(parts, bool)
    masks = parts.reshape(*parts.shape, *[1] * (1 + x.ndim - parts.ndim))
    lost = [
        evaluated(at, np.where(masks[start : start + batch], np.asarray(baseline, np.float32)[None], x[None]), batch)[0]
        for start in range(0, len(masks), batch)
    ]
    return evaluated(at, x[None], batch)[0][0] - np.concatenate(lost)
