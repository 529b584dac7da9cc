"""Word vectors made of character n-grams, fastText's: words that training never saw have vectors too.

    bash launch/run.sh experiments/subword.py

takes the Python documentation that Python itself carries (nothing to download), 30 seconds on two cores, and shows what
stands near a few words. For vectors worth keeping give a larger corpus,

    bash launch/run.sh experiments/subword.py --data=PATH             a text file or folder, .gz or plain
    bash launch/run.sh experiments/subword.py --preset=novels --data_dir=DATA   14 M words, 2 minutes

The workdir gets vectors.txt, the vocabulary's vectors, and fasttext.bin, the whole model in fastText's own form, which
fastText and gensim read. experiments/neighbours.py --workdir=WORKDIR --words=WORD answers from it for any word. Where
DATA/word-eval has the analogy and similarity sets, the vectors are scored by them at the end; the similarity sets once
more with the words that the corpus lacks.

On several devices --strategy=pmap --model.rows=8 reads as many parts of the corpus side by side (a multiple of the
devices) and sums their updates. The same command with the same --workdir goes on where a stopped run was, to the same
bits.

Paper: Bojanowski et al. 2017 (arXiv 1607.04606). Its scores are on Wikipedia, a hundred times more text. N-grams
help with the forms of words and with rare ones, and cost a little of what words mean, as they do in the paper.
"""

from dataclasses import dataclass

from lmjax.config import Subword, setting
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("pydoc", "pydoc (embedded), english-novels, imdb, tfds:NAME, a text file or folder; join by +")
    units: str = setting(
        "words", "what a word is: letters of any script (words) or of a-z (ascii)", choices=("words", "ascii")
    )
    min_count: int = setting(5, "words seen less often have no row of their own", low=1)
    limit: int = setting(0, "keep at most this many most frequent words; 0: all", low=0)
    model: Subword = setting(
        Subword(positions=256, buckets=50_000), "the model; small updates and few buckets, for a small corpus"
    )
    epochs: int = setting(50, "times the corpus is read", low=1)
    lr: float = setting(0.05, "learning rate at the start; it falls linearly", low=0.0)
    lr_end: float = setting(1e-4, "learning rate at the end", low=0.0)
    turns: int = setting(64, "updates a step takes; fewer for a small corpus", low=1)
    show: tuple[str, ...] = setting(
        ("string", "module", "iterator", "misconfigured", "unpicklability"),
        "words whose neighbours are printed, whether they are in the corpus or not",
    )


PRESETS = {
    "novels": {
        "help": "skip-gram, 100 dimensions, 3 epochs of English novels, thinned by 1e-3 (the paper: 1e-4): 67 % of the "
                "analogies, 68 % of the syntactic ones",
        "data": "english-novels", "units": "ascii", "model.positions": 1024, "model.buckets": 500_000, "epochs": 3,
        "show": ("ship", "happy", "unhappily", "shipwreckage", "untruthfulness"),
    },
}  # fmt: skip
SAMPLE = 16  # updates on whose words the objective is followed


def main(config):
    from lmjax.config import sized
    from lmjax.data.corpus import read_corpus
    from lmjax.interop.fasttext import write_fasttext
    from lmjax.interop.vectors import write_vectors
    from lmjax.models.subword import compose, unpacked
    from lmjax.run.lanes import each
    from lmjax.run.training import finish, session

    corpus = read_corpus(
        config.data, config.data_dir or None, units=config.units, min_count=config.min_count, limit=config.limit
    )
    with session("subword", config) as run:
        run.say(f"{corpus.name}: {corpus.total:,} words, {len(corpus.ids):,} of them of {len(corpus.words):,} types")
        model = sized(config.model, len(corpus.words))
        outcome, used = train(run, model, corpus)
        run.say(f"{corpus.total * config.epochs / max(outcome.seconds, 1e-9):,.0f} words/s")
        known = {word: id for id, word in enumerate(corpus.words)}

        def figures(run, outcome):
            table = unpacked(outcome.params["input"], used, model)

            def vectors_of(words):
                return compose(table, model, words, known)

            vectors = vectors_of(corpus.words)
            write_vectors(run.workdir / "vectors.txt", corpus.words, vectors)
            rows = {"input": table, "output": outcome.params["output"]}
            write_fasttext(run.workdir / "fasttext.bin", corpus.words, corpus.counts, rows, model,
                           epochs=config.epochs, min_count=config.min_count)  # fmt: skip
            metrics = tell(run, corpus, vectors, vectors_of)
            run.say(f"the vectors are {run.workdir / 'vectors.txt'}, the model {run.workdir / 'fasttext.bin'}")
            return {"validation_loss": outcome.history[-1]["loss"], **metrics}

        finish(run, PRESETS, outcome, each(run, outcome, figures))


def train(run, model, corpus):
    """(an Outcome of run/training.py; the rows that its parameters hold, of all words and n-grams)."""
    from lmjax.models import subword
    from lmjax.run.tasks.vectors import subword_objective, train_vectors

    used = subword.used_rows(model, corpus.words, corpus.counts)
    outcome = train_vectors(run, model, subword_objective(model, corpus.words, corpus.counts, used), corpus)
    return outcome, used


def tell(run, corpus, vectors, vectors_of) -> dict:
    """Prints neighbours and what the test sets say, without and with unknown words; returns the figures."""
    from lmjax.data.files import own_dir
    from lmjax.evaluate import embeddings
    from lmjax.evaluate.subwords import extended, similarities
    from lmjax.run.tasks.vectors import score, show

    words, all_vectors = extended(corpus.words, vectors, vectors_of, run.config.show)
    show(corpus._replace(words=words), all_vectors, run.config.show)
    if metrics := score(run, corpus, vectors):
        found = embeddings.Scores({}, similarities(corpus.words, vectors, vectors_of,
                                                   own_dir(run.config.data_dir or None) / "word-eval"))  # fmt: skip
        print("with words that are not in the corpus", *embeddings.report(found), "", sep="\n", flush=True)
        figures = embeddings.metrics(found).items()
        metrics |= {f"{name}_all": value for name, value in figures if not name.endswith("_coverage")}
    return metrics


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
