"""BLEU on the device: nltk's, and where that is not installed, what it said."""

import jax
import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.evaluate.bleu_reward import bleu, tables

REFERENCES = np.array([[0, 1, 2, 0, 1], [2, 2, 2, 1, 0], [3, 0, 1, 1, 4]])
ROWS = np.array([[0, 1, 2, 0, 1], [2, 2, 2, 2, 2], [0, 1, 1, 4, 5], [5, 5, 5, 5, 5], [1, 0, 1, 0, 1]])
# nltk 3.10.4: sentence_bleu(REFERENCES, row, [1 / n] * n, SmoothingFunction().method1), n = 2 and 3
STORED = {2: [1.0, 0.5477226, 0.7745967, 0.0, 0.7745967], 3: [1.0, 0.4641589, 0.7368063, 0.0, 0.2714418]}


def scores(references, rows, order, vocab=6):
    found = tables(references, vocab, order)
    return np.asarray(jax.jit(lambda rows: bleu(found, vocab, rows))(rows.astype(np.int32)))


@pytest.mark.parametrize("order", [2, 3])
def test_bleu_is_what_nltk_said(order):
    np.testing.assert_allclose(scores(REFERENCES, ROWS, order), STORED[order], rtol=1e-5)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_bleu_is_nltks(order):
    nltk = pytest.importorskip("nltk.translate.bleu_score", reason="nltk is not installed")
    rng = np.random.default_rng(order)
    references, rows = rng.integers(0, 6, (30, 8)), rng.integers(0, 7, (40, 8))
    smooth = nltk.SmoothingFunction().method1
    theirs = [nltk.sentence_bleu(references.tolist(), row.tolist(), [1 / order] * order, smooth) for row in rows]
    np.testing.assert_allclose(scores(references, rows, order, vocab=7), theirs, rtol=1e-5)


def test_orders_that_no_reference_has_are_refused():
    with pytest.raises(UserError, match="n-grams of up to 6"):
        tables(REFERENCES, 6, 6)
