"""What a linear classifier can read off each layer (Alain & Bengio 2016; Tenney et al. 2019)."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from lmjax.models import bow


class Probe(NamedTuple):
    """accuracy: in percent of the test examples; c: the weight of the loss, of those tried best on held-out ones."""

    accuracy: float
    c: float


CS = (0.001, 0.01, 0.1, 1.0)


def probe(train, labels, test, test_labels, classes: int, seed=0) -> Probe:
    """A logistic regression from states `train` [N,D] to `labels` int [N], tested on `test` [M,D].

    States are brought to mean 0 and spread 1 by the training part's. c is chosen on a tenth of training.
    """
    mean, spread = train.mean(0), train.std(0) + 1e-6
    train, test = (sparse.csr_array((part - mean) / spread) for part in (train, test))
    held = np.random.default_rng(seed).permutation(len(labels)) % 10 == 0

    def right(model, part, truth):
        return 100 * float((bow.scores(model, part).argmax(1) == truth).mean())

    tried = {}
    for c in CS:
        model = bow.fit(train, labels, classes, "logistic", c, weights=(~held).astype(np.float32))
        tried[c] = right(model, train[np.flatnonzero(held)], labels[held])
    best = max(tried, key=tried.get)
    return Probe(right(bow.fit(train, labels, classes, "logistic", best), test, test_labels), best)
