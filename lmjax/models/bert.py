"""BERT: a Transformer encoder that sees both sides of a word, and what is learnt on top of it (Devlin et al. 2019).

    h = norm(tokens W_e + W_p + W_s);  h = block(h) for each layer, post-norm, exact GELU
    P(masked token) = softmax(norm(gelu(h W)) W_e' + b);  P(B follows A) = softmax(tanh(h_first W_pool) W_next)

By its config also DistilBERT (no segments) and the MiniLM of sentence-transformers. The heads are functions with
parameters of their own, side by side in one tree with "bert": see pretrain_params, classifier_params, tagger_params
and span_params. Padding is where `valid` is False: nothing else changes with what stands there.

Departure: weights start normal, theirs is a normal cut at two standard deviations.

B batch, T time, D model, H heads, K head size, V vocabulary, M masked places a row.
"""

from functools import partial

import jax
import jax.numpy as jnp

from lmjax.errors import UserError
from lmjax.losses import choice, cross_entropy, linear_cross_entropy, right, span
from lmjax.models.transformer import Seen, attention_params, block, mlp, mlp_params, norms
from lmjax.nn.attention import NEVER, attention, attention_weights
from lmjax.nn.dropout import dropout, fold
from lmjax.nn.linear import embedding, exact_gelu, linear, linear_params
from lmjax.nn.norm import layer_norm, layer_norm_params
from lmjax.nn.xla import by_rows
from lmjax.param import Param, normal, zeros

FIRST = normal(0.02)


def bert_params(config):
    D = config.dim
    embed = {
        "token": Param((config.vocab, D), ("vocab", "embed"), FIRST),
        "position": Param((config.context, D), (None, "embed"), FIRST),
        "norm": layer_norm_params(D),
    }
    if config.segments:
        embed["segment"] = Param((config.segments, D), (None, "embed"), FIRST)
    return {"embed": embed, "blocks": [block_params(config) for _ in range(config.layers)]}


def block_params(config):
    D, F = config.dim, config.hidden or 4 * config.dim
    return {**norms(D), **attention_params(D, config.heads, FIRST, FIRST), **mlp_params(D, F, FIRST, FIRST)}


def bert(params, config, tokens, valid=None, segments=None, key=None, *, look=False):
    """The last layer [B,T,D] of int `tokens` [B,T]; with `look` (that, a transformer.Seen of each block).

    valid: bool [B,T], False for padding, which no position looks at; None: all count. segments: int [B,T]; None: all
    of the first. key: dropout. UserError where a row is longer than the model's positions.
    """
    T, rate, norm = tokens.shape[1], config.dropout, partial(layer_norm, epsilon=config.epsilon)
    if config.context < T:
        raise UserError(f"{T} tokens a row, and model.context is {config.context}: cut the text, or raise it")
    with jax.named_scope("embed"):
        embed = params["embed"]
        x = embedding(embed["token"], tokens) + embed["position"][None, :T]
        if config.segments:
            x = x + (embed["segment"][:1][None] if segments is None else embedding(embed["segment"], segments))
        x = by_rows(dropout(fold(key, "embed"), norm(embed["norm"], x), rate).astype(config.dtype))
    mask = None if valid is None else jnp.broadcast_to(valid[:, None, None], (tokens.shape[0], 1, T, T))
    seen = []

    def attend(q, k, v, key):
        return attention(q, k, v, mask, key=fold(key, 0), rate=rate), attention_weights(q, k, mask) if look else None

    for i, p in enumerate(params["blocks"]):
        with jax.named_scope(f"block{i}"):
            now = fold(key, "block", i)
            x, weights = block(
                p, x, partial(attend, key=now), norm=norm, mlp=partial(mlp, activation=exact_gelu), pre=False,
                rate=rate, key=now,
            )  # fmt: skip
        seen.append(Seen(x, weights))
    return (x, seen) if look else x


def encode(params, config, batch, key=None):
    """`bert` of a batch with tokens [B,T], and where it has them valid and segments."""
    return bert(params["bert"], config, batch["tokens"], batch.get("valid"), batch.get("segments"), key)


# Heads.


def pooler_params(config):
    return linear_params(config.dim, config.dim, ("embed", None), init=FIRST)


def pooler(params, config, x, key=None):
    """The first token's vector behind one layer more: x [B,T,D] -> [B,D]. `key`: dropout of what it gives."""
    activation = jax.nn.relu if config.pooler == "relu" else jnp.tanh
    with jax.named_scope("pooler"):
        return dropout(fold(key, "pooler"), activation(linear(params, x[:, 0])), config.dropout)


def masked_params(config):
    D = config.dim
    return {
        "transform": linear_params(D, D, ("embed", None), init=FIRST),
        "norm": layer_norm_params(D),
        "bias": Param((config.vocab,), ("vocab",), zeros),
    }


def masked_states(params, config, x):
    """What is held against each word's vector: x [...,D] -> [...,D]."""
    return layer_norm(params["norm"], exact_gelu(linear(params["transform"], x)), config.epsilon)


