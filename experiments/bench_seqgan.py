"""How fast a round of SeqGAN's game is: lmjax beside PyTorch as its public implementations have it, in turn.

    bash launch/run.sh experiments/bench_seqgan.py --peer=experiments/peers/seqgan_torch.py --peer_python=PYTHON

A round: 64 sequences, 16 roll-outs of each of their prefixes judged by the discriminator, a step of policy gradient,
the roll-out policy's update, then --judge_rounds of the discriminator on new sequences, the same number of batches for
both. First without the discriminator's training, then with it, and last --lanes rounds side by side in one program
against one. Measured on two quiet cores: 7.6 times as fast without the discriminator's training, 3.5 times with it (one
alternation). The discriminator's steps are products, 5.2 GFLOP each in 36 ms, which PyTorch does in 79: the more true
sequences, the nearer the ratio to 2.2. Five lanes, one after the other on CPU, take 5.0 times as long as one; under
vmap they took 6.1. --peer_python is a Python that has torch.
"""

from dataclasses import dataclass

from lmjax.config import Generator, TextDiscriminator, setting
from lmjax.run import flags
from lmjax.run.versus import Versus, alternate


@dataclass(frozen=True)
class Config(Versus):
    model: Generator = setting(Generator(vocab=5000), "the generator")
    judge: TextDiscriminator = setting(TextDiscriminator(), "the discriminator")
    batch: int = setting(64, "sequences of an update", low=2)
    rollouts: int = setting(16, "completions of each prefix", low=1)
    judge_rounds: int = setting(5, "of the discriminator for each of the game", low=1)
    judge_epochs: int = setting(3, "over the sequences of such a round", low=1)
    judge_sequences: int = setting(640, "true ones of such a round, and as many made up; published: 10,000", low=32)
    lanes: int = setting(5, "rounds side by side in one program; 1: that is not measured", low=1)
    runs: int = setting(1, "rounds that are timed, of which the median counts, after one that is not", low=1)


def main(config):
    from dataclasses import replace

    judge = replace(config.judge, vocab=config.model.vocab)
    sizes = {name: getattr(config.model, name) for name in ("vocab", "length", "embed", "cells", "start")}
    sizes |= {name: getattr(config, name) for name in ("batch", "rollouts", "judge_epochs", "judge_sequences", "runs")}
    sizes |= {"judge_embed": judge.embed, "dropout": judge.dropout, "l2": judge.l2}
    sizes |= {name: ",".join(map(str, getattr(judge, name))) for name in ("windows", "maps")}
    for name, rounds in (("roll-outs and policy gradient", 0), ("a whole round", config.judge_rounds)):
        peer = [f"--{key}={value}" for key, value in (sizes | {"judge_rounds": rounds}).items()]
        alternate(config, name, lambda r=rounds: 3600 / seconds(config, judge, r, 1), peer, "rounds_per_hour")
    if config.lanes > 1:
        for _ in range(config.rounds):
            one, several = (seconds(config, judge, config.judge_rounds, lanes) for lanes in (1, config.lanes))
            print(f"{config.lanes} lanes: {several:.2f} s, one {one:.2f} s: {several / one:.2f} times", flush=True)


def seconds(config, judge, judge_rounds: int, lanes: int) -> float:
    """Of a round of that many lanes."""
    import jax
    import numpy as np

    from lmjax import param
    from lmjax.models.seqgan import generator_params
    from lmjax.models.text_discriminator import discriminator_params
    from lmjax.run.tasks import sequences, writing
    from lmjax.run.versus import seconds_a_pass
    from lmjax.train import parallel
    from lmjax.train.lanes import InTurn, Lane, Together, draws, of_lane, over_lanes, start_lanes
    from lmjax.train.state import new_state

    specs = {"generator": generator_params(config.model), "policy": generator_params(config.model),
             "discriminator": discriminator_params(judge)}  # fmt: skip
    tx, several = sequences.players(0.01, 0.01, 1e-4), [Lane(seed) for seed in range(lanes)]
    reward = writing.judged_by(judge)
    game = sequences.Game(config.model, judge, tx, reward, config.rollouts, epochs=config.judge_epochs)
    plan = writing.Plan(0, 0, 1, judge_rounds, config.batch, config.judge_sequences)

    def keys(seed):
        return jax.random.split(jax.random.key(seed))

    def make(hyper):
        return sequences.make_step(game)

    start = start_lanes(lambda seed, _: new_state(param.init(specs, keys(seed)[1]), tx), several)
    strategy, apart = parallel.local(), jax.default_backend() == "cpu"  # which one lane alone keeps busy
    form = (InTurn if apart else Together)(strategy, draws(several, lambda seed: keys(seed)[0]), list(range(lanes)))
    step = strategy.compile(of_lane(make, 10) if apart else over_lanes(make))
    rng = np.random.default_rng(0)
    train = rng.integers(0, config.model.vocab, (config.judge_sequences, config.model.length)).astype(np.int32)
    batch = form.batch([writing.batch(plan, train, lane.seed, 0) for lane in several])
    return seconds_a_pass(lambda state, batch, _: form.launch(step, state, batch), form.place(jax.jit(start)()),
                          [batch], None, config.runs)  # fmt: skip


if __name__ == "__main__":
    flags.run(main, Config)
