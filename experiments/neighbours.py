"""Ask word vectors: the words nearest to one, analogies, the published evaluation sets, and a map of them.

    bash launch/run.sh experiments/neighbours.py --workdir=runs/word2vec/001 --words=king,ship,happy
    bash launch/run.sh experiments/neighbours.py --vectors=glove.6B.100d.txt --analogy=king,man,woman
    bash launch/run.sh experiments/neighbours.py --vectors=vectors.txt --evaluate
    bash launch/run.sh experiments/neighbours.py --vectors=vectors.txt --map=map.png

The vectors are those that a run of word2vec.py left in its folder, or any file of word2vec (text or binary) or GloVe,
plain or .gz, or a model of fastText (.bin), such as a run of subword.py leaves: then words that it never saw are
answered too. --analogy=king,man,woman is king - man + woman, by 3CosAdd (Mikolov et al. 2013a). --evaluate scores the
analogies of Mikolov et al. and the word-similarity sets found in the folder word-eval of --data_dir, as gensim does,
and says how many of their questions the vocabulary covers. --map draws the most frequent words, or with --words those
and their neighbours, on the plane of their first two principal components. Without a question it asks for one:

    > king - man + woman
"""

import contextlib
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags

COMMON = 100  # the most frequent words, the, of, and, say little on a map


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder of a run of word2vec.py or subword.py")
    vectors: str = setting("", "file of word vectors or fastText's model, instead of a workdir")
    limit: int = setting(0, "read the first so many vectors of the file only; 0: all", low=0)
    words: tuple[str, ...] = setting((), "show the words nearest to these")
    analogy: tuple[str, ...] = setting((), "A,B,C: show the words nearest to A - B + C")
    count: int = setting(10, "neighbours to show", low=1)
    evaluate: bool = setting(False, "score the vectors on the sets of word-eval")
    data_dir: str = setting("", "folder that holds word-eval; also the variable LMJAX_DATA")
    restrict: int = setting(30_000, "analogies are answered by one of the so many most frequent words", low=1)
    map: str = setting("", "draw the vectors into this picture, such as map.png")
    frequent: int = setting(300, "words on the map, from the 101st most frequent on", low=3)

    def __post_init__(self):
        if self.analogy and len(self.analogy) != 3:
            raise ValueError(
                f"--analogy={','.join(self.analogy)}: expected three words, such as --analogy=king,man,woman"
            )
        if "" in (*self.words, *self.analogy):
            raise ValueError("--words and --analogy: a word is empty; write them with single commas between")


def file_of(config: Config) -> Path:
    """The file of vectors that the settings name."""
    if bool(config.vectors) == bool(config.workdir):
        raise UserError(
            "give either --workdir, the folder of a run of word2vec.py, or --vectors, a file of word vectors"
        )
    if config.vectors:
        return Path(config.vectors)
    folder = Path(config.workdir).expanduser()
    path = folder / "fasttext.bin" if (folder / "fasttext.bin").is_file() else folder / "vectors.txt"
    if not path.is_file():
        raise UserError(
            f"--workdir={config.workdir} holds no vectors.txt: give the folder of a finished run of "
            "word2vec.py, or a file as --vectors"
        )
    return path


class Vectors(NamedTuple):
    """Words and their vectors [V,D], and what makes the vectors of other words, if anything does."""

    words: list[str]
    table: Any
    compose: Callable | None = None

    def with_words(self, asked) -> "Vectors":
        """These, and of a fastText model also those of `asked` that are not among them."""
        if self.compose is None:
            return self
        from lmjax.evaluate.subwords import extended

        return Vectors(*extended(self.words, self.table, self.compose, asked), self.compose)


def read(path: Path, limit: int) -> Vectors:
    """The vectors of a file, its first `limit` or, for 0, all."""
    import numpy as np

    from lmjax.interop.fasttext import is_fasttext, read_fasttext
    from lmjax.interop.vectors import read_vectors

    if not is_fasttext(path):
        return Vectors(*read_vectors(path, limit))
    from lmjax.models.subword import compose

    trained = read_fasttext(path)
    known = {word: id for id, word in enumerate(trained.words)}

    def vectors_of(words):
        return compose(trained.params["input"], trained.config, words, known)

    words = trained.words[: limit or None]
    table = vectors_of(words)
    if not np.isfinite(table).all():
        raise UserError(f"{path} holds vectors that are not finite: train again")
    return Vectors(words, table, vectors_of)


