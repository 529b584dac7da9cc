"""Figures against counts done by hand."""

import numpy as np
import pytest

from lmjax.evaluate import classification as c

SPAM = np.array([[90, 10], [4, 16]])  # ham, spam


def test_confusion_matrix_counts_true_by_called():
    matrix = c.confusion_matrix([0, 0, 1, 2, 2], [0, 1, 1, 2, 0], 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert c.confusion_matrix([0], [0], 4).shape == (4, 4)


def test_figures_by_hand():
    assert c.accuracy(SPAM) == pytest.approx(106 / 120)
    assert c.precision_recall_f1(SPAM)[1] == pytest.approx([16 / 26, 16 / 20, 32 / 46])
    assert c.macro_f1(SPAM) == pytest.approx((180 / 194 + 32 / 46) / 2)
    assert c.caught(SPAM, 1) == pytest.approx(0.8)
    assert c.blocked(SPAM, 1) == pytest.approx(0.1)
    assert c.blocked(np.array([[5, 1, 0], [2, 8, 2], [0, 0, 9]]), 0) == pytest.approx(2 / 21)


def test_matthews():
    tp, tn, fp, fn = 16.0, 90.0, 10.0, 4.0
    by_hand = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert c.matthews(SPAM) == pytest.approx(by_hand)
    assert c.matthews(np.diag([3, 4, 5])) == pytest.approx(1)
    assert c.matthews(np.array([[0, 5], [5, 0]])) == pytest.approx(-1)
    assert c.matthews(np.array([[7, 0], [3, 0]])) == 0  # all called alike


def test_a_class_that_never_occurs_is_zero_without_a_warning():
    assert c.precision_recall_f1(np.array([[3, 0], [0, 0]]))[1].tolist() == [0, 0, 0]
    assert c.caught(np.array([[3, 0], [0, 0]]), 1) == c.blocked(np.array([[0, 0], [0, 2]]), 1) == 0


def test_calibration_error_by_hand():
    # Called with .8 twice, of which one is right, and with .6 once, right: (2 |.5 - .8| + |1 - .6|) / 3.
    probabilities = np.array([[0.8, 0.2], [0.2, 0.8], [0.4, 0.6]])
    assert c.calibration_error(probabilities, [0, 0, 1]) == pytest.approx((2 * 0.3 + 0.4) / 3)
    assert c.calibration_error(np.array([[1.0, 0.0]]), [0]) == 0
    # In one bin all three: their mean .7333 beside 2 / 3 that are right.
    assert c.calibration_error(probabilities, [0, 0, 1], bins=1) == pytest.approx(2.2 / 3 - 2 / 3)
