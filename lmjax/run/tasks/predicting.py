"""What a run or published weights can be asked, and the answers as plain values: for predict.py and the server.

A run of classify.py classifies, and so on; of published weights a BERT embeds and a GPT completes.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lmjax import config
from lmjax.errors import UserError
from lmjax.interop import published
from lmjax.run import models
from lmjax.run.tasks import answering, classifying, tagging, translating
from lmjax.run.workdir import stored


class Able(NamedTuple):
    """does: "classify", "tag", "answer", "translate", "complete" or "embed". trained: what the module that does it
    takes. name: of the model."""

    does: str
    trained: Any
    name: str


class Kind(NamedTuple):
    does: str
    load: Callable


# By the experiment's name.
KINDS = {
    "classify": Kind("classify", classifying.load),
    "tag": Kind("tag", tagging.load),
    "answer": Kind("answer", answering.load),
    "translate_multi30k": Kind("translate", translating.load),
    "gpt_char": Kind("complete", models.load),
    "lstm_ptb": Kind("complete", models.load),
    "bert_pretrain": Kind("embed", lambda workdir: models.load(workdir, "last", models.ENCODERS)),
}


def load(workdir: str = "", model: str = "") -> Able:
    """Of a run's folder, or of published weights. UserError where it is none."""
    if model:
        found = models.Trained(*published.load(model))
        if not isinstance(found.model, config.BERT | config.GPT):
            kind = type(found.model).__name__
            raise UserError(f"--model={model} is a {kind}, which reads no text: expected a GPT or a BERT")
        if found.tokenizer is None:
            raise UserError(f"--model={model} has no tokenizer that lmjax can read")
        return Able("embed" if isinstance(found.model, config.BERT) else "complete", found, Path(model).name)
    experiment = stored(workdir)["experiment"]
    if experiment not in KINDS:
        raise UserError(f"--workdir={workdir} is a run of {experiment}: expected one of {', '.join(KINDS)}")
    return Able(KINDS[experiment].does, KINDS[experiment].load(workdir), experiment)


def classified(trained, texts: Sequence[str], **settings) -> Iterator[dict]:
    """label, probability, and the probabilities of every class. settings: as of classifying.classify."""
    for row in classifying.classify(trained, texts, **settings):
        shares = {kind: round(float(p), 4) for kind, p in zip(trained.classes, row)}
        called = trained.classes[row.argmax()]
        yield {"label": called, "probability": shares[called], "probabilities": shares}


def tagged(trained, texts: Sequence[str], **settings) -> Iterator[dict]:
    """words, as tagging.sentence reads them, tags, and the probabilities of the tags. settings: as of tagging.tag."""
    cut = [tagging.sentence(trained, text) for text in texts]
    for one, (tags, shares) in zip(cut, tagging.tag(trained, cut, **settings)):
        yield {"words": one.words, "tags": tags, "probabilities": [round(float(p), 4) for p in shares]}


def answered(trained, pairs: Sequence[tuple[str, str]], **settings) -> Iterator[dict]:
    """answer, probability, start and end in the text of each (question, text). settings: as of answering.answer."""
    for found in answering.answer(trained, pairs, **settings):
        yield {"answer": found.text, "probability": round(found.probability, 4), "start": found.start, "end": found.end}


def translated(trained, texts: Sequence[str], **settings) -> Iterator[dict]:
    """translation. settings: as of translating.translate."""
    for said in translating.translate(trained, [trained.tokens(text) for text in texts], alpha=1.0, **settings):
        yield {"translation": said}

