"""How fast a translator trains and searches: lmjax beside PyTorch and transformers, in turn on one machine.

    bash launch/run.sh experiments/bench_translate.py --peer=experiments/peers/translate_torch.py --peer_python=PYTHON

Search: sentences a second of --beam hypotheses of random weights, each --new tokens long. Training: target tokens a
second of whole steps (forward, backward, Adam, smoothed targets, dropout) of Transformer-Tiny over the first batches of
--data, the same for both. --peer_python is a Python that has torch and transformers. About four minutes on two cores.
"""

import dataclasses
from dataclasses import dataclass

from lmjax.config import Seq2Seq, setting
from lmjax.run import flags
from lmjax.run.versus import Versus, alternate, seconds_a_pass

TINY = Seq2Seq(layers=4, heads=4, dim=128, hidden=256, shared=True, dropout=0.3, dropout_attention=0.3,
               dropout_hidden=0.3)  # fmt: skip


@dataclass(frozen=True)
class Config(Versus):
    data: str = setting("multi30k", "sentence pairs whose batches are trained on: multi30k, or a folder")
    data_dir: str = setting("", "folder to look for data sets in before downloading; also the variable LMJAX_DATA")
    model: Seq2Seq = setting(TINY, "the network")
    vocab: int = setting(10_000, "joint byte-pair units", low=300)
    budget: int = setting(4096, "tokens of a training step, padding too", low=1)
    steps: int = setting(8, "training steps a run", low=1)
    batch: int = setting(64, "sentences searched for at once", low=1)
    length: int = setting(16, "tokens of each", low=1)
    new: int = setting(20, "tokens of each hypothesis", low=1)
    beam: int = setting(5, "hypotheses of a sentence", low=1)
    runs: int = setting(5, "times that each is run, of which the median counts", low=1)


def main(config):
    import tempfile
    from pathlib import Path

    import numpy as np

    sizes = [f"--{name}={getattr(config.model, name)}" for name in ("layers", "heads", "dim", "hidden")]
    sizes += [f"--{name}={getattr(config, name)}" for name in ("vocab", "batch", "length", "new", "beam", "runs")]
    # First: who translates does so in a process that has not trained, whose memory is not yet in pieces.
    alternate(config, f"beam {config.beam}", lambda: search(config), [*sizes, "--task=beam"], "sentences_per_s")
    batches = some_batches(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batches.npz"
        np.savez(path, **{f"{name}_{i}": array for i, b in enumerate(batches) for name, array in b.items()})
        alternate(config, "training", lambda: train(config, batches), [*sizes, "--task=train", f"--batches={path}"])


def some_batches(config):
    from lmjax.data import batches, pairs

    text = pairs.load_pairs(config.data, "en", "de", config.data_dir or None)
    cut = [[pairs.spaces(language)(line.lower()) for line in side] for language, side in zip(("en", "de"), text.train)]
    vocabulary = pairs.joint_vocabulary([*cut[0], *cut[1]], config.vocab)
    source, target = (pairs.encode(vocabulary, side) for side in cut)
    data = batches.bucketed(source, target, vocabulary.id(pairs.BEGIN), budget=config.budget)
    return [data.batch(step) for step in range(config.steps)]


def sized(config):
    return dataclasses.replace(config.model, source_vocab=config.vocab, target_vocab=config.vocab)


def train(config, batches) -> float:
    import jax

    from lmjax import param
    from lmjax.models.seq2seq import seq2seq_loss, seq2seq_params
    from lmjax.train import optim, parallel
    from lmjax.train.state import new_state
    from lmjax.train.step import make_step

    model, key, tx, strategy = sized(config), jax.random.key(0), optim.adamw(1e-3, b2=0.98), parallel.local()
    step = strategy.compile(make_step(lambda p, *given: seq2seq_loss(p, model, *given, smoothing=0.1), tx))
    state = strategy.place(new_state(param.init(seq2seq_params(model), key), tx))
    seconds = seconds_a_pass(
        lambda state, batch, key: step(state, strategy.batch(batch), key), state, batches, key, config.runs
    )
    return sum(float(batch["weights"].sum()) for batch in batches) / seconds


def search(config) -> float:
    import statistics
    import time

    import jax
    import numpy as np

    from lmjax import param
    from lmjax.decode.beam import beam
    from lmjax.models.seq2seq import seq2seq_params
    from lmjax.run.tasks.translating import family

    model = sized(config)
    params = param.init(seq2seq_params(model), jax.random.key(0))
    source = np.random.default_rng(0).integers(3, config.vocab, (config.batch, config.length), np.int32)
    seen, limit = np.ones(source.shape, bool), np.full(config.batch, config.new, np.int32)
    seconds = []
    for _ in range(config.runs + 1):
        began = time.perf_counter()
        found = beam(family(model).decoder, params, (source, seen), limit, width=config.beam, room=config.new, begin=1,
                     end=-1, alpha=1.0)  # no token is the end: all hypotheses are --new long  # fmt: skip
        jax.block_until_ready(found)
        seconds.append(time.perf_counter() - began)
    return config.batch / statistics.median(seconds[1:])


if __name__ == "__main__":
    flags.run(main, Config)
