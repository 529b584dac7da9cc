"""LSTM language models of three papers, one function: they differ in what they drop.

Zaremba et al. 2014, Recurrent neural network regularization: dropout on the connections between layers, never on the
    recurrent ones, a fresh mask at every step.
Gal & Ghahramani 2016, A theoretically grounded application of dropout in recurrent neural networks: the same mask at
    every step of a window, on inputs and hidden state, one for all gates ("tied") or one for each ("untied"), and
    whole word types dropped. Calling with a key at test time and averaging probabilities is their MC dropout.
Merity et al. 2017, Regularizing and optimizing LSTM language models (AWD-LSTM): masks shared over time, DropConnect on
    the recurrent weights, a tied softmax, and penalties on the last layer's activations (AR) and their change (TAR).

B batch, T steps of a window, D width of the word vectors, H cells, V vocabulary.
"""

import itertools

import jax
import jax.numpy as jnp

from lmjax.losses import linear_cross_entropy
from lmjax.nn.dropout import absent, dropout_mask, fold, never
from lmjax.nn.recurrent import lstm_layer, lstm_layer_params
from lmjax.param import Param, uniform, zeros


def lstm_params(config) -> dict:
    """A tree of Param for a config.LSTM: 4 H (D + H + 1) scalars a layer, one bias vector, as the papers count."""

    def start(width):
        return uniform(config.init_range or width**-0.5)

    def layer(d, h):
        def bias(key, shape, dtype):
            return start(h)(key, shape, dtype).at[1].add(config.forget_bias)

        return lstm_layer_params(d, h, start(h), bias)

    *_, d = sizes = config.sizes
    softmax = {"b": Param((config.vocab,), ("vocab",), uniform(config.init_range) if config.init_range else zeros)}
    if not config.tied:
        softmax["w"] = Param((d, config.vocab), ("embed", "vocab"), uniform(config.init_range or 0.1))
    return {
        "embed": Param((config.vocab, sizes[0]), ("vocab", "embed"), uniform(config.init_range or 0.1)),
        "layers": [layer(d, h) for d, h in itertools.pairwise(sizes)],
        "softmax": softmax,
    }


def lstm_carry(config, batch: int) -> list:
    """The state before any token: for each layer (h, c), zeros [batch,H]."""
    return [(jnp.zeros((batch, h)), jnp.zeros((batch, h))) for h in config.sizes[1:]]


def lstm_hidden(params, config, tokens, carry, *, key=None, lengths=None):
    """Everything but the softmax: (the last layer's outputs [B,T,H], not yet dropped, and the carry). See lstm_lm."""
    x = _embed(params, config, tokens.T, key)  # [T,B,D]
    after = []
    for n, (layer, state) in enumerate(zip(params["layers"], carry)):
        (steps, batch, d), h = x.shape, state[0].shape[-1]
        rate = config.dropout_layer if n else config.dropout_input
        shape = (1 if config.shared_masks else steps, batch, config.gate_masks)
        with jax.named_scope(f"lstm{n}"):
            x, state = lstm_layer(
                _drop_weights(layer, config, fold(key, "weights", n)),
                x,
                state,
                input_mask=_mask(fold(key, "input", n), rate, (*shape, d), x.dtype),
                hidden_mask=_mask(fold(key, "hidden", n), config.dropout_recurrent, (*shape[1:], h), x.dtype),
                lengths=lengths,
            )
        after.append(state)
    return x.swapaxes(0, 1), after


def lstm_lm(params, config, tokens, carry, *, key=None, lengths=None):
    """The scores of each next token.

    tokens  int[B,T]
    carry   the state that the window before left, or lstm_carry(config, B)
    key     of the dropout; None: no dropout. The same key draws the same masks
    lengths int[B]: tokens of each row that count, where the rest is padding; None: all

    Returns (logits [B,T,V], carry after each row's last token).
    """
    x, carry = lstm_hidden(params, config, tokens, carry, key=key, lengths=lengths)
    x = _drop_output(x, config, key)
    with jax.named_scope("softmax"):
        w, b = _softmax(params)
        logits = x.reshape(-1, x.shape[-1]) @ w.astype(x.dtype) + b.astype(x.dtype)[None]
    return logits.reshape(*x.shape[:-1], -1), carry


def lstm_loss(params, config, batch, key, carry, *, alpha=0.0, beta=0.0):
    """Negative log-likelihood of a window in nats, as train/step.py wants it: (sum, (weight, metrics, carry)).

    batch: "tokens", "targets", "weights" [B,T]; "start" bool[B], true where a row begins anew and forgets its carry;
    where rows are padded and go on in the next batch, "lengths" int[B].
    alpha, beta: weights of AR and TAR (Merity et al. 2017, section 4.6), which apply where there is a key: in training.
    """
    carry = jax.tree.map(lambda state: jnp.where(batch["start"][:, None], 0.0, state), carry)
    x, carry = lstm_hidden(params, config, batch["tokens"], carry, key=key, lengths=batch.get("lengths"))
    dropped = _drop_output(x, config, key)
    with jax.named_scope("softmax"):
        total, weight = linear_cross_entropy(dropped, *_softmax(params), batch["targets"], batch["weights"])
    if key is None or (absent(alpha) and absent(beta)):
        return total, (weight, {}, carry)
    penalty = alpha * _activation(dropped, batch["weights"]) + beta * _change(x, batch["weights"])
    return total + penalty, (weight, {"nll": total}, carry)


def _embed(params, config, tokens, key):
    """Word vectors [T,B,D]. A dropped word type is dropped wherever it stands in a row (Gal & Ghahramani, section 4.2).

    Departure from Merity et al., whose rows share one draw.
    """
    x = params["embed"][tokens].astype(config.dtype)
    if never(key, config.dropout_word):
        return x

    def factor(row, token):
        return dropout_mask(fold(key, "word", row, token), config.dropout_word, (), x.dtype)

    rows = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return x * jnp.vectorize(factor)(rows, tokens)[..., None]


def _drop_weights(layer, config, key):
    """DropConnect (Wan et al. 2013) on the recurrent weights: one draw for the window and all its rows."""
    mask = _mask(key, config.dropout_weight, layer["u"].shape, layer["u"].dtype)
    return layer if mask is None else {**layer, "u": layer["u"] * mask}


def _drop_output(x, config, key):
    (batch, steps, h), key = x.shape, fold(key, "output")
    mask = _mask(key, config.dropout_output, (batch, 1 if config.shared_masks else steps, h), x.dtype)
    return x if mask is None else x * mask


def _softmax(params):
    """The weights [H,V], the embedding's where they are tied, and biases [V] of the softmax."""
    w = params["softmax"].get("w")
    return params["embed"].T if w is None else w, params["softmax"]["b"]


def _mask(key, rate, shape, dtype):
    return None if never(key, rate) else dropout_mask(key, rate, shape, dtype)


def _activation(x, weights):
    """AR: the mean square of the outputs [B,T,H], summed over the tokens that count."""
    return (jnp.square(x.astype(jnp.float32)).mean(-1) * weights).sum()


def _change(x, weights):
    """TAR: the mean square of the change of the outputs from step to step. A row of n tokens has n - 1 changes, whose
    mean it counts n times, so that dividing by the tokens of all rows gives the paper's mean."""
    square = jnp.square(jnp.diff(x.astype(jnp.float32), axis=1)).mean(-1) * weights[:, 1:]
    tokens = weights.sum(1)
    return (square.sum(1) * tokens / jnp.maximum(tokens - 1, 1)).sum()
