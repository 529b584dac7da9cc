"""How well samples cover a mixture of Gaussians whose means and deviation are known."""

import numpy as np


def coverage(points, means, deviation: float, within: float = 3.0) -> dict:
    """Of points [N,2] against means [K,2], as Srivastava et al. 2017 and Lin et al. 2018 count:

    modes: means with at least one high-quality point, one closer than `within` deviations; high_quality: their share in
    percent (98.9 of the mixture's own points, 1 - exp(-9/2), are); reverse_kl: of the points by their nearest mean, of
    high quality or not, from all means alike, in nats: 0 to log K.

    counts: high-quality points of each mean, int [K].
    """
    points, K = np.asarray(points, np.float64), len(means)
    apart = np.sqrt(((points[:, None] - np.asarray(means, np.float64)[None]) ** 2).sum(-1))  # [N,K]
    nearest = apart.argmin(1)
    good = apart[np.arange(len(points)), nearest] < within * deviation  # a point that is not a number is far
    counts = np.bincount(nearest[good], minlength=K)
    share = np.bincount(nearest, minlength=K) / len(points)
    some = share[share > 0]
    return {
        "modes": int((counts > 0).sum()),
        "high_quality": 100 * float(good.mean()),
        "reverse_kl": float((some * np.log(some * K)).sum()),
        "counts": counts,
    }
