"""How fast an LSTM language model trains: lmjax beside torch.nn.LSTM, in turn on one machine.

    bash launch/run.sh experiments/bench_lstm.py --peer=SCRIPT --peer_python=PYTHON

Tokens a second of whole training steps in fp32: forward, backward, clipping by the global norm, SGD, the loss read at
every step. Without --hidden it takes the sizes of Zaremba et al. 2014, 2 x 200 cells over 20 steps and then 2 x 650
over 35, and some two minutes on two cores. The peer is a script that takes --hidden, --layers, --vocab, --batch,
--unroll, --steps, --dropout and --threads and prints one JSON line with tokens_per_s.
"""

from dataclasses import dataclass

from lmjax.config import LSTM, setting
from lmjax.run import flags
from lmjax.run.versus import Versus, alternate, seconds_a_step


@dataclass(frozen=True)
class Config(Versus):
    hidden: int = setting(0, "cells of each layer; 0: 200 over 20 steps, then 650 over 35", low=0)
    unroll: int = setting(20, "tokens of a window, where --hidden is given", low=1)
    layers: int = setting(2, "LSTM layers", low=1)
    vocab: int = setting(10000, "token types", low=2)
    batch: int = setting(20, "rows", low=1)
    steps: int = setting(20, "training steps a run, of which the median counts", low=1)
    dropout: float = setting(0.0, "on the connections between layers", low=0.0, high=0.99)
    dtype: str = setting("float32", "type of lmjax's products", choices=("float32", "bfloat16"))


def main(config):
    for hidden, unroll in [(config.hidden, config.unroll)] if config.hidden else [(200, 20), (650, 35)]:
        compare(config, hidden, unroll)


def compare(config, hidden: int, unroll: int):
    import jax
    import numpy as np

    from lmjax import param
    from lmjax.models.lstm_lm import lstm_carry, lstm_loss, lstm_params
    from lmjax.train import optim, parallel
    from lmjax.train.state import new_state
    from lmjax.train.step import make_step

    rates = dict.fromkeys(("dropout_input", "dropout_layer", "dropout_output"), config.dropout)
    model = LSTM(vocab=config.vocab, layers=config.layers, dim=hidden, dtype=config.dtype, **rates)
    shape = (config.batch, unroll)
    tokens, targets = np.random.default_rng(0).integers(0, config.vocab, (2, *shape), np.int32)
    batch = {
        "tokens": tokens,
        "targets": targets,
        "weights": np.ones(shape, np.float32),
        "start": np.zeros(config.batch, bool),
    }

    def loss(params, batch, key, carry):
        return lstm_loss(params, model, batch, key if config.dropout else None, carry)

    strategy, tx, key = parallel.local(), optim.sgd(1.0), jax.random.key(0)
    carry = lstm_carry(model, config.batch)
    start = jax.jit(lambda key: new_state(param.init(lstm_params(model), key), tx, carry))
    step = strategy.compile(make_step(loss, tx, clip=5.0))

    def ours():
        state = strategy.place(start(key))
        seconds = seconds_a_step(step, state, lambda: strategy.batch(batch), key, config.steps)
        return config.batch * unroll / seconds

    names = ("layers", "vocab", "batch", "steps", "dropout")
    peer = [f"--{name}={getattr(config, name)}" for name in names]
    alternate(config, f"lstm {hidden}", ours, [f"--hidden={hidden}", f"--unroll={unroll}", *peer])


if __name__ == "__main__":
    flags.run(main, Config)