def masked_logits(params, config, x):
    """Of the token that stood at each place: x [...,D] -> [...,V]. params: a tree with "bert" and "masked"."""
    with jax.named_scope("masked"):
        table = params["bert"]["embed"]["token"].astype(x.dtype)
        bias = params["masked"]["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
        return masked_states(params["masked"], config, x) @ table.T + bias.astype(x.dtype)


def pretrain_params(config):
    head = linear_params(config.dim, 2, ("embed", None), init=FIRST)
    return {"bert": bert_params(config), "pooler": pooler_params(config), "masked": masked_params(config), "next": head}


def classifier_params(config, classes: int):
    head = linear_params(config.dim, classes, ("embed", None), init=FIRST)
    return {"bert": bert_params(config), "pooler": pooler_params(config), "classify": head}


def tagger_params(config, classes: int):
    return {"bert": bert_params(config), "tag": linear_params(config.dim, classes, ("embed", None), init=FIRST)}


def span_params(config):
    return {"bert": bert_params(config), "span": linear_params(config.dim, 2, ("embed", None), init=FIRST)}


def next_logits(params, config, x, key=None):
    """Whether the second segment follows the first in its text: x [B,T,D] -> [B,2], class 0: it does."""
    return linear(params["next"], pooler(params["pooler"], config, x, key))


def classify(params, config, batch, key=None):
    """Logits [B,classes] of each row; of DistilBERT too, whose pooler has ReLU."""
    return linear(params["classify"], pooled(params, config, batch, key))


def pooled(params, config, batch, key=None):
    """What `classify` decides on, [B,D]."""
    return pooler(params["pooler"], config, encode(params, config, batch, key), key)


def tag(params, config, batch, key=None):
    """Logits [B,T,classes] of each token."""
    x = encode(params, config, batch, key)
    return linear(params["tag"], dropout(fold(key, "head"), x, config.dropout))


def spans(params, config, batch, key=None):
    """Scores float32 [B,T] of each token as the first and as the last of the answer; padding is out of the question."""
    x = encode(params, config, batch, key)
    scores = linear(params["span"], x).astype(jnp.float32)
    if "valid" in batch:
        scores = jnp.where(batch["valid"][:, :, None], scores, NEVER)
    return scores[..., 0], scores[..., 1]


def sentence_embedding(params, config, tokens, valid):
    """Unit vectors float32 [B,D]: the mean over the tokens that count (Reimers & Gurevych 2019). params: of `bert`."""
    x = bert(params, config, tokens, valid).astype(jnp.float32)
    total = jnp.where(valid[:, :, None], x, 0).sum(1)  # the mean's division is lost in the next
    return total / jnp.maximum(jnp.linalg.norm(total, axis=-1, keepdims=True), 1e-12)


# Losses: (sum, (weight, metrics as sums, carry)), in nats.


def bert_pretrain_loss(params, config, batch, key, carry):
    """Masked tokens and next sentence: the sum of two means (their appendix A.2), by one division.

    `batch`: tokens [B,T], valid, segments; the masked places [B,M], the targets [B,M] that stood there and weights
    [B,M], 0 for a place that is none. For the second task `next` int [B], 0 where the second segment follows, and
    `next_weights` [B]: of the whole batch they add up to what `weights` does (each row's is its share of that sum,
    which the batch's maker knows). So one weight divides both sums, whatever devices and micro-batches hold of each.
    """
    x = encode(params, config, batch, key)
    with jax.named_scope("masked"):
        states = masked_states(params["masked"], config, jnp.take_along_axis(x, batch["places"][:, :, None], axis=1))
        table, bias = params["bert"]["embed"]["token"], params["masked"]["bias"]
        total, weight = linear_cross_entropy(states, table.T, bias, batch["targets"], batch["weights"])
    metrics = {"masked_loss": total}
    if "next" in batch:
        logits, weights = next_logits(params, config, x, key), batch["next_weights"]
        second, _ = cross_entropy(logits, batch["next"], weights)
        metrics |= {"next_loss": second, "next_accuracy": right(logits, batch["next"], weights)}
        total = total + second
    return total, (weight, metrics, carry)


def classify_loss(params, config, batch, key, carry):
    """`batch`: as of `encode`, labels int [B], and weights [B] where some rows count less."""
    return choice(classify(params, config, batch, key), batch["labels"], batch.get("weights"), carry)


def tag_loss(params, config, batch, key, carry):
    """`batch`: as of `encode`, labels int [B,T], weights [B,T]: 1 on the first piece of each word, else 0."""
    return choice(tag(params, config, batch, key), batch["labels"], batch.get("weights"), carry)


def span_loss(params, config, batch, key, carry):
    """The mean of the first and the last token's loss. `batch`: as of `encode`, start and end int [B], weights [B]."""
    return span(spans(params, config, batch, key), (batch["start"], batch["end"]), batch.get("weights"), carry)
