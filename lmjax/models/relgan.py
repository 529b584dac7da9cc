"""RelGAN: a relational memory that writes, a discriminator of many views, and a game that gradients pass through.

Nie, Narodytska & Patel 2019, "RelGAN: Relational Generative Adversarial Networks for Text Generation" (ICLR):

    o_t = V m_t + c,   m_t = memory(y_{t-1}, m_{t-1})                      a relational memory, read and written
    y_t = argmax(o_t + g_t),   ŷ_t = softmax(β (o_t + g_t))                g_t Gumbel's noise
    β = β_max^(n/N)                                                        after n updates of N
    D_s(y), s = 1..S                                                       S embeddings that one network reads
    L_D = -E log σ(D_s(true) - D_s(ŷ)),   L_G = -E log σ(D_s(ŷ) - D_s(true))    relativistic: of pairs

The token y_t is what the next step reads, as in the authors' code; the discriminator reads ŷ_t, and through it alone a
gradient passes to the generator. `nll` and `sample` are as in seqgan.py, and so are a row's draws.

B rows, T tokens of a sequence, E width of a token's vector, D of the memory, V vocabulary, S views, M maps in all.
"""

import jax
import jax.numpy as jnp

from lmjax.losses import blocked_cross_entropy
from lmjax.models.seqgan import drawer, shifted, uniforms
from lmjax.models.text_discriminator import features, truncated
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import embedding, linear, linear_params
from lmjax.nn.memory import initial_memory, memory_params, memory_step
from lmjax.param import Param, zeros


def generator_params(config) -> dict:
    """A tree of Param for a config.MemoryGenerator."""
    V, E, D = config.vocab, config.embed, config.heads * config.head_size
    return {
        "embed": Param((V, E), ("vocab", "embed"), truncated(V**-0.5)),
        "memory": memory_params(E, config.heads, config.head_size, lambda fan_in: truncated(fan_in**-0.5)),
        "softmax": {
            "w": Param((config.slots * D, V), ("embed", "vocab"), truncated((config.slots * D) ** -0.5)),
            "b": Param((V,), ("vocab",), zeros),
        },
    }


def nll(params, config, tokens, weights=None, inputs=None):
    """Negative log-likelihood in nats of tokens int [B,T]: (sum over the tokens, their number).

    weights [B,T]: factors on each token's, summed in place of the number. inputs int [B,T]: read in place of the
    token before.
    """
    inputs = shifted(config, tokens) if inputs is None else inputs
    x = embedding(params["embed"], inputs.T)

    def step(memory, x):
        memory = memory_step(params["memory"], x, memory)
        return memory, memory.reshape(len(memory), -1)

    with jax.named_scope("memory"):
        m = jax.lax.scan(step, _begin(config, len(tokens)), x)[1].swapaxes(0, 1)
    with jax.named_scope("softmax"):
        return blocked_cross_entropy(m, params["softmax"]["w"], params["softmax"]["b"], tokens, weights)


def sample(params, config, key, rows, temperature=1.0):
    """Sequences int32 [B,T] drawn token by token from softmax(scores / temperature), as one scan.

    rows: how many, or the rows' numbers int [B], of which with the key each row's draws are a function.
    """
    u = uniforms(key, rows, config.length).T
    softmax = drawer(params, temperature)
    return _write(params, config, u, lambda memory, u: (softmax(memory, u), ()), u.shape[1])[0].T


def relaxed(params, config, key, rows, sharpness):
    """Sequences int32 [B,T], distributed as those of `sample`, and their relaxations [B,T,V]: tokens the largest of
    scores + Gumbel's noise, relaxations softmax(sharpness (scores + noise)). A gradient passes through these alone."""
    rows = jnp.arange(rows) if isinstance(rows, int) else rows
    w, b = params["softmax"]["w"], params["softmax"]["b"]

    def choose(memory, t):
        u = uniforms(jax.random.fold_in(key, t), rows, config.vocab)
        scores = memory @ w + b[None] - jnp.log(-jnp.log(jnp.maximum(u, 1e-10)))
        return jax.lax.stop_gradient(scores).argmax(-1).astype(jnp.int32), jax.nn.softmax(sharpness * scores)

    tokens, soft = _write(params, config, jnp.arange(config.length), choose, len(rows))
    return tokens.T, soft.swapaxes(0, 1)


def _write(params, config, draws, choose, batch):
    """A scan over draws [T,...] of `choose(memory [B,N D], draw) -> (token int32 [B], what else)`: both, [T,B,...]."""

    def step(carry, draw):
        token, memory = carry
        memory = memory_step(params["memory"], embedding(params["embed"], token), memory)
        token, other = choose(memory.reshape(batch, -1), draw)
        return (token, memory), (token, other)

    first = jnp.full(batch, config.start, jnp.int32)
    with jax.named_scope("write"):
        return jax.lax.scan(step, (first, _begin(config, batch)), draws)[1]


def _begin(config, batch):
    return initial_memory(batch, config.slots, config.heads * config.head_size)


def discriminator_params(config) -> dict:
    """A tree of Param for a config.ViewsDiscriminator."""
    E, M = config.embed, sum(config.maps)

    def layer(inputs, outputs, bias=False):
        return linear_params(inputs, outputs, ("embed", "mlp"), init=truncated(inputs**-0.5), bias=bias)

    def windows(n, maps):
        return {
            "w": Param((n, E, maps), (None, "embed", "mlp"), truncated((2 / (n * E)) ** 0.5)),
            "b": Param((maps,), ("mlp",), zeros),
        }

    return {
        "embed": Param((config.vocab, config.views * E), ("vocab", "embed"), truncated(config.vocab**-0.5)),
        "windows": {str(n): windows(n, maps) for n, maps in zip(config.windows, config.maps, strict=True)},
        "highway": {"transform": layer(M, M), "gate": layer(M, M)},
        "hidden": layer(M, config.hidden, bias=True),
        "output": linear_params(config.hidden, 1, ("embed", None), init=truncated(config.hidden**-0.5)),
    }


def discriminator(params, config, sequences, key=None):
    """Scores float32 [B,S], one a view, of tokens int [B,T] or of relaxations [B,T,V]. key: dropout."""
    B, T = sequences.shape[:2]
    with jax.named_scope("embed"):
        x = embedding(params["embed"], sequences) if sequences.ndim == 2 else _mixed(params["embed"], sequences)
        x = x.reshape(B, T, config.views, config.embed).swapaxes(1, 2).reshape(-1, T, config.embed)  # [B S,T,E]
    z = features(params, config, x)
    with jax.named_scope("output"):
        hidden = linear(params["hidden"], dropout(fold(key, "hidden"), z, config.dropout))
        return linear(params["output"], hidden).reshape(B, config.views)


def _mixed(w, shares):
    """Mean vectors [B,T,F] of w's rows [V,F], by shares [B,T,V]."""
    return (shares.reshape(-1, len(w)) @ w).reshape(*shares.shape[:2], -1)


def relativistic(winner, loser):
    """The sum over the pairs of -log sigmoid(winner - loser), a mean over views: scores [B,S] each."""
    return jax.nn.softplus(loser - winner).mean(-1).sum()


def fools(params, config, made, true):
    """How often, in expectation, sequences int [B,T] look truer than true ones: the mean of sigmoid(D(made) - D(true))
    over pairs and views. Half where none can tell."""
    a, b = (discriminator(params, config, tokens) for tokens in (made, true))
    return jax.nn.sigmoid(a - b).mean()
