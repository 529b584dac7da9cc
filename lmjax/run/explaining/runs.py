"""What a trained run rests its answers on: the views of explain.py, for each kind of run.

    a run of             views
    classify             gradient, integrated, occlusion, dropout, neighbours, probes; of a BERT attention, rollout
    gpt_char             gradient, integrated, occlusion of the next token; attention, rollout, induction, lens
    lstm_ptb             gradient, integrated, occlusion of the next token
    bert_pretrain        attention, rollout
    tag                  occlusion
    answer               occlusion
    translate_multi30k   alignment
    vit                  gradient, integrated, occlusion, dropout, neighbours, attention, rollout, probes

and of published weights those of gpt_char or bert_pretrain.
"""

from pathlib import Path
from typing import Any

from lmjax import config
from lmjax.data import tokenizers
from lmjax.errors import UserError
from lmjax.interop import published
from lmjax.run import models
from lmjax.run.explaining import answers, classes, images, pairs, writers
from lmjax.run.explaining.subject import Absent, Subject
from lmjax.run.tasks import answering, classifying, tagging, translating
from lmjax.run.workdir import stored

VIEWS = ("gradient", "integrated", "occlusion", "dropout", "neighbours", "attention", "rollout", "alignment",
         "induction", "lens", "probes")  # fmt: skip
FROM_DATA = ("neighbours", "probes")  # need the data that the run was trained on


def open_subject(workdir: str, model: str = "") -> Subject:
    """Of a run's folder, or of published weights. UserError where it is none that can be explained."""
    if model:
        found = models.Trained(*published.load(model))
        kinds = {config.GPT: writers.of_writer, config.BERT: writers.of_encoder}
        if type(found.model) not in kinds or found.tokenizer is None:
            raise UserError(f"--model={model} is a {type(found.model).__name__} that reads no text: expected a GPT or "
                            "a BERT with its tokenizer")  # fmt: skip
        return kinds[type(found.model)](Path(model).name, found)
    run = stored(workdir)
    kinds = {
        "classify": lambda: classes.of_classifier(classifying.load(workdir), run["config"], workdir),
        "gpt_char": lambda: writers.of_writer("gpt_char", models.load(workdir)),
        "lstm_ptb": lambda: writers.of_writer("lstm_ptb", models.load(workdir)),
        "bert_pretrain": lambda: writers.of_encoder("bert_pretrain", models.load(workdir, "last", models.ENCODERS)),
        "tag": lambda: pairs.of_tagger(tagging.load(workdir)),
        "answer": lambda: answers.of_reader(answering.load(workdir), tokenizers.load(Path(workdir) / "tokenizer.json")),
        "translate_multi30k": lambda: pairs.of_translator(translating.load(workdir)),
        "vit": lambda: images.of_vit(workdir, run["config"]),
    }
    if run["experiment"] not in kinds:
        raise UserError(f"--workdir={workdir} is a run of {run['experiment']}: expected one of {', '.join(kinds)}")
    return kinds[run["experiment"]]()


def chosen(subject: Subject, asked) -> list[str]:
    """The views that are drawn. UserError for one that a run of this kind does not have."""
    there = [name for name in VIEWS if name in subject.views or name in subject.whole]
    if unknown := [name for name in asked.views if name not in there]:
        raise UserError(f"--views={','.join(unknown)}: a run of {subject.experiment} has {', '.join(there)}")
    return [name for name in there if name in asked.views or not asked.views]


def drawn(subject: Subject, names, item, asked) -> tuple[list[Any], list[str]]:
    """(views, what is missing and why) of one item, or with item None of the model as a whole.

    UserError where a view was asked for by its name and cannot be drawn.
    """
    found, missing = [], []
    for name in names:
        table = subject.views if item is not None else subject.whole
        if name not in table:
            continue
        try:
            made = table[name](*(() if item is None else (item,)), asked)
        except UserError as error:
            if name not in FROM_DATA:
                raise
            made = Absent(str(error))
        if not isinstance(made, Absent):
            found += made
        elif name in asked.views:
            raise UserError(f"--views={name}: {made.why}")
        else:
            missing.append(f"{name}: {made.why}")
    return found, missing
