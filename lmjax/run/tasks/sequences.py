"""The steps that train a generator of sequences: by likelihood, with scheduled sampling, and against a discriminator.

A step is an epoch over the training sequences, or a round of the adversarial game; all that it does stays on the
device. Each is the step of one training (train/state.py) and may be a lane of several (train/lanes.py). What a step
does is told by what its batch holds:

    tokens, numbers          [B,S,T], [B,S]     an epoch of S updates by likelihood
    true, made               [H,R,S,T], [H,R,S] R rounds of the discriminator: S batches of H true sequences, H made up
    rows [B], true, made                        one update of the generator by policy gradient, then those R rounds
    rows [B]                                    one such update alone, for a reward that does not learn
    rows [B], real [B,U,n,T]                    U updates of the generator through relaxed tokens, and of n - 1 of the
                                                discriminator after each (models/relgan.py)

B, H rows of an update. The numbers int name the rows whose draws they are (models/seqgan.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmjax.models import relgan, seqgan
from lmjax.models.text_discriminator import TRUE, discriminator_loss
from lmjax.nn.dropout import fold
from lmjax.train.state import count_bad
from lmjax.train.step import descend

CLIP = 5.0  # the largest norm of a generator's gradient, as in the published code


class Players(NamedTuple):
    """An optax transformation for each of what is trained, by name; `init` gives what stands in state.opt.

    Each names the part of the parameters that it updates: several may update one.
    """

    parts: dict[str, tuple[str, Any]]  # name -> (part of the parameters, transformation)

    def init(self, params):
        return {name: tx.init(params[part]) for name, (part, tx) in self.parts.items()}


def players(likelihood: float, reward: float | None = None, discriminator: float | None = None) -> Players:
    """Adam for each with these rates; None: it is not trained. reward: of the game's updates of the generator."""
    rates = {"likelihood": likelihood, "reward": reward, "discriminator": discriminator}
    parts = {"likelihood": "generator", "reward": "generator", "discriminator": "discriminator"}
    return Players({name: (parts[name], optax.adam(rate)) for name, rate in rates.items() if rate is not None})


class Game(NamedTuple):
    """What an adversarial step is made of.

    model: config.Generator, or config.MemoryGenerator and net models/relgan.py. judge: the discriminator's config, or
    None where the reward does not learn. tx: Players. reward(params, tokens [M,T]) -> [M]: of whole sequences.
    rollouts: completions of each prefix. policy_keep: the share of the roll-out policy that a round leaves as it was.
    probability(step): of scheduled sampling; None: none. sharpness(step): of relaxed tokens, for a fractional step.
    """

    model: Any
    judge: Any
    tx: Players
    reward: Callable | None = None
    rollouts: int = 16
    policy_keep: float = 0.8
    epochs: int = 3
    probability: Callable | None = None
    net: Any = seqgan
    sharpness: Callable | None = None


NOTHING = {"loss": jnp.nan, "gradient_norm": jnp.nan, "reward": jnp.nan, "discriminator_loss": jnp.nan,
           "discriminator_accuracy": jnp.nan}  # fmt: skip


def make_step(game: Game):
    """The step that takes each kind of batch."""

    def step(state, batch, key, axis):
        key = jax.random.fold_in(key, state.step)
        report = {}
        if "tokens" in batch:
            state, report = likelihood_epoch(game, state, batch, key, axis)
        if "real" in batch:
            state, report = relaxed_updates(game, state, batch, key, axis)
        elif "rows" in batch:
            state, report = policy_update(game, state, batch["rows"], fold(key, "generator"), axis)
        if "true" in batch:
            state, judged = discriminator_rounds(game, state, batch, fold(key, "discriminator"), axis)
            report = judged | report
        if "policy" in state.params and "rows" not in batch:  # until the game begins
            state = state.replace(params=state.params | {"policy": state.params["generator"]})
        return state.replace(step=state.step + 1), NOTHING | report | {"bad": state.bad[0]}

    return step


