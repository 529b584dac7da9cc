"""What the views of explain.py share for all that reads a text: its pieces, attributions, attention, probes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax import param
from lmjax.data.masked import marks
from lmjax.errors import UserError
from lmjax.explain import attention, attribution, probes
from lmjax.models import bert
from lmjax.nn.linear import embedding
from lmjax.run.explaining import subject
from lmjax.run.explaining.subject import panels
from lmjax.run.explaining.views import Grid, Table, Words

MULTIPLE = 16  # of a row's length, so that a few programs serve all


class NoWord(UserError):
    """A text has nothing that the model reads."""

    def __init__(self, text: str):
        super().__init__(f"a text without words, {text[:40]!r}: give one with a word at least")


class Text(NamedTuple):
    """A text as a model reads it: tokens int32 [T], the piece of the text that each is, and which are parts of it, not
    marks around it: bool [T]. most: positions that the model has, None for any number."""

    tokens: np.ndarray
    pieces: list[str]
    parts: np.ndarray
    most: int | None = None


class Model(NamedTuple):
    """A model of tokens, as attribution needs it; see `of_tokens`.

    logits(params, tokens [N,T], valid [N,T], key) -> [N,K], compiled. at(vectors [N,T,E], params, valid [1,T], answer):
    the answer's log-odds and their gradient, compiled. table(params) [V,E]: of its word vectors. name(k): of an answer;
    pick(text): its number. absent: the token that stands for a word that is not known, or None.
    """

    params: Any
    logits: Callable
    at: Callable
    table: Callable
    name: Callable
    pick: Callable
    absent: int | None


def of_tokens(params, logits, table, place, name, pick, absent) -> Model:
    """place(params, table): the parameters with other word vectors."""
    scored = attribution.by_vectors(logits, place)

    def score(vectors, params, valid, answer):
        return attribution.log_odds(scored(params, vectors, jnp.broadcast_to(valid, vectors.shape[:2]), None), answer)

    at = jax.jit(attribution.with_gradient(score))
    return Model(params, jax.jit(logits), at, table, name, pick, absent)


def row(text: Text) -> tuple[np.ndarray, np.ndarray]:
    """tokens int32 [1,T'] and valid bool [1,T'], T' a multiple of 16 where the model has so many positions."""
    T = len(text.tokens)
    more = width(T, text.most) - T
    return np.pad(text.tokens, (0, more))[None], np.pad(np.ones(T, bool), (0, more))[None]


