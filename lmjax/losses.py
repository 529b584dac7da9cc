"""Losses. Each returns (sum, weight); whoever holds all of a batch divides, once.

N tokens (any leading axes), D width, V vocabulary.
"""

import jax
import jax.numpy as jnp


def cross_entropy(logits, targets, weights=None):
    """Negative log-likelihood in nats of `targets` [...] under `logits` [..., V]: (weighted sum, sum of weights)."""
    logits, targets = logits.astype(jnp.float32).reshape(-1, logits.shape[-1]), targets.reshape(-1)
    picked = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return _weighted(jax.nn.logsumexp(logits, axis=-1) - picked, weights)


def linear_cross_entropy(x, w, b, targets, weights=None):
    """`cross_entropy(x @ w + b, targets, weights)`, differentiated by hand: one array of size [N,V] is kept, not two.

    x [...,D], w [D,V], b [V] or None. Products are taken in x's type and summed in float32, as is all else. For
    training; it has no second derivative.
    """
    w = w.astype(x.dtype)
    nll = _linear_nll(x.reshape(-1, x.shape[-1]), w, b if b is None else b.astype(jnp.float32), targets.reshape(-1))
    return _weighted(nll, weights)


def _weighted(nll, weights):
    if weights is None:
        return nll.sum(), jnp.asarray(nll.size, jnp.float32)
    return (nll * weights.reshape(-1)).sum(), weights.sum()


@jax.custom_vjp
def _linear_nll(x, w, b, targets):
    """x [N,D], w [D,V], b [V] or None, targets int[N] -> float32[N]."""
    return _linear_nll_forward(x, w, b, targets)[0]


def _linear_nll_forward(x, w, b, targets):
    scores = _product(x, w) if b is None else _product(x, w) + b[None]
    top = scores.max(axis=-1, keepdims=True)
    likelihood = jnp.exp(scores - top)  # the softmax before its division, which is left to smaller arrays
    total = likelihood.sum(axis=-1)
    picked = jnp.take_along_axis(scores, targets[:, None], axis=-1)
    nll = jnp.log(total) + (top - picked)[:, 0]
    return nll, (x, w, b, likelihood.astype(x.dtype), total, targets)


def _linear_nll_backward(saved, dnll):
    x, w, b, likelihood, total, targets = saved
    # d nll / d scores = softmax - onehot = (likelihood - total onehot) / total
    dscores = likelihood.at[jnp.arange(len(targets)), targets].add(-total.astype(x.dtype))
    scale = (dnll / total).astype(x.dtype)
    dx = _product(dscores, w.T).astype(x.dtype) * scale[:, None]
    dw = _product((x * scale[:, None]).T, dscores).astype(w.dtype)
    return dx, dw, None if b is None else _product(scale, dscores), None


def _product(a, b):
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


_linear_nll.defvjp(_linear_nll_forward, _linear_nll_backward)
