"""Generative adversarial networks (Goodfellow et al. 2014): a generator G makes samples of noise z, a discriminator D
gives each sample a score, and they play

    minimax         D: min softplus(-D(x)) + softplus(D(G(z)))       G: max softplus(D(G(z)))     (eq. 1, D a logit)
    non-saturating  D: the same                                      G: min softplus(-D(G(z)))    (section 3)
    wasserstein     D: min D(G(z)) - D(x) + penalty                  G: max D(G(z))     (Arjovsky et al. 2017)
    hinge           D: min relu(1 - D(x)) + relu(1 + D(G(z)))        G: max D(G(z))     (Miyato et al. 2018, eq. 16)

    penalty = lambda (|grad D(y)| - 1)^2,  y = e x + (1 - e) G(z),  e ~ U(0,1)  (Gulrajani et al. 2017, algorithm 1)

PacGAN (Lin et al. 2018): D judges m samples at once, all real or all made. Spectral norms (Miyato et al. 2018): each
weight of D over its largest singular value. With classes, G reads one beside z (Mirza & Osindero 2014) and D adds the
product of a class's vector with its last features (Miyato & Koyama 2018, eq. 2).

Noise is drawn for each row by its number, so that a batch has the same on one device and on eight; statistics of batch
normalization and averages over a batch are sums that `psum` takes over devices.

B batch, M samples judged together, Z noise, C channels.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.nn.conv import conv, conv_params, conv_transposed
from lmjax.nn.linear import linear, linear_params
from lmjax.nn.norm import batch_norm, batch_norm_params, spectral_norm
from lmjax.param import Param, normal

LEAK = 0.2  # slope of the discriminator's ReLUs below 0, DCGAN's


class Pair(NamedTuple):
    """Two networks as a game sees them.

    specs: {"generator": tree of Param, "discriminator": ...}. shape: of a sample, shape of noise `latent`.
    generate(params, z [N,Z], labels [N] or None, statistics, psum) -> (samples [N, *shape], statistics): a list, one
    for each batch norm, see nn/norm.py. score(params, x [B,M, *shape], labels [B,M] or None, psum) -> [B].
    """

    specs: dict
    latent: int
    shape: tuple
    pack: int
    generate: Callable
    score: Callable


def point_pair(config) -> Pair:
    """Perceptrons for points of the plane; config: a PointGAN."""
    widths = [config.latent, *[config.hidden] * config.layers]
    inner = [2 * config.pack, *[config.critic_hidden] * config.critic_layers]
    generator = {
        "layers": [linear_params(a, b, ("embed", "mlp"), init=_he(a)) for a, b in itertools.pairwise(widths)],
        "out": linear_params(widths[-1], 2, ("embed", None)),
    }
    if config.batch_norm:
        generator["norms"] = [batch_norm_params(b) for b in widths[1:]]
    maxout = config.pieces > 1
    discriminator = {
        "layers": [
            linear_params(a, (b, config.pieces) if maxout else b, ("embed", "mlp", None)[: 2 + maxout], init=_he(a))
            for a, b in itertools.pairwise(inner)
        ],
        "out": linear_params(inner[-1], 1, ("embed", None)),
    }

    def generate(params, z, labels=None, statistics=None, psum=lambda x: x):
        x, seen = z, []
        for i, layer in enumerate(params["layers"]):
            x = linear(layer, x)
            if config.batch_norm:
                x, now = batch_norm(params["norms"][i], x, statistics and statistics[i], psum)
                seen.append(now)
            x = jax.nn.relu(x)
        return linear(params["out"], x), seen

    def score(params, x, labels=None, psum=None):
        x = x.reshape(len(x), -1)
        for layer in params["layers"]:
            x = linear(layer, x)
            x = x.max(-1) if maxout else jax.nn.leaky_relu(x, LEAK)
        return linear(params["out"], x)[:, 0]

    return Pair({"generator": generator, "discriminator": discriminator}, config.latent, (2,), config.pack,
                generate, score)  # fmt: skip


def image_pair(config) -> Pair:
    """Convolutional networks for square images; config: an ImageGAN of known size.

    A linear layer to a quarter of the size, then two transposed convolutions of 4 x 4 pixels, ReLUs and batch norms
    between them and tanh at the end; back by two convolutions and a linear layer. Departure from DCGAN: weights start
    by He et al. 2015, two doublings are enough, and the first layer of the discriminator is never normalized either.
    """
    if config.size < 8 or config.size % 4:
        raise ValueError(f"model.size={config.size}: expected a multiple of 4 from 8 on")
    if config.classes and config.pack > 1:
        raise ValueError(f"model.classes with model.pack={config.pack}: a pack has no one class, leave one out")
    S, W, K = config.size // 4, config.width, config.classes
    generator = {
        "in": linear_params(config.latent + K, (S, S, 2 * W), ("embed", None, None, "mlp"), init=_he(config.latent)),
        "up": conv_params(4, 2 * W, W, stride=2),
        "out": conv_params(4, W, config.channels, stride=2, init=normal(math.sqrt(1 / (4 * W)))),
    }
    discriminator = {
        "in": conv_params(4, config.channels * config.pack, W),
        "down": conv_params(4, W, 2 * W),
        "out": linear_params((S, S, 2 * W), 1, (None, None, "embed", None)),
    }
    if K:
        discriminator["classes"] = {"w": Param((K, 2 * W * S * S), (None, "embed"), normal(1 / math.sqrt(S * S * W)))}
    if config.batch_norm:
        generator |= {"norm_in": batch_norm_params(2 * W), "norm_up": batch_norm_params(W)}
    if config.critic_batch_norm:
        discriminator["norm_down"] = batch_norm_params(2 * W)

    def generate(params, z, labels=None, statistics=None, psum=lambda x: x):
        seen = []

        def normed(name, x):
            if config.batch_norm:
                x, now = batch_norm(params[name], x, statistics and statistics[len(seen)], psum)
                seen.append(now)
            return jax.nn.relu(x)

        if K:
            z = jnp.concatenate([z, jax.nn.one_hot(labels, K)], axis=-1)
        with jax.named_scope("generator"):
            x = normed("norm_in", linear(params["in"], z))
            x = normed("norm_up", conv_transposed(params["up"], x, 2))
            return jnp.tanh(conv_transposed(params["out"], x, 2)), seen

    def score(params, x, labels=None, psum=lambda x: x):
        x = jnp.moveaxis(x, 1, -2).reshape(len(x), config.size, config.size, -1)  # a pack's images as channels
        with jax.named_scope("discriminator"):
            x = jax.nn.leaky_relu(conv(params["in"], x, 2), LEAK)
            x = conv(params["down"], x, 2)
            if config.critic_batch_norm:
                x, _ = batch_norm(params["norm_down"], x, None, psum)
            x = jax.nn.leaky_relu(x, LEAK)
            y = linear(params["out"], x, inputs=3)[:, 0]
            if K:
                y = y + (params["classes"]["w"][labels[:, 0]] * x.reshape(len(x), -1)).sum(-1)
            return y

    shape = (config.size, config.size, config.channels)
    return Pair({"generator": generator, "discriminator": discriminator}, config.latent, shape, config.pack,
                generate, score)  # fmt: skip


def _he(inputs: int):
    return normal(math.sqrt(2 / inputs))


def _logistic(real, fake):
    return jax.nn.softplus(-real) + jax.nn.softplus(fake)


# What D minimizes of the scores of a real and a made sample, and what G minimizes of its own's.
LOSSES = {
    "minimax": (_logistic, lambda fake: -jax.nn.softplus(fake)),
    "non-saturating": (_logistic, lambda fake: jax.nn.softplus(-fake)),
    "wasserstein": (lambda real, fake: fake - real, lambda fake: -fake),
    "hinge": (lambda real, fake: jax.nn.relu(1 - real) + jax.nn.relu(1 + fake), lambda fake: -fake),
}


def noise(key, rows, shape):
    """Normal numbers [B, *shape], those of a row given by its number alone: rows int [B]."""
    return jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), shape))(rows)


def make(pair: Pair, params, batch, key, psum):
    """Samples of a generator for a batch's rows [B,M, *shape]."""
    B = len(batch["row"])
    z = noise(key, batch["row"], (pair.pack, pair.latent)).reshape(-1, pair.latent)
    labels = batch["labels"].reshape(-1) if "labels" in batch else None
    x, _ = pair.generate(params, z, labels, None, psum)
    return x.reshape(B, pair.pack, *pair.shape)


