"""The Transformer as it was published: an encoder and a decoder, for translation (Vaswani et al. 2017).

    memory = encoder(source);  P(next target | those before, source) = softmax(decoder(target, memory) W_e')

The encoder sees the source both ways, a decoder position its past and all of the memory. Norms stand behind each
sub-layer as in the paper, or before it (`pre_norm`); words are scaled by sqrt(D) and positions added (section 3.4).

B batch, W hypotheses of a beam, S source time, T target time, D model, H heads, K head size, V vocabulary, L layers.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from lmjax.losses import linear_cross_entropy
from lmjax.models.transformer import attention_params, block, memory_keys, memory_params, mlp, mlp_params, norms
from lmjax.nn.attention import (
    attend_slots,
    attention,
    attention_weights,
    cached_attention,
    causal_attention,
    write_cache,
)
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import embedding
from lmjax.nn.norm import layer_norm, layer_norm_params
from lmjax.nn.positions import sinusoids
from lmjax.nn.xla import by_rows
from lmjax.param import Param, normal, uniform


def seq2seq_params(config):
    """Embeddings start at N(0, 1/D), or with `init_words` for a deviation; matrices as Glorot & Bengio 2010
    have it, those of queries, keys and values at 1/sqrt(2) of that."""
    D, V = config.dim, config.target_vocab
    words = normal(config.init_words or D**-0.5)
    params = {
        "target": Param((V, D), ("vocab", "embed"), words),
        "encoder": [block_params(config) for _ in range(config.layers)],
        "decoder": [block_params(config, memory=True) for _ in range(config.layers)],
    }
    if not config.shared:
        params["source"] = Param((config.source_vocab, D), ("vocab", "embed"), words)
        params["head"] = {"w": Param((V, D), ("vocab", "embed"), glorot(D, V)),
                          "b": Param((V,), ("vocab",), uniform(D**-0.5))}  # fmt: skip
    if config.positions == "learned":
        for side in ("source_position", "target_position"):
            params[side] = Param((config.context, D), (None, "embed"), normal(D**-0.5))
    if config.pre_norm:
        params |= {"encoder_norm": layer_norm_params(D), "decoder_norm": layer_norm_params(D)}
    return params


def block_params(config, memory=False):
    D, H, F = config.dim, config.heads, config.hidden
    first, last = glorot(D, D, 1 / math.sqrt(2)), glorot(D, D)
    params = {
        **norms(D, memory=memory),
        **attention_params(D, H, first, last),
        **mlp_params(D, F, glorot(D, F), glorot(D, F)),
    }
    return params | memory_params(D, H, first, last) if memory else params


def glorot(inputs: int, outputs: int, gain: float = 1.0):
    """Initializer: uniform with variance 2 gain^2 / (inputs + outputs)."""
    return uniform(gain * math.sqrt(6 / (inputs + outputs)))


def encode(params, config, source, seen, *, key=None):
    """The memory [B,S,D] of int `source` [B,S]; `seen` bool [B,S]: the tokens that count, others nobody sees."""
    with jax.named_scope("encoder"):
        table = params["target"] if config.shared else params["source"]
        positions = jnp.arange(source.shape[1])[None]
        x = embed(params, config, table, source, "source_position", positions, fold(key, "source"))

        def attend(q, k, v, key):
            return attention(q, k, v, seen[:, None, None], key=key, rate=config.dropout_attention), None

        for i, p in enumerate(params["encoder"]):
            x, _ = _block(p, config, x, attend, None, fold(key, "encoder", i))
        return layer_norm(params["encoder_norm"], x) if config.pre_norm else x


def decode(params, config, tokens, memory, seen, *, key=None, look=False):
    """The last layer [B,T,D] for `tokens` [B,T], each with those before it, and the memory of `encode`; with `look`
    (that, of each block the weights float32 [B,H,T,S] it gives the memory)."""
    alignments = []
    with jax.named_scope("decoder"):
        positions = jnp.arange(tokens.shape[1])[None]
        x = embed(params, config, params["target"], tokens, "target_position", positions, fold(key, "target"))

        def attend(q, k, v, key):
            return causal_attention(q, k, v, key=key, rate=config.dropout_attention), None

        for i, p in enumerate(params["decoder"]):
            at = fold(key, "decoder", i)

            def read(q, p=p, at=at):
                k, v = memory_keys(p, memory)
                rate, mask = config.dropout_attention, seen[:, None, None]
                if look:
                    alignments.append(attention_weights(q, k, mask))
                return attention(q, k, v, mask, key=fold(at, "read"), rate=rate)

            x, _ = _block(p, config, x, attend, read, at)
        x = layer_norm(params["decoder_norm"], x) if config.pre_norm else x
        return (x, alignments) if look else x


def embed(params, config, table, tokens, side, positions, key=None):
    """Words [..., D] of int `tokens` [...] at int `positions` [...] of a side ("source_position", ...)."""
    x = embedding(table, tokens) * math.sqrt(config.dim)
    where = params[side][positions] if config.positions == "learned" else sinusoids(positions, config.dim)
    return by_rows(dropout(key, x + where, config.dropout).astype(config.dtype))


def head(params, x):
    """Logits [..., V] of the decoder's last layer [..., D]."""
    w, b = head_weights(params)
    logits = x.reshape(-1, x.shape[-1]) @ w.T.astype(x.dtype)
    logits = logits if b is None else logits + b.astype(x.dtype)[None]
    return logits.reshape(*x.shape[:-1], -1)


