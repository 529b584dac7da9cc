"""Examples that a network holds for alike."""

import numpy as np


def nearest(vectors, vector, count: int) -> list[tuple[int, float]]:
    """(row, cosine) of the `count` rows of `vectors` [N,D] whose direction is nearest to that of `vector` [D], the
    nearest first.

    With the vectors that a classifier decides on, these are the training examples it takes the input to be like
    (Papernot & McDaniel 2018, "Deep k-nearest neighbors", with the cosine and the last layer alone).
    """
    lengths = np.maximum(np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector), 1e-12)
    cosines = vectors @ vector / lengths
    best = np.argsort(-cosines, kind="stable")[:count]
    return [(int(i), float(cosines[i])) for i in best]
