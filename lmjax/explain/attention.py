"""Where attention goes: maps, rollout, a translation's alignment, and the heads that copy.

B batch, T time, S time of what is attended to, H heads, L layers.
"""

import jax.numpy as jnp

from lmjax.models import vit


def rollout(weights):
    """How much of each position's last layer came from each position of the input: float32 [B,T,T], rows add up to 1
    (Abnar & Zuidema 2020, eq. 1).

    weights: of each layer [B,H,T,T]. Averaged over heads they are mixed half and half with the residual path and
    multiplied through the layers.
    """
    identity = jnp.eye(weights[0].shape[-1])[None]
    through = identity
    for layer in weights:
        through = (0.5 * layer.mean(1) + 0.5 * identity) @ through
    return through


def patch_rollout(params, config, images):
    """Of a ViT, how much of the class token's answer came from each patch: float32 [B,Y/P,X/P]. All patches and the
    class token itself add up to 1."""
    _, seen = vit.hidden(params, config, images, look=True)
    side = config.size // config.patch
    return rollout([layer.weights for layer in seen])[:, 0, 1:].reshape(-1, side, side)


def prefix_matching(weights):
    """How far each head is an induction head: float32 [H] (Olsson et al. 2022, "In-context learning and induction
    heads", the prefix matching score).

    weights [B,H,2P,2P] over P tokens that stand twice, one copy behind the other: the mean weight that a token of the
    second copy gives to the place behind its twin in the first, whose token comes next.
    """
    P = weights.shape[-1] // 2
    second = jnp.arange(P, 2 * P - 1)
    return weights[:, :, second, second - P + 1].mean((0, 2))


def previous_token(weights):
    """The mean weight that each token gives to the one before it: float32 [H] of weights [B,H,T,T]."""
    at = jnp.arange(1, weights.shape[-1])
    return weights[:, :, at, at - 1].mean((0, 2))
