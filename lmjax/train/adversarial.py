"""The step of two players, a generator and a discriminator, of `descend` twice.

A step takes n updates of the discriminator, each on its own real samples and noise, then one of the generator. All it
needs lies in State: params {"generator", "discriminator"}; opt {"generator", "discriminator", "values", "watch"}, where
values are what the discriminator's loss hands on from one update to the next (spectral norms' vectors) and watch counts
what should be said. Keys are functions of the step, and are not folded with the device: losses draw by a row's number.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmjax.train import optim
from lmjax.train.state import count_bad
from lmjax.train.step import descend, keep

LONG = 200  # steps in a row, after which a failure is no accident
SURE = 0.995  # share of samples told apart, from which on a discriminator has won
NARROW = 0.05  # spread of made samples over that of real ones, up to which a generator has collapsed


class Players(NamedTuple):
    """Losses, optimizers, and what the values begin with: `fit` takes it as its tx.

    discriminator(params, generator's, batch, key, values, psum) -> (sum, (weight, metrics, values)), generator(params,
    discriminator's, batch, key, values, psum) -> (sum, (weight, metrics, ())). values(discriminator's params) -> tree.
    """

    generator: Callable
    discriminator: Callable
    generator_tx: optax.GradientTransformation
    discriminator_tx: optax.GradientTransformation
    values: Callable = lambda params: {}

    def init(self, params):
        """What stands in State.opt before the first step."""
        return {
            "generator": self.generator_tx.init(params["generator"]),
            "discriminator": self.discriminator_tx.init(params["discriminator"]),
            "values": self.values(params["discriminator"]),
            "watch": {name: jnp.zeros((), jnp.int32) for name in ("won", "collapsed", "penalty")},
        }


def rates(game, steps: int):
    """The rates of a Game, of the generator and the discriminator, over `steps` steps of the generator."""
    if not game.decay:
        return game.lr, game.critic_lr
    return optax.linear_schedule(game.lr, 0.0, steps), optax.linear_schedule(
        game.critic_lr, 0.0, steps * game.critic_steps
    )


def adam(rate, b1: float, b2: float):
    """Adam whose update can itself be differentiated where a gradient is 0, as an unrolled discriminator's often is.

    rate: a number or a schedule.
    """
    return optax.adam(rate, b1, b2, eps=1e-8, eps_root=1e-16)


def generator_average(decay: float) -> optim.Averaging:
    """optim.ema of the generator alone: its `weights` are {"generator": ...}, also for lanes."""
    ema = optim.ema(decay)

    def weights(average):
        one = jax.vmap(ema.weights) if average["steps"].ndim else ema.weights
        return {"generator": one(average)}

    return optim.Averaging(lambda params: ema.init(params["generator"]), ema.update, weights)


def make_step(players: Players, *, critic_steps=1, unroll=0, averaging=None, spread=None):
    """A step of both players, `step(state, batch, key, axis)`.

    batch: row int [B], and arrays [B, n, ...] with one entry for each of the n = critic_steps updates. unroll: updates
    of the discriminator that the generator's gradient looks through (Metz et al. 2017). averaging: a
    `generator_average`. spread(metrics) -> (number, the other metrics), see models/gan.py.

    Metrics: the discriminator's of its last update (its loss and gradient_norm as discriminator_loss, ...), spread,
    and the generator's loss and gradient_norm.
    """

    def step(state, batch, key, axis):
        key = jax.random.fold_in(key, state.step)
        generator, opt = state.params["generator"], state.opt
        rows = batch["row"]
        each = {name: jnp.moveaxis(x, 1, 0) for name, x in batch.items() if name != "row"}

        def judging(generator):
            def loss(params, batch, key, values):
                return players.discriminator(params, generator, batch, key, values, axis.psum)

            return loss

        def critic(carry, this):
            params, tx_state, values, finite, penalty = carry
            i, part = this
            new = descend(judging(generator), players.discriminator_tx, params, tx_state, part | {"row": rows},
                          jax.random.fold_in(key, i), values, axis)  # fmt: skip
            bad = ~jnp.isfinite(new.metrics.get("penalty", jnp.float32(0)))
            return (new.params, new.opt, new.carry, finite & new.finite, penalty | bad), new.metrics

        carry = (state.params["discriminator"], opt["discriminator"], opt["values"], jnp.bool_(True), jnp.bool_(False))
        if critic_steps == 1:
            carry, judged = critic(carry, (0, {name: x[0] for name, x in each.items()}))
        else:
            carry, judged = jax.lax.scan(critic, carry, (jnp.arange(critic_steps), each))
            judged = jax.tree.map(lambda x: x[-1], judged)
        discriminator, discriminator_opt, values, finite, bad_penalty = carry

        last = {name: x[-1] for name, x in each.items()} | {"row": rows}
        fresh = jax.random.fold_in(key, critic_steps)

        def fooling(params, batch, key, carry):
            ahead = discriminator
            if unroll:
                ahead = unrolled(judging(params), players.discriminator_tx, ahead, discriminator_opt, batch, key,
                                 values, axis, unroll)  # fmt: skip
            return players.generator(params, ahead, batch, key, values, axis.psum)

        made = descend(fooling, players.generator_tx, generator, opt["generator"], last, fresh, (), axis)
        finite = finite & made.finite
        width, report = spread(judged) if spread else (None, judged)
        report = {f"discriminator_{name}": report[name] for name in ("loss", "gradient_norm")} | report | made.metrics
        watch = opt["watch"] | {"penalty": opt["watch"]["penalty"] + bad_penalty}
        if "accuracy" in report:
            watch["won"] = in_a_row(watch["won"], report["accuracy"] >= SURE)
        if width is not None:
            report["spread"] = width
            watch["collapsed"] = in_a_row(watch["collapsed"], width <= NARROW)
        average = state.average
        if averaging is not None:
            average = keep(made.finite, averaging.update(average, made.params, state.step), average)
        bad = count_bad(state.bad, finite)
        new = state.replace(
            step=state.step + 1,
            params={"generator": made.params, "discriminator": discriminator},
            opt={"generator": made.opt, "discriminator": discriminator_opt, "values": values, "watch": watch},
            average=average,
            bad=bad,
        )
        return new, report | {"bad": bad[0]}

    return step


def unrolled(loss, tx, params, opt, batch, key, values, axis, steps: int):
    """The discriminator after `steps` updates on one batch and one draw of noise (Metz et al. 2017, eq. 7), a function
    of the generator in `loss`, to be differentiated."""
    for _ in range(steps):
        (_, (weight, _, _)), gradient = jax.value_and_grad(loss, has_aux=True)(params, batch, key, values)
        gradient, weight = axis.psum((gradient, weight))
        updates, opt = tx.update(jax.tree.map(lambda g: g / weight, gradient), opt, params)  # noqa: B023
        params = optax.apply_updates(params, updates)
    return params


def in_a_row(count, now):
    return jnp.where(now, count + 1, 0)


def notices(state, names=None) -> dict[str, str]:
    """One line for each failure that `state` shows to last, of each lane where there are some, by a key of its own.

    names: of the lanes.
    """
    watch = {name: jax.device_get(x) for name, x in state.opt["watch"].items()}
    bad = jax.device_get(state.bad)
    lanes = [("", watch, bad)] if bad.ndim == 1 else [
        (f"{names[i] if names else f'lane {i}'}: ", {name: x[i] for name, x in watch.items()}, bad[i])
        for i in range(len(bad))
    ]  # fmt: skip
    lines = {}
    for who, counts, (_, skipped) in lanes:
        if counts["won"] >= LONG:
            lines[f"{who}won"] = (f"{who}the discriminator has won: for {counts['won']:,} steps it told nearly all "
                                  "samples apart; lower its rate or size, or take another loss")  # fmt: skip
        if counts["collapsed"] >= LONG:
            lines[f"{who}collapsed"] = (
                f"{who}the generator has collapsed: for {counts['collapsed']:,} steps its samples lay within "
                f"{100 * NARROW:.0f} % of the data's spread; pack or unroll, or lower its rate"
            )
        if counts["penalty"]:
            lines[f"{who}penalty"] = (f"{who}the slope penalty was not finite in {counts['penalty']:,} steps, which "
                                      "were skipped; lower the discriminator's rate")  # fmt: skip
        elif skipped:
            lines[f"{who}skipped"] = (f"{who}{skipped:,} steps had a loss or gradient that was not finite and were "
                                      "skipped; lower the rates")  # fmt: skip
    return lines


def tell(say, history: list, state, names=None):
    """Says the failures that were not said before, and keeps all in the last line of a run's history."""
    lines, before = notices(state, names), {key for line in history[:-1] for key in line.get("failures", ())}
    for key, line in lines.items():
        if key not in before:
            say(line)
    history[-1]["failures"] = lines


def failures(history: list) -> list[str]:
    """The last line about each failure that a run's history holds."""
    latest = {}
    for line in history:
        latest |= line.get("failures", {})
    return list(latest.values())
