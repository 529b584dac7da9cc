"""A trained classifier of texts from its workdir, and what it says: for classify.py and predict.py."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax import config
from lmjax.data import rows, tokenizers
from lmjax.errors import UserError
from lmjax.models import bert, bilstm, bow, cnn
from lmjax.run.settings import from_json, to_json
from lmjax.run.weights import trained
from lmjax.run.workdir import write

FACTS = "classifier.json"
UNKNOWN = "<unk>"


class Family(NamedTuple):
    """A kind of classifier: its config's class, params(config, classes), logits and loss."""

    config: type
    params: Callable
    logits: Callable
    loss: Callable


FAMILIES = {
    "cnn": Family(config.CNN, cnn.cnn_params, cnn.cnn, cnn.cnn_loss),
    "lstm": Family(config.BiLSTM, bilstm.bilstm_params, bilstm.bilstm, bilstm.bilstm_loss),
    "bert": Family(config.BERT, bert.classifier_params, bert.classify, bert.classify_loss),
}


class Reading(NamedTuple):
    """How a text becomes tokens. words: one of bow.WORDS; "pieces": between BERT's marks. longest: tokens of a row, the
    beginning of a longer text."""

    tokenizer: Any
    words: str
    lower: bool
    longest: int


class Classifier(NamedTuple):
    kind: str  # of FAMILIES
    params: Any
    model: Any
    classes: tuple[str, ...]
    reading: Reading


def vocabulary(texts: Sequence[str], words: str, lower: bool, least: int = 1, most: int = 0) -> tokenizers.Word:
    """The words of `texts` that stand there `least` times, by falling count, at most `most` (0: all), behind <unk>."""
    counts = Counter(word for text in bow.tokenize(texts, words, lower) for word in text)
    counts.pop(UNKNOWN, None)
    ranked = sorted((word for word, n in counts.items() if n >= least), key=lambda word: (-counts[word], word))
    if not ranked:
        raise UserError(f"no word stands {least} times in {len(texts):,} texts: lower --min_count")
    return tokenizers.Word((UNKNOWN, *ranked[: most or None]))


def read(reading: Reading, texts: Sequence[str], labels=None) -> rows.Rows:
    """Rows of texts and their classes int [N]; -1 where there are none."""
    labels = np.full(len(texts), -1) if labels is None else labels
    if reading.words == "pieces":
        return rows.classified(texts, labels, reading.tokenizer, reading.longest)
    cut = bow.tokenize(texts, reading.words, reading.lower)
    tokens = [reading.tokenizer.encode(" ".join(text[: reading.longest])) for text in cut]
    return rows.Rows(tokens, np.asarray(labels, np.int32), 0)


@cache
def _program(kind: str, model):
    return jax.jit(lambda params, batch: jax.nn.softmax(FAMILIES[kind].logits(params, model, batch)))


def probabilities(
    kind: str, params, model, part: rows.Rows, batch: int = 64, check=lambda: None, lengths=()
) -> np.ndarray:
    """Of each row's classes: float32 [N,K]. check: called between batches. lengths: as of rows.padded."""
    program, found = _program(kind, model), []
    order = []
    for at, some in rows.evaluation(part, batch, lengths):
        check()
        found.append(np.asarray(program(params, some))[: len(at)])
        order.append(at)
    result = np.zeros((len(part.tokens), found[0].shape[1]), np.float32)
    result[np.concatenate(order)] = np.concatenate(found)
    return result


def classify(classifier: Classifier, texts: Sequence[str], **settings) -> np.ndarray:
    """The probability of each class for each text, float32 [N,K]. settings: as of `probabilities`."""
    part = read(classifier.reading, texts)
    return probabilities(classifier.kind, classifier.params, classifier.model, part, **settings)


def save(folder: Path, kind: str, model, classes: Sequence[str], reading: Reading):
    """Writes what `load` needs beside the checkpoints; the tokenizer stands in tokenizer.json already."""
    facts = {"kind": kind, "model": to_json(model), "classes": list(classes)}
    write(folder / FACTS, facts | {"words": reading.words, "lower": reading.lower, "longest": reading.longest})


def load(workdir: str, flag="--workdir") -> Classifier:
    """The classifier of a run of classify.py, its best checkpoint; of several runs in one workdir the first."""
    folder = Path(workdir)
    folder = folder if (folder / FACTS).exists() else folder / "run-0"
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        kind, classes = facts["kind"], tuple(map(str, facts["classes"]))
        family = FAMILIES[kind]
        model = from_json(family.config, facts["model"], str(folder / FACTS))
        reading = Reading(None, str(facts["words"]), bool(facts["lower"]), int(facts["longest"]))
    except OSError:
        raise UserError(f"{flag}={workdir} holds no classifier: {folder / FACTS} cannot be read") from None
    except UserError:
        raise
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / FACTS} is damaged: restore it or train again") from None
    if reading.words not in (*bow.WORDS, "pieces"):
        raise UserError(f"{folder / FACTS} is damaged: words={reading.words}; restore it or train again")
    reading = reading._replace(tokenizer=tokenizers.load(folder / "tokenizer.json"))
    params = trained(folder, family.params(model, len(classes)), "best", flag)
    return Classifier(kind, params, model, classes, reading)
