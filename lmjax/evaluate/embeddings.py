"""What word vectors know: analogies, agreement with people's judgement of similarity, and the words nearest to one.

    Mikolov et al. 2013a, "Efficient estimation of word representations in vector space" (the analogies, section 4)
    Levy & Goldberg 2014, "Linguistic regularities in sparse and explicit word representations" (3CosAdd, its name)

The figures are those of gensim's evaluate_word_analogies and evaluate_word_pairs: upper and lower case are one, the
first (most frequent) of several spellings stands for them, and a question with a word that has no vector is not asked.
`words` are always sorted from the most to the least frequent. Letters: V words, D dimensions, R the words an analogy's
answer is looked for among, B questions at a time, K spellings of a word.
"""

import difflib
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.errors import UserError

Sections = dict[str, list[tuple[str, str, str, str]]]
BATCH = 512  # questions at a time: their scores over 30,000 words take 60 MB

# A set's name, where its file's is not one.
_NAMES = {
    "questions-words": "analogy", "questions-phrases": "phrase_analogy", "EN-MEN-TR-3k": "men", "EN-MC-30": "mc30",
    "EN-RG-65": "rg65", "EN-RW-STANFORD": "rare_words", "EN-SIMLEX-999": "simlex999", "EN-WS-353-ALL": "wordsim353",
    "EN-WS-353-SIM": "wordsim353_similarity", "EN-WS-353-REL": "wordsim353_relatedness", "EN-YP-130": "yp130",
    "EN-MTurk-287": "mturk287", "EN-MTurk-771": "mturk771", "EN-VERB-143": "verb143",
    "EN-SimVerb-3500": "simverb3500",
}  # fmt: skip


class Scores(NamedTuple):
    """The figures of every set of a folder, by the set's name: what `analogies` and `similarity` give."""

    analogies: dict[str, dict[str, tuple[int, int, int]]]
    similarities: dict[str, tuple[float, int, int]]


def unit(vectors) -> np.ndarray:
    """The vectors [V,D] as float32 of length one; a zero vector stays zero."""
    vectors = np.asarray(vectors, np.float32)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def analogies(words: Sequence[str], vectors, sections: Sections, restrict: int = 30_000):
    """{section: (correct, asked, total)} of the questions "a is to b as c is to d".

    Correct is where, among the `restrict` most frequent words other than a, b and c, d is nearest to b - a + c in
    unit vectors (3CosAdd). Only questions of four such words are asked.
    """
    if restrict < 1:
        raise UserError(f"restrict={restrict}: expected at least one word to answer with")
    words = words[:restrict]
    first, spellings = _spellings(words)
    known = {
        section: [[first[word.upper()] for word in question] for question in questions
                  if all(word.upper() in first for word in question)]
        for section, questions in sections.items()
    }  # fmt: skip
    right = _answered(unit(vectors[:restrict]), spellings, [ids for asked in known.values() for ids in asked])
    result, at = {}, 0
    for section, asked in known.items():
        result[section] = int(right[at : at + len(asked)].sum()), len(asked), len(sections[section])
        at += len(asked)
    return result


def _spellings(words: Sequence[str]) -> tuple[dict[str, int], np.ndarray]:
    """The first id of each word in capitals, and [V,K] all ids spelled as each, filled up by repetition."""
    first, groups = {}, {}
    for id, word in enumerate(words):
        groups.setdefault(first.setdefault(word.upper(), id), []).append(id)
    K = max(map(len, groups.values()))
    spellings = np.tile(np.arange(len(words), dtype=np.int32)[:, None], K)
    for id, same in groups.items():
        spellings[same] = same + [id] * (K - len(same))
    return first, spellings


