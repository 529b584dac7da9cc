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
    """A step's loss(params, batch, key, carry), without dropout, as (params, batch, carry) -> (sum, weight, carry)."""

    @jax.jit
    def evaluated(params, batch, carry):
        total, (weight, _, carry) = loss(params, batch, None, carry)
        return total, weight, carry

    return evaluated


def bits(nats: float) -> float:
    return nats / math.log(2)


def log_likelihoods(logits, targets):
    """log P(target) [B,T] under logits [B,T,V]."""
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return picked.astype(jnp.float32) - jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1)


def sampled_perplexity(model, params, windows, carry, key, passes: int, *, check=lambda: None) -> float:
    """Perplexity of the mean over stochastic passes of the probability of each token (Gal & Ghahramani's MC dropout).

    model: compiled, (params, batch, carry, key) -> (log-likelihoods [R,T], carry), its R rows R samples. windows(): the
    text as batches of R equal rows. One key, so one set of masks, serves a pass over the whole text, as in their code.
    """
    samples = []
    for i in range(passes):
        state, parts = carry, []
        for batch in windows():
            values, state = model(params, batch, state, jax.random.fold_in(key, i))
            parts.append(np.asarray(values)[:, batch["weights"][0] > 0])
            check()
        samples.append(np.concatenate(parts, axis=1))
    samples = np.concatenate(samples).astype(np.float64)  # [samples, tokens]
    top = samples.max(0)
    return float(np.exp(-(top + np.log(np.exp(samples - top).mean(0))).mean()))