def judge(pair: Pair, game, params, vectors):
    """(score of `pair` by these parameters, the next vectors), with spectral norms if the game has them."""
    if game.spectral:
        params, vectors = spectral_norm(params, vectors)
    return lambda x, labels, psum: pair.score(params, x, labels, psum), vectors


def discriminator_loss(pair: Pair, game, params, generator, batch, key, vectors, psum=lambda x: x):
    """What D minimizes, summed over the rows: (sum, (weight, metrics, vectors)). game: a Game of config.py.

    batch: real [B,M, *shape], row int [B], labels int [B,M] with classes. key: of the noise. vectors: of the spectral
    norms, {} without; the next ones come back.
    Metrics: accuracy, the share of real scores above 0 and made ones below, or for wasserstein, where 0 says nothing,
    distance; penalty; and the sums that `spread` reads.
    """
    fake = make(pair, generator, batch, key, psum)  # of which an unrolled generator wants the gradient
    score, vectors = judge(pair, game, params, vectors)
    real, labels = batch["real"], batch.get("labels")
    above, below = score(real, labels, psum), score(fake, labels, psum)
    losses = LOSSES[game.loss][0](above, below)
    metrics = moments(real, fake)
    if game.loss == "wasserstein":
        metrics["distance"] = (above - below).sum()
    else:
        metrics["accuracy"] = ((above > 0).sum() + (below < 0).sum()) / 2
    if game.penalty:
        penalty = slope_penalty(
            lambda x: score(x, labels, psum), real, fake, jax.random.fold_in(key, 1), batch["row"], game.penalty
        )
        losses = losses + penalty
        metrics["penalty"] = penalty.sum()
    return losses.sum(), (jnp.float32(len(real)), metrics, vectors)


