"""RNNsearch: translation by jointly learning to align (Bahdanau et al. 2015), with gated recurrent units.

    memory_s = forward and backward state at source word s
    e_s = v' tanh(h_{t-1} W + memory_s U);  a = softmax(e);  c_t = sum a_s memory_s         (appendix A.1.2)
    h_t = GRU([word_{t-1}, c_t], h_{t-1});  P(word_t) = softmax([h_t, c_t, word_{t-1}] W_o)

Departure: the paper's maxout layer before the softmax is left out, and the decoder starts from both last states, as the
tutorial has it whose figure the preset aims at (github.com/bentrevett/pytorch-seq2seq, legacy 4).

B batch, W hypotheses of a beam, S source time, T target time, E width of a word, H cells, V vocabulary.
"""

import jax
import jax.numpy as jnp

from lmjax.losses import linear_cross_entropy
from lmjax.nn.attention import NEVER
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import embedding, linear, linear_params, weights
from lmjax.nn.recurrent import gru_inputs, gru_layer, gru_params, gru_step
from lmjax.param import Param, normal, zeros


def rnnsearch_params(config):
    """All matrices start at N(0, 0.01^2), biases at 0."""
    E, H, start = config.embed, config.dim, normal(0.01)
    return {
        "source": Param((config.source_vocab, E), ("vocab", "embed"), start),
        "target": Param((config.target_vocab, E), ("vocab", "embed"), start),
        "forward": gru_params(E, H, start, zeros),
        "backward": gru_params(E, H, start, zeros),
        "bridge": linear_params(2 * H, H, ("embed", "cells"), init=start),
        "query": linear_params(H, H, ("embed", "cells"), init=start),
        "memory": linear_params(2 * H, H, ("embed", "cells"), init=start, bias=False),
        "align": Param((H,), ("cells",), start),
        "decoder": gru_params(E + 2 * H, H, start, zeros),
        "head": linear_params(3 * H + E, config.target_vocab, ("embed", "vocab"), init=start),
    }


def encode(params, config, source, seen, *, key=None):
    """Of int `source` [B,S], `seen` bool [B,S]: (memory [B,S,2H], its part of the alignment [B,S,H], state [B,H])."""
    with jax.named_scope("encoder"):
        x = embedding(params["source"], source.T, config.dtype)
        x = dropout(fold(key, "source"), x, config.dropout)
        zero = jnp.zeros((source.shape[0], config.dim), config.dtype)
        ahead, last = gru_layer(params["forward"], x, zero, seen.T)
        back, first = gru_layer(params["backward"], x, zero, seen.T, reverse=True)
        memory = jnp.concatenate([ahead, back], axis=-1).swapaxes(0, 1)
        state = jnp.tanh(linear(params["bridge"], jnp.concatenate([last, first], axis=-1)))
        return memory, linear(params["memory"], memory), state


def attend(params, memory, keys, seen, h):
    """The contexts c [B,W,2H] of states h [B,W,H]. memory [B,S,2H] and keys [B,S,H] of `encode`, seen bool [B,S]."""
    return jnp.einsum("bws,bsh->bwh", align(params, keys, seen, h).astype(h.dtype), memory)


def align(params, keys, seen, h):
    """How much of each source word the contexts are made of: float32 [B,W,S]; arguments as of `attend`."""
    query = linear(params["query"], h)  # [B,W,H]
    energy = jnp.tanh(keys[:, None] + query[:, :, None])  # [B,W,S,H]
    scores = (energy * params["align"].astype(h.dtype).reshape(1, 1, 1, -1)).sum(-1).astype(jnp.float32)
    return jax.nn.softmax(jnp.where(seen[:, None], scores, NEVER), axis=-1)


def decode(params, config, tokens, encoded, seen, *, key=None):
    """What the softmax reads, [B,T,3H+E], for `tokens` [B,T], whose first is the begin-of-sentence."""
    memory, keys, h = encoded
    with jax.named_scope("decoder"):
        words = dropout(fold(key, "target"), embedding(params["target"], tokens.T, config.dtype), config.dropout)

        def step(h, word):
            context = attend(params, memory, keys, seen, h[:, None])[:, 0]
            h = gru_step(params["decoder"], gru_inputs(params["decoder"], jnp.concatenate([word, context], -1)), h)
            return h, (h, context)

        _, (states, contexts) = jax.lax.scan(step, h, words)
        return jnp.concatenate([states, contexts, words], axis=-1).swapaxes(0, 1)


def rnnsearch(params, config, source, seen, tokens, *, key=None):
    """Logits [B,T,V] for the target token after each of `tokens` [B,T], whose first is the begin-of-sentence."""
    encoded = encode(params, config, source, seen, key=key)
    return linear(params["head"], decode(params, config, tokens, encoded, seen, key=key))


def rnnsearch_loss(params, config, batch, key, carry, smoothing: float = 0.0):
    """As seq2seq.seq2seq_loss: (sum, (weight, {}, carry)) of source and seen [B,S], tokens, targets, weights [B,T]."""
    encoded = encode(params, config, batch["source"], batch["seen"], key=key)
    x = decode(params, config, batch["tokens"], encoded, batch["seen"], key=key)
    w, b = weights(params["head"]), params["head"]["b"]
    with jax.named_scope("loss"):
        total, weight = linear_cross_entropy(x, w, b, batch["targets"], batch["weights"], smoothing)
    return total, (weight, {}, carry)


def start_cache(params, config, source, seen, width: int, room: int):
    """What a beam decodes with, for `width` hypotheses of each source: the memory, once, and a state [B,W,H] each."""
    memory, keys, h = encode(params, config, source, seen)
    h = jnp.broadcast_to(h[:, None], (h.shape[0], width, h.shape[1]))
    return {"memory": memory, "keys": keys, "seen": seen, "h": h}


def step(params, config, cache, tokens):
    """Logits [B,W,V] after one more token [B,W] of each hypothesis, and the cache."""
    B, W, H = cache["h"].shape
    words = embedding(params["target"], tokens, config.dtype)
    context = attend(params, cache["memory"], cache["keys"], cache["seen"], cache["h"])
    z = gru_inputs(params["decoder"], jnp.concatenate([words, context], -1))
    h = gru_step(params["decoder"], z.reshape(B * W, 3, H), cache["h"].reshape(B * W, H)).reshape(B, W, H)
    return linear(params["head"], jnp.concatenate([h, context, words], -1)), cache | {"h": h}


def select(cache, rows):
    """The cache where hypothesis w goes on from what was hypothesis rows[b,w]."""
    return cache | {"h": jnp.take_along_axis(cache["h"], rows[:, :, None], axis=1)}
