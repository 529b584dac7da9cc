"""Whether a trained model gives away what it was trained on: planted canaries, and a lower bound on epsilon.

A canary is an example of no use to the task. Half of them, drawn by coins, are trained on, each once as any example.
"""

import math

import numpy as np

from lmjax.data.batches import drawn_from
from lmjax.errors import UserError, install

COINS = 2**40  # keeps their stream apart from those of steps


def coins(count: int, seed: int) -> np.ndarray:
    """bool [count]: the canaries that are trained on, each by a fair coin."""
    return drawn_from(seed, COINS).random(count) < 0.5


def exposure(nll: float, others) -> float:
    """How far a canary stands out, in bits, among others of its kind that were never trained on (Carlini et al. 2019,
    definition 5, estimated by sampling): 0 the least likely, 1 in the middle of them, log2(N + 1) ahead of all N.

    nll: the canary's negative log-likelihood, others [N]: theirs. Lower is likelier.
    """
    others = np.asarray(others)
    rank = 1 + int((others < nll).sum())
    return math.log2(len(others) + 1) - math.log2(rank)


def least_epsilon(scores, trained, delta: float, confidence: float = 0.95) -> float:
    """A lower bound on epsilon that one run shows (Steinke et al. 2023), with that confidence: 0 where the scores tell
    nothing. By jax_privacy.

    scores [M]: of each canary, higher where one takes it to have been trained on; trained: bool [M], the coins.
    UserError where coins fell all on one side, or the library is missing.
    """
    scores, trained = np.asarray(scores, float), np.asarray(trained, bool)
    if trained.all() or not trained.any():
        raise UserError(f"{len(trained)} canaries, of which {int(trained.sum())} were trained on: an audit needs both "
                        "kinds; plant more")  # fmt: skip
    if not np.isfinite(scores).all():
        raise UserError("scores of canaries that are no finite numbers: the model diverged, lower the learning rate")
    try:
        from jax_privacy import auditing
    except ImportError:
        raise UserError("the audit needs jax-privacy, which is not installed: "
                        + install("privacy")) from None  # fmt: skip
    found = auditing.CanaryScoreAuditor(scores[trained], scores[~trained])
    # The threshold from some of the canaries, the bound from the others: one fixed split, so that it repeats.
    strategy = auditing.Split(0.3, seed=0)
    return float(found.epsilon_one_run(1 - confidence, delta, threshold_strategy=strategy))


def rank_accuracy(scores, trained) -> float:
    """How often a trained canary scores above one that was not (the area under the curve): 0.5 by chance."""
    from scipy.stats import rankdata

    ranks, inside = rankdata(scores), np.asarray(trained, bool)
    n = inside.sum()
    return float((ranks[inside].sum() - n * (n + 1) / 2) / (n * (len(inside) - n)))
