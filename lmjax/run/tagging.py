"""A trained tagger from its workdir, and the tags it gives: for predict.py and the evaluation of tag.py."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax import config, param
from lmjax.data import tag_rows
from lmjax.data.tagged import Sentence, bio
from lmjax.errors import UserError
from lmjax.models import crf, tagger
from lmjax.run.settings import from_json
from lmjax.run.workdir import stored
from lmjax.train.checkpoint import Checkpoints


class Tagger(NamedTuple):
    """A model's parameters and config, and what its numbers stand for."""

    params: Any
    model: Any
    known: tag_rows.Vocabulary


class Family(NamedTuple):
    """A kind of tagger: params(config), and emissions(params, config, batch, key)."""

    params: Any
    emissions: Any


FAMILIES = {
    config.Tagger: Family(tagger.tagger_params, tagger.emissions),
    config.FeatureCRF: Family(tagger.feature_crf_params, tagger.feature_emissions),
}


def sized(model, known: tag_rows.Vocabulary):
    """The config with the numbers of words, letters, ... that the vocabulary has. UserError where it asks for others."""
    import dataclasses

    found = {"words": len(known.words), "letters": len(known.letters), "columns": tuple(map(len, known.columns)),
             "features": len(known.features), "tags": len(known.tags)}  # fmt: skip
    for name in found.keys() & vars(model).keys():
        if getattr(model, name) not in (0, (), found[name]):
            raise UserError(f"model.{name}={getattr(model, name)}, and the data has {found[name]}: leave it out")
    return dataclasses.replace(model, **{name: found[name] for name in found.keys() & vars(model).keys()})


@cache
def _program(model):
    """Compiled: (params, batch, legal) -> (tags int [B,T], the probability of each [B,T])."""

    @jax.jit
    def answer(params, batch, legal):
        scores = FAMILIES[type(model)].emissions(params, model, batch)
        return tagger.best_tags(params, scores, batch["seen"], legal)

    return answer


def answers(given: Tagger, encoded: tag_rows.TagRows, batch: int = 64, check=lambda: None):
    """[(tags as they are learnt, the probability of each float32 [T])] of each sentence, in their order."""
    program, known = _program(given.model), given.known
    legal = crf.allowed(known.tags, known.scheme)
    found = [None] * len(encoded.words)
    for who, rows in tag_rows.evaluation(encoded, batch):
        rows.pop("tags")
        tags, probabilities = jax.device_get(program(given.params, rows, legal))
        for n, i in enumerate(who):
            length = len(encoded.words[i])
            found[i] = tuple(known.tags[tag] for tag in tags[n, :length]), probabilities[n, :length]
        check()
    return found


def tag(given: Tagger, sentences: Sequence, batch: int = 64, check=lambda: None) -> list:
    """[(tags, the probability of each float32 [T])] of each sentence, a tuple of words or, of a tagger that reads
    further columns, a data.tagged.Sentence. Chunks' tags are in BIO. An empty sentence has no tags.

    UserError where a sentence lacks the columns that the tagger was trained with.
    """
    need = len(given.known.columns)
    whole = []
    for number, one in enumerate(sentences, start=1):
        one = one if isinstance(one, Sentence) else Sentence(tuple(one), ())
        if len(one.columns) < need and one.words:
            raise UserError(
                f"sentence {number:,}, {' '.join(one.words)[:40]!r}, is words alone, and the tagger was trained with "
                f"{need} further column{'s' * (need > 1)} such as parts of speech: give CoNLL's columns"
            )
        whole.append(one._replace(tags=()))
    there = [i for i, one in enumerate(whole) if one.words]
    found = [((), np.zeros(0, np.float32))] * len(whole)
    if there:
        encoded = tag_rows.rows([whole[i] for i in there], given.known)
        for i, (tags, probabilities) in zip(there, answers(given, encoded, batch, check), strict=True):
            found[i] = plain(tags, given.known.scheme), probabilities
    return found


def plain(tags, scheme: str):
    """Tags as files have them: chunks' in BIO."""
    return tags if scheme == "plain" else bio(tags)


def load(workdir: str, which="best") -> Tagger:
    """The tagger of a run of tag.py; `which` checkpoint: "best" by validation F1, or "last"."""
    run = stored(workdir)
    if run["experiment"] != "tag":
        raise UserError(f"--workdir={workdir} is a run of {run['experiment']}: expected one of tag")
    settings, known = run["config"], tag_rows.load_vocabulary(Path(workdir) / "vocabulary.json")
    kind, name = (config.FeatureCRF, "features") if settings["network"] == "features" else (config.Tagger, "model")
    model = from_json(kind, settings.get(name), f"{workdir}/config.json")
    model = sized(model, known)
    checkpoints = Checkpoints(Path(workdir) / "checkpoints", best="min")
    found = checkpoints.restore_params(param.shapes(FAMILIES[kind].params(model)), which=which)
    if found is None:
        raise UserError(f"--workdir={workdir} holds no checkpoint yet: train longer, or lower --save_every")
    return Tagger(jax.device_put(found[1]), model, known)
