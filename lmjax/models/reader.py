"""A reader that finds the answer to a question in a text: BiDAF, attention both ways (Seo et al. 2017).

    x = highway([word; letters; match])                  of text and question; letters by a convolution (Kim 2014)
    h, u = BiLSTM(x_text), BiLSTM(x_question)            one for both
    s_tj = w' [h_t; u_j; h_t u_j]                        eq. 1
    a_t = softmax_j s_tj, v_t = sum_j a_tj u_j;  b = softmax_t max_j s_tj, z = sum_t b_t h_t
    g_t = [h_t; v_t; h_t v_t; h_t z]                     eq. 2
    m = BiLSTM(BiLSTM(g)), n = BiLSTM(m);  first place = softmax(w_1' [g; m]), last = softmax(w_2' [g; n])     eq. 3

Departures: a word of the text also says whether it, or its first letters, stand in the question (as Chen et al. 2017
have it); place 0 of a text is a word for "the answer is not here"; in training some words are taken for unknown ones;
word vectors are learnt from random, or start from a file, where theirs are GloVe's and stay.

B batch, T places of the text, Q of the question, W letters of a word, E width of a word, H cells each way.
"""

import math

import jax
import jax.numpy as jnp

from lmjax.losses import span
from lmjax.nn.attention import NEVER
from lmjax.nn.dropout import dropout, fold, keeps, never
from lmjax.nn.linear import embedding, linear, linear_params
from lmjax.nn.recurrent import bilstm_layer, bilstm_layer_params
from lmjax.param import Param, constant, normal, uniform, zeros

UNKNOWN = 2  # the word for those outside the vocabulary
KINDS = 256  # of letters; data/reading.py numbers them
WIDE = 5  # letters that the convolution sees at once


def reader_params(config):
    E, H, filters = config.embed, config.dim, config.filters
    width = E + filters + 2

    def lstm(inputs):
        return bilstm_layer_params(inputs, H, uniform(H**-0.5), zeros)

    def point():
        return linear_params(10 * H, 1, ("embed", None), init=normal(1 / math.sqrt(10 * H)), bias=False)

    params = {
        "words": Param((config.vocab, E), ("vocab", "embed"), normal(config.init_words)),
        "highway": [
            {
                "new": linear_params(width, width, ("embed", None)),
                "gate": {"w": Param((width, width), ("embed", None), normal(1 / math.sqrt(width))),
                         "b": Param((width,), (None,), constant(-1.0))},  # begins by carrying on (Srivastava 2015)
            }
            for _ in range(config.highway)
        ],
        "contextual": lstm(width),
        "similar": {name: Param((2 * H,), (None,), normal(1 / math.sqrt(2 * H))) for name in ("text", "ask", "both")},
        "modelling": [lstm(8 * H), lstm(2 * H)],
        "ending": lstm(2 * H),
        "first": point(),
        "last": point(),
    }  # fmt: skip
    if filters:
        C = config.letter_dim
        params["letters"] = Param((KINDS, C), (None, None), normal(0.1))
        params["filters"] = linear_params((WIDE, C), filters, (None, None, None))
    return params


def highway(layers, x):
    """x [...,D] through layers that each let part of it pass as it is (Srivastava et al. 2015)."""
    for layer in layers:
        gate = jax.nn.sigmoid(linear(layer["gate"], x))
        x = gate * jax.nn.relu(linear(layer["new"], x)) + (1 - gate) * x
    return x


def letters_of(params, letters, dtype):
    """What the filters find in the letters [B,T,W] of each word, the largest over its places: [B,T,filters]."""
    x = embedding(params["letters"], letters.astype(jnp.int32), dtype)  # [B,T,W,C]
    places = x.shape[2] - WIDE + 1
    x = jnp.stack([x[:, :, i : i + places] for i in range(WIDE)], axis=3)  # [B,T,places,WIDE,C]
    return jax.nn.relu(linear(params["filters"], x, inputs=2).max(2))