def width(length: int, most: int | None) -> int:
    """The next multiple of 16, or `most`."""
    return min(-(-length // MULTIPLE) * MULTIPLE, most or length + MULTIPLE)


def explained(model: Model, text: Text, asked) -> tuple[int, float]:
    """(the answer that is explained, its probability): --answer, or the likeliest."""
    p = np.asarray(jax.nn.softmax(model.logits(model.params, *row(text), None)))[0]
    answer = model.pick(asked.answer) if asked.answer else int(p.argmax())
    return answer, float(p[answer])


def problem(model: Model, text: Text, asked):
    """(at, x [T,E], baseline [T,E], answer, probability): the log-odds of the answer at vectors [N,T,E], of which the
    marks around a text keep theirs."""
    answer, probability = explained(model, text, asked)
    tokens, valid = row(text)
    table = model.table(model.params)
    x = np.asarray(embedding(table, tokens[0]), np.float32)
    if asked.baseline == "unknown" and model.absent is None:
        raise UserError("--baseline=unknown: the model has no token for a word it does not know; expected zero or mean")
    other = {"zero": lambda: jnp.zeros(x.shape[1]), "mean": lambda: table.mean(0),
             "unknown": lambda: table[model.absent]}[asked.baseline]()  # fmt: skip
    parts = np.pad(text.parts, (0, len(tokens[0]) - len(text.parts)))
    baseline = np.where(parts[:, None], np.asarray(other, np.float32)[None], x)
    return partial(_at, model, valid, answer), x, baseline, answer, probability


def _at(model: Model, valid, answer, vectors):
    return model.at(vectors, model.params, valid, answer)


def _words(model: Model, text: Text, title, values, answer, probability, more="") -> Words:
    note = f"for {model.name(answer)!r}, probability {probability:.4f}" + more
    shown = [float(v) if part else None for v, part in zip(values, text.parts)]
    return Words(title, note, text.pieces, shown)


def gradient(model: Model, text: Text, asked):
    at, x, _, *answer = problem(model, text, asked)
    return [_words(model, text, "gradient x input", attribution.gradient_input(at, x).sum(-1), *answer)]


def integrated(model: Model, text: Text, asked):
    at, x, baseline, *answer = problem(model, text, asked)
    found = attribution.integrated_gradients(at, x, baseline, tolerance=asked.tolerance, most=asked.points)
    said = f"; log-odds {found.whole:+.4f} of the baseline's, their sum misses {found.gap:+.1e} ({found.points} points)"
    return [_words(model, text, "integrated gradients", found.attribution.sum(-1), *answer, said)]


def occlusion(model: Model, text: Text, asked):
    """Stretches of --window pieces are taken away; a piece's value is the mean of the stretches it lies in."""
    at, x, baseline, *answer = problem(model, text, asked)
    places = np.flatnonzero(text.parts)
    size = min(asked.window, len(places))
    stretches = np.zeros((len(places) - size + 1, len(x)), bool)
    for n in range(len(stretches)):
        stretches[n, places[n : n + size]] = True
    lost = attribution.occlusion(at, x, baseline, stretches)
    values = (stretches * lost[:, None]).sum(0) / np.maximum(stretches.sum(0), 1)
    said = f"; lost where {size} piece{'s are' * (size > 1) or ' is'} replaced"
    return [_words(model, text, "occlusion", values, *answer, said)]


ATTRIBUTIONS = {"gradient": gradient, "integrated": integrated, "occlusion": occlusion}


def maps(look: Callable, text: Text, asked):
    """look(tokens, valid) -> attention's weights of each layer [1,H,T,T]."""
    T = len(text.tokens)
    layers = [np.asarray(weights)[0, :, :T, :T] for weights in look(*row(text))]
    return [Grid("attention", "a row looks at the columns", panels(layers, asked), text.pieces, text.pieces)]


def rolled(look: Callable, at: int, text: Text, asked):
    """Attention rollout, of the place that decides: `at`, 0 or -1."""
    T = len(text.tokens)
    through = np.asarray(attention.rollout([w[:, :, :T, :T] for w in look(*row(text))]))[0, at]
    note = f"share of {'the first' if at == 0 else 'the last'} place's vector that came from each piece"
    return [Words("attention rollout", note, text.pieces, [float(v) for v in through], at % T)]


def pieces(tokenizer, most: int, longest: int, text: str) -> Text:
    """A text between BERT's marks, each piece as it stands there; of a longer one the first `longest` tokens. most: of
    Text."""
    ids = marks(tokenizer)
    found, spans = tokenizer.encode_spans([text])[0]
    found, spans = found[: longest - 2], spans[: longest - 2]
    if not len(found):
        raise NoWord(text)
    ends = [*spans[1:, 0], spans[-1, 1]]
    shown = [text[start:end] for (start, _), end in zip(spans, ends)]
    tokens = np.concatenate([[ids["[CLS]"]], found, [ids["[SEP]"]]]).astype(np.int32)
    parts = np.ones(len(tokens), bool)
    parts[[0, -1]] = False
    return Text(tokens, ["[CLS] ", *shown, " [SEP]"], parts, most)


def labelled(data: str, asked):
    """(training texts and labels, test texts and labels, classes) of a set, at most --examples of each."""
    from lmjax.data.labelled import load_labelled, splits

    data = load_labelled(data, asked.data_dir or None)
    parts = splits(data)
    rng, found = np.random.default_rng(asked.seed), []
    for name in ("train", "test"):
        part = parts[name]
        part = part.take(np.sort(rng.permutation(len(part.texts))[: asked.examples]))
        found += [part.texts, part.labels]
    return (*found, data.classes)


def all_states(states: Callable, read: Callable, texts, batch=64) -> list[np.ndarray]:
    """states(tokens [N,T], valid [N,T]) -> [float [N,D], ...] of all texts, those of like length together: the same
    list, of all [M,D]. A text without a word counts as one unknown word."""

    def known(text):
        try:
            return read(text)
        except NoWord:
            return Text(np.zeros(1, np.int32), [""], np.ones(1, bool))

    texts = [known(text) for text in texts]
    rows, most = [text.tokens for text in texts], texts[0].most
    order, found, at = sorted(range(len(rows)), key=lambda i: len(rows[i])), [], []
    for start in range(0, len(order), batch):
        now = order[start : start + batch]
        shape = batch, width(len(rows[now[-1]]), most)
        tokens, valid = np.zeros(shape, np.int32), np.zeros(shape, bool)
        for n, i in enumerate(now):
            tokens[n, : len(rows[i])], valid[n, : len(rows[i])] = rows[i], True
        found.append([np.asarray(x, np.float32)[: len(now)] for x in states(tokens, valid)])
        at += now
    joined = [np.concatenate(layer) for layer in zip(*found)]
    back = np.argsort(at)
    return [layer[back] for layer in joined]


def probed(states: Callable, params, specs, read: Callable, labelled: Callable, asked):
    """How many of a set's texts a linear classifier gets right from each layer, of the model and of one untrained."""
    train, labels, test, truth, classes = labelled(asked)
    shown = {}
    for name, weights in (("trained", params), ("untrained", param.init(specs, jax.random.key(asked.seed)))):
        known, asks = (all_states(partial(states, weights), read, part) for part in (train, test))
        shown[name] = [probes.probe(a, labels, b, truth, len(classes), asked.seed) for a, b in zip(known, asks)]
    largest = 100 * float(np.bincount(truth).max() / len(truth))
    rows = [[str(n), f"{a.accuracy:.1f}", f"{b.accuracy:.1f}"] for n, (a, b) in enumerate(zip(*shown.values()))]
    note = (f"test accuracy in %, of {len(test):,} texts, of logistic regressions on {len(train):,} texts' mean "
            f"vectors; layer 0 is the embedding; the largest class alone {largest:.1f}")  # fmt: skip
    return [Table("probes of each layer", note, ["layer", "trained", "untrained"], rows)]


def encoder_states(params, tokens, valid, seen):
    """The means [B,D] of the word vectors and of what each block leaves; params: with an "embed"."""
    return [mean_over(x, valid) for x in (embedding(params["embed"]["token"], tokens), *(layer.x for layer in seen))]


def look_bert(params, model):
    @jax.jit
    def look(tokens, valid):
        return [layer.weights for layer in bert.bert(params, model, tokens, valid, look=True)[1]]

    return look


def mean_over(x, valid):
    """[B,D] of x [B,T,D], over the places that count."""
    return jnp.where(valid[:, :, None], x, 0).sum(1) / jnp.maximum(valid.sum(1), 1)[:, None]


def items(read: Callable, default: str, asked, lines):
    """[(heading, Text)] of the lines given, or of a text of the model's own."""
    missing = "no text is given to explain: --text=..., or --input=FILE with a text a line"
    return subject.items([default] if lines is None else lines, asked, missing, read)
