"""LSTM language models of three papers, one function: they differ in what they drop.

Zaremba et al. 2014, Recurrent neural network regularization: dropout on the connections between layers, never on the
    recurrent ones, a fresh mask at every step.
Gal & Ghahramani 2016, A theoretically grounded application of dropout in recurrent neural networks: the same mask at
    every step of a window, on inputs and hidden state, one for all gates ("tied") or one for each ("untied"), and
    whole word types dropped. Calling with a key at test time and averaging probabilities is their MC dropout.
Merity et al. 2017, Regularizing and optimizing LSTM language models (AWD-LSTM): masks shared over time, DropConnect on
    the recurrent weights, a tied softmax, and penalties on the last layer's activations (AR) and their change (TAR).

B batch, T window, D width of the word vectors, H cells, G masks for the gates (1 or 4), V vocabulary.
"""

import itertools

import jax
import jax.numpy as jnp

from lmjax.losses import cross_entropy
from lmjax.nn.dropout import dropout, dropout_mask, fold
from lmjax.nn.recurrent import lstm_layer, lstm_layer_params
from lmjax.param import Param, uniform, zeros


def lstm_params(config) -> dict:
    """A tree of Param for a config.LSTM: 4 H (D + H + 1) scalars a layer, one bias vector, as the papers count."""
    sizes = config.sizes
    start = uniform(config.init_range)

    def bias(key, shape, dtype):
        return start(key, shape, dtype).at[1].add(config.forget_bias)

    softmax = {"b": Param((config.vocab,), ("vocab",), zeros if config.tied else start)}
    if not config.tied:
        softmax["w"] = Param((sizes[-1], config.vocab), ("embed", "vocab"), start)
    return {
        "embed": Param((config.vocab, sizes[0]), ("vocab", "embed"), start),
        "layers": [lstm_layer_params(d, h, start, bias) for d, h in itertools.pairwise(sizes)],
        "softmax": softmax,
    }


def lstm_carry(config, batch: int) -> list:
    """The state before any token: for each layer (h, c), zeros [batch,H]."""
    return [(jnp.zeros((batch, h)), jnp.zeros((batch, h))) for h in config.sizes[1:]]


def _mask(key, rate, shape, dtype):
    """Dropout factors, or None where nothing is dropped: no key, or a rate that is the plain number 0."""
    if key is None or (isinstance(rate, int | float) and rate == 0):
        return None
    return dropout_mask(key, rate, shape, dtype)


def lstm_hidden(params, config, tokens, carry, *, key=None):
    """Everything but the softmax: tokens [B,T] and a carry -> (last layer's outputs [B,T,H] undropped, carry).

    `key` None: no dropout. See lstm_lm.
    """
    dtype = jnp.dtype(config.dtype)
    x = params["embed"][tokens.T].astype(dtype)  # [T,B,D]
    new = []
    for n, layer in enumerate(params["layers"]):
        rate = config.dropout_input if n == 0 else config.dropout_layer
        steps = 1 if config.shared_masks else x.shape[0]
        mask = _mask(fold(key, "input", n), rate, (steps, x.shape[1], config.gate_masks, x.shape[2]), dtype)
        with jax.named_scope(f"lstm{n}"):
            x, state = lstm_layer(layer, x, carry[n], input_mask=mask)
        new.append(state)
    return x.swapaxes(0, 1), new


def lstm_lm(params, config, tokens, carry, *, key=None):
    """tokens [B,T] and a carry -> (logits [B,T,V] of the next token, carry). `key` None: no dropout."""
    x, carry = lstm_hidden(params, config, tokens, carry, key=key)
    x = dropout(fold(key, "output"), x, config.dropout_output)
    return _logits(params, x), carry


def _logits(params, x):
    with jax.named_scope("softmax"):
        softmax = params["softmax"]
        w = softmax["w"] if "w" in softmax else params["embed"].T
        return x @ w.astype(x.dtype) + softmax["b"].astype(x.dtype)[None, None]


def lstm_loss(params, config, batch, key, carry):
    """Negative log-likelihood of a window in nats: (sum, (weight, metrics, carry)).

    `batch`: "tokens", "targets", "weights" [B,T] and "start" bool [B], true where a row begins a new text and its carry
    is to be forgotten.
    """
    carry = jax.tree.map(lambda s: jnp.where(batch["start"][:, None], 0.0, s), carry)
    logits, carry = lstm_lm(params, config, batch["tokens"], carry, key=key)
    total, weight = cross_entropy(logits, batch["targets"], batch["weights"])
    return total, (weight, {}, carry)
