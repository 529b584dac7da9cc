"""A generator of sentences judged: what it writes at each temperature, scored beside real text, and the curve drawn.

Caccia et al. 2020, "Language GANs falling short": temperature trades quality for variety, so a model is a curve, and
one is better than another where its curve is.
"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from lmjax import param
from lmjax.data import captions
from lmjax.errors import UserError
from lmjax.evaluate import generation
from lmjax.evaluate.perplexity import compile_loss, mean_nll
from lmjax.models.seqgan import generator_params, nll, sample
from lmjax.run.pictures import canvas
from lmjax.train import optim, parallel
from lmjax.train.state import new_state
from lmjax.train.step import make_step

ROWS = 512  # sentences scored or written at once
COLORS = ("#2e6f9e", "#c1440e", "#5a9e4b", "#8a5ea8", "#b8860b", "#4a4a4a")


def likelihood(model):
    """The loss of maximum likelihood, as train/step.py wants it: nats, summed over the tokens that count."""

    def loss(params, batch, key, carry):
        total, weight = nll(params, model, batch["tokens"], batch["weights"])
        return total, (weight, {}, carry)

    return loss


def scorer(model, check=lambda: None):
    """A function (params, captions.Rows) -> nats a token, the END of each sentence counted."""
    compiled = compile_loss(likelihood(model))
    return lambda params, rows: mean_nll(compiled, params, captions.whole(rows, ROWS), check=check)


def writer(model, words, check=lambda: None):
    """A function (params, key, count, temperature) -> that many sentences, each a list of words."""

    @partial(jax.jit, static_argnames="rows")
    def write(params, key, temperature, rows):
        return sample(params, model, key, rows, temperature)

    def sentences(params, key, count, temperature):
        found = []
        for n in range(-(-count // ROWS)):
            found += captions.until_end(write(params, jax.random.fold_in(key, n), temperature, rows=min(ROWS, count)))
            check()
        return [[words[token] for token in row] for row in found[:count]]

    return sentences


def learner(model, rate: float, check=lambda: None):
    """(learned, nats): learned(train, valid, epochs) gives the weights of a language model trained on `train`, of the
    epoch that is best on `valid`, both captions.Rows; nats is its `scorer`. Adam, 64 sentences a step."""
    local, specs, tx = parallel.local(), generator_params(model), optim.adamw(rate)
    step, nats = local.compile(make_step(likelihood(model), tx, clip=5.0)), scorer(model, check)
    weights_key, key = jax.random.split(jax.random.key(0))
    begin = jax.jit(lambda: new_state(param.init(specs, weights_key), tx))

    def learned(train, valid, epochs):
        batch, steps = captions.by_length(train, 64, multiple=8)
        state, best = local.place(begin()), (math.inf, None)
        for epoch in range(epochs):
            for i in range(epoch * steps, (epoch + 1) * steps):
                state, _ = step(state, local.batch(batch(i)), key)
            found = nats(state.params, valid)
            if found < best[0]:
                best = found, jax.device_get(state.params)
        if best[1] is None:
            raise UserError(f"a language model did not learn from {len(train.lengths):,} sentences: lower --judge_lr")
        return best[1]

    return learned, nats


class Judges(NamedTuple):
    """scores(sentences) -> {figure: value}; reverse(sentences) -> reverse_nll, after a training; readable: the test
    lines, as captions.Rows, that hold no word that training lacks."""

    scores: Callable
    reverse: Callable
    readable: captions.Rows


def judges(text: captions.Sentences, words, model, epochs: int, rate: float, check=lambda: None) -> Judges:
    """What sentences are judged by, see generation.DEFINITIONS. model: of the language models, a config.Generator."""

    def rows(sentences):
        return captions.rows(sentences, words)

    known, types = generation.references(text.test), set(words)
    readable = rows([line for line in text.test if types.issuperset(line)])
    learned, nats = learner(model, rate, check)
    real = learned(rows(text.test), rows(text.valid), epochs)

    def scores(sentences):
        bleus = {"test_bleu": generation.bleu(sentences, known), "self_bleu": generation.self_bleu(sentences)}
        found = {f"{name}_{n}": 100 * value for name, of in bleus.items() for n, value in of.items()}
        return found | {
            "nll_real": nats(real, rows(sentences)),
            "distinct_2": 100 * generation.distinct(sentences, 2),
            "copied": 100 * generation.copied(sentences, text.train),
            "length": sum(map(len, sentences)) / len(sentences),
        }

    def reverse(sentences):
        order, held = np.random.default_rng(0).permutation(len(sentences)), max(len(sentences) // 20, 1)
        kept, out = ([sentences[i] for i in part] for part in (order[held:], order[:held]))
        return nats(learned(rows(kept), rows(out), epochs), readable)

    return Judges(scores, reverse, readable)


class Curve(NamedTuple):
    """A model at each temperature: names of the figures -> [temperature][lane]."""

    name: str
    data: str
    temperatures: list
    figures: dict


def save(curve: Curve, path: Path):
    path.write_text(json.dumps(curve._asdict()) + "\n", encoding="utf-8")


def read(folder, data: str) -> Curve:
    """The curve that a finished run left in its folder. UserError where there is none, or one of another set."""
    path = Path(folder) / "curve.json"
    try:
        found = Curve(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise UserError(f"--beside={folder} holds no finished run of text_gan.py: {path} cannot be read") from None
    if found.data != data:
        raise UserError(f"--beside={folder} is a run on {found.data}, this one is on {data}: give runs on the same set")
    return found._replace(name=f"{found.name} ({Path(folder).name})")


def draw(curves: list[Curve], marks: dict[str, tuple[float, float]], path: Path, title: str, order: int = 4):
    """Quality against sameness, BLEU over self-BLEU: a line a model, through its temperatures, and a mark for each
    figure of others, name -> (self-BLEU, BLEU). Above and to the left is better. None without the plot extra."""
    figure = canvas(8, 5.5)
    if figure is None:
        return None
    axes = figure.add_subplot()
    for n, curve in enumerate(curves):
        color = COLORS[n % len(COLORS)]
        x, y = (np.array(curve.figures[f"{name}_{order}"]) for name in ("self_bleu", "test_bleu"))  # [temperature,lane]
        axes.plot(x, y, ".", color=color, markersize=4, alpha=0.4)
        axes.plot(x.mean(1), y.mean(1), color=color, marker="o", markersize=5, label=curve.name)
        for at, (a, b) in zip(curve.temperatures, zip(x.mean(1), y.mean(1))):
            axes.annotate(f"{at:g}", (a, b), (4, -10), textcoords="offset points", fontsize=7, color=color)
    for name, (a, b) in marks.items():
        axes.plot(a, b, marker="x", markersize=7, color="#7a7a7a")
        axes.annotate(name, (a, b), (-6, 3), textcoords="offset points", ha="right", fontsize=8, color="#5a5a5a")
    axes.set(xlabel=f"self-BLEU-{order}, %: sameness", ylabel=f"test BLEU-{order}, %: quality", title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
    return path