def update(game, state, name, loss, batch, key, axis, clip=0.0):
    """One descent of a player: (state, metrics)."""
    part, tx = game.tx.parts[name]
    new = descend(loss, tx, state.params[part], state.opt[name], batch, key, (), axis, clip=clip)
    state = state.replace(
        params=state.params | {part: new.params}, opt=state.opt | {name: new.opt},
        bad=count_bad(state.bad, new.finite),
    )  # fmt: skip
    return state, new.metrics


def over_batches(one, state, batches, key):
    """`one(state, batch, key) -> (state, metrics)` for each of the batches, leaves [S,...]: (state, mean metrics)."""

    def body(state, now):
        i, batch = now
        return one(state, batch, jax.random.fold_in(key, i))

    count = len(jax.tree.leaves(batches)[0])
    state, metrics = jax.lax.scan(body, state, (jnp.arange(count), batches))
    return state, jax.tree.map(lambda x: x.mean(), metrics)


def likelihood_epoch(game, state, batch, key, axis):
    """An epoch of maximum likelihood, or of scheduled sampling where the game has a probability."""
    probability = None if game.probability is None else game.probability(state.step)

    def loss(generator, batch, key, carry):
        tokens, inputs = batch["tokens"], None
        if probability is not None:
            inputs = seqgan.scheduled_inputs(generator, game.model, key, tokens, batch["numbers"], probability)
        total, weight = game.net.nll(generator, game.model, tokens, None, inputs)
        return total, (weight, {}, carry)

    def one(state, batch, key):
        return update(game, state, "likelihood", loss, batch, key, axis, CLIP)

    batches = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), {name: batch[name] for name in ("tokens", "numbers")})
    state, metrics = over_batches(one, state, batches, key)
    return state, {"loss": metrics["loss"], "gradient_norm": metrics["gradient_norm"]}


def policy_update(game, state, rows, key, axis):
    """REINFORCE on sequences of the generator's own (Yu et al. 2017, eq. 6-8): (state, metrics).

    The action y_t is worth what the reward says of Y_{1:T}, completed `rollouts` times from Y_{1:t} by the roll-out
    policy (eq. 4), and the gradient ascended is E[sum_t grad log G(y_t | Y_{1:t-1}) Q(Y_{1:t-1}, y_t)] (eq. 7).
    """
    tokens = seqgan.sample(state.params["generator"], game.model, fold(key, "sample"), rows)
    rewards = action_values(game, state.params, tokens, fold(key, "rollout"), rows)

    count = axis.psum(jnp.float32(len(tokens)))

    def loss(generator, batch, key, carry):
        total, _ = seqgan.nll(generator, game.model, tokens, rewards)
        # A weight of 1 over all devices: the gradient of the batch's sum is what the published code clips.
        return total, (len(tokens) / count, {"reward": rewards[:, -1].sum()}, carry)

    state, metrics = update(game, state, "reward", loss, {}, key, axis, CLIP)
    if "policy" in state.params:
        mixed = jax.tree.map(
            lambda old, new: game.policy_keep * old + (1 - game.policy_keep) * new,
            state.params["policy"], state.params["generator"],
        )  # fmt: skip
        state = state.replace(params=state.params | {"policy": mixed | {"embed": state.params["generator"]["embed"]}})
    report = {"loss": metrics["loss"] / count, "reward": metrics["reward"] / count}
    return state, report | {"gradient_norm": metrics["gradient_norm"]}


def action_values(game, params, tokens, key, rows):
    """Q of each action of tokens [B,T], by Monte-Carlo search: [B,T]. No gradient passes."""
    policy = params.get("policy", params["generator"])
    completed = seqgan.rollout(policy, game.model, key, tokens, rows, game.rollouts)
    values = game.reward(params, jnp.concatenate([completed.reshape(-1, tokens.shape[1]), tokens]))
    searched, last = values[: -len(tokens)], values[-len(tokens) :]
    searched = searched.reshape(*completed.shape[:3]).mean(1)  # [T-1,B]
    return jax.lax.stop_gradient(jnp.concatenate([searched, last[None]]).T)


