"""How fast a BiLSTM-CRF trains: lmjax beside PyTorch with pytorch-crf, in turn on one machine.

    bash launch/run.sh experiments/bench_tag.py --peer=experiments/peers/tag_torch.py --peer_python=PYTHON

Sentences a second of whole steps (forward, backward, clipping, Adam, dropout) of Lample et al. 2016's tagger over the
first batches of --data, the same for both, of sentences of like length. --peer_python is a Python that has torch and
pytorch-crf. About three minutes on two cores.
"""

from dataclasses import dataclass

from lmjax.config import Tagger, setting
from lmjax.run import flags
from lmjax.run.versus import Versus, alternate, seconds_a_pass


@dataclass(frozen=True)
class Config(Versus):
    data: str = setting("conll2003", "tagged sentences: generated, conll2000, conll2003, or a path")
    data_dir: str = setting("", "folder to look for data sets in before downloading; also the variable LMJAX_DATA")
    model: Tagger = setting(Tagger(), "the network")
    batch: int = setting(32, "sentences of a step", low=1)
    steps: int = setting(16, "training steps a run", low=1)
    runs: int = setting(5, "times that each is run, of which the median counts", low=1)


def main(config):
    import tempfile
    from pathlib import Path

    import numpy as np

    from lmjax.data import tag_rows, tagged
    from lmjax.run.tasks import tagging

    given = tagged.splits(tagged.load_tagged(config.data, config.data_dir or None))["train"]
    known = tag_rows.vocabulary(given, "iobes")
    model, rows = tagging.sized(config.model, known), tag_rows.rows(given, known)
    at, _ = tag_rows.batches(rows, config.batch, 0, shapes=4)
    batches = [at(step) for step in range(config.steps)]
    names = ("word_dim", "letter_dim", "letter_cells", "cells", "words", "letters", "tags", "dropout")
    sizes = [f"--{name}={getattr(model, name)}" for name in names]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batches.npz"
        plain = [spelt_out(batch) for batch in batches]
        np.savez(path, **{f"{name}_{i}": array for i, b in enumerate(plain) for name, array in b.items()})
        peer = [*sizes, f"--batches={path}", f"--runs={config.runs}"]
        alternate(config, "training", lambda: train(config, model, known, batches), peer, "sentences_per_s")


def spelt_out(batch) -> dict:
    """The batch as one would make it without packing: beside each word of the sentences its own letters [words,C]."""
    import numpy as np

    seen = batch["seen"]
    lane, first, last = (batch[name][seen] for name in ("lane", "first", "last"))
    counts = last - first + 1
    letters = np.zeros((len(lane), counts.max()), np.int32)
    for row, (line, begin, count) in enumerate(zip(lane, first, counts)):
        letters[row, :count] = batch["letters"][line, begin : begin + count]
    return {"words": batch["words"], "seen": seen, "tags": batch["tags"], "letters": letters, "counts": counts}


def train(config, model, known, batches) -> float:
    import jax

    from lmjax import param
    from lmjax.models import crf, tagger
    from lmjax.train import optim, parallel
    from lmjax.train.state import new_state
    from lmjax.train.step import make_step

    key, tx, strategy, legal = jax.random.key(0), optim.adamw(1e-3), parallel.local(), crf.allowed(known.tags, "iobes")

    def loss(params, batch, key, carry):
        return tagger.tag_loss(params, batch, tagger.emissions(params, model, batch, key), legal)

    step = strategy.compile(make_step(loss, tx, clip=5.0))
    state = strategy.place(new_state(param.init(tagger.tagger_params(model), key), tx))
    seconds = seconds_a_pass(
        lambda state, batch, key: step(state, strategy.batch(batch), key), state, batches, key, config.runs
    )
    return sum(int(batch["seen"][:, 0].sum()) for batch in batches) / seconds


if __name__ == "__main__":
    flags.run(main, Config)
