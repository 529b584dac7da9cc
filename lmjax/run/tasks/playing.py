"""A game of two networks as `fit` trains it."""

from functools import partial

from lmjax.models import gan
from lmjax.nn.norm import spectral_start
from lmjax.train import adversarial
from lmjax.train.step import Recipe


def playing(pair: gan.Pair, game, steps: int) -> Recipe:
    """Of `fit`, for `steps` steps of a Game (config.py)."""
    losses = [partial(loss, pair, game) for loss in (gan.generator_loss, gan.discriminator_loss)]
    optimizers = [adversarial.adam(rate, game.b1, game.b2) for rate in adversarial.rates(game, steps)]
    players = adversarial.Players(*losses, *optimizers, spectral_start if game.spectral else lambda params: {})
    averaging = adversarial.generator_average(game.ema) if game.ema else None
    step = adversarial.make_step(
        players, critic_steps=game.critic_steps, unroll=game.unroll, averaging=averaging, spread=gan.spread
    )
    return Recipe(players, step=step, averaging=averaging)
