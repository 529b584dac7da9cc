"""Figures of a classifier, all taken from its confusion matrix. Shares lie in 0 to 1; papers print them in percent.

K classes; confusion int [K,K]: its rows the true classes, its columns the predicted ones.
"""

import numpy as np


def confusion_matrix(labels, predicted, classes: int) -> np.ndarray:
    """How often each class [rows] was called each class [columns]: int [K,K], from labels and predictions int [N]."""
    labels, predicted = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def accuracy(confusion) -> float:
    return float(np.trace(confusion) / confusion.sum())


def matthews(confusion) -> float:
    """Matthews' correlation coefficient, -1 to 1; of more than two classes Gorodkin's R_K (2004). 0 where the labels or
    the predictions are all of one class."""
    total, true, called = confusion.sum(), confusion.sum(1).astype(float), confusion.sum(0).astype(float)
    covariance = np.trace(confusion) * total - true @ called
    variance = (total**2 - true @ true) * (total**2 - called @ called)
    return float(covariance / np.sqrt(variance)) if variance > 0 else 0.0


def precision_recall_f1(confusion) -> np.ndarray:
    """Precision, recall and F1 of each class, [K,3]; 0 where nothing was called, or is, of the class."""
    right = np.diagonal(confusion).astype(float)
    true, called = confusion.sum(1), confusion.sum(0)
    share = np.stack([right, right, 2 * right], axis=1)
    return share / np.maximum(np.stack([called, true, called + true], axis=1), 1)


def macro_f1(confusion) -> float:
    """The mean of the classes' F1, each class alike."""
    return float(precision_recall_f1(confusion)[:, 2].mean())


def calibration_error(probabilities, labels, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3), 0 to 1: how far the probability of what was called lies from
    the share of it that is right, in `bins` bins of equal width, weighted by their numbers.

    probabilities [N,K], labels int [N].
    """
    probabilities, labels = np.asarray(probabilities, float), np.asarray(labels)
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(place, sure, bins) - np.bincount(place, right, bins)
    return float(np.abs(gaps).sum() / len(labels))


def caught(confusion, target: int) -> float:
    """The share of the target class that was called so: of spam, "spam caught"."""
    return float(confusion[target, target] / max(confusion[target].sum(), 1))


def blocked(confusion, target: int) -> float:
    """The share of all other classes that was called the target class: of ham, "blocked ham"."""
    others = np.delete(confusion, target, axis=0)
    return float(others[:, target].sum() / max(others.sum(), 1))
