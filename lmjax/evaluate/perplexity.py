"""Perplexity: exp of the mean negative log-likelihood in nats, over every token of a text once."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def mean_nll(loss, params, batches, carry=(), *, check=lambda: None) -> float:
    """Mean of `loss` in nats over `batches`, the carry handed from each to the next.

    loss: compiled, (params, batch, carry) -> (sum, weight, carry), see `compile_loss`. check: called between batches;
    it may raise to stop.
    """
    parts = []
    for batch in batches:
        total, weight, carry = loss(params, batch, carry)
        parts.append((total, weight))
        check()
    sums = np.asarray(jax.device_get(parts), np.float64).sum(0)
    return float(sums[0] / sums[1])


def compile_loss(loss):
    """loss(params, batch, key, carry) of a training step, without dropout -> (params, batch, carry) -> (sum, weight, carry)."""

    @jax.jit
    def evaluated(params, batch, carry):
        total, (weight, _, carry) = loss(params, batch, None, carry)
        return total, weight, carry

    return evaluated


def bits(nats: float) -> float:
    return nats / math.log(2)


def mean_of_probabilities(log_likelihoods):
    """log of the mean over samples: [K,N] log-probabilities of K stochastic passes -> [N] (Gal & Ghahramani's MC dropout)."""
    return jax.nn.logsumexp(log_likelihoods, axis=0) - jnp.log(log_likelihoods.shape[0])
