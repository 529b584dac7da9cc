"""Which passages of a folder of texts a question is about: by the words they share (BM25) or by their vectors."""

import itertools
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data import files
from lmjax.data.reading import words_of
from lmjax.data.text import SUFFIXES, decode
from lmjax.errors import UserError, install
from lmjax.run import models
from lmjax.run.tasks import answering

_END = re.compile("[.!?]+(?=\\s)|[\u3002\uff01\uff1f]")  # the last are Chinese
MORE = 8  # stretches to look at for each answer: most of the likeliest overlap

# A query gives the numbers of the `count` best passages, best first, and their scores: ([N,count] int, float32).
Search = Callable[[Sequence[str], int], tuple[np.ndarray, np.ndarray]]


class Passage(NamedTuple):
    """A stretch of a text: where it is from, its first character there, and the text itself."""

    source: str
    start: int
    text: str


def read_texts(path) -> list[tuple[str, str]]:
    """(name, text) of a file, or of the text files of a folder and those in it, by name. UserError where there is none.

    A file that is empty is left out.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return [(path.name, decode(files.read_bytes(path), path))]
    if not path.is_dir():
        raise UserError(f"--documents={path} is neither a folder nor a file: give one that holds texts")
    found = []
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name.removesuffix(".gz").lower().endswith(SUFFIXES):
            content = files.read_bytes(file)
            if content.strip():
                found.append((str(file.relative_to(path)), decode(content, file)))
    if not found:
        raise UserError(f"--documents={path} holds no text: expected files ending in {', '.join(SUFFIXES)}")
    return found


def passages(texts, longest: int = 120) -> list[Passage]:
    """Texts (name, text) cut into passages of at most `longest` words.

    Cut is between sentences, or at a paragraph's end where half the words are reached; a sentence that is longer by
    itself is cut between words.
    """
    found = []
    for name, text in texts:
        begin = end = count = 0
        for start, stop, words, last in _sentences(text, longest):
            if count and count + words > longest:
                found.append(Passage(name, begin, text[begin:end]))
                count = 0
            begin, end, count = start if count == 0 else begin, stop, count + words
            if last and 2 * count >= longest:
                found.append(Passage(name, begin, text[begin:end]))
                count = 0
        if count:
            found.append(Passage(name, begin, text[begin:end]))
    return found


def _sentences(text: str, longest: int):
    """(first character, the one behind the last, words, whether a paragraph ends) of each sentence or part of one."""
    for paragraph in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text):
        ends = [one.end() for one in _END.finditer(paragraph.group())]
        cuts = [0, *ends, len(paragraph.group().rstrip())]
        for at, (a, b) in enumerate(itertools.pairwise(cuts)):
            words = words_of(paragraph.group()[a:b])
            offset = paragraph.start() + a
            for first in range(0, len(words), longest):
                some = words[first : first + longest]
                whole = at == len(cuts) - 2 and first + longest >= len(words)
                yield offset + some[0][1], offset + some[-1][2], len(some), whole


def bm25(texts: Sequence[str]) -> Search:
    """By BM25 (Robertson & Zaragoza 2009; k1 1.5, b 0.75, of Lucene's kind) over words in lower case."""
    try:
        import bm25s
    except ImportError:
        raise UserError(f"BM25 needs bm25s, which is not installed: {install('search')}; or "
                        "give --retriever=vectors") from None  # fmt: skip
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to say what it does
    index = bm25s.BM25()
    index.index([_terms(text) for text in texts], show_progress=False)

    def search(queries, count):
        scores = [index.get_scores(terms) if (terms := _terms(query)) else np.zeros(len(texts)) for query in queries]
        return best(np.array(scores, np.float32).reshape(len(queries), len(texts)), count)

    return search


def _terms(text: str) -> list[str]:
    return [word.lower() for word, *_ in words_of(text) if word[0].isalnum()]


def by_vectors(texts: Sequence[str], trained) -> Search:
    """By the cosine of sentence vectors of a BERT such as MiniLM, a models.Trained."""
    table = models.embed(trained, list(texts))

    def search(queries, count):
        return best(models.embed(trained, list(queries)) @ table.T, count)

    return search


def best(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns of the `count` highest scores of each row [N,C], of equals the first, and these scores."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(scores, order, axis=1)


def recall(search: Search, questions: Sequence[str], right: Sequence[int], at=(1, 5, 20)) -> dict[int, float]:
    """{k: percent of the questions whose passage, number `right`, is among the k best}."""
    hits = dict.fromkeys(at, 0)
    for start in range(0, len(questions), 256):  # the scores of all at once would not fit
        found, _ = search(questions[start : start + 256], max(at))
        place = found == np.asarray(right[start : start + 256])[:, None]
        for k in at:
            hits[k] += int(place[:, :k].any(1).sum())
    return {k: 100 * n / len(questions) for k, n in hits.items()}


class Answer(NamedTuple):
    """What a folder of texts answers: text and probability, where it is from and its first character there and the one
    behind the last, and the passage that it was read in."""

    text: str
    probability: float
    source: str
    start: int
    end: int
    passage: str


def ask(
    reader: answering.Reader, parts: Sequence[Passage], search: Search, questions: Sequence[str], count: int = 3,
    read: int = 5, **settings,
) -> list[list[Answer]]:  # fmt: skip
    """The `count` best answers to each question from the `read` passages that `search` finds for it.

    Of answers that overlap the best is given. The probability is among all stretches of these passages and "the answer
    is in none": a passage is one more window. settings: as of answering.search.
    """
    chosen, _ = search(questions, min(read, len(parts)))
    pairs = [(question, parts[i].text) for question, row in zip(questions, chosen) for i in row]
    places, groups = chosen.reshape(-1), np.repeat(np.arange(len(questions)), chosen.shape[1])
    result = []
    for found in answering.answers(reader, pairs, MORE * count, groups=groups.tolist(), **settings):
        row = []
        for pair, one in found:
            part = parts[places[pair]]
            here = Answer(one.text, one.probability, part.source, part.start + one.start, part.start + one.end,
                          part.text)  # fmt: skip
            if not any(here.source == other.source and here.start < other.end and other.start < here.end
                       for other in row):  # fmt: skip
                row.append(here)
        result.append(row[:count])
    return result
