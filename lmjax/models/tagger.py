"""Taggers of words: Lample et al. 2016's BiLSTM-CRF with letters, and the CRF on features beside it.

    letters   each word's letters through an LSTM from either side, their last states side by side
    x_t       = [word vector; letters; vector of each further column], dropped
    h_t       = the states of an LSTM from the left and one from the right
    emissions = h_t W + b, and on top of them models/crf.py, or a softmax for each word by itself

Huang et al. 2015 hand features of spelling and context past the LSTM to the CRF, which adds their scores to h_t W + b.

In the place of the LSTM a Transformer may stand (Vaswani et al. 2017), in that of all below the CRF a BERT, whose
vector of a word's first piece is h_t (Devlin et al. 2019, section 5.3).

Departures: no tanh layer stands between h and the emissions (Lample et al.); letters are read beside Huang's features.

A batch is data/tag_rows.py's. B sentences, T words, S rows of C letters, D width, H cells, K tags.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp

from lmjax.errors import UserError
from lmjax.losses import cross_entropy
from lmjax.models import bert, crf
from lmjax.models.transformer import attention_params, block, mlp_params, norms
from lmjax.nn.attention import attention
from lmjax.nn.dropout import dropout, dropout_mask, fold, never
from lmjax.nn.linear import linear, linear_params
from lmjax.nn.norm import layer_norm, layer_norm_params
from lmjax.nn.positions import rotate
from lmjax.nn.recurrent import bilstm_layer, lstm_layer, lstm_layer_params
from lmjax.param import Param, normal, uniform, zeros

# Features' weights count so often: one step of one learning rate moves them as far as a step of a CRF's own would.
DIRECT = 4.0
FIRST, MOST = normal(0.02), 4096  # of the Transformer: how its weights start, words of its longest sentence


def tagger_params(config) -> dict:
    """A tree of Param for a config.Tagger."""

    def table(rows, d):
        return Param((rows, d), ("vocab", "embed"), uniform((3 / d) ** 0.5))  # as Lample et al.

    def both_ways(d, h):
        """An LSTM from the left and one from the right."""

        def bias(key, shape, dtype):
            return zeros(key, shape, dtype).at[1].set(1.0)  # of the forget gate (Jozefowicz et al. 2015)

        return [lstm_layer_params(d, h, normal((2 / (d + 4 * h)) ** 0.5), bias) for _ in range(2)]

    params = {"words": table(config.words, config.word_dim)}
    width = config.word_dim + 2 * config.letter_cells + config.column_dim * len(config.columns)
    if config.letter_cells:
        params["letters"] = table(config.letters, config.letter_dim)
        params["letter_lstm"] = both_ways(config.letter_dim, config.letter_cells)
    if config.columns:
        params["columns"] = [table(types, config.column_dim) for types in config.columns]
    if config.encoder == "transformer":
        D = 2 * config.cells
        params["inputs"] = linear_params(width, D, (None, "embed"))
        params["blocks"] = [
            {**norms(D), **attention_params(D, config.heads, FIRST, FIRST), **mlp_params(D, 4 * D, FIRST, FIRST)}
            for _ in range(config.layers)
        ]
        params["norm"] = layer_norm_params(D)
    else:
        widths = [width, *[2 * config.cells] * config.layers]
        params["lstm"] = [both_ways(d, config.cells) for d, _ in itertools.pairwise(widths)]
    params["tags"] = linear_params(2 * config.cells, config.tags, ("embed", None))
    if config.features:
        params["direct"] = Param((config.features, config.tags), ("vocab", None), zeros)
    return params | ({"crf": crf.crf_params(config.tags)} if config.crf else {})


def spelled(params, config, batch):
    """What the letters of each word say, the last states of an LSTM from either side: [T,B, 2 letter_cells].

    Several words stand behind each other in a row of letters. The 0 between them shuts the gates i and f, so that cell
    and state are 0 behind it and each word is read as if it stood alone, forwards and backwards.
    Ten times as fast, with its gradient, as a row of 24 letters for each distinct word (6.8 against 67 ms on one core,
    of 32 sentences of 47 words).
    """
    with jax.named_scope("letters"):
        letters = batch["letters"].T  # [C,S]
        zero = jnp.zeros((letters.shape[1], config.letter_cells))
        shut = jnp.array([-1e4, -1e4, 0, 0])[None, :, None] * jnp.ones((1, 4, config.letter_cells))
        lane = batch["lane"].T
        if "lanes" in batch:
            lane = jnp.searchsorted(batch["lanes"], lane)  # its place in this part of the batch

        def read(layer, letters):
            x = jnp.concatenate([params["letters"][letters], (letters == 0)[:, :, None]], axis=-1).astype(config.dtype)
            layer = {**layer, "w": jnp.concatenate([layer["w"], shut])}
            return lstm_layer(layer, x, (zero, zero))[0]

        right, left = params["letter_lstm"]
        after, before = read(right, letters), read(left, letters[::-1])[::-1]
        return jnp.concatenate([after[batch["last"].T, lane], before[batch["first"].T, lane]], axis=-1)


def both_ways(layers, x, lengths):
    """The states of an LSTM from either side over x [T,B,D], where `lengths` [B] count: [T,B,2H]."""
    right, left = layers
    return bilstm_layer({"forward": right, "backward": left}, x, lengths)[0]


def attended(params, config, x, seen, key=None):
    """Blocks of self-attention (pre-norm, rotary positions) over x [T,B,D'], where `seen` [B,T] counts: [T,B,2H].

    UserError where a sentence has more words than MOST.
    """
    T = x.shape[0]
    if T > MOST:
        raise UserError(f"a sentence of up to {T:,} words: a Transformer reads {MOST:,}; cut it, or train an LSTM")
    x, rate, places = linear(params["inputs"], x.swapaxes(0, 1)), config.dropout_output, jnp.arange(T)[None]
    mask = jnp.broadcast_to(seen[:, None, None], (len(seen), 1, T, T))

    def attend(q, k, v, key):
        return attention(rotate(q, places), rotate(k, places), v, mask, key=key, rate=rate), None

    for n, p in enumerate(params["blocks"]):
        with jax.named_scope(f"block{n}"):
            now = fold(key, "block", n)
            x, _ = block(p, x, partial(attend, key=fold(now, 0)), rate=rate, key=now)
    return layer_norm(params["norm"], x).swapaxes(0, 1)


def emissions(params, config, batch, key=None):
    """Scores float32 [T,B,K] of each word's tags. key: of the dropout; None: no dropout."""
    with jax.named_scope("words"):
        x = [params["words"][batch["words"].T].astype(config.dtype)]
    if config.letter_cells:
        x.append(spelled(params, config, batch))
    for n, table in enumerate(params.get("columns", ())):
        x.append(table[batch["columns"][:, :, n].T].astype(config.dtype))
    x = jnp.concatenate(x, axis=-1)
    if not never(key, config.dropout):
        x = x * dropout_mask(fold(key, "input"), config.dropout, x.shape, x.dtype)
    if config.encoder == "transformer":
        x = attended(params, config, x, batch["seen"], key)
    else:
        for n, layer in enumerate(params["lstm"]):
            with jax.named_scope(f"lstm{n}"):
                x = both_ways(layer, x, batch["seen"].sum(1))
    x = dropout(fold(key, "output"), x, config.dropout_output)
    scores = linear(params["tags"], x).astype(jnp.float32)
    if config.features:
        said = featured(params["direct"], batch["features"], fold(key, "features"), config.dropout_features)
        scores = scores + DIRECT * said
    return scores


def feature_crf_params(config) -> dict:
    """A score for each feature and tag, and the CRF's, all 0 at the start."""
    weights = Param((config.features, config.tags), ("vocab", None), zeros)
    bias = {"b": Param((config.tags,), (None,), zeros)}
    return {"weights": weights, "tags": bias, "crf": crf.crf_params(config.tags)}


def feature_emissions(params, config, batch, key=None):
    """The sum of the scores of each word's features, float32 [T,B,K]: `batch` has features int [B,T,n], 0 for none."""
    said = featured(params["weights"], batch["features"], fold(key, "features"), config.dropout)
    return said + params["tags"]["b"][None, None]


def bert_tagger_params(config) -> dict:
    """A tree of Param for a config.BertTagger: models/bert.py's, and the CRF's."""
    return bert.tagger_params(config, config.tags) | ({"crf": crf.crf_params(config.tags)} if config.crf else {})


def bert_emissions(params, config, batch, key=None):
    """Scores float32 [T,B,K] of each word's tags, from its first piece: `batch` has tokens int [B,P], valid bool [B,P]
    and piece int [B,T]. key: of the dropout."""
    x = bert.encode(params, config, batch, key)
    first = jnp.take_along_axis(x, batch["piece"][:, :, None], axis=1)  # [B,T,D]
    first = dropout(fold(key, "head"), first, config.dropout)
    return linear(params["tag"], first).astype(jnp.float32).swapaxes(0, 1)


def featured(weights, features, key, rate):
    """The sum of the rows of `weights` [V,K] that `features` int [B,T,n] names, 0 for none: [T,B,K]."""
    features = features.swapaxes(0, 1)
    there = (features > 0).astype(jnp.float32)
    if not never(key, rate):
        there = there * dropout_mask(key, rate, there.shape)
    return (weights[features] * there[..., None]).sum(2)


def links(params, legal) -> crf.Chain:
    """The scores of a tagger's transitions: its CRF's, or, without one, 0; NEVER where `legal`, a Chain of bools, says
    no."""
    free = {name: jnp.zeros(ok.shape) for name, ok in legal._asdict().items()}
    return crf.chain(params.get("crf", free), legal)


def tag_loss(params, batch, scores, legal):
    """-log P of the sentences' tags in nats, as train/step.py wants it: (sum, (words, metrics, carry)).

    scores: emissions [T,B,K]; legal: the tags that may follow each other, a crf.Chain of bools. Of parameters without
    a CRF the tags' cross entropies.
    """
    seen, tags = batch["seen"].T, batch["tags"].T
    with jax.named_scope("crf"):
        if "crf" in params:
            nll = crf.crf_nll(links(params, legal), scores, tags, seen)
            total = jnp.where(seen[0], nll, 0).sum()
        else:
            total, _ = cross_entropy(scores, tags, seen.astype(jnp.float32))
    return total, (seen.sum().astype(jnp.float32), {}, ())


def best_tags(links, scores, seen):
    """The likeliest tags int [B,T] and the probability float32 [B,T] of each, given the whole sentence.

    links: a crf.Chain, so that no row of tags is said that it forbids, CRF or not. scores [T,B,K]; seen bool [B,T].
    """
    seen = seen.T
    tags, probabilities = crf.viterbi(links, scores, seen)[0], crf.marginals(links, scores, seen)
    return tags.T, jnp.take_along_axis(probabilities, tags[:, :, None], axis=2)[:, :, 0].T
