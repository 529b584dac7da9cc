"""Word vectors: skip-gram and CBOW with negative sampling, on a text of any size.

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
from lmjax.run.options import Run


@dataclass(frozen=True)
class Config(Run):
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
    show: str = setting("", "words whose neighbours are printed, comma between; default: a few frequent ones")


PRESETS = {
    "novels": {
        "help": "skip-gram, 100 dimensions, 3 epochs of English novels: 31 % of the analogies, gensim 30 %",
        "data": "english-novels", "units": "ascii", "model.positions": 1024, "epochs": 3,
    },
    "novels_cbow": {
        "help": "the same by CBOW",
        "data": "english-novels", "units": "ascii", "model.positions": 1024, "epochs": 3, "model.cbow": True,
    },
    "novels_imdb": {
        "help": "skip-gram, 200 dimensions, 5 epochs of novels and film reviews, 25 million words",
        "data": "english-novels+imdb", "units": "ascii", "model.positions": 1024, "epochs": 5, "model.dim": 200,
    },
}  # fmt: skip
SAMPLE = 16  # updates on whose words the objective is followed


def main(config):
    import numpy as np

    from lmjax.config import sized
    from lmjax.data.corpus import phrases, read_corpus
    from lmjax.interop.vectors import write_vectors
    from lmjax.run.training import finish, session
    from lmjax.run.vectors import score, show

    corpus = read_corpus(
        config.data, config.data_dir or None, units=config.units, min_count=config.min_count, limit=config.limit
    )
    if config.phrases:
        corpus = phrases(corpus, min_count=config.min_count, passes=config.phrases)
    with session("word2vec", config) as run:
        run.say(f"{corpus.name}: {corpus.total:,} words, {len(corpus.ids):,} of them of {len(corpus.words):,} types")
        outcome = train(run, sized(config.model, len(corpus.words)), corpus)
        vectors = np.asarray(outcome.params["input"])
        write_vectors(run.workdir / "vectors.txt", corpus.words, vectors)
        run.say(f"{corpus.total * config.epochs / max(outcome.seconds, 1e-9):,.0f} words/s")
        show(corpus, vectors, [word for word in config.show.split(",") if word])
        metrics = score(run, corpus, vectors)
        finish(run, PRESETS, outcome, {"validation_loss": outcome.history[-1]["loss"], **metrics})
        run.say(f"the vectors are {run.workdir / 'vectors.txt'}")


def train(run, model, corpus):
    """The training, an Outcome of run/training.py: its params hold the vectors."""
    import jax
    import numpy as np
    import optax

    from lmjax.data.batches import stretches
    from lmjax.models import word2vec
    from lmjax.run.training import fit
    from lmjax.train.sparse import make_sparse_step

    config = run.config
    tables = word2vec.word2vec_tables(model, corpus.counts)
    length = word2vec.words_a_row(model, corpus.counts)
    turns = max(1, min(config.turns, len(corpus.ids) // (model.rows * length)))
    batch, steps = stretches(corpus.ids, model.rows, turns, length)
    total = steps * config.epochs

    def rate(step):
        return jax.numpy.maximum(config.lr * (1 - step / total), config.lr_end)

    def gradients(params, tables, batch, key, report):
        return word2vec.word2vec_update(params, tables, model, batch, key, report)

    sample, _ = stretches(corpus.ids, model.rows, 1, length)
    spread = range(
        0, max(len(corpus.ids) // (model.rows * length), 1), max(total * turns // config.epochs // SAMPLE, 1)
    )

    @jax.jit
    def objective(params, batch, key):
        return gradients(params, tables, {"tokens": batch["tokens"][:, 0], "row": batch["row"]}, key, True)[1]

    def evaluate(params):
        sums = [objective(params, sample(i), jax.random.key(i)) for i in spread]
        loss, weight = np.sum(jax.device_get(sums), axis=0)
        return {"loss": float(loss / max(weight, 1))}

    return fit(
        run,
        specs=word2vec.word2vec_params(model),
        tx=optax.GradientTransformation(lambda params: tables, None),
        step=make_sparse_step(gradients, rate, turns),
        batch=batch,
        steps=total,
        evaluate=evaluate,
        evaluate_every=steps * max(config.epochs // 10, 1),
        tokens_per_step=model.rows * turns * length,
        learning_rate=rate,
    )


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
