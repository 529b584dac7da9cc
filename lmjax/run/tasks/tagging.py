"""A trained tagger from its workdir, and the tags it gives: for predict.py and the evaluation of tag.py."""

import dataclasses
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax import config, param
from lmjax.data import tag_rows, tokenizers
from lmjax.data.tag_features import evidence
from lmjax.data.tagged import Sentence, bio
from lmjax.errors import UserError
from lmjax.interop.vectors import read_vectors
from lmjax.models import crf, hmm, tagger
from lmjax.run.settings import from_json
from lmjax.run.weights import trained
from lmjax.run.workdir import stored, stored_network


class Tagger(NamedTuple):
    """A model's parameters and config, and what its numbers stand for. Of an HMM its counts, in the place of both."""

    params: Any
    model: Any
    known: tag_rows.Vocabulary
    tokenizer: Any = None  # a BERT's


class Family(NamedTuple):
    """A kind of tagger: params(config), and emissions(params, config, batch, key)."""

    params: Any
    emissions: Any


FAMILIES = {
    config.Tagger: Family(tagger.tagger_params, tagger.emissions),
    config.FeatureCRF: Family(tagger.feature_crf_params, tagger.feature_emissions),
    config.BertTagger: Family(tagger.bert_tagger_params, tagger.bert_emissions),
}


def sized(model, known: tag_rows.Vocabulary):
    """The config with the numbers of words, letters, ... of the vocabulary. UserError where it asks for others."""
    found = {"words": len(known.words), "letters": len(known.letters), "columns": tuple(map(len, known.columns)),
             "features": len(known.features), "tags": len(known.tags)}  # fmt: skip
    found = {name: size for name, size in found.items() if hasattr(model, name)}
    for name, size in found.items():
        if getattr(model, name) not in (0, (), size):
            raise UserError(f"model.{name}={getattr(model, name)}, and the data has {size}: leave it out")
    return dataclasses.replace(model, **found)


@cache
def _program(model):
    """Compiled: (params, batch, legal) -> (tags int [B,T], the probability of each [B,T])."""

    @jax.jit
    def answer(params, batch, legal):
        scores = FAMILIES[type(model)].emissions(params, model, batch)
        return tagger.best_tags(tagger.links(params, legal), scores, batch["seen"])

    return answer


@jax.jit
def _counted(links, batch):
    return tagger.best_tags(links, batch["scores"].swapaxes(0, 1), batch["seen"])


def sentence(given: Tagger, line: str) -> Sentence:
    """The words of a line, which spaces part. For a tagger that reads further columns each word has what they say
    behind it, as Moses writes factors: `The|DT cat|NN`. UserError where a word lacks it."""
    need = len(given.known.columns)
    parts = [word.rsplit("|", need) if need else [word] for word in line.split()]
    for word, *columns in parts:
        if len(columns) < need or not word:
            raise UserError(f"{'|'.join([word, *columns])!r} is a word alone, and {_lacking(need)}: write them behind "
                            f"each word, cat{'|NN' if need == 1 else '|NN|...'}")  # fmt: skip
    words, *columns = zip(*parts) if parts else [()] * (1 + need)
    return Sentence(words, (), tuple(columns))


def _lacking(need: int) -> str:
    return f"the tagger was trained with {need} further column{'s' * (need > 1)} such as parts of speech"


def encode(given: Tagger, sentences: list[Sentence]) -> tag_rows.TagRows:
    """Sentences, none of them empty, as the tagger reads them."""
    encoded = tag_rows.rows(sentences, given.known, given.tokenizer)
    if encoded.pieces:
        check_pieces(encoded.pieces, given.model.context)
    if not isinstance(given.model, hmm.HMM):
        return encoded
    scores = [hmm.emissions(given.model, evidence(one, len(given.known.columns))) for one in sentences]
    return tag_rows.TagRows({"tags": encoded.each["tags"], "scores": scores})


def check_pieces(pieces, context: int):
    """UserError where a sentence has more pieces than a BERT has positions."""
    longest = max(map(len, pieces))
    if longest > context:
        raise UserError(f"a sentence of {longest:,} pieces, and the BERT has {context} positions: cut the sentence, "
                        "in training by --longest, or train an LSTM")  # fmt: skip


