"""Mixtures of Gaussians in the plane, on which one can see what a generator has missed.

    ring   8 on a circle of radius 1, standard deviation 0.01
    grid   25 at -4, -2, 0, 2, 4 in both directions, 0.05

As Srivastava et al. 2017 (VEEGAN) and Lin et al. 2018 (PacGAN) have them. All modes are equally likely.
"""

from typing import NamedTuple

import numpy as np

from lmjax.data.batches import drawn_from


class Mixture(NamedTuple):
    means: np.ndarray  # float32 [K,2]
    deviation: float

    def draw(self, rng, shape) -> np.ndarray:
        """Points float32 [*shape, 2]."""
        at = self.means[rng.integers(len(self.means), size=shape)]
        return at + np.float32(self.deviation) * rng.standard_normal(at.shape, np.float32)


def ring() -> Mixture:
    angles = 2 * np.pi * np.arange(8) / 8
    return Mixture(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), 0.01)


def grid() -> Mixture:
    line = np.arange(-4, 5, 2, np.float32)
    return Mixture(np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2), 0.05)


MIXTURES = {"ring": ring, "grid": grid}


def batches(mixture: Mixture, batch: int, updates: int, pack: int, seed: int):
    """batch(step), a pure function of (seed, step): real float32 [B, updates, pack, 2], row int32 [B]."""
    rows = np.arange(batch, dtype=np.int32)

    def at(step: int) -> dict:
        return {"real": mixture.draw(drawn_from(seed, step), (batch, updates, pack)), "row": rows}

    return at
