"""What experiments on word vectors share: an objective and its training, neighbours of a few words, and scores."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from lmjax.data.corpus import Corpus, phrases, read_corpus
from lmjax.data.files import own_dir
from lmjax.evaluate import embeddings

COVERED = 0.3  # share of a test set whose words must have vectors for its figure to be told
SAMPLE = 16  # updates on whose words the objective is followed
SHOWN = 6  # words whose neighbours are printed


def corpus_of(config) -> Corpus:
    """The corpus that an experiment's settings name: data, data_dir, units, min_count, limit, phrases."""
    found = read_corpus(
        config.data, config.data_dir or None, units=config.units, min_count=config.min_count, limit=config.limit
    )
    return phrases(found, min_count=config.min_count, passes=config.phrases) if config.phrases else found


class Objective(NamedTuple):
    """What vectors learn by: the parameters, tables made of the words' counts, and what train/sparse.py asks for."""

    specs: dict
    tables: dict
    draw: Callable
    gradients: Callable
    loss: Callable
    update: Callable


def blocks_of(model) -> Callable:
    """What draws the blocks of a config.Word2Vec."""
    from lmjax.models.word2vec import draw_blocks

    return lambda tables, batch, key: draw_blocks(tables, model, batch["tokens"], batch["row"], key)


def word2vec_objective(model, counts) -> Objective:
    """Of a config.Word2Vec and the words' counts [V]."""
    from lmjax.models import hierarchical, word2vec
    from lmjax.train.sparse import sgd

    if not model.hierarchical:
        return Objective(
            specs=word2vec.word2vec_params(model),
            tables=word2vec.word2vec_tables(model, counts),
            draw=blocks_of(model),
            gradients=lambda params, tables, blocks: word2vec.word2vec_gradients(params, tables, model, blocks),
            loss=lambda params, tables, blocks: word2vec.word2vec_loss(params, model, blocks),
            update=sgd,
        )
    tables = hierarchical.hierarchical_tables(model, counts)
    room = hierarchical.nodes_a_block(model, tables, counts)

    blocks_for = blocks_of(model)

    def draw(tables, batch, key):
        blocks = blocks_for(tables, batch, key)
        return blocks, hierarchical.find_ways(tables, model, blocks.centre, room)

    return Objective(
        specs=hierarchical.hierarchical_params(model),
        tables=tables,
        draw=draw,
        gradients=lambda params, tables, drawn: hierarchical.hierarchical_gradients(params, tables, model, *drawn),
        loss=lambda params, tables, drawn: hierarchical.hierarchical_loss(params, tables, model, *drawn),
        update=sgd,
    )


def subword_objective(model, words: Sequence[str], counts, used) -> Objective:
    """Of a config.Subword, the words and their counts [V], and models/subword.py's `used_rows`."""
    from lmjax.models import subword

    tables = subword.subword_tables(model, words, counts, used)
    a_row, places = subword.pieces_a_row(model, tables, counts), model.positions // model.rows

    def room(blocks):  # of the rows that this device has
        return a_row * (blocks.centre.size // places)

    return Objective(
        specs=subword.subword_params(model, used),
        tables=tables,
        draw=blocks_of(model),
        gradients=lambda params, tables, blocks: subword.subword_gradients(params, tables, model, blocks, room(blocks)),
        loss=lambda params, tables, blocks: subword.subword_loss(params, tables, model, blocks, room(blocks)),
        update=subword.descend,
    )


def train_vectors(run, model, objective: Objective, corpus: Corpus):
    """An Outcome of run/training.py. run: a Session, whose config has epochs, turns, lr and lr_end."""
    import jax
    import numpy as np
    import optax

    from lmjax.data.batches import stretches
    from lmjax.models.word2vec import words_a_row
    from lmjax.run.training import fit
    from lmjax.train.step import Recipe

    config, length = run.config, words_a_row(model, corpus.counts)
    _, batch, steps, _, turns = sparse_training(model, objective, corpus, config)
    sample, _ = stretches(corpus.ids, model.rows, 1, length)
    updates = max(len(corpus.ids) // (model.rows * length), 1)
    spread = range(0, updates, max(updates // SAMPLE, 1))

    @jax.jit
    def loss(params, batch, key):
        drawn = objective.draw(objective.tables, batch, key)
        return objective.loss(params, objective.tables, jax.tree.map(lambda x: x[0], drawn))

    def evaluate(params):
        total, weight = np.sum(jax.device_get([loss(params, sample(i), jax.random.key(i)) for i in spread]), axis=0)
        return {"loss": float(total / max(weight, 1))}

    def recipe(config):
        step, _, _, rate, _ = sparse_training(model, objective, corpus, config)
        tx = optax.GradientTransformation(lambda params: objective.tables, None)
        return Recipe(tx, step=step, learning_rate=rate)

    return fit(
        run,
        specs=objective.specs,
        recipe=recipe,
        batches=lambda seed: batch,
        steps=steps * config.epochs,
        evaluate=evaluate,
        evaluate_every=steps * max(config.epochs // 10, 1),
        tokens_per_step=model.rows * turns * length,
    )


def sparse_training(model, objective: Objective, corpus: Corpus, config):
    """(step, batch(step), steps an epoch, learning_rate(step), updates a step). config: see `train_vectors`."""
    import jax.numpy as jnp

    from lmjax.data.batches import stretches
    from lmjax.models.word2vec import words_a_row
    from lmjax.train.sparse import make_sparse_step

    length = words_a_row(model, corpus.counts)
    turns = max(1, min(config.turns, len(corpus.ids) // (model.rows * length)))
    batch, steps = stretches(corpus.ids, model.rows, turns, length)

    def rate(step):
        return jnp.maximum(config.lr * (1 - step / (steps * config.epochs)), config.lr_end)

    step = make_sparse_step(objective.draw, objective.gradients, objective.loss, rate, turns, objective.update)
    return step, batch, steps, rate, turns


def show(corpus: Corpus, vectors, asked: Sequence[str] = ()):
    """Prints the neighbours of the words asked for, else of a few frequent ones that are no function words.

    vectors: [V,D], in the order of corpus.words. UserError for a word that has none.
    """
    asked = asked or [word for word in corpus.words[100:] if len(word) > 3][:SHOWN]
    for word in asked or corpus.words[:SHOWN]:
        i = embeddings.find(corpus.words, word)
        near = embeddings.nearest(corpus.words, vectors, vectors[i], exclude=[corpus.words[i]], count=6)
        print(f"{word:14} {', '.join(other for other, _ in near)}")


def score(run, corpus: Corpus, vectors) -> dict[str, float]:
    """Prints what the test sets of word-eval say, where they are; returns their figures. run: a Session."""
    folder = own_dir(run.config.data_dir or None)
    if folder is None or not (folder / "word-eval").is_dir():
        return {}
    scores = embeddings.covered(embeddings.score_all(corpus.words, vectors, folder / "word-eval"), COVERED)
    print("", *embeddings.report(scores), "", sep="\n", flush=True)
    return {name: value for name, value in embeddings.metrics(scores).items() if not name.endswith("_coverage")}