def discriminator_rounds(game, state, batch, key, axis):
    """Rounds of the discriminator: each draws new sequences and reads them, with true ones, `epochs` times.

    Departure from the published code, which mixes all: a batch is half true and half made up, and stays what it is but
    for the two halves' partners, which are drawn anew for each epoch.
    """

    def one(state, batch, key):
        tokens = jnp.concatenate([batch["true"], batch["made"]])
        labels = jnp.repeat(jnp.array([TRUE, 1 - TRUE]), len(batch["true"]), total_repeat_length=len(tokens))

        def loss(judge, batch, key, carry):
            return discriminator_loss(judge, game.judge, batch, key, carry)

        return update(game, state, "discriminator", loss, {"tokens": tokens, "labels": labels}, axis.fold(key), axis)

    def round(state, now):
        i, true, made = now
        key_i = jax.random.fold_in(key, i)
        drawn = seqgan.sample(state.params["generator"], game.model, fold(key_i, "made"), made.reshape(-1))
        drawn = drawn.reshape(*made.shape, -1).swapaxes(0, 1)  # [S,H,T]

        def epoch(state, e):
            key_e = fold(key_i, "epoch", e)
            orders = [jax.random.permutation(fold(key_e, name), len(drawn)) for name in ("true", "made")]
            batches = {"true": true.swapaxes(0, 1)[orders[0]], "made": drawn[orders[1]]}
            return over_batches(one, state, batches, key_e)

        state, metrics = jax.lax.scan(epoch, state, jnp.arange(game.epochs))
        return state, jax.tree.map(lambda x: x[-1], metrics)

    true, made = (jnp.moveaxis(batch[name], 1, 0) for name in ("true", "made"))
    state, metrics = jax.lax.scan(round, state, (jnp.arange(len(made)), true, made))
    return state, {"discriminator_loss": metrics["loss"][-1], "discriminator_accuracy": metrics["accuracy"][-1]}


def relaxed_updates(game, state, batch, key, axis):
    """RelGAN's game: updates of the generator, whose gradient comes through the relaxed tokens, each followed by some
    of the discriminator: (state, metrics of the last)."""
    rows, updates = batch["rows"], jnp.moveaxis(batch["real"], 0, 2)  # [U,n,B,T]
    share = 1 / len(updates)

    def scores(generator, judge, real, key, sharpness):
        """Of sequences made up and of true ones, [B,S] each."""
        _, made = relgan.relaxed(generator, game.model, fold(key, "made"), rows, sharpness)
        key = axis.fold(key)
        return (relgan.discriminator(judge, game.judge, made, fold(key, "judge made")),
                relgan.discriminator(judge, game.judge, real, fold(key, "judge real")))  # fmt: skip

    def won(winner, loser, name, carry):
        """A player's loss, and the share of pairs and views that it wins."""
        return relgan.relativistic(winner, loser), (len(rows), {name: (winner > loser).mean(-1).sum()}, carry)

    def one(state, now):
        i, real = now
        sharpness, key_i = game.sharpness(state.step + i * share), jax.random.fold_in(key, i)

        def fooling(generator, batch, key, carry):
            made, true = scores(generator, state.params["discriminator"], real[0], key, sharpness)
            return won(made, true, "reward", carry)

        new, played = update(game, state, "reward", fooling, {}, fold(key_i, "generator"), axis, CLIP)

        def telling(judge, real, key, carry):
            made, true = scores(new.params["generator"], judge, real, key, sharpness)
            return won(true, made, "accuracy", carry)

        def judge(state, real, key):
            return update(game, state, "discriminator", telling, real, key, axis, CLIP)

        new, judged = over_batches(judge, new, real[1:], fold(key_i, "discriminator"))
        found = {name: played[name] for name in ("loss", "gradient_norm", "reward")}
        return new, found | {"discriminator_loss": judged["loss"], "discriminator_accuracy": judged["accuracy"]}

    state, metrics = jax.lax.scan(one, state, (jnp.arange(len(updates)), updates))
    return state, jax.tree.map(lambda x: x[-1], metrics)
