"""Where a token stands: sinusoids added to it (Vaswani et al. 2017) or a turn of its queries and keys (Su et al. 2021).

B batch, T time, H heads, K head size, D model.
"""

import jax.numpy as jnp


def angles(positions, width: int, base: float = 10000.0):
    """positions [...] times the rates base^(-2 i / width): float32 [..., width / 2]."""
    rates = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    return positions[..., None].astype(jnp.float32) * rates.reshape((1,) * positions.ndim + (-1,))


def sinusoids(positions, D: int):
    """sin and cos of each rate for int `positions` [...]: float32 [..., D], sines first (section 3.5; D even).

    Departure: the paper lays sines and cosines in turn. A permutation of D, which the first layer can learn as well.
    """
    a = angles(positions, D)
    return jnp.concatenate([jnp.sin(a), jnp.cos(a)], axis=-1)


def rotate(x, positions, base: float = 10000.0):
    """x [B,T,H,K] with the pairs (i, i + K/2) of each head turned by angles that grow with `positions` [B|1,T].

    Eq. 34. The product of a query and a key then depends on how far apart they stand alone. Pairs lie as in Llama's
    published weights. In float32; x's dtype out.
    """
    a = angles(positions, x.shape[-1], base)[:, :, None]  # [B|1,T,1,K/2]
    sin, cos = jnp.sin(a), jnp.cos(a)
    u, w = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([u * cos - w * sin, w * cos + u * sin], axis=-1).astype(x.dtype)
