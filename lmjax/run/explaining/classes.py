"""The views of explain.py for classifiers of texts."""

import json
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np

from lmjax.data.masked import marks
from lmjax.errors import UserError
from lmjax.explain import neighbours, uncertainty
from lmjax.models import bert, bilstm, bow, cnn
from lmjax.nn.linear import embedding
from lmjax.run.explaining.subject import Absent, Subject
from lmjax.run.explaining.texts import (
    ATTRIBUTIONS,
    Model,
    NoWord,
    Text,
    all_states,
    encoder_states,
    items,
    labelled,
    look_bert,
    maps,
    mean_over,
    of_tokens,
    pieces,
    probed,
    rolled,
    row,
)
from lmjax.run.explaining.views import Bars, Table
from lmjax.run.tasks import classifying

POOLED = {"cnn": cnn.pooled, "lstm": bilstm.pooled, "bert": bert.pooled}


def of_classifier(found: classifying.Classifier, settings: dict, workdir: str) -> Subject:
    family, read = classifying.FAMILIES[found.kind], partial(cut, found.reading)

    def logits(params, tokens, valid, key):
        return family.logits(params, found.model, {"tokens": tokens, "valid": valid}, key)

    def pick(name):
        if name not in found.classes:
            raise UserError(f"--answer={name} is no class: expected one of {', '.join(found.classes)}")
        return found.classes.index(name)

    @jax.jit
    def deciding(tokens, valid):
        return [POOLED[found.kind](found.params, found.model, {"tokens": tokens, "valid": valid})]

    @cache
    def training(asked):
        texts, labels, *_, classes = labelled(settings["data"], asked)
        return texts, labels, classes, all_states(deciding, read, texts)[0]

    model = of_tokens(found.params, logits, *_table_of(found), lambda k: found.classes[k], pick, _absent(found))
    views = {name: partial(view, model) for name, view in ATTRIBUTIONS.items()}
    views |= {"dropout": partial(_dropout, model, found), "neighbours": partial(_neighbours, training, deciding)}
    if found.kind == "bert":
        look = look_bert(found.params["bert"], found.model)
        views |= {"attention": partial(maps, look), "rollout": partial(rolled, look, 0)}
    specs = family.params(found.model, len(found.classes))
    whole = {"probes": partial(probed, jax.jit(partial(_classifier_states, found)), found.params, specs, read,
                               lambda asked: labelled(asked.probe or settings["data"], asked))}  # fmt: skip
    first = _first_test(workdir)
    return Subject("classify", views, whole, partial(items, read, first))


def _first_test(workdir: str) -> str:
    """The first test text of a run of classify.py, to be explained where none is given."""
    for folder in (Path(workdir), Path(workdir) / "run-0"):
        try:
            with open(folder / "test.jsonl", encoding="utf-8") as lines:
                return str(json.loads(lines.readline())["text"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""


def _classifier_states(found, params, tokens, valid):
    """Of each layer the mean of its vectors, last what the classes are told apart by."""
    batch = {"tokens": tokens, "valid": valid}
    if found.kind == "bert":
        _, seen = bert.bert(params["bert"], found.model, tokens, valid, look=True)
        return [*encoder_states(params["bert"], tokens, valid, seen), POOLED["bert"](params, found.model, batch)]
    return [mean_over(embedding(params["embed"], tokens), valid), POOLED[found.kind](params, found.model, batch)]


def _table_of(found: classifying.Classifier):
    """(table, place) of Model."""
    if found.kind != "bert":
        return (lambda params: params["embed"]), (lambda params, table: params | {"embed": table})

    def place(params, table):
        inner = params["bert"]
        return params | {"bert": inner | {"embed": inner["embed"] | {"token": table}}}

    return (lambda params: params["bert"]["embed"]["token"]), place


def _absent(found: classifying.Classifier) -> int:
    """The token of a word that is not known."""
    return marks(found.reading.tokenizer)["[UNK]"] if found.kind == "bert" else 0


def cut(reading: classifying.Reading, text: str) -> Text:
    """A text as a classifier reads it."""
    if reading.words == "pieces":
        return pieces(reading.tokenizer, reading.longest, reading.longest, text)
    words = bow.tokenize([text], reading.words, reading.lower)[0][: reading.longest]
    tokens = np.asarray(reading.tokenizer.encode(" ".join(words)), np.int32)
    if not len(tokens):
        raise NoWord(text)
    return Text(tokens, [word + " " for word in words], np.ones(len(tokens), bool))


def _dropout(model: Model, found, text: Text, asked):
    rates = found.model.dropout, getattr(found.model, "dropout_recurrent", 0.0)
    if not any(rates):
        return Absent("the network was trained without dropout")
    rows = (np.repeat(x, asked.draws, axis=0) for x in row(text))
    said = uncertainty.mc_dropout(model.logits(model.params, *rows, jax.random.key(asked.seed)))
    order = np.argsort(-said.mean, kind="stable")[:20]
    note = (f"mean and spread over {asked.draws} dropout masks; entropy {said.entropy:.3f} nats, of it "
            f"{said.mutual:.3f} that the masks disagree about")  # fmt: skip
    return [Bars("probabilities with dropout", note, [model.name(k) for k in order],
                 said.mean[order].tolist(), said.sd[order].tolist())]  # fmt: skip


def _neighbours(training, deciding, text: Text, asked):
    texts, labels, classes, vectors = training(asked)
    first = list({text: i for i, text in reversed([*enumerate(texts)])}.values())[::-1]  # each text once
    mine = np.asarray(deciding(*row(text))[0])[0]
    best = [(first[i], cosine) for i, cosine in neighbours.nearest(vectors[first], mine, asked.neighbours)]
    rows = [[f"{cosine:.3f}", classes[labels[i]], " ".join(texts[i].split())[:200]] for i, cosine in best]
    note = f"of {len(texts):,} training texts, by the cosine of what the last layer reads"
    return [Table("nearest training texts", note, ["cosine", "class", "text"], rows)]