def words(params, config, tokens, letters, match, key):
    """The vectors [B,T,E+filters+2] of words [B,T] with letters [B,T,W] and match [B,T,2]."""
    parts = [dropout(fold(key, "words"), embedding(params["words"], tokens, config.dtype), config.dropout)]
    if config.filters:
        parts.append(dropout(fold(key, "letters"), letters_of(params, letters, config.dtype), config.dropout))
    return highway(params["highway"], jnp.concatenate([*parts, match.astype(config.dtype)], axis=-1))


def known_words(config, key):
    """A function of words [...] that makes some, drawn from `key`, unknown wherever they stand."""
    if never(key, config.dropout_word):
        return lambda tokens: tokens
    keep = keeps(key, 1 - config.dropout_word, (config.vocab,)) | (jnp.arange(config.vocab) < UNKNOWN)
    return lambda tokens: jnp.where(keep[tokens], tokens, UNKNOWN)


def both_ways(params, config, x, valid, key):
    """A BiLSTM over x [B,T,D] with dropout on its input: [B,T,2H], 0 where `valid` [B,T] is not."""
    x = dropout(key, x, config.dropout)
    y, _ = bilstm_layer(params, x.swapaxes(0, 1), valid.sum(1))
    return jnp.where(valid[:, :, None], y.swapaxes(0, 1), 0)


def attend(params, h, u, valid, asked):
    """g [B,T,8H] of a text h [B,T,2H] and its question u [B,Q,2H]."""
    w = {name: v.astype(h.dtype) for name, v in params.items()}
    scores = jnp.einsum("btd,bqd->btq", h * w["both"].reshape(1, 1, -1), u)
    scores = scores + (h @ w["text"])[:, :, None] + (u @ w["ask"])[:, None]
    scores = jnp.where(asked[:, None], scores.astype(jnp.float32), NEVER)
    a = jax.nn.softmax(scores, axis=-1).astype(h.dtype)
    b = jax.nn.softmax(jnp.where(valid, scores.max(-1), NEVER), axis=-1).astype(h.dtype)
    to_question, to_text = jnp.einsum("btq,bqd->btd", a, u), jnp.einsum("bt,btd->bd", b, h)
    return jnp.concatenate([h, to_question, h * to_question, h * to_text[:, None]], axis=-1)


def reader(params, config, batch, key=None):
    """Scores float32 [B,T] of each place as the answer's first and as its last. `batch`: data/reading.py, words."""
    valid, asked, known = batch["valid"], batch["asked"], known_words(config, fold(key, "known"))
    with jax.named_scope("words"):
        x = words(params, config, known(batch["words"]), batch["letters"], batch["match"], fold(key, "text"))
        none = jnp.zeros((*asked.shape, 2), x.dtype)
        q = words(params, config, known(batch["question"]), batch["question_letters"], none, fold(key, "question"))
    with jax.named_scope("contextual"):
        h = both_ways(params["contextual"], config, x, valid, fold(key, "contextual", 0))
        u = both_ways(params["contextual"], config, q, asked, fold(key, "contextual", 1))
    with jax.named_scope("attention"):
        g = attend(params["similar"], h, u, valid, asked)
    m = g
    for i, layer in enumerate(params["modelling"]):
        with jax.named_scope(f"modelling{i}"):
            m = both_ways(layer, config, m, valid, fold(key, "modelling", i))
    with jax.named_scope("pointers"):
        n = both_ways(params["ending"], config, m, valid, fold(key, "ending"))
        found = []
        for name, y in (("first", m), ("last", n)):
            y = dropout(fold(key, name), jnp.concatenate([g, y], axis=-1), config.dropout)
            scores = linear(params[name], y)[:, :, 0].astype(jnp.float32)
            found.append(jnp.where(valid, scores, NEVER))
    return tuple(found)


def reader_loss(params, config, batch, key, carry):
    """The mean of the first and the last place's loss: (sum, (weight, metrics as sums, carry)), as bert.span_loss."""
    return span(reader(params, config, batch, key), (batch["start"], batch["end"]), batch["weights"], carry)
