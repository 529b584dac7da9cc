"""Chunks found by a tagger, counted as conlleval counts them (Tjong Kim Sang & Buchholz 2000): a chunk is right where
its first word, its last word and its kind are. Tags are BIO, or IOBES."""

from collections import Counter


def chunks(tags) -> list[tuple[str, int, int]]:
    """(kind, first word, word after the last) of each chunk of tags in BIO or IOBES.

    An I- or E- that follows O or another kind, or a word where a chunk has ended (E-, S-), begins a chunk too, as for
    conlleval.
    """
    found, kind, begin, ended = [], None, 0, True
    for at, tag in enumerate([*tags, "O"]):
        mark, _, now = tag.partition("-")
        if kind is not None and (ended or mark not in ("I", "E") or now != kind):
            found.append((kind, begin, at))
            kind = None
        if mark != "O" and kind is None:
            kind, begin = now, at
        ended = mark in ("E", "S")
    return found


def chunk_scores(true, called) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 (0 to 1) of all chunks, under "", and of each kind.

    true, called: the tags of each sentence, in one order. 0 where nothing was called, or is, a chunk.
    """
    return {kind: _scores(*counts) for kind, counts in chunk_counts(true, called).items()}


def chunk_counts(true, called) -> dict[str, tuple[int, int, int]]:
    """How many chunks are called right, are there, and are called, of all, under "", and of each kind."""
    right, there, claimed = Counter(), Counter(), Counter()
    for one, other in zip(true, called, strict=True):
        if len(one) != len(other):
            raise ValueError(f"a sentence of {len(one)} words has {len(other)} tags: expected one a word")
        a, b = chunks(one), chunks(other)
        for counter, found in ((there, a), (claimed, b), (right, set(a) & set(b))):
            for kind, _, _ in found:
                counter[""] += 1
                counter[kind] += 1
    return {kind: (right[kind], there[kind], claimed[kind]) for kind in sorted({"", *there, *claimed})}


def _scores(right: int, there: int, claimed: int) -> tuple[float, float, float]:
    return right / max(claimed, 1), right / max(there, 1), 2 * right / max(claimed + there, 1)


def report(true, called) -> str:
    """A table in percent, of each kind and of all: precision, recall, F1, chunks that are there and that are called."""
    counts = chunk_counts(true, called)
    width = max(8, *map(len, counts))
    lines = [f"{'chunks of':{width}}{'precision':>11}{'recall':>8}{'F1':>8}{'there':>8}{'called':>8}"]
    for kind in [*(kind for kind in counts if kind), ""]:
        right, there, claimed = counts[kind]
        figures = "".join(f"{100 * x:{w}.2f}" for x, w in zip(_scores(right, there, claimed), (11, 8, 8)))
        lines.append(f"{kind or 'all':{width}}{figures}{there:8,}{claimed:8,}")
    return "\n".join(lines)


def chunk_f1(true, called) -> float:
    """The F1 of all chunks, 0 to 1."""
    return chunk_scores(true, called)[""][2]


def accuracy(true, called) -> float:
    """The share of words, 0 to 1, whose tag is right."""
    pairs = [(a, b) for one, other in zip(true, called, strict=True) for a, b in zip(one, other, strict=True)]
    return sum(a == b for a, b in pairs) / max(len(pairs), 1)
