"""How sure a network is, by its dropout: Monte Carlo dropout (Gal & Ghahramani 2016, "Dropout as a Bayesian
approximation")."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Uncertainty(NamedTuple):
    """mean and sd: of each class's probability over the draws, [K]. entropy: of the mean, in nats; of it `mutual` is
    what the draws disagree about, which more training data would settle (Houlsby et al. 2011, eq. 2), the rest what
    every draw is unsure of."""

    mean: np.ndarray
    sd: np.ndarray
    entropy: float
    mutual: float


def mc_dropout(logits) -> Uncertainty:
    """Of one input's logits [draws,K], each draw with a dropout mask of its own."""
    p = np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32)), np.float64)
    mean = p.mean(0)
    whole = _entropy(mean)
    return Uncertainty(mean, p.std(0, ddof=1), whole, max(whole - float(np.mean([_entropy(row) for row in p])), 0.0))


def _entropy(p) -> float:
    return float(-(p * np.log(np.maximum(p, 1e-30))).sum())
