"""Losses. Each returns (sum, weight); whoever holds all of a batch divides, once."""

import jax
import jax.numpy as jnp


def cross_entropy(logits, targets, weights=None):
    """Negative log-likelihood in nats of `targets` [...] under `logits` [..., V]: (weighted sum, sum of weights)."""
    logits, targets = logits.astype(jnp.float32).reshape(-1, logits.shape[-1]), targets.reshape(-1)
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - picked
    if weights is None:
        return nll.sum(), jnp.asarray(nll.size, jnp.float32)
    return (nll * weights.reshape(-1)).sum(), weights.sum()
