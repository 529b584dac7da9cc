"""SeqGAN's discriminator: a convolutional network over a sequence of tokens with a highway layer.

Yu et al. 2017, "SeqGAN", section 3.2 and appendix A, after Kim 2014 and Srivastava et al. 2015:

    c_i = relu(w x_{i:i+n-1} + b),  c = max_i c_i       for each map of each window of n tokens   (eq. 11-13)
    z = s relu(W c + b) + (1 - s) c,  s = sigmoid(V c + d)                                        (eq. 14-15)
    D(Y) = softmax of a linear map of z with dropout: true or made up                             (eq. 16)

Windows lie within the sequence, as in the published code.

B rows, T tokens, E width of a token's vector, M maps in all.
"""

import jax
import jax.numpy as jnp

from lmjax.losses import choice
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import embedding, linear, linear_params
from lmjax.param import Param, constant, uniform

TRUE = 1  # the class of true sequences


def discriminator_params(config) -> dict:
    """A tree of Param for a config.TextDiscriminator."""
    E, M = config.embed, sum(config.maps)
    initial = truncated(0.1)

    def window(n, maps):
        return {"w": Param((n, E, maps), (None, "embed", "mlp"), initial), "b": Param((maps,), ("mlp",), constant(0.1))}

    def square():
        return linear_params(M, M, ("embed", "mlp"), init=uniform((3 / M) ** 0.5))

    output = linear_params(M, 2, ("embed", None), init=initial)
    return {
        "embed": Param((config.vocab, E), ("vocab", "embed"), uniform(1.0)),
        "windows": {str(n): window(n, maps) for n, maps in zip(config.windows, config.maps, strict=True)},
        "highway": {"transform": square(), "gate": square()},
        "output": output | {"b": output["b"]._replace(init=constant(0.1))},
    }


def truncated(stddev: float):
    """Initializer: normal, drawn anew where it is more than two of its deviations away."""
    return lambda key, shape, dtype: stddev * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


def discriminator(params, config, tokens, key=None):
    """Logits float32 [B,2] of int tokens [B,T]: made up, true. key: dropout."""
    with jax.named_scope("embed"):
        x = embedding(params["embed"], tokens)
    z = features(params, config, x)
    with jax.named_scope("output"):
        return linear(params["output"], dropout(fold(key, "output"), z, config.dropout))


def features(params, config, x):
    """z [B,M] of vectors [B,T,E]: the largest responses of all maps, through the highway layer (eq. 11-15)."""
    with jax.named_scope("windows"):
        c = jnp.concatenate([window(params["windows"][str(n)], x) for n in config.windows], axis=-1)
    with jax.named_scope("highway"):
        s = jax.nn.sigmoid(linear(params["highway"]["gate"], c))
        return s * jax.nn.relu(linear(params["highway"]["transform"], c)) + (1 - s) * c


def window(params, x):
    """The largest response of each map [B,maps] over the windows of n tokens in x [B,T,E]."""
    n, E, maps = params["w"].shape
    B, T, _ = x.shape
    unfolded = jnp.stack([x[:, i : i + T - n + 1] for i in range(n)], axis=2).reshape(-1, n * E)
    responses = linear({"w": params["w"].reshape(n * E, maps)}, unfolded).reshape(B, -1, maps)
    return jax.nn.relu(responses.max(axis=1) + params["b"][None])


def truth(params, config, tokens, rows: int = 0):
    """The probability [B] that each row of tokens [B,T] is true, without dropout. rows: so many at a time; 0: all."""

    def some(tokens):
        return jax.nn.softmax(discriminator(params, config, tokens))[:, TRUE]

    if not rows or len(tokens) <= rows:
        return some(tokens)
    blocks = -(-len(tokens) // rows)
    padded = jnp.pad(tokens, ((0, blocks * rows - len(tokens)), (0, 0)))
    return jax.lax.map(some, padded.reshape(blocks, rows, -1)).reshape(-1)[: len(tokens)]


def discriminator_loss(params, config, batch, key, carry):
    """batch: tokens int [B,T], labels int [B]. The published code's L2 penalty is on the output layer alone, and is
    added to the mean."""
    total, (weight, metrics, carry) = choice(
        discriminator(params, config, batch["tokens"], key), batch["labels"], None, carry
    )
    penalty = config.l2 * sum(0.5 * jnp.square(p).sum() for p in jax.tree.leaves(params["output"]))
    return total + weight * penalty, (weight, metrics, carry)
