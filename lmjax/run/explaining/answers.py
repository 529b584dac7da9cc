"""The view of explain.py for readers: which words of a question and of a text an answer rests on."""

from functools import partial

import jax
import numpy as np

from lmjax import config
from lmjax.data import reading
from lmjax.data.masked import marks
from lmjax.data.squad import Answer, Example
from lmjax.run.explaining.subject import Absent, Subject, items
from lmjax.run.explaining.views import Words
from lmjax.run.tasks import answering


def of_reader(found: answering.Reader, tokenizer) -> Subject:
    """An item is a question and its text."""
    words = isinstance(found.model, config.Reader)
    unknown = tokenizer.encode(reading.UNKNOWN)[0] if words else marks(tokenizer)["[UNK]"]
    return Subject("answer", {"occlusion": partial(_occluded, found, unknown)}, {}, _items)


def _items(asked, lines):
    missing = "no question is given to explain: --text='question<TAB>text', or --input=FILE with one a line"
    read = partial(answering.question, where="a line of --text or --input")
    return items(lines, asked, missing, read, lambda line, pair: pair[0])


def _occluded(found: answering.Reader, unknown: int, pair, asked):
    """What of the answer's log-odds is lost by each word that is read as one that is not known."""
    question, text = pair
    said = answering.answer(found, [pair])[0]
    if not said.text:
        return Absent("the reader found no answer in the text")
    window = _window(found, pair, said)
    spans = window.texts[0].spans[window.first[0] : window.first[0] + window.size[0]]
    asks = reading.words_of(question)
    reads = [word for word in reading.words_of(text) if word[1] >= spans[0, 0] and word[2] <= spans[-1, 1]]
    odds = _log_odds(found, _variants(window, asks, reads, unknown))
    lost = (odds[0] - odds[1:]).tolist()
    within = [word[1] < said.end and word[2] > said.start for word in reads]
    pieces = [*_shown(question, asks), "| ", *_shown(text, reads, within)]
    values = [*lost[: len(asks)], None, *(None if own else x for own, x in zip(within, lost[len(asks) :]))]
    note = (f"for the answer {said.text!r}, probability {said.probability:.4f}: lost of the log-odds of its two ends "
            "where a word is one that is not known")  # fmt: skip
    return [Words("occlusion", note, pieces, values)]


def _window(found: answering.Reader, pair, said) -> reading.Windows:
    """The one window that the answer was found in."""
    example = Example("", "", pair[1], pair[0], (Answer(said.text, said.start, said.end),))
    windows = reading.windows([example], found.cutter, found.window, found.stride, found.question_length)
    inside = (windows.answer[:, 0] >= windows.mine[:, 0]) & (windows.answer[:, 1] < windows.mine[:, 1])
    at = np.flatnonzero(inside if inside.any() else windows.answer[:, 0] >= 0)[:1]
    return windows.take(at)


def _variants(window: reading.Windows, asks, reads, unknown: int) -> reading.Windows:
    """The window, then one for each word of the question and of the text without it."""
    questions = [window.questions[0], *(_without(window.questions[0], word, unknown) for word in asks)]
    texts = [window.texts[0], *(_without(window.texts[0], word, unknown) for word in reads)]
    q = np.concatenate([np.arange(len(questions)), np.zeros(len(reads), int)])
    t = np.concatenate([np.zeros(len(questions), int), 1 + np.arange(len(reads))])
    repeated = {name: np.repeat(getattr(window, name), len(q), axis=0) for name in ("first", "size", "mine", "answer")}
    return window._replace(texts=texts, questions=questions, question=q, text=t, **repeated)


def _without(pieces: reading.Pieces, word, unknown: int) -> reading.Pieces:
    """The pieces of a text in which a word, (word, first character, the one behind), is not known."""
    hit = (pieces.spans[:, 1] > word[1]) & (pieces.spans[:, 0] < word[2])
    ids = np.where(hit, unknown, pieces.ids).astype(pieces.ids.dtype)
    if pieces.letters is None:
        return pieces._replace(ids=ids)
    blank = hit[:, None]
    return pieces._replace(ids=ids, letters=np.where(blank, 0, pieces.letters).astype(np.uint8),
                           kinds=np.where(blank, 0, pieces.kinds))  # fmt: skip


def _log_odds(found: answering.Reader, windows: reading.Windows, rows=32) -> np.ndarray:
    """float [W]: log p/(1-p) of each window's answer, p the product of its first and last place's probabilities."""
    scores = answering.family(found.model).scores

    @jax.jit
    def program(params, batch):
        first, last = (
            jax.nn.log_softmax(s)[np.arange(rows), batch[name]]
            for s, name in zip(scores(params, found.model, batch), ("start", "end"))
        )
        return first + last

    logs = np.zeros(len(windows.first))
    for at, batch in reading.evaluation(windows, rows):
        logs[at] = np.asarray(program(found.params, batch))[: len(at)]
    p = np.exp(np.minimum(logs, -1e-7))
    return logs - np.log1p(-p)


def _shown(text: str, words, within=()) -> list[str]:
    """Each word as it stands, with what is between it and the next; an answer's between angle brackets."""
    ends = [*(word[1] for word in words[1:]), words[-1][2]] if words else []
    shown = [text[word[1] : end] for word, end in zip(words, ends)]
    own = [n for n, one in enumerate(within) if one]
    if own:
        shown[own[0]] = "«" + shown[own[0]]
        last = shown[own[-1]].rstrip()
        shown[own[-1]] = last + "»" + shown[own[-1]][len(last) :]
    return shown
