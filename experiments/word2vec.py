"""Word vectors: skip-gram and CBOW, with negative sampling or hierarchical softmax, on a text of any size.

    bash launch/run.sh experiments/word2vec.py

takes the Python documentation that Python itself carries (nothing to download), 20 seconds on two cores, and shows what
stands near a few words. The corpus is small: for vectors worth keeping give a larger one,

    bash launch/run.sh experiments/word2vec.py --data=PATH             a text file or folder, .gz or plain
    bash launch/run.sh experiments/word2vec.py --data=PATH+PATH        several, one after another
    bash launch/run.sh experiments/word2vec.py --data=PATH --units=characters     Chinese, each character a word
    bash launch/run.sh experiments/word2vec.py --preset=novels --data_dir=DATA   14 M words

The workdir gets vectors.txt, which experiments/neighbours.py asks and gensim and others read. Where DATA/word-eval has
the analogy and similarity sets, the vectors are scored by them at the end.

On several devices --strategy=pmap --model.rows=8 reads as many parts of the corpus side by side (a multiple of the
devices) and sums their updates; --strategy=mesh --mesh=1,8 splits the vocabulary. The same command with the same
--workdir goes on where a stopped run was, to the same bits.

Papers: Mikolov et al. 2013a (arXiv 1301.3781), 2013b (arXiv 1310.4546).
"""

from dataclasses import dataclass

from lmjax.config import Word2Vec, setting
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("pydoc", "pydoc (embedded), english-novels, imdb, tfds:NAME, a text file or folder; join by +")
    units: str = setting(
        "words", "what a word is: letters of any script (words) or of a-z (ascii), each letter (characters), Chinese "
        "words (jieba)", choices=("words", "ascii", "characters", "jieba"),
    )  # fmt: skip
    min_count: int = setting(5, "words seen less often are left out", low=1)
    limit: int = setting(0, "keep at most this many most frequent words; 0: all", low=0)
    phrases: int = setting(0, "passes that join words which stand together often, new_york: 2 joins up to four", low=0)
    model: Word2Vec = setting(Word2Vec(positions=256), "the model; small updates, for a small corpus")
    epochs: int = setting(100, "times the corpus is read", low=1)
    lr: float = setting(0.03, "learning rate at the start; it falls linearly", low=0.0)
    lr_end: float = setting(1e-4, "learning rate at the end", low=0.0)
    turns: int = setting(64, "updates a step takes; fewer for a small corpus", low=1)
    show: tuple[str, ...] = setting((), "words whose neighbours are printed; default: a few frequent ones")


PRESETS = {
    "novels": {
        "help": "skip-gram, 100 dimensions, 3 epochs of English novels: 31 % of the analogies, gensim 30 %",
        "data": "english-novels", "units": "ascii", "model.positions": 1024, "epochs": 3,
    },
    "novels_cbow": {
        "help": "the same by CBOW: 26 %",
        "data": "english-novels", "units": "ascii", "model.positions": 1024, "epochs": 3, "model.cbow": True,
        "model.shared": 16,
    },
    "novels_hierarchical": {
        "help": "skip-gram with hierarchical softmax, which is slower here: 30 %",
        "data": "english-novels", "units": "ascii", "model.positions": 1024, "epochs": 3, "model.hierarchical": True,
    },
    "novels_imdb": {
        "help": "skip-gram, 200 dimensions, 5 epochs of novels and film reviews, 25 million words",
        "data": "english-novels+imdb", "units": "ascii", "model.positions": 1024, "epochs": 5, "model.dim": 200,
    },
}  # fmt: skip


def main(config):
    import numpy as np

    from lmjax.config import sized
    from lmjax.interop.vectors import write_vectors
    from lmjax.run.lanes import each
    from lmjax.run.tasks.vectors import corpus_of, score, show, train_vectors, word2vec_objective
    from lmjax.run.training import finish, session

    corpus = corpus_of(config)
    with session("word2vec", config) as run:
        run.say(f"{corpus.name}: {corpus.total:,} words, {len(corpus.ids):,} of them of {len(corpus.words):,} types")
        model = sized(config.model, len(corpus.words))
        outcome = train_vectors(run, model, word2vec_objective(model, corpus.counts), corpus)
        run.say(f"{corpus.total * config.epochs / max(outcome.seconds, 1e-9):,.0f} words/s")

        def figures(run, outcome):
            vectors = np.asarray(outcome.params["input"])
            write_vectors(run.workdir / "vectors.txt", corpus.words, vectors)
            show(corpus, vectors, config.show)
            run.say(f"the vectors are {run.workdir / 'vectors.txt'}")
            return {"validation_loss": outcome.history[-1]["loss"], **score(run, corpus, vectors)}

        finish(run, PRESETS, outcome, each(run, outcome, figures))


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
