"""What can be said of a word in its sentence, as text: the features of a CRF and the evidence of an HMM."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from lmjax.data.tagged import Sentence

AFFIX = 4  # letters of the longest prefix and suffix
OUTSIDE = "\0"  # stands before the first word and behind the last


def shape(word: str) -> str:
    """What kind of word it is by its letters: Xxx, XX, 00.00, xx-xx; runs of more than two count as two."""
    kinds = []
    for letter in word:
        kind = "X" if letter.isupper() else "x" if letter.isalpha() else "0" if letter.isdigit() else letter
        if kinds[-2:] != [kind, kind]:
            kinds.append(kind)
    return "".join(kinds)


def features(sentence: Sentence, columns: int = 0) -> list[list[str]]:
    """The features of each word, as many for all: the words around it and the pairs it makes with its neighbours, its
    prefixes, suffixes and shape, and, of each further column, what it says of the five words around, alone, in pairs
    and in threes (as Sha & Pereira 2003 and Huang et al. 2015 list them)."""
    padded = [OUTSIDE] * 2
    words = [*padded, *(word.lower() for word in sentence.words), *padded]
    shapes = [*padded, *map(shape, sentence.words), *padded]
    others = [[*padded, *values, *padded] for values in sentence.columns[:columns]]
    found = []
    for t, word in enumerate(sentence.words, start=2):
        row = [f"w{n}={words[t + n]}" for n in range(-2, 3)]
        row += [f"w-1,0={words[t - 1]} {words[t]}", f"w0,1={words[t]} {words[t + 1]}"]
        row += [f"s{n}={shapes[t + n]}" for n in range(-1, 2)]
        row += [f"<{word[:n]}" if len(word) >= n else "" for n in range(1, AFFIX + 1)]
        row += [f"{word[-n:]}>" if len(word) >= n else "" for n in range(1, AFFIX + 1)]
        for c, values in enumerate(others):
            for size in (1, 2, 3):
                row += [f"c{c},{n}={' '.join(values[t + n : t + n + size])}" for n in range(-2, 4 - size)]
        found.append(row)
    return found


def feature_list(sentences: Iterable[Sentence], columns: int, min_count: int) -> tuple[str, ...]:
    """The features seen so often, the first of all being none."""
    counts = Counter(name for one in sentences for row in features(one, columns) for name in row if name)
    return ("", *sorted(name for name, n in counts.items() if n >= min_count))


def feature_numbers(sentences: Iterable[Sentence], names: tuple[str, ...], columns: int) -> list[np.ndarray]:
    """int32 [T,n] of each sentence: its words' features' places in `names`, 0 for one that is not there."""
    place = {name: n for n, name in enumerate(names)}
    return [np.array([[place.get(name, 0) for name in row] for row in features(one, columns)], np.int32)
            for one in sentences]  # fmt: skip


def evidence(sentence: Sentence, columns: int = 0) -> list[tuple[list[str], list[str]]]:
    """What each word says to an HMM: (of a word that is known, of one that is not), each from the most general to the
    most telling. What the further columns say stands in all."""
    found = []
    for word, *values in zip(sentence.words, *sentence.columns[:columns]):
        beside = " ".join(values)
        first = [f"c{beside}"] if values else []
        suffixes = [f"x{beside} {shape(word)} {word[-n:].lower()}" for n in range(1, min(AFFIX, len(word)) + 1)]
        found.append(([*first, f"w{beside} {word}"], [*first, f"n{beside}", f"s{beside} {shape(word)}", *suffixes]))
    return found