def _answered(table: np.ndarray, spellings: np.ndarray, questions: list[list[int]]) -> np.ndarray:
    """Which of the questions [Q,4] are answered rightly, [Q] bool."""
    if not questions:
        return np.zeros(0, bool)
    padded = np.zeros((-(-len(questions) // BATCH) * BATCH, 4), np.int32)  # one shape, one compiled program
    padded[: len(questions)] = questions
    table, spellings = jnp.asarray(table), jnp.asarray(spellings)
    right = [_right(table, spellings, padded[at : at + BATCH]) for at in range(0, len(padded), BATCH)]
    return np.concatenate(jax.device_get(right))[: len(questions)]


@jax.jit
def _right(table, spellings, questions):
    """Whether d is nearest to b - a + c for each of the questions [B,4]; table [R,D], spellings [R,K]."""
    B = len(questions)
    a, b, c, d = questions.T
    query = table[b] - table[a] + table[c]  # [B,D]
    scores = jnp.einsum("bd,rd->br", query, table, precision="highest")
    given = spellings[questions[:, :3]].reshape(B, -1)  # [B,3K]
    scores = scores.at[jnp.arange(B)[:, None], given].set(-jnp.inf)
    of_answer = jnp.take_along_axis(scores, spellings[d], axis=1).max(1)
    return (of_answer == scores.max(1)) & (of_answer > -jnp.inf)


def similarity(words: Sequence[str], vectors, pairs: Sequence[tuple[str, str, float]]) -> tuple[float, int, int]:
    """(Spearman's rank correlation of the pairs' cosines with people's scores, pairs used, pairs in all).

    A pair with an unknown word is not used. The correlation of fewer than two is nan.
    """
    from scipy import stats  # takes half a second to import

    first = {}
    for id, word in enumerate(words):
        first.setdefault(word.upper(), id)
    known = [(first[a.upper()], first[b.upper()], score) for a, b, score in pairs
             if a.upper() in first and b.upper() in first]  # fmt: skip
    if len(known) < 2:
        return math.nan, len(known), len(pairs)
    a, b, score = zip(*known)
    vectors = np.asarray(vectors)
    cosine = (unit(vectors[list(a)]) * unit(vectors[list(b)])).sum(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where all are equal the correlation is nan
        return float(stats.spearmanr(score, cosine).statistic), len(known), len(pairs)


def read_questions(path) -> Sections:
    """The analogies of a file: ": section" on a line, then "a b c d" on each."""
    sections, name = {}, None
    for number, line in _lines(path):
        fields = line.split()
        if fields[0] == ":":
            name = " ".join(fields[1:])
            sections.setdefault(name, [])
        elif name is None or len(fields) != 4:
            expected = "four words" if name is not None else "a line such as ': capitals' before the first question"
            raise UserError(f"{path}, line {number}: {line[:60]!r}: expected {expected}")
        else:
            sections[name].append(tuple(fields))
    return sections


def read_pairs(path) -> list[tuple[str, str, float]]:
    """The pairs of a file: two words and people's score of their similarity on each line; # begins a comment."""
    pairs = []
    for number, line in _lines(path):
        if line.startswith("#"):
            continue
        try:
            a, b, score = line.split()
            pairs.append((a, b, float(score)))
        except ValueError:
            raise UserError(f"{path}, line {number}: {line[:60]!r}: expected two words and a number") from None
    return pairs


def _lines(path) -> list[tuple[int, str]]:
    """The lines of a file that are not blank, each with its number."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"{path} cannot be read: {reason}; expected analogies or pairs of words") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty: expected analogies or pairs of words")
    return lines


def score_all(words: Sequence[str], vectors, folder, restrict: int = 30_000) -> Scores:
    """The vectors' figures on every set of a folder: each .txt is one, of analogies where it begins with a colon."""
    folder = Path(folder).expanduser()
    files = sorted(path for path in folder.glob("*.txt") if not path.name.lower().startswith("readme"))
    if not files:
        raise UserError(
            f"{folder} holds no evaluation set: expected files such as questions-words.txt or "
            "EN-MEN-TR-3k.txt; they are in word-eval, in the folder that --data_dir or LMJAX_DATA names"
        )
    of_analogies, of_similarities = {}, {}
    for path in files:
        name = _NAMES.get(path.stem) or "".join(sign if sign.isalnum() else "_" for sign in path.stem.lower())
        if _lines(path)[0][1].lstrip().startswith(":"):
            of_analogies[name] = analogies(words, vectors, read_questions(path), restrict)
        else:
            of_similarities[name] = similarity(words, vectors, read_pairs(path))
    return Scores(of_analogies, of_similarities)


def metrics(scores: Scores) -> dict[str, float]:
    """Plain figures: of analogies the percentage answered rightly of those asked, of similarities Spearman's rank
    correlation; beside each its coverage, the share of questions or pairs whose words all have a vector. What could not
    be asked has a coverage of 0 and no figure.

    analogy_accuracy, analogy_coverage, and of it analogy_semantic and analogy_syntactic (the sections named gram...);
    men, men_coverage, wordsim353, ...
    """
    found = {}
    for name, sections in scores.analogies.items():
        parts = {"accuracy": sections}
        if kinds := _kinds(sections):
            parts |= kinds
        for part, chosen in parts.items():
            correct, asked, total = _sum(chosen)
            if asked:
                found[f"{name}_{part}"] = 100 * correct / asked
            if part == "accuracy":
                found[f"{name}_coverage"] = asked / total
    for name, (correlation, used, total) in scores.similarities.items():
        if not math.isnan(correlation):
            found[name] = correlation
        found[f"{name}_coverage"] = used / total
    return found


def covered(scores: Scores, share: float) -> Scores:
    """The sets of which at least this share could be asked: a figure of fewer says little."""
    analogies = {}
    for name, sections in scores.analogies.items():
        _, asked, total = _sum(sections)
        if asked >= share * total:
            analogies[name] = sections
    similarities = {name: found for name, found in scores.similarities.items() if found[1] >= share * found[2]}
    return Scores(analogies, similarities)


def evaluate_all(words: Sequence[str], vectors, folder, restrict: int = 30_000) -> dict[str, float]:
    """The `metrics` of every set present in `folder`, which is word-eval of the data sets."""
    return metrics(score_all(words, vectors, folder, restrict))


def report(scores: Scores) -> list[str]:
    """The figures as a table's lines: analogies by section, then the similarity sets."""
    lines = []
    for name, sections in sorted(scores.analogies.items()):
        if not _sum(sections)[1]:
            lines += [
                f"{name.replace('_', ' ')}: none of {_sum(sections)[2]:,} questions has a vector for each word",
                "",
            ]
            continue
        lines += [f"{name.replace('_', ' '):32}{'accuracy':>10}{'correct':>9}{'asked':>8}{'of':>8}"]
        rows = dict(sections)
        rows |= {part: _sum(chosen) for part, chosen in _kinds(sections).items()} | {"all": _sum(sections)}
        for section, (correct, asked, total) in rows.items():
            accuracy = f"{100 * correct / asked:8.1f} %" if asked else f"{'-':>10}"
            lines.append(f"  {section[:30]:30}{accuracy}{correct:9,}{asked:8,}{total:8,}")
        lines.append("")
    if scores.similarities:
        lines.append(f"{'similarity':32}{'Spearman':>10}{'':9}{'pairs':>8}{'of':>8}")
    for name, (correlation, used, total) in scores.similarities.items():
        shown = "-" if math.isnan(correlation) else f"{correlation:.3f}"
        lines.append(f"  {name:30}{shown:>10}{'':9}{used:8,}{total:8,}")
    return lines


def _kinds(sections: dict) -> dict[str, dict]:
    """Sections by what they ask, where both are there: the world, and grammar."""
    grammar = {name: counts for name, counts in sections.items() if name.startswith("gram")}
    world = {name: counts for name, counts in sections.items() if name not in grammar}
    return {"semantic": world, "syntactic": grammar} if grammar and world else {}


def _sum(sections: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    return tuple(map(sum, zip(*sections.values())))


def nearest(words: Sequence[str], vectors, query_vector, exclude: Sequence[str] = (), count: int = 10):
    """[(word, cosine)] of the `count` words nearest to a vector [D], but for those in `exclude`."""
    vectors, query = np.asarray(vectors, np.float32), unit(query_vector)
    scores = vectors @ query / np.maximum(np.linalg.norm(vectors, axis=1), 1e-30)  # [V]
    most = min(count + len(exclude), len(words))
    top = np.argpartition(-scores, most - 1)[:most]
    top = top[np.argsort(-scores[top], kind="stable")]
    return [(words[id], float(scores[id])) for id in top if words[id] not in exclude][:count]


def analogy(words: Sequence[str], vectors, positive: Sequence[str], negative: Sequence[str] = (), count: int = 10):
    """[(word, cosine)] of the `count` words nearest to the sum of `positive` less that of `negative`, in unit vectors;
    none of these is an answer. One positive word alone gives its neighbours. UserError for an unknown word."""
    ids = [find(words, word) for word in [*positive, *negative]]
    signs = np.array([1.0] * len(positive) + [-1.0] * len(negative), np.float32)
    query = signs @ unit(np.asarray(vectors)[ids])
    return nearest(words, vectors, query, [words[id] for id in ids], count)


def find(words: Sequence[str], word: str) -> int:
    """The id of a word, as spelled or else in any case. UserError, with words spelled alike, where it has none."""
    wanted = word.upper()
    same = [id for id, known in enumerate(words) if known == word or known.upper() == wanted]
    if same:
        return next((id for id in same if words[id] == word), same[0])
    begins = [known for known in words if known[:1].upper() == wanted[:1]][:20_000]
    near = difflib.get_close_matches(word.lower(), begins, n=3, cutoff=0.7)
    hint = f": did you mean {', '.join(near[:-1])}{' or ' if near[:-1] else ''}{near[-1]}?" if near else ""
    raise UserError(f"{word or 'an empty word'} has no vector among these {len(words):,} words{hint}")
