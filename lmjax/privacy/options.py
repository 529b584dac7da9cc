"""The settings of a private training, for an experiment's Config. No JAX, so that a bad one is refused before it."""

from dataclasses import dataclass

from lmjax.config import setting


@dataclass(frozen=True)
class Private:
    """DP-SGD's settings (Abadi et al. 2016, algorithm 1)."""

    epsilon: float = setting(0.0, "what all steps may spend; the noise follows. 0: --privacy.noise", low=0.0)
    delta: float = setting(1e-5, "probability with which the bound may fail; below 1 / examples", low=1e-15, high=0.1)
    noise: float = setting(0.0, "standard deviation of the noise over clip; 0 without epsilon: not private", low=0.0)
    clip: float = setting(1.0, "longest gradient of an example; 0: no clipping", low=0.0)
    lot: float = setting(256.0, "examples of a step in the mean, each drawn by itself", low=1.0)
    ghost: bool = setting(True, "norms of the gradients of matrices without making these for each example")

    def __post_init__(self):
        if self.epsilon and self.noise:
            raise ValueError(f"--privacy.epsilon={self.epsilon:g} with --privacy.noise={self.noise:g}: leave one out")
        if (self.epsilon or self.noise) and not self.clip:
            raise ValueError("--privacy.clip=0 with noise: the noise is a multiple of clip, set one above 0")

    @property
    def on(self) -> bool:
        return bool(self.epsilon or self.noise)
