"""The views of explain.py for taggers and translators."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lmjax import config
from lmjax.data import pairs
from lmjax.data.tag_rows import UNKNOWN
from lmjax.data.tagged import Sentence
from lmjax.errors import UserError
from lmjax.models import crf, hmm, rnnsearch, seq2seq
from lmjax.run.explaining.subject import Subject, items, panels
from lmjax.run.explaining.views import Grid, Words
from lmjax.run.tasks import tagging, translating


def _items(read, asked, lines):
    return items(lines, asked, "no text is given to explain: --text=..., or --input=FILE with a sentence a line", read)


# Taggers.


def of_tagger(found: tagging.Tagger) -> Subject:
    """An item is a sentence's words."""
    if isinstance(found.model, hmm.HMM):
        raise UserError("an HMM's tags follow from its two tables of counts: there is nothing more to see")
    read = partial(_items, partial(tagging.sentence, found))
    return Subject("tag", {"occlusion": partial(_occluded, found)}, {}, read)


def _occluded(found: tagging.Tagger, sentence: Sentence, asked):
    """For each tag that is no O, or for the word --at: what of its log-odds is lost by each word, and by each entry of
    the further columns that the tagger reads."""
    said, words, T = tagging.tag(found, [sentence])[0][0], sentence.words, len(sentence.words)
    if asked.at >= T:
        raise UserError(f"--at={asked.at}: the sentence has words 0 to {T - 1}")
    chunks = [n for n, tag in enumerate(said) if tag != "O"]
    at = [asked.at] if asked.at >= 0 else chunks[:4] or [0]
    rows = [words, *sentence.columns]
    variants = [_without(sentence, row, n) for row in range(len(rows)) for n in range(T)]
    marginals = _marginals(found, [sentence, *variants])  # [1+RT,T,K]
    views = []
    for t in at:
        answer = _answer(found, asked.answer) if asked.answer else int(marginals[0, t].argmax())
        p = np.clip(marginals[:, t, answer], 1e-9, 1 - 1e-9)
        odds = np.log(p) - np.log1p(-p)
        lost = (odds[0] - odds[1:]).reshape(len(rows), T)
        for row, values in enumerate(lost):
            what = f"what column {row} says" if row else "a word"
            note = (f"for {found.known.tags[answer]!r} of {words[t]!r}, probability {p[0]:.4f}; lost where {what} is "
                    "not known")  # fmt: skip
            views.append(Words(f"occlusion for word {t}" + f", column {row}" * bool(row), note,
                               [part + " " for part in rows[row]], values.tolist(), t))  # fmt: skip
    return views


def _without(sentence: Sentence, row: int, n: int) -> Sentence:
    """The sentence in which word n, row 0, or what a further column says of it, row 1 or more, is not known."""
    rows = [sentence.words, *sentence.columns]
    rows[row] = tuple(UNKNOWN if m == n else part for m, part in enumerate(rows[row]))
    return Sentence(rows[0], (), tuple(rows[1:]))


def _answer(found, name) -> int:
    if name not in found.known.tags:
        raise UserError(f"--answer={name} is no tag: expected one of {', '.join(found.known.tags)}")
    return found.known.tags.index(name)


def _marginals(found: tagging.Tagger, sentences) -> np.ndarray:
    """P(tag | sentence) of each word, [N,T,K]."""
    from lmjax.data import tag_rows
    from lmjax.models.tagger import links

    encoded = tagging.encode(found, sentences)
    legal = crf.allowed(found.known.tags, found.known.scheme)
    emissions = tagging.FAMILIES[type(found.model)].emissions

    @jax.jit
    def program(params, batch):
        return crf.marginals(links(params, legal), emissions(params, found.model, batch), batch["seen"].T)

    result = [None] * len(sentences)
    for who, rows in tag_rows.evaluation(encoded, 64):
        some = np.asarray(program(found.params, {name: x for name, x in rows.items() if name != "tags"}))
        for n, i in enumerate(who):
            result[i] = some[: len(sentences[0].words), n]
    return np.stack(result)


# Translators.


def of_translator(found: translating.Translator) -> Subject:
    """An item is a sentence of the source language."""
    return Subject("translate_multi30k", {"alignment": partial(_aligned, found)}, {}, partial(_items, str))


def alignments(found: translating.Translator, source, target) -> list[np.ndarray]:
    """How much each target token looked at each source token as it was written: of each layer [H,T,S]; of an RNN one,
    H 1 (Bahdanau et al. 2015, figure 3). source [S], target [T]: ids, the target's with its end."""
    begin = found.target.id(pairs.BEGIN)
    tokens = np.concatenate([[begin], target[:-1]]).astype(np.int32)[None]
    rows, seen = np.asarray(source, np.int32)[None], np.ones((1, len(source)), bool)
    model, params = found.model, found.params
    if isinstance(model, config.Seq2Seq):
        memory = seq2seq.encode(params, model, rows, seen)
        return [np.asarray(layer)[0] for layer in seq2seq.decode(params, model, tokens, memory, seen, look=True)[1]]
    memory, keys, first = rnnsearch.encode(params, model, rows, seen)
    said = rnnsearch.decode(params, model, tokens, (memory, keys, first), seen)
    states = jnp.concatenate([first[:, None], said[:, :-1, : model.dim]], axis=1)  # what each step began with
    return [np.asarray(rnnsearch.align(params, keys, seen, states))]


def _aligned(found: translating.Translator, line: str, asked):
    tokens = found.tokens(line)
    said = translating.translate(found, [tokens], alpha=1.0)[0]
    source = pairs.encode(found.source, [tokens])[0]
    target = np.append(pairs.encode(found.target, [said])[0][:-1], found.target.id(pairs.END))
    layers = alignments(found, source, target)
    # A token's name as the vocabulary has it: words by themselves, pieces with their marks.
    names = [[pairs.words(vocabulary, [i]) or pairs.END for i in ids]
             for vocabulary, ids in ((found.source, source), (found.target, target))]  # fmt: skip
    return [Grid("alignment", said, panels(layers, asked), names[1], names[0])]
