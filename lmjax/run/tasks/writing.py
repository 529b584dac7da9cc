"""What stands around a generator of sequences whose truth is known: the oracle's data, what a step reads, the scores.

N lanes, S updates of an epoch, H = batch / 2, T tokens of a sequence.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax import param
from lmjax.evaluate.bleu_reward import bleu, tables
from lmjax.models import relgan, seqgan
from lmjax.models.text_discriminator import truth
from lmjax.run.pictures import canvas

FEW = 0.01  # probability of being true that a generator's sequences get from a discriminator that wins outright
DISTINCT = 0.9  # share of distinct sequences below which a generator counts as collapsing


class Data(NamedTuple):
    """Sequences of the oracle, int32 [.,T], on the host."""

    train: np.ndarray
    valid: np.ndarray


def from_oracle(oracle, model, seed: int, train: int, valid: int) -> Data:
    """Sequences that the oracle writes: a function of it and the seed alone."""
    draw = jax.jit(lambda oracle, key: seqgan.sample(oracle, model, key, train + valid))
    written = np.asarray(draw(jax.tree.map(jnp.asarray, oracle), jax.random.key(seed)))
    return Data(written[:train], written[train:])


def mean_nll(oracle, model, tokens) -> float:
    """Nats a token of sequences under the oracle."""
    total, weight = jax.jit(lambda oracle, tokens: seqgan.nll(oracle, model, tokens))(oracle, jnp.asarray(tokens))
    return float(total / weight)


class Plan(NamedTuple):
    """What the steps of a training are: `epochs` of likelihood, `first` rounds of the discriminator, `rounds` of the
    game with `judge_rounds` of the discriminator each (0: the reward does not learn). updates: of the generator in a
    round of RelGAN's game, with `judge_rounds` of the discriminator after each; 0: the game is another."""

    epochs: int
    first: int
    rounds: int
    judge_rounds: int
    batch: int
    judge_sequences: int
    updates: int = 0

    @property
    def steps(self) -> int:
        return self.epochs + self.first + self.rounds


def batch(plan: Plan, train, seed: int, step: int) -> dict:
    """What step `step` reads: see run/sequences.py. A function of plan, seed and step."""
    kind = "epoch" if step < plan.epochs else "judge" if step < plan.epochs + plan.first else "game"
    rng, B, half = np.random.default_rng([seed, step]), plan.batch, plan.batch // 2
    if kind == "epoch":
        order = rng.permutation(len(train))[: len(train) // B * B].reshape(B, -1)
        return {"tokens": train[order], "numbers": np.arange(order.size, dtype=np.int32).reshape(order.shape)}
    rows = {"rows": np.arange(B, dtype=np.int32)} if kind == "game" else {}
    if plan.updates and kind == "game":
        return rows | {"real": train[rng.integers(len(train), size=(B, plan.updates, 1 + plan.judge_rounds))]}
    rounds = 1 if kind == "judge" else plan.judge_rounds
    if not rounds:
        return rows
    count = min(plan.judge_sequences, len(train)) // half * half
    order = np.stack([rng.permutation(len(train))[:count].reshape(half, -1) for _ in range(rounds)], axis=1)
    made = np.arange(count, dtype=np.int32).reshape(half, 1, -1)
    return rows | {"true": train[order], "made": np.broadcast_to(made, order.shape)}


def judged_by(judge) -> Callable:
    """The discriminator's reward: the probability that a sequence is true."""
    return lambda params, tokens: truth(params["discriminator"], judge, tokens, rows=1024)


def bleu_reward(train, vocab: int, order: int) -> Callable:
    """PG-BLEU's: how like the training sequences a sequence is."""
    found = tables(train, vocab, order)
    return lambda params, tokens: bleu(found, vocab, tokens)


def fooled_by(judge, valid) -> Callable:
    """What RelGAN's discriminator takes sequences for, beside as many true ones: see models/relgan.py."""
    valid = jnp.asarray(valid)

    def found(params, tokens):
        return relgan.fools(params["discriminator"], judge, tokens[: len(valid)], valid[: len(tokens)])

    return found


def scorer(oracle, model, valid, written: int, judged: Callable | None = None, net=seqgan, writer=None):
    """A function of params [N, ...] that judges the generators, a dict of plain floats.

    loss: nats a token of the held-out sequences `valid`; nll_oracle: of the generator's own under the oracle; distinct:
    the share of its sequences that are like no other of them; judged: what the discriminator takes them for, the mean
    of judged(params, tokens). Means over the lanes, and each lane's with its place behind the name. model: the
    oracle's; writer and net: the generator's config and module, where they are others.
    """
    writer = writer or model
    oracle, valid = jax.tree.map(jnp.asarray, oracle), jnp.asarray(valid)

    @jax.jit
    def one(params, oracle, valid):
        def lane(params):
            tokens = net.sample(params["generator"], writer, jax.random.key(17), written)
            held_out, own = net.nll(params["generator"], writer, valid), seqgan.nll(oracle, model, tokens)
            found = {name: total / weight for name, (total, weight) in (("loss", held_out), ("nll_oracle", own))}
            if judged is not None:
                found["judged"] = judged(params, tokens[:1024]).mean()
            return found, tokens

        return jax.vmap(lane)(params)

    def score(params) -> dict:
        found, tokens = jax.device_get(one(params, oracle, valid))
        found["distinct"] = np.array([len(np.unique(rows, axis=0)) / len(rows) for rows in tokens])
        means = {name: float(values.mean()) for name, values in found.items()}
        return means | {f"{name}_{i}": float(v) for name, values in found.items() for i, v in enumerate(values)}

    return score


def untrained(specs, seeds):
    """The parameters [N, ...] that runs of these seeds begin with, as run/training.py draws them."""
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed))[1])(jnp.asarray(seeds, jnp.uint32))
    return jax.vmap(partial(param.init, specs))(keys)