def head_weights(params):
    """W [V,D] and b [V] or None: of its own, or the embedding."""
    return (params["head"]["w"], params["head"]["b"]) if "head" in params else (params["target"], None)


def seq2seq(params, config, source, seen, tokens, *, key=None):
    """Logits [B,T,V] for the target token after each of `tokens` [B,T], whose first is the begin-of-sentence."""
    memory = encode(params, config, source, seen, key=key)
    return head(params, decode(params, config, tokens, memory, seen, key=key))


def seq2seq_loss(params, config, batch, key, carry, smoothing: float = 0.0):
    """Summed cross entropy in nats, (sum, (weight, {}, carry)), of targets smoothed as in Szegedy et al. 2016.

    batch: source and seen [B,S], tokens, targets, weights [B,T].
    """
    memory = encode(params, config, batch["source"], batch["seen"], key=key)
    x = decode(params, config, batch["tokens"], memory, batch["seen"], key=key)
    w, b = head_weights(params)
    with jax.named_scope("loss"):
        total, weight = linear_cross_entropy(x, w.T, b, batch["targets"], batch["weights"], smoothing)
    return total, (weight, {}, carry)


def start_cache(params, config, source, seen, width: int, room: int):
    """What a beam decodes with, for `width` hypotheses of up to `room` tokens for each of the B sources.

    Keys and values of the memory stand there once for all hypotheses. Those of the tokens stand where they were
    written, [B,H,room W,K]; which of the W in each slot a hypothesis descends from is `parent` int [B,W,room].
    """
    memory = encode(params, config, source, seen)
    empty = jnp.zeros((source.shape[0], config.heads, room * width, config.dim // config.heads), config.dtype)
    layers = [
        {"memory": tuple(x.swapaxes(1, 2) for x in memory_keys(p, memory)), "k": empty, "v": empty}
        for p in params["decoder"]
    ]
    parent = jnp.full((source.shape[0], width, room), -1, jnp.int32)
    return {"layers": layers, "seen": seen, "parent": parent, "slot": jnp.zeros((), jnp.int32)}


def step(params, config, cache, tokens):
    """Logits [B,W,V] after one more token [B,W] of each hypothesis, and the cache."""
    slot = cache["slot"]
    own = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    parent = jax.lax.dynamic_update_slice(
        cache["parent"], jnp.broadcast_to(own[None, :, None], (*tokens.shape, 1)), (0, 0, slot)
    )
    x = embed(params, config, params["target"], tokens, "target_position", jnp.full(tokens.shape, slot))
    seen = jnp.broadcast_to(cache["seen"][:, None], (*tokens.shape, cache["seen"].shape[1]))
    layers = []
    for p, layer in zip(params["decoder"], cache["layers"], strict=True):

        def attend(q, k, v, key, layer=layer):
            new = {name: write_cache(layer[name], z, slot * tokens.shape[1]) for name, z in (("k", k), ("v", v))}
            return attend_slots(q, new["k"], new["v"], parent), new

        def read(q, memory=layer["memory"]):
            return cached_attention(q, *memory, seen)

        x, kept = _block(p, config, x, attend, read, None)
        layers.append(layer | kept)
    x = layer_norm(params["decoder_norm"], x) if config.pre_norm else x
    return head(params, x), cache | {"layers": layers, "parent": parent, "slot": slot + 1}


def select(cache, rows):
    """The cache where hypothesis w goes on from what was hypothesis rows[b,w]."""
    return cache | {"parent": jnp.take_along_axis(cache["parent"], rows[:, :, None], axis=1)}


def _block(params, config, x, attend, read, key):
    """transformer.block with this config's choices."""

    def middle(params, h):
        return mlp(params, h, lambda z: dropout(fold(key, "middle"), jax.nn.relu(z), config.dropout_hidden))

    return block(
        params, x, partial(attend, key=fold(key, 0)), read,
        mlp=middle, pre=config.pre_norm, rate=config.dropout, key=key,
    )  # fmt: skip