def slope_penalty(score, real, fake, key, rows, weight: float):
    """Gulrajani et al. 2017: weight (|grad D(y)| - 1)^2 for each row [B], y anywhere between a real and a made one.

    score: [B, ...] -> [B], where no row's score depends on another row (no batch norm).
    """
    share = jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row)))(rows)
    between = fake + share.reshape(-1, *[1] * (real.ndim - 1)) * (real - fake)
    slopes = jax.grad(lambda x: score(x).sum())(between).reshape(len(real), -1)
    # Not by a norm: its gradient at 0 is none.
    length = jnp.sqrt((slopes * slopes).sum(-1) + 1e-12)
    return weight * (length - 1) ** 2


def generator_loss(pair: Pair, game, params, discriminator, batch, key, vectors, psum=lambda x: x):
    """What G minimizes, summed over the rows: (sum, (weight, {}, ())). Arguments as of `discriminator_loss`."""
    score, _ = judge(pair, game, discriminator, vectors)
    fake = make(pair, params, batch, key, psum)
    losses = LOSSES[game.loss][1](score(fake, batch.get("labels"), psum))
    return losses.sum(), (jnp.float32(len(losses)), {}, ())


def moments(real, fake) -> dict:
    """Sums over rows, of which `spread` is made: name -> array."""
    one = {"real": real, "fake": fake}
    first = {f"{name}_first": x.mean(1).reshape(len(x), -1).sum(0) for name, x in one.items()}
    return first | {f"{name}_second": (x * x).mean(1).sum() for name, x in one.items()}


def spread(metrics: dict) -> tuple[jax.Array, dict]:
    """(how far made samples lie apart, over how far real ones do; the metrics without what that is told from).

    Both are the root of the variance, summed over a sample's numbers. metrics: means over a batch, with `moments`.
    """
    rest = {name: x for name, x in metrics.items() if not name.endswith(("_first", "_second"))}
    real, fake = (
        jnp.maximum(metrics[f"{name}_second"] - (metrics[f"{name}_first"] ** 2).sum(), 0.0) for name in ("real", "fake")
    )
    return jnp.sqrt(fake / jnp.maximum(real, 1e-12)), rest


def samples(pair: Pair, params, z, labels=None):
    """Samples [N, *shape] of a trained generator for z [N,Z].

    Statistics of batch normalization are those of these N, so N should be some hundreds (BigGAN's standing statistics):
    they fit an average of the weights too, which no running average of statistics does.
    """
    return pair.generate(params, z, labels)[0]
