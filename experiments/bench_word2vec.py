"""How fast word vectors train, and how good they come out: lmjax beside gensim, in turn on one machine.

    bash launch/run.sh experiments/bench_word2vec.py --data=CORPUS --peer=SCRIPT --peer_python=PYTHON

CORPUS is a text file or a folder of them. What counts are running words of the corpus, before thinning, times epochs, a
second of training: neither side's reading, counting and compiling is in it. Each round takes its number for a seed.
With --data_dir=DATA, where DATA/word-eval holds the test sets, each round's vectors of both are scored, and the means
and their spread end the page. Ten minutes for three rounds of 14 million words and 3 epochs on two cores.

The peer is a script that takes the corpus, --dim, --window, --negative, --sample, --min_count, --epochs, --threads,
--seed, the switch --cbow and --out=FILE for vectors in word2vec's text format, and prints one JSON line with
words_per_s.
"""

from dataclasses import dataclass

from lmjax.config import Word2Vec, setting
from lmjax.run import flags
from lmjax.run.versus import Versus

SETS = ("analogy_accuracy", "men", "wordsim353", "simlex999", "rare_words")


@dataclass(frozen=True)
class Config(Versus):
    data: str = setting("", "text file or folder")
    data_dir: str = setting("", "folder that has word-eval; without it only speed is measured")
    model: Word2Vec = setting(Word2Vec(), "the model")
    min_count: int = setting(5, "words seen less often are left out", low=1)
    epochs: int = setting(3, "times the corpus is read", low=1)
    lr: float = setting(0.03, "learning rate at the start", low=0.0)
    lr_end: float = setting(1e-4, "learning rate at the end", low=0.0)
    turns: int = setting(64, "updates a step takes", low=1)


def main(config):
    import statistics
    import tempfile
    from pathlib import Path

    from lmjax.config import sized
    from lmjax.data.corpus import read_corpus
    from lmjax.errors import UserError
    from lmjax.interop.vectors import read_vectors
    from lmjax.run.versus import run_peer

    if not config.data:
        raise UserError("no --data: give a text file or a folder of them")
    corpus = read_corpus(config.data, units="ascii", min_count=config.min_count)
    model = sized(config.model, len(corpus.words))
    peer = [config.data, f"--min_count={config.min_count}", f"--epochs={config.epochs}"]
    peer += [f"--{name}={getattr(model, name)}" for name in ("dim", "window", "negative", "sample")]
    peer += ["--cbow"] * model.cbow + ["--hs"] * model.hierarchical
    speeds, scores = {"lmjax": [], "peer": []}, {"lmjax": [], "peer": []}
    train = compiled(config, model, corpus)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "vectors.txt"
        for seed in range(1, config.rounds + 1):
            if config.peer:
                speeds["peer"].append(run_peer(config, [*peer, f"--seed={seed}", f"--out={out}"], "words_per_s"))
                scores["peer"].append(score(config, *read_vectors(out)))
            vectors, speed = train(seed)
            speeds["lmjax"].append(speed)
            scores["lmjax"].append(score(config, corpus.words, vectors))
            beside = f", peer {speeds['peer'][-1]:,.0f}, ratio {speed / speeds['peer'][-1]:.2f}" if config.peer else ""
            print(f"word2vec {seed}: lmjax {speed:,.0f} words/s{beside}", flush=True)
    if config.peer:
        ratios = [mine / theirs for mine, theirs in zip(speeds["lmjax"], speeds["peer"], strict=True)]
        print(f"word2vec: median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    for name in SETS:
        means = [f"{who} {spread([row[name] for row in rows])}" for who, rows in scores.items() if rows and rows[0]]
        if means:
            print(f"{name:18} {'   '.join(means)}")


def compiled(config, model, corpus):
    """train(seed) -> (vectors [V,D], words a second)."""
    import time

    import jax
    import jax.numpy as jnp
    import numpy as np

    from lmjax import param
    from lmjax.run.tasks.vectors import sparse_training, word2vec_objective
    from lmjax.train import parallel
    from lmjax.train.state import State

    objective, strategy = word2vec_objective(model, corpus.counts), parallel.choose("auto", ())
    step, batch, steps, *_ = sparse_training(model, objective, corpus, config)
    step = strategy.compile(step)

    def start(seed):
        params = param.init(objective.specs, jax.random.key(seed))
        return strategy.place(State(jnp.zeros((), jnp.int32), params, objective.tables, bad=jnp.zeros(2, jnp.int32)))

    jax.block_until_ready(step(start(0), strategy.batch(batch(0)), jax.random.key(0)))

    def train(seed):
        state, key, began, metrics = start(seed), jax.random.key(seed), time.perf_counter(), []
        for i in range(steps * config.epochs):
            state, latest = step(state, strategy.batch(batch(i)), key)
            metrics.append(latest)
            if i >= 2:
                jax.block_until_ready(metrics[i - 2])
        vectors = np.asarray(state.params["input"])
        return vectors, corpus.total * config.epochs / (time.perf_counter() - began)

    return train


def score(config, words, vectors) -> dict:
    from lmjax.evaluate.embeddings import evaluate_all

    return evaluate_all(words, vectors, f"{config.data_dir}/word-eval") if config.data_dir else {}


def spread(values) -> str:
    import statistics

    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


if __name__ == "__main__":
    flags.run(main, Config)
