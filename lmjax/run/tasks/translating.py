"""A trained translator from its workdir, and what it says: for translate.py and the end of translate_multi30k.py."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax import config
from lmjax.data import batches, pairs, tokenizers
from lmjax.decode.beam import BeamDecoder, beam
from lmjax.errors import UserError
from lmjax.models import rnnsearch, seq2seq
from lmjax.run.settings import from_json
from lmjax.run.weights import averaged, trained
from lmjax.run.workdir import stored

TOKENS = {"moses": pairs.moses, "spacy": pairs.spacy, "spaces": pairs.spaces}


class Translator(NamedTuple):
    """A model's parameters and config, the vocabularies of its two languages, and how a source line becomes tokens."""

    params: Any
    model: Any
    source: Any
    target: Any
    tokens: Callable[[str], str]


class Family(NamedTuple):
    """A kind of translator: params(config), loss(params, config, batch, key, carry, smoothing), and how to search."""

    params: Callable
    loss: Callable
    decoder: BeamDecoder


@cache  # the compiled programs hang on its identity
def family(model) -> Family:
    """Of a config.Seq2Seq or a config.RNNSearch."""
    if isinstance(model, config.Seq2Seq):
        kind, params, loss = seq2seq, seq2seq.seq2seq_params, seq2seq.seq2seq_loss
    else:
        kind, params, loss = rnnsearch, rnnsearch.rnnsearch_params, rnnsearch.rnnsearch_loss

    def start(params, inputs, width, room):
        return kind.start_cache(params, model, *inputs, width, room)

    def step(params, cache, tokens):
        return kind.step(params, model, cache, tokens)

    return Family(params, loss, BeamDecoder(start, step, kind.select))


def translate(
    translator: Translator, lines: Sequence[str], *, width: int = 5, alpha: float = 0.6, offset: float = 5.0,
    rows: int = 64, check=lambda: None, lengths=(),
) -> list[str]:  # fmt: skip
    """The translation of each tokenised line, as tokens with spaces between.

    width: of the beam; 1 is greedy. alpha, offset: of the length penalty. lengths: that sentences are padded to, see
    batches.sorted_batches. A translation has at most 1.5 times the tokens of its source and ten more.
    """
    source = pairs.encode(translator.source, lines)
    begin, end = translator.target.id(pairs.BEGIN), translator.target.id(pairs.END)
    fits(translator.model, source, lines)
    program, said = family(translator.model).decoder, [""] * len(lines)
    empty = [np.zeros(0, np.int32)] * len(lines)
    for who, batch in batches.sorted_batches(source, empty, begin, rows, ends=lengths):
        length = batch["source"].shape[1]
        room = longest(translator.model, length)
        limit = np.minimum(longest(translator.model, batch["seen"].sum(1)), room).astype(np.int32)
        found = beam(
            program, translator.params, (batch["source"], batch["seen"]), limit,
            width=width, room=int(room), begin=begin, end=end, alpha=alpha, offset=offset,
        )  # fmt: skip
        for i, ids in zip(who, jax.device_get(found.tokens[:, 0]), strict=False):
            said[i] = pairs.words(translator.target, ids)
        check()
    return said


def longest(model, length):
    """The most tokens a translation of `length` may have."""
    most = np.asarray(1.5 * length + 10, np.int32)
    return most if positions(model) is None else np.minimum(most, positions(model))


def positions(model) -> int | None:
    """How many tokens a sentence may have; None: any number."""
    return model.context if getattr(model, "positions", "") == "learned" else None


def fits(model, sentences, lines):
    """UserError for the first sentence that is longer than the model's learned positions."""
    limit = positions(model)
    for ids, line in zip(sentences, lines, strict=True):
        if limit and len(ids) > limit:
            raise UserError(
                f"a sentence of {len(ids)} tokens, {line[:40]!r}..., and the model has {limit} positions: "
                "split it, or train with a larger --model.context"
            )


def load(workdir: str, which="best") -> Translator:
    """The translator of a run of translate_multi30k. which: the "best" checkpoint by validation loss or the "last"; a
    run that averages its last epochs' weights has but the last."""
    run = stored(workdir)
    if run["experiment"] != "translate_multi30k":
        raise UserError(f"--workdir={workdir} is a run of {run['experiment']}: expected one of translate_multi30k")
    settings = run["config"]
    name, kind = ("rnn", config.RNNSearch) if settings.get("network") == "rnn" else ("model", config.Seq2Seq)
    model = from_json(kind, settings.get(name), f"{workdir}/config.json")
    source, target = (tokenizers.load(Path(workdir) / f"{side}.json") for side in ("source", "target"))
    model = config.sized_pair(model, source.vocab, target.vocab)
    specs = family(model).params(model)
    # What a run that averages evaluates, and ends in.
    params = averaged(workdir, specs) if settings["average"] else trained(workdir, specs, which)
    return Translator(params, model, source, target, TOKENS[settings["tokens"]](settings["source"]))
