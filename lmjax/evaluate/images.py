"""Whether made images are as good and as varied as real ones, by features of a classifier of our own.

None of these is FID or the Inception score: those are of one published network's features, and figures of other
features cannot be set beside them.

N, M images, D features, K classes. scipy is imported where it is used.
"""

from typing import NamedTuple

import numpy as np


class Gaussian(NamedTuple):
    """Mean [D] and covariance [D,D] of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


def gaussian(features) -> Gaussian:
    """Of features [N,D], N > 1."""
    features = np.asarray(features, np.float64)
    return Gaussian(features.mean(0), np.cov(features, rowvar=False).reshape(features.shape[1], -1))


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), between two Gaussians (Dowson & Landau 1982; Heusel et al. 2017).

    The trace of the root is the sum of the roots of the eigenvalues of C^(1/2) C' C^(1/2), which is symmetric. A finite
    N makes the distance too large, so compare figures of one N alone.
    """
    from scipy.linalg import eigh

    values, vectors = eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))[None]) @ vectors.T
    common = np.sqrt(np.maximum(eigh(root @ other.covariance @ root, eigvals_only=True), 0)).sum()
    apart = ((one.mean - other.mean) ** 2).sum()
    return float(max(apart + np.trace(one.covariance) + np.trace(other.covariance) - 2 * common, 0.0))


def classifier_score(probabilities) -> float:
    """exp of the mean over images of KL(p(class | image) || p(class)), from 1 to K (Salimans et al. 2016, section 4).

    probabilities [N,K]: of a classifier. High where each image is surely of one class and the classes are even.
    """
    p = np.asarray(probabilities, np.float64)
    logs = np.log(np.maximum(p, 1e-16)) - np.log(np.maximum(p.mean(0, keepdims=True), 1e-16))
    return float(np.exp((p * logs).sum(1).mean()))


def precision_recall(real, made, k: int = 3) -> tuple[float, float]:
    """Kynkäänniemi et al. 2019, eq. 1 and 2, in percent.

    Precision: the share of made features [M,D] that lie in a ball around some real one [N,D], as wide as to that one's
    k-th neighbour among the real; recall: the same with real and made exchanged. Both need more than k of each.
    """
    real, made = np.asarray(real, np.float64), np.asarray(made, np.float64)
    between = squared_distances(real, made)

    def radius(x):
        return np.partition(squared_distances(x, x), k, axis=1)[:, k]  # the 0th is the point itself

    covered = (between <= radius(real)[:, None]).any(0), (between <= radius(made)[None]).any(1)
    return 100 * float(covered[0].mean()), 100 * float(covered[1].mean())


def squared_distances(one, other) -> np.ndarray:
    """[N,M] between rows of [N,D] and [M,D], not below 0."""
    found = (one * one).sum(1)[:, None] + (other * other).sum(1)[None] - 2 * one @ other.T
    return np.maximum(found, 0.0)


def class_coverage(called, classes: int) -> tuple[int, float]:
    """(classes with at least a tenth of an even share of the images, KL of the shares from even ones in nats).

    called int [N]: the class each image is called.
    """
    share = np.bincount(called, minlength=classes) / len(called)
    some = share[share > 0]
    return int((share >= 0.1 / classes).sum()), float((some * np.log(some * classes)).sum())


class Copies(NamedTuple):
    """nearest int [M]: the training image nearest to each made one. closeness: the median distance of made images to
    it, over that of images not trained on; copied: the share of made images, in percent, that are nearer to a training
    image than 99 % of those are: 1 of images like these, 100 of copies."""

    nearest: np.ndarray
    closeness: float
    copied: float


def copies(train, held_out, made) -> Copies:
    """Images [N, ...] trained on, held out, and made, in pixels from -1 to 1."""
    train, held_out, made = (np.asarray(x, np.float32).reshape(len(x), -1) for x in (train, held_out, made))

    def nearest(x):
        parts = [squared_distances(x[i : i + 256], train) for i in range(0, len(x), 256)]
        at = np.concatenate([part.argmin(1) for part in parts])
        return at, np.sqrt(((x - train[at]) ** 2).sum(1))  # anew, for what the product's rounding lost

    (_, others), (at, mine) = nearest(held_out), nearest(made)
    closeness = np.median(mine) / np.median(others)
    return Copies(at, float(closeness), 100 * float((mine < np.quantile(others, 0.01)).mean()))
