"""A trained reader from its workdir, and what it answers: for answer.py, predict.py and the end of a run."""

import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from lmjax import config
from lmjax.data import reading, tokenizers
from lmjax.data.squad import Example
from lmjax.errors import UserError
from lmjax.evaluate.spans import best_spans
from lmjax.losses import span
from lmjax.models import bert, reader
from lmjax.nn.attention import NEVER
from lmjax.run.weights import trained
from lmjax.run.workdir import stored, stored_network


class Reader(NamedTuple):
    """A model's parameters and config, how texts become pieces, and how they are read: places of a window, pieces from
    one to the next, the most pieces of a question and of an answer."""

    params: Any
    model: Any
    cutter: Any
    window: int
    stride: int
    question_length: int
    answer_length: int


class Found(NamedTuple):
    """An answer: its text, its probability among all stretches of the text and "the answer is not here", the first
    character of the context and the one behind the last."""

    text: str
    probability: float
    start: int
    end: int


class Family(NamedTuple):
    """A kind of reader: params(config), scores(params, config, batch, key), loss(params, config, batch, key, carry),
    cutter(tokenizer)."""

    params: Callable
    scores: Callable
    loss: Callable
    cutter: Callable


def family(model) -> Family:
    """Of a config.Reader or a config.BERT."""
    if isinstance(model, config.Reader):
        return Family(reader.reader_params, reader.reader, reader.reader_loss, reading.word_cutter)
    return Family(bert.span_params, bert.spans, bert.span_loss, reading.bert_cutter)


@functools.partial(jax.jit, static_argnames=("model", "longest", "count"))
def look(params, model, batch, longest: int, count: int):
    """The best stretches of a batch, the score of "not here" [B], and the loss and weight summed over it."""
    start, end = family(model).scores(params, model, batch)
    best = best_spans(start, end, batch["context"], batch["mine"], longest, count)
    total, (weight, *_) = span((start, end), (batch["start"], batch["end"]), batch["weights"], ())
    return best, start[:, 0] + end[:, 0], total, weight


class Looked(NamedTuple):
    """Of each question its best stretches, best first: (log probability, number of the example, first character, the
    one behind the last); the mean loss over all windows, in nats."""

    found: list[list[tuple[float, int, int, int]]]
    loss: float


def search(
    params, model, windows: reading.Windows, *, longest: int, count: int = 1, groups=None, rows: int = 32,
    shapes: int = 0, place=lambda b: b, check=lambda: None,
) -> Looked:  # fmt: skip
    """Reads every window once.

    groups: rising int [N], the question that each example asks; None: each its own. shapes: as of reading.evaluation.
    place: of a batch on devices. check: called between batches.
    In a window a stretch weighs exp(score - score of "not here"), so that windows can be compared: the probability is
    its share of these over all windows of the question, and of 1 for "not here".
    """
    groups = range(len(windows.questions)) if groups is None else groups
    N = groups[-1] + 1 if len(groups) else 0
    candidates, mass = [[] for _ in range(N)], [[0.0] for _ in range(N)]
    total = weight = 0.0
    for at, batch in reading.evaluation(windows, rows, shapes):
        best, none, loss, weights = jax.device_get(look(params, model, place(batch), longest, count))
        total, weight = total + float(loss), weight + float(weights)
        for row, w in enumerate(at):
            example, spans = windows.question[w], windows.texts[windows.text[w]].spans
            begin = windows.first[w] - windows.cutter.before(len(windows.questions[example].ids))
            real = best.score[row] > NEVER / 2
            if real.any():
                mass[groups[example]].append(float(best.total[row]) - float(none[row]))
            for start, end, score in zip(best.start[row][real], best.end[row][real], best.score[row][real]):
                where = int(example), int(spans[begin + start, 0]), int(spans[begin + end, 1])
                candidates[groups[example]].append((float(score) - float(none[row]), *where))
        check()
    found = []
    for some, parts in zip(candidates, mass):
        top = max(parts)
        everything = top + math.log(sum(math.exp(part - top) for part in parts))
        some = sorted(some, key=lambda one: (-one[0], one[1:]))[:count]
        found.append([(score - everything, *where) for score, *where in some])
    return Looked(found, total / max(weight, 1.0))


def answers(asked: Reader, pairs: Sequence[tuple[str, str]], count: int = 1, groups=None, **settings):
    """The `count` best answers to each (question, context), best first: lists of (number of the pair, Found).

    A context without a word gives none. groups: rising int, where several pairs ask one question: then a list for each
    question.
    """
    if not pairs:
        return []
    examples = [Example(str(n), "", context, question) for n, (question, context) in enumerate(pairs)]
    windows = reading.windows(examples, asked.cutter, asked.window, asked.stride, asked.question_length)
    looked = search(
        asked.params, asked.model, windows, longest=asked.answer_length, count=count, groups=groups, **settings
    )
    return [
        [(n, Found(pairs[n][1][start:end], math.exp(log), start, end)) for log, n, start, end in found]
        for found in looked.found
    ]


def answer(asked: Reader, pairs: Sequence[tuple[str, str]], **settings) -> list[Found]:
    """The best answer to each (question, context); of a context without a word an empty one of probability 0."""
    return [found[0][1] if found else Found("", 0.0, 0, 0) for found in answers(asked, pairs, 1, **settings)]


def question(line: str, where: str) -> tuple[str, str]:
    """(question, text) of a line: JSON with "question" and "context", or question<TAB>text. UserError, which says
    `where`, of another."""
    if line.lstrip().startswith("{"):
        try:
            found = json.loads(line)
            pair = found["question"], found["context"]
            if all(isinstance(part, str) for part in pair):
                return pair
        except (ValueError, KeyError, RecursionError):
            pass
        raise UserError(f'{where} is no JSON with "question" and "context": mend it, or give question<TAB>text')
    asked, tab, text = line.partition("\t")
    if not tab:
        raise UserError(f"{where} has no tab: expected question<TAB>text")
    return asked, text


def load(workdir: str, which="best", flag="--workdir") -> Reader:
    """The reader of a run of answer.py. which: the "best" checkpoint by F1 on validation questions, or the "last"."""
    run = stored(workdir)
    if run["experiment"] != "answer":
        raise UserError(f"{flag}={workdir} is a run of {run['experiment']}: expected one of answer")
    settings = run["config"]
    model = stored_network(workdir, config.Reader if settings["network"] == "reader" else config.BERT, flag)
    tokenizer = tokenizers.load(Path(workdir) / "tokenizer.json")
    kind = family(model)
    params = trained(workdir, kind.params(model), which, flag)
    lengths = [settings[name] for name in ("window", "stride", "question_length", "answer_length")]
    return Reader(params, model, kind.cutter(tokenizer), *lengths)


def predictions(examples, found) -> dict[str, str]:
    """{question id: answer}, as SQuAD's script reads it. found: of `search`, of `Looked`."""
    return {
        example.id: example.context[some[0][2] : some[0][3]] if some else ""
        for example, some in zip(examples, found, strict=True)
    }


def marked(examples) -> dict[str, list[str]]:
    """{question id: what annotators marked}."""
    return {example.id: [answer.text for answer in example.answers] for example in examples}
