"""Distances and shares on sets where they are known."""

import numpy as np
import pytest

from lmjax.evaluate import images
from lmjax.evaluate.mixtures import coverage


def test_the_frechet_distance_of_known_gaussians():
    a, b, c, d = 4.0, 9.0, 1.0, 16.0  # variances along one pair of axes, turned
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    one = images.Gaussian(np.array([1.0, 2.0]), turn @ np.diag([a, b]) @ turn.T)
    other = images.Gaussian(np.array([4.0, 6.0]), turn @ np.diag([c, d]) @ turn.T)
    expected = 25 + (a**0.5 - c**0.5) ** 2 + (b**0.5 - d**0.5) ** 2
    assert images.frechet_distance(one, other) == pytest.approx(expected)
    assert images.frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    flat = images.Gaussian(np.zeros(2), np.diag([1.0, 0.0]))  # a feature that never fires
    assert images.frechet_distance(flat, images.Gaussian(np.zeros(2), np.eye(2))) == pytest.approx(1.0)


def test_the_frechet_distance_where_covariances_do_not_commute_is_scipys_root():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    one, other = (images.gaussian(rng.normal(size=(50, 5)) @ rng.normal(size=(5, 5))) for _ in range(2))
    root = np.trace(sqrtm(one.covariance @ other.covariance).real)
    expected = ((one.mean - other.mean) ** 2).sum() + np.trace(one.covariance) + np.trace(other.covariance) - 2 * root
    assert images.frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)


def test_the_score_runs_from_one_to_the_number_of_classes():
    sure = np.eye(4)[np.arange(40) % 4]
    assert images.classifier_score(sure) == pytest.approx(4)
    assert images.classifier_score(sure[[0] * 8]) == pytest.approx(1)
    assert images.classifier_score(np.full((8, 4), 0.25)) == pytest.approx(1)


def test_precision_and_recall_of_known_sets():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 100
    both = np.concatenate([left, right])
    assert images.precision_recall(both, both) == (100, 100)
    precision, recall = images.precision_recall(both, left[:100] + 1e-6)
    assert precision == 100
    assert recall < 50
    far = np.concatenate([left[:100], left[100:] + 1000])  # half of it nowhere near
    assert images.precision_recall(left, far)[0] == pytest.approx(50, abs=1)
    assert images.precision_recall(left, right) == (0, 0)
    line = np.array([[0.0], [1.0], [3.0], [7.0]])  # balls to the second neighbour: radii 3, 2, 3, 6
    assert images.precision_recall(line, np.array([[-2.9], [-3.1], [12.9], [13.1]]), k=2) == (50, 100)


def test_coverage_of_classes():
    assert images.class_coverage(np.arange(100) % 10, 10) == (10, pytest.approx(0))
    assert images.class_coverage(np.zeros(50, int), 10) == (1, pytest.approx(np.log(10)))
    assert images.class_coverage(np.array([0] * 995 + [1] * 5), 2)[0] == 1


def test_copies_are_found():
    rng = np.random.default_rng(0)
    train, held_out, others = (rng.normal(size=(300, 4, 4, 1)) for _ in range(3))
    found = images.copies(train, held_out, train[:50][::-1] + 1e-3)
    assert found.nearest.tolist() == list(range(50))[::-1]
    assert found.copied == 100
    assert found.closeness < 0.01
    fresh = images.copies(train, held_out, others)
    assert fresh.copied < 5
    assert fresh.closeness == pytest.approx(1, abs=0.1)


def test_coverage_of_a_mixture():
    means = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    points = np.array([[0.1, 0.1], [0.0, 0.31], [10.0, 0.29], [9.0, 9.0]])
    found = coverage(points, means, 0.1)
    assert (found["modes"], found["high_quality"]) == (2, 50)
    assert found["counts"].tolist() == [1, 1, 0, 0]
    assert found["reverse_kl"] == pytest.approx(0.5 * np.log(2) + 2 * 0.25 * np.log(1))
    rng = np.random.default_rng(0)
    own = means[np.arange(20000) % 4] + 0.1 * rng.normal(size=(20000, 2))
    found = coverage(own, means, 0.1)
    assert found["modes"] == 4
    assert found["high_quality"] == pytest.approx(100 * (1 - np.exp(-4.5)), abs=0.3)
    assert found["reverse_kl"] == pytest.approx(0, abs=1e-9)
    assert coverage(points * np.nan, means, 0.1)["modes"] == 0