def columns(lists: dict[str, list[tuple[str, float]]]) -> list[str]:
    """Neighbours as a table: a column for each list, four beside one another."""
    lines, heads = [], list(lists)
    for at in range(0, len(heads), 4):
        shown = heads[at : at + 4]
        width = [max(_width(head), *(_width(word) + 7 for word, _ in lists[head]), 16) + 3 for head in shown]
        lines += ["", "".join(_padded(head, room) for head, room in zip(shown, width)).rstrip()]
        for row in zip(*(lists[head] for head in shown)):
            cells = [f"{cosine:6.3f} {word}" for word, cosine in row]
            lines.append("".join(_padded(cell, room) for cell, room in zip(cells, width)).rstrip())
    return lines


def _width(text: str) -> int:
    """Columns of a terminal: a Chinese sign takes two, a combining mark none."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else not unicodedata.combining(sign) for sign in text)


def _padded(text: str, room: int) -> str:
    return text + " " * (room - _width(text))


def answer(question: str, vectors: Vectors, count: int) -> list[str]:
    """The table for a line such as "king" or "king - man + woman"."""
    from lmjax.evaluate import embeddings

    signs, wanted = {"+": [], "-": []}, "+"
    for part in question.split():
        if part in signs:
            wanted = part
        else:
            signs[wanted].append(part)
            wanted = "+"
    if not signs["+"]:
        raise UserError(f"{question!r} adds no word: write a word, or king - man + woman with spaces between")
    words, table, _ = vectors.with_words(signs["+"] + signs["-"])
    return columns({question: embeddings.analogy(words, table, signs["+"], signs["-"], count)})


def ask(vectors: Vectors, count: int):
    """Answer lines of the terminal until one is empty."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (arrow keys recall and edit a line)
    print("a word, or words with + and - between; an empty line ends")
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return print()
        if not question:
            return None
        try:
            print("\n".join(answer(question, vectors, count)), end="\n\n")
        except UserError as error:
            print(error)


def draw(config: Config, words, vectors, near: dict) -> str:
    """The map; `near` are the neighbours of the words asked for, which have a vector."""
    from lmjax.evaluate import embeddings
    from lmjax.run.tasks import vector_map

    if near:
        group = {words[embeddings.find(words, word)]: number for number, word in enumerate(near)}
        heads = set(group)
        for number, found in enumerate(near.values()):
            group = {word: number for word, _ in found} | group  # who is near two words is the first one's
        group = dict(sorted(group.items(), key=lambda item: (item[1], item[0] not in heads)))
        ids = [embeddings.find(words, word) for word in group]
        return vector_map.draw(list(group), vectors[ids], config.map, f"{', '.join(near)}, and words like them",
                               list(group.values()))  # fmt: skip
    start = min(COMMON, max(0, len(words) - config.frequent))
    shown = slice(start, start + config.frequent)
    title = f"{len(words[shown])} frequent words of {Path(config.vectors or config.workdir).name}"
    return vector_map.draw(words[shown], vectors[shown], config.map, title)


def main(config: Config):
    path = file_of(config)
    asked = config.words or config.analogy or config.evaluate or config.map
    if not asked and not sys.stdin.isatty():
        raise UserError("nothing is asked: give --words, --analogy, --evaluate or --map, or run it in a terminal")

    from lmjax.data import files
    from lmjax.evaluate import embeddings
    from lmjax.evaluate.subwords import similarities

    vectors = read(path, config.limit)
    print(f"{path}: {len(vectors.words):,} words of {vectors.table.shape[1]} dimensions", flush=True)
    words, table, _ = vectors.with_words(config.words)
    near = {word: embeddings.analogy(words, table, [word], count=config.count) for word in config.words}
    print("\n".join(columns(near)), end="\n" * bool(near))
    if config.analogy:
        a, b, c = config.analogy
        print("\n".join(answer(f"{a} - {b} + {c}", vectors, config.count)))
    if config.evaluate:
        own = files.own_dir(config.data_dir or None)
        if own is None:
            raise UserError("--evaluate needs the evaluation sets: name the folder that holds word-eval by --data_dir")
        scores = embeddings.score_all(vectors.words, vectors.table, own / "word-eval", config.restrict)
        print("", *embeddings.report(scores), sep="\n")
        if vectors.compose and scores.similarities:
            every = similarities(*vectors, own / "word-eval")
            print("", "with words outside the vocabulary", *embeddings.report(embeddings.Scores({}, every)), sep="\n")
    if config.map:
        print("", draw(config, words, table, near), sep="\n")
    if not asked:
        ask(vectors, config.count)


if __name__ == "__main__":
    flags.run(main, Config)
