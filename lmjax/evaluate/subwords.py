"""Words outside a vocabulary, where a model can make their vectors from n-grams: asked for, and in the test sets."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from lmjax.errors import UserError
from lmjax.evaluate import embeddings


def extended(words: Sequence[str], vectors, compose: Callable, asked: Iterable[str]):
    """(words, vectors) with those of `asked` behind them that are not among them in any case.

    compose(words) -> [N,D]; words of which it makes 0 are left out. Where the vocabulary has no capitals, neither has
    what is composed.
    """
    known = {word.upper() for word in words}
    new = list({word.upper(): word for word in asked if word and word.upper() not in known}.values())
    if not new:
        return words, vectors
    lower = all(word == word.lower() for word in words)
    made = compose([word.lower() if lower else word for word in new])
    some = made.any(1)
    return [*words, *np.array(new, object)[some]], np.concatenate([np.asarray(vectors), made[some]])


def similarities(words: Sequence[str], vectors, compose: Callable, folder) -> dict[str, tuple[float, int, int]]:
    """As `score_all(...).similarities`, with vectors for all words of the sets."""
    asked = []
    for path in sorted(Path(folder).expanduser().glob("*.txt")):
        try:
            asked += [word for a, b, _ in embeddings.read_pairs(path) for word in (a, b)]
        except UserError:  # analogies
            continue
    return embeddings.score_all(*extended(words, vectors, compose, asked), folder, restrict=1).similarities
