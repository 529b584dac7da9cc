"""GloVe: word vectors from how often words stand near each other, on a text of any size.

    bash launch/run.sh experiments/glove.py

takes the Python documentation that Python itself carries (nothing to download), 20 seconds on two cores, and shows what
stands near a few words. The corpus is small: for vectors worth keeping give a larger one,

    bash launch/run.sh experiments/glove.py --data=PATH             a text file or folder, .gz or plain
    bash launch/run.sh experiments/glove.py --data=PATH+PATH        several, one after another
    bash launch/run.sh experiments/glove.py --preset=novels --data_dir=DATA   14 M words, 2 to 3 minutes, 1.1 GB

which answers 26 % of the analogies and agrees with MEN's judges by .44. Its window, alpha and learning rate are the
paper's; x_max=10 and 15 epochs are those of the authors' example for a corpus of this size. The paper's x_max=100, for
billions of words, gives 19 % and .36 here.

The workdir gets vectors.txt, which experiments/neighbours.py asks and gensim and others read. Where DATA/word-eval has
the analogy and similarity sets, the vectors are scored by them at the end.

On several devices --strategy=pmap shares out the groups of an update; --strategy=mesh --mesh=1,8 splits the vocabulary.
The same command with the same --workdir goes on where a stopped run was, to the same bits.

Paper: Pennington, Socher & Manning 2014, "GloVe: global vectors for word representation". Departures: windows reach
over dropped words and documents, and an update takes many entries at once (models/glove.py, train/sparse.py).
"""

from dataclasses import dataclass

from lmjax.config import GloVe, setting
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
    window: int = setting(10, "farthest word that counts as near, on either side", low=1)
    model: GloVe = setting(GloVe(), "the model")
    epochs: int = setting(50, "times the entries of the matrix are read", low=1)
    lr: float = setting(0.05, "AdaGrad's learning rate", low=0.0)
    turns: int = setting(64, "updates a step takes; fewer for a small corpus", low=1)
    show: tuple[str, ...] = setting((), "words whose neighbours are printed; default: a few frequent ones")


PRESETS = {
    "novels": {
        "help": "100 dimensions, 15 epochs of the counts in English novels: 26 % of the analogies",
        "data": "english-novels", "units": "ascii", "epochs": 15,
    },
}  # fmt: skip
SAMPLE = 16  # steps on whose entries the objective is followed


def main(config):
    import numpy as np

    from lmjax.config import sized
    from lmjax.interop.vectors import write_vectors
    from lmjax.models.glove import glove_vectors
    from lmjax.run.lanes import each
    from lmjax.run.tasks.vectors import corpus_of, score, show
    from lmjax.run.training import finish, session

    corpus = corpus_of(config)
    with session("glove", config) as run:
        run.say(f"{corpus.name}: {corpus.total:,} words, {len(corpus.ids):,} of them of {len(corpus.words):,} types")
        model = sized(config.model, len(corpus.words))
        outcome, entries = train(run, model, corpus)
        run.say(f"{entries * config.epochs / max(outcome.seconds, 1e-9):,.0f} entries/s")

        def figures(run, outcome):
            vectors = np.asarray(glove_vectors(outcome.params, model))
            write_vectors(run.workdir / "vectors.txt", corpus.words, vectors)
            show(corpus, vectors, config.show)
            run.say(f"the vectors are {run.workdir / 'vectors.txt'}")
            return {"validation_loss": outcome.history[-1]["loss"], **score(run, corpus, vectors)}

        finish(run, PRESETS, outcome, each(run, outcome, figures))


def train(run, model, corpus):
    """(the training, an Outcome of run/training.py; the number of entries of the matrix, both triangles)."""
    import jax
    import numpy as np
    import optax

    from lmjax.data.cooccurrence import cooccurrences, entries
    from lmjax.models import glove
    from lmjax.run.training import fit
    from lmjax.train.sparse import adagrad, make_sparse_step, ones
    from lmjax.train.step import Recipe

    config = run.config
    counts = cooccurrences(corpus.ids, len(corpus.words), config.window)
    count = 2 * counts.nnz - np.count_nonzero(counts.diagonal())
    run.say(f"{count:,} pairs of words stand within {config.window} words of each other")
    turns = max(1, min(config.turns, counts.nnz // (model.rows * model.group)))

    def batches(seed):
        return entries(counts, model.group, model.rows, turns, seed)

    batch, steps = batches(config.seed)

    def gradients(params, _, entries):
        touched, (loss, _) = glove.glove_gradients(params, model, entries)
        return touched, jax.numpy.isfinite(loss)[None]

    def loss(params, _, entries):
        return glove.glove_gradients(params, model, entries)[1]

    @jax.jit
    def objective(params, batch):
        flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in batch.items()}
        return loss(params, None, glove.Entries(**flat))

    spread = range(0, steps, max(steps // SAMPLE, 1))

    def evaluate(params):
        loss, weight = np.sum(jax.device_get([objective(params, batch(i)) for i in spread]), axis=0)
        return {"loss": float(loss / max(weight, 1))}

    def recipe(config):
        step = make_sparse_step(
            lambda _, batch, key: glove.draw_entries(batch), gradients, loss, lambda step: config.lr, turns, adagrad
        )
        return Recipe(optax.GradientTransformation(ones, None), step=step)

    outcome = fit(
        run,
        specs=glove.glove_params(model),
        recipe=recipe,
        batches=lambda seed: batches(seed)[0],
        steps=steps * config.epochs,
        evaluate=evaluate,
        evaluate_every=steps * max(config.epochs // 10, 1),
        tokens_per_step=model.rows * turns * model.group * 2,
    )
    return outcome, count


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
