"""The views of explain.py for language models, whose answer is the next token, and for BERTs that embed."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lmjax import config
from lmjax.errors import UserError
from lmjax.explain import attention, lens
from lmjax.models import bert, gpt, lstm_lm
from lmjax.run import models
from lmjax.run.explaining.subject import Absent, Subject, layers_of
from lmjax.run.explaining.texts import (
    ATTRIBUTIONS,
    NoWord,
    Text,
    encoder_states,
    items,
    labelled,
    look_bert,
    maps,
    of_tokens,
    pieces,
    probed,
    rolled,
)
from lmjax.run.explaining.views import Grid, Table


def of_writer(experiment: str, found: models.Trained) -> Subject:
    """Of a GPT or of an LSTM language model."""
    found = models.unstacked(found)
    model, tokenizer = found.model, found.tokenizer
    is_gpt = isinstance(model, config.GPT)

    def logits(params, tokens, valid, key):
        last = valid.sum(1) - 1
        if is_gpt:
            x, _ = gpt.hidden(params, model, tokens, key=key)
            x = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
            return (x @ gpt.head(params).T.astype(x.dtype)).astype(jnp.float32)
        said, _ = lstm_lm.lstm_lm(
            params, model, tokens, lstm_lm.lstm_carry(model, len(tokens)), key=key, lengths=last + 1
        )
        return jnp.take_along_axis(said, last[:, None, None], axis=1)[:, 0]

    def place(params, table):
        """The softmax keeps the words' own table where it shares it."""
        if is_gpt:
            return params | {"embed": params["embed"] | {"token": table}, "head": gpt.head(params)}
        own = params["softmax"] if "w" in params["softmax"] else params["softmax"] | {"w": params["embed"].T}
        return params | {"embed": table, "softmax": own}

    def pick(text):
        ids = tokenizer.encode(text)
        if len(ids) != 1:
            raise UserError(f"--answer={text!r} is {len(ids)} tokens of this model: expected one, the next")
        return int(ids[0])

    def table(params):
        return params["embed"]["token"] if is_gpt else params["embed"]

    def read(text):
        ids = np.asarray(tokenizer.encode(text), np.int32)[-(model.context if is_gpt else 512) :]
        between = " " if type(tokenizer).__name__ == "Word" else ""
        if not len(ids):
            raise NoWord(text)
        shown = [tokenizer.decode([i]) + between for i in ids]
        return Text(ids, shown, np.ones(len(ids), bool), model.context if is_gpt else None)

    explains = of_tokens(found.params, logits, table, place, lambda k: tokenizer.decode([k]), pick, None)
    views, whole = {name: partial(view, explains) for name, view in ATTRIBUTIONS.items()}, {}
    if is_gpt:
        look = _look_gpt(found.params, model)
        views |= {"attention": partial(maps, look), "rollout": partial(rolled, look, -1),
                  "lens": partial(_lens, found)}  # fmt: skip
        states = jax.jit(lambda params, tokens, valid: encoder_states(
            params, tokens, valid, gpt.hidden(params, model, tokens, look=True)[1]))  # fmt: skip
        whole = {"induction": partial(_induction, look, model),
                 "probes": partial(_probes_asked, states, found.params, gpt.gpt_params(model), read)}  # fmt: skip
    return Subject(experiment, views, whole, partial(items, read, "The quick brown fox"))


def _look_gpt(params, model):
    @jax.jit
    def look(tokens, valid):
        return [layer.weights for layer in gpt.hidden(params, model, tokens, look=True)[1]]

    return look


def _probes_asked(states, params, specs, read, asked):
    if not asked.probe:
        return Absent("give --probe=SET, labelled texts such as trec or a file of label<TAB>text lines")
    return probed(states, params, specs, read, lambda asked: labelled(asked.probe, asked), asked)


def _induction(look: Callable, model, asked):
    """On random tokens that stand twice; see explain/attention.py."""
    P = min(model.context // 2, 64)
    half = np.random.default_rng(asked.seed).integers(0, model.vocab, (16, P))
    rows = np.concatenate([half, half], axis=1).astype(np.int32)
    weights = look(rows, np.ones(rows.shape, bool))
    layers = layers_of(asked, len(weights))
    H = weights[0].shape[1]
    named = [f"head {h}" for h in range(H)], [f"layer {n}" for n in layers]
    found = []
    for title, score, note in (
        ("induction heads", attention.prefix_matching, "weight on the token behind the earlier copy of a token, of "
         f"{P} random tokens that stand twice (prefix matching score)"),
        ("previous-token heads", attention.previous_token, "weight on the token before"),
    ):  # fmt: skip
        values = np.stack([np.asarray(score(weights[n])) for n in layers])
        at = np.unravel_index(values.argmax(), values.shape)
        best = f"; the strongest, {values.max():.2f}, is head {at[1]} of layer {layers[at[0]]}, by chance {1 / P:.2f}"
        found.append(Grid(title, note + best, {"": values}, named[1], named[0]))
    return found


def _lens(found: models.Trained, text: Text, asked, most=24):
    """What each layer would say behind each of the last tokens."""
    tokens = text.tokens[None]
    logits = jax.jit(lambda params: lens.logit_lens(params, found.model, tokens))(found.params)
    follows = np.append(text.tokens[1:], int(logits[-1, 0, -1].argmax()))[None]
    best, p, _, rank = (np.asarray(x)[:, 0, -most:] for x in lens.likeliest(logits, jnp.asarray(follows)))
    L = len(best)
    named = ["embedding", *(f"layer {n}" for n in range(L - 1))]
    rows = [[named[n], *(repr(found.tokenizer.decode([i]))[1:-1] for i in best[n])] for n in reversed(range(L))]
    shades = np.concatenate([np.zeros((L, 1)), p[::-1]], axis=1)
    ranks = ", ".join(f"{named[n]} {np.median(rank[n]):.0f}" for n in range(L))
    note = (f"the likeliest next token behind each piece, shaded by its probability; the true next token's median "
            f"rank: {ranks}")  # fmt: skip
    header = ["", *(repr(piece)[1:-1] for piece in text.pieces[-most:])]
    return [Table("logit lens", note, header, rows, shades)]


def of_encoder(experiment: str, found: models.Trained) -> Subject:
    params, model = found.params["bert"], found.model
    look = look_bert(params, model)
    read = partial(pieces, found.tokenizer, model.context, min(model.context, 512))
    states = jax.jit(lambda params, tokens, valid: encoder_states(
        params, tokens, valid, bert.bert(params, model, tokens, valid, look=True)[1]))  # fmt: skip
    views = {"attention": partial(maps, look), "rollout": partial(rolled, look, 0)}
    whole = {"probes": partial(_probes_asked, states, params, bert.bert_params(model), read)}
    return Subject(experiment, views, whole, partial(items, read, "The quick brown fox jumps over the lazy dog."))