def answers(given: Tagger, encoded: tag_rows.TagRows, batch: int = 64, check=lambda: None) -> list:
    """[(tags, the probability of each float32 [T])] of what `encode` gave, in its order; chunks' tags in BIO."""
    known = given.known
    legal = crf.allowed(known.tags, known.scheme)
    if isinstance(given.model, hmm.HMM):
        matrix = hmm.links(given.model, legal)

        def program(rows):
            return _counted(matrix, rows)
    else:

        def program(rows):
            return _program(given.model)(given.params, rows, legal)

    found = [None] * len(encoded.sizes)
    for who, rows in tag_rows.evaluation(encoded, batch):
        tags, probabilities = jax.device_get(program({name: x for name, x in rows.items() if name != "tags"}))
        for n, i in enumerate(who):
            length = encoded.sizes[i]
            said = tuple(known.tags[tag] for tag in tags[n, :length])
            found[i] = said if known.scheme == "plain" else bio(said), probabilities[n, :length]
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
            raise UserError(f"sentence {number:,}, {' '.join(one.words)[:40]!r}, is words alone, and {_lacking(need)}: "
                            "give CoNLL's columns")  # fmt: skip
        whole.append(one._replace(tags=()))
    there = [i for i, one in enumerate(whole) if one.words]
    found = [((), np.zeros(0, np.float32))] * len(whole)
    if there:
        encoded = encode(given, [whole[i] for i in there])
        for i, answer in zip(there, answers(given, encoded, batch, check), strict=True):
            found[i] = answer
    return found


def load(workdir: str, which="best") -> Tagger:
    """The tagger of a run of tag.py; `which` checkpoint: "best" by validation F1, or "last", as of --whole=true.

    UserError where the folder holds no such run, or no checkpoint yet.
    """
    run = stored(workdir)
    if run["experiment"] != "tag":
        raise UserError(f"--workdir={workdir} is a run of {run['experiment']}: expected one of tag")
    settings, known = run["config"], tag_rows.load_vocabulary(Path(workdir) / "vocabulary.json")
    if settings["network"] == "hmm":
        return Tagger(None, load_counts(Path(workdir) / "hmm.json"), known)
    network = settings["network"]
    if network == "bert":
        tokenizer = tokenizers.load(Path(workdir) / "tokenizer.json")
        model = stored_network(workdir, config.BertTagger)
    else:
        kind, name = (config.FeatureCRF, "features") if network == "features" else (config.Tagger, "model")
        tokenizer, model = None, from_json(kind, settings.get(name), f"{workdir}/config.json")
    model = sized(model, known)
    params = trained(workdir, FAMILIES[type(model)].params(model), "last" if settings["whole"] else which)
    return Tagger(params, model, known, tokenizer)


def vectors(path: str, dim: int) -> tuple[list[str], np.ndarray]:
    """(words as a vocabulary has them, each once, their vectors [N,D]) of a file of word vectors.

    UserError where it is none, or its vectors are not of `dim` numbers.
    """
    words, table = read_vectors(path)
    if table.shape[1] != dim:
        raise UserError(f"--vectors={path} has vectors of {table.shape[1]} numbers, and --model.word_dim={dim}: set "
                        f"--model.word_dim={table.shape[1]}")  # fmt: skip
    first = {}
    for n, word in enumerate(words):
        first.setdefault(tag_rows.lookup(word), n)
    return list(first), table[list(first.values())]


def begun(spec: param.Param, known, words, table) -> param.Param:
    """The word vectors' Param with those of `words` in their places, scaled as a whole to the spread of the others."""
    place = {word: n for n, word in enumerate(known)}
    at = np.array([place[word] for word in words])

    def init(key, shape, dtype):
        fresh = spec.init(key, shape, dtype)
        return fresh.at[at].set(table * (fresh.std() / table.std()))

    return spec._replace(init=init)


def save_counts(path: Path, model: hmm.HMM):
    path.write_text(json.dumps(model._asdict(), ensure_ascii=False), encoding="utf-8")


def load_counts(path: Path) -> hmm.HMM:
    """UserError where the file is none that `save_counts` wrote."""
    try:
        return hmm.HMM(**json.loads(path.read_text(encoding="utf-8")))
    except OSError:
        raise UserError(f"{path} cannot be read: expected the counts of a run of tag.py; run it again") from None
    except (ValueError, TypeError):
        raise UserError(f"{path} is damaged: expected the counts of a run of tag.py; run it again") from None