def notices(say, names):
    """A `decide` of run/training.fit that says, in a line each and when they begin, what goes wrong."""

    def decide(history, state):
        now, before = history[-1], history[-2] if len(history) > 1 else {}
        for i, name in enumerate(names):

            def begins(figure, limit, i=i):
                figure = f"{figure}_{i}"
                return now.get(figure, 1.0) < limit <= before.get(figure, 1.0)

            if begins("judged", FEW):
                say(f"notice: {name}: the discriminator wins outright, what the generator writes is true with "
                    f"probability {now[f'judged_{i}']:.4f}: the rewards teach little")  # fmt: skip
            if begins("distinct", DISTINCT):
                say(f"notice: {name}: the generator is collapsing, {now[f'distinct_{i}']:.1%} of its sequences "
                    "are distinct")  # fmt: skip
            if int(state.bad[i, 0]):
                say(f"notice: {name}: {int(state.bad[i, 0])} updates in a row were not finite and were skipped, "
                    f"{int(state.bad[i, 1])} in all")  # fmt: skip
        return state

    return decide


def lane_values(line: dict, name: str) -> list[float]:
    """Each lane's `name` in a line of the history."""
    found = []
    while f"{name}_{len(found)}" in line:
        found.append(line[f"{name}_{len(found)}"])
    return found


def best_of_each(history: list[dict], name: str) -> list[float]:
    """Each lane's `name` where its own validation loss was lowest."""
    losses = np.array([lane_values(line, "loss") for line in history])
    values = np.array([lane_values(line, name) for line in history])
    return values[losses.argmin(0), np.arange(losses.shape[1])].tolist()


def draw(history: list[dict], plan: Plan, published: float | None, path: Path) -> Path | None:
    """NLL_oracle of each lane against the steps, and a line where the game begins; None without the plot extra."""
    figure = canvas(7, 4)
    if figure is None:
        return None
    axes = figure.add_subplot()
    steps = [line["step"] for line in history]
    values = np.array([lane_values(line, "nll_oracle") for line in history])
    axes.plot(steps, values, color="#7a9cc6", linewidth=0.8)
    axes.plot(steps, values.mean(1), color="#c1440e", marker="o", markersize=3, label="mean of the seeds")
    if plan.rounds:
        axes.axvline(plan.epochs + plan.first, color="#7a7a7a", linestyle="--", label="the game begins")
    if published is not None:
        axes.axhline(published, color="#5a9e4b", linestyle=":", label=f"published {published}")
    axes.set(xlabel="epochs of likelihood, then rounds", ylabel="NLL_oracle, nats a token")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
    return path
