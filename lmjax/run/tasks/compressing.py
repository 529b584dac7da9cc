"""A trained run as compress.py sees it, whatever it was trained for: its parameters, how good they are, how fast.

`open_run(workdir)` gives a Subject of a run, and of a folder that `write_small` made of one: the families' own loaders
read both.
"""

import functools
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax import config
from lmjax.compress import store
from lmjax.errors import UserError
from lmjax.run.settings import from_json
from lmjax.run.weights import trained
from lmjax.run.workdir import stored, stored_network

# What the loaders read beside the weights; each family has some of them.
KEPT = ("config.json", "tokenizer.json", "source.json", "target.json", "vocabulary.json", "classifier.json",
        "network.json", "test.jsonl")  # fmt: skip
ROWS = 16  # of a GPT's batches


class Subject(NamedTuple):
    """params and specs, the tree of Param. quality(params) -> {metric: number}, on test data where the run has some,
    else on validation data. call(params): one compiled pass over a batch, for its time; batch: what it is, in words."""

    experiment: str
    params: Any
    specs: Any
    quality: Callable
    call: Callable
    batch: str


def open_run(workdir, data_dir=None, check=lambda: None, flag="--start") -> Subject:
    """UserError where the folder holds no run, or one of an experiment whose models are not made small."""
    run = stored(workdir, flag)
    if run["experiment"] not in SUBJECTS:
        raise UserError(f"{flag}={workdir} is a run of {run['experiment']}: expected one of {', '.join(SUBJECTS)}")
    return SUBJECTS[run["experiment"]](Path(workdir), run["config"], data_dir or None, check)


def _gpt(workdir, settings, data_dir, check) -> Subject:
    from lmjax.data import batches
    from lmjax.data.text import load_text
    from lmjax.evaluate.perplexity import compile_loss, mean_nll
    from lmjax.models.gpt import gpt_loss, gpt_params
    from lmjax.run import models

    params, model, tokenizer, *_ = models.load(workdir)
    tokens = tokenizer.encode(load_text(settings["data"], data_dir).valid)
    score = compile_loss(lambda params, *given: gpt_loss(params, model, *given))

    def quality(params):
        nll = mean_nll(score, params, batches.evaluation_windows(tokens, model.context, ROWS), check=check)
        return {"validation_loss": nll}

    one = next(batches.evaluation_windows(tokens, model.context, ROWS))
    return Subject("gpt_char", params, gpt_params(model), quality, lambda p: score(p, one, ()),
                   f"{ROWS} x {model.context} tokens")  # fmt: skip


def _lstm(workdir, settings, data_dir, check) -> Subject:
    from lmjax.data import batches
    from lmjax.data.text import load_text
    from lmjax.evaluate.perplexity import compile_loss, mean_nll
    from lmjax.models.lstm_lm import lstm_carry, lstm_loss, lstm_params
    from lmjax.run import models

    params, model, tokenizer, *_ = models.load(workdir, "last")
    text = load_text(settings["data"], data_dir)
    part, tokens = ("validation", text.valid) if text.test is None else ("test", text.test)
    tokens = tokenizer.encode(tokens)
    score = compile_loss(lambda params, *given: lstm_loss(params, model, *given))

    def quality(params):
        windows = batches.evaluation(tokens, 1, 500)
        return {f"{part}_perplexity": math.exp(mean_nll(score, params, windows, lstm_carry(model, 1), check=check))}

    one, carry = next(batches.evaluation(tokens, 8, 35)), lstm_carry(model, 8)
    return Subject("lstm_ptb", params, lstm_params(model), quality, lambda p: score(p, one, carry), "8 x 35 words")


def _classifier(workdir, settings, data_dir, check) -> Subject:
    from lmjax.data import rows
    from lmjax.run.tasks import classifying

    found = classifying.load(workdir)
    folder = workdir if (workdir / classifying.FACTS).exists() else workdir / "run-0"
    family, path = classifying.FAMILIES[found.kind], folder / "test.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        texts, labels = [line["text"] for line in lines], [found.classes.index(line["label"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} cannot be read: expected the test texts of a run of classify.py that has ended; "
                        "let it end") from None  # fmt: skip
    part = classifying.read(found.reading, texts, labels)

    def quality(params):
        said = classifying.probabilities(found.kind, params, found.model, part, check=check)
        return {"test_accuracy": 100 * float((said.argmax(1) == part.labels).mean())}

    _, one = list(rows.evaluation(part, 32))[len(texts) // 64]
    call = jax.jit(lambda params: family.logits(params, found.model, one))
    specs = family.params(found.model, len(found.classes))
    return Subject("classify", found.params, specs, quality, call, f"32 texts of {one['tokens'].shape[1]} tokens")


def _tagger(workdir, settings, data_dir, check) -> Subject:
    from lmjax.data import tag_rows, tagged
    from lmjax.evaluate.tagging import accuracy, chunk_scores
    from lmjax.models import crf
    from lmjax.models.tagger import best_tags, links
    from lmjax.run.tasks import tagging

    if settings["network"] == "hmm":
        raise UserError(f"--start={workdir} is an HMM, which is made of counts: expected a network")
    found = tagging.load(workdir)
    data = tagged.load_tagged(settings["data"], data_dir, settings["chunks"])
    sentences = [one for one in tagged.splits(data)["test"] if one.words]
    encoded, true = tagging.encode(found, sentences), [one.tags for one in sentences]
    family, legal = tagging.FAMILIES[type(found.model)], crf.allowed(found.known.tags, found.known.scheme)

    def quality(params):
        said = [tags for tags, _ in tagging.answers(found._replace(params=params), encoded, check=check)]
        if not data.chunks:
            return {"test_accuracy": 100 * accuracy(true, said)}
        return {"test_f1": 100 * chunk_scores(true, said)[""][2]}

    _, one = next(tag_rows.evaluation(encoded, 32))
    one = {name: x for name, x in one.items() if name != "tags"}

    @jax.jit
    def call(params):
        return best_tags(links(params, legal), family.emissions(params, found.model, one), one["seen"])

    return Subject("tag", found.params, family.params(found.model), quality, call,
                   f"{one['seen'].shape[0]} sentences of {one['seen'].shape[1]} words")  # fmt: skip


def _translator(workdir, settings, data_dir, check) -> Subject:
    from lmjax.data import batches, pairs
    from lmjax.evaluate.perplexity import compile_loss, mean_nll
    from lmjax.evaluate.translation import bleu
    from lmjax.run.tasks import translating

    found = translating.load(workdir)
    text = pairs.load_pairs(settings["data"], settings["source"], settings["target"], data_dir)
    cut = translating.TOKENS[settings["tokens"]](settings["target"])
    split = next(iter(text.tests.values()))
    source, target = [found.tokens(line) for line in split.source], [cut(line) for line in split.target]
    kind, begin = translating.family(found.model), found.target.id(pairs.BEGIN)
    sides = pairs.encode(found.source, source), pairs.encode(found.target, target)
    score = compile_loss(lambda params, *given: kind.loss(params, found.model, *given))

    def quality(params):
        rows = (batch for _, batch in batches.sorted_batches(*sides, begin, 128))
        said = translating.translate(found._replace(params=params), source, width=settings["beam"],
                                     alpha=settings["alpha"], offset=settings["offset"], check=check)  # fmt: skip
        return {"bleu": bleu(said, target)[0], "test_perplexity": math.exp(mean_nll(score, params, rows, check=check))}

    some = list(batches.sorted_batches(*sides, begin, 32))
    one = some[len(some) // 2][1]
    return Subject("translate_multi30k", found.params, kind.params(found.model), quality, lambda p: score(p, one, ()),
                   f"32 pairs of {one['source'].shape[1]} tokens, without the search")  # fmt: skip


def _images(logits, specs, pictures, workdir, experiment, which, check) -> Subject:
    """Of a classifier logits(params, images)."""
    from lmjax.data import images

    say = jax.jit(logits)

    def quality(params):
        right = 0
        for batch in images.evaluation(pictures.test, 256):
            check()
            called = np.asarray(say(params, batch["images"])).argmax(-1)
            right += int((batch["weights"] * (called == batch["labels"])).sum())
        return {"test_accuracy": 100 * right / len(pictures.test)}

    one = next(images.evaluation(pictures.test, 64))["images"]
    params = trained(workdir, specs, which, "--start")
    return Subject(experiment, params, specs, quality, lambda p: say(p, one), "64 images")


def _vit(workdir, settings, data_dir, check) -> Subject:
    from lmjax.data.images import load_images
    from lmjax.models.vit import vit, vit_params

    pictures, model = load_images(settings["data"], data_dir), stored_network(workdir, config.ViT, "--start")
    return _images(lambda p, x: vit(p, model, x), vit_params(model), pictures, workdir, "vit", "last", check)


def _mnist(workdir, settings, data_dir, check) -> Subject:
    from lmjax.data.images import load_images
    from lmjax.models.perceptron import network

    pictures = load_images(settings["data"], data_dir)
    model = from_json(config.Perceptron, settings["model"], f"{workdir}/config.json")
    specs, logits = network(settings["network"], model, pictures)
    return _images(logits, specs, pictures, workdir, "compress_mnist", "last", check)


def _reader(workdir, settings, data_dir, check) -> Subject:
    from lmjax.data import reading, squad
    from lmjax.evaluate.spans import score
    from lmjax.run.tasks import answering

    found = answering.load(workdir, flag="--start")
    files = [settings[name] for name in ("data", "valid", "test", "valid_articles", "test_articles")]
    _, _, test, _ = squad.splits(*files, data_dir)
    windows = reading.windows(test, found.cutter, found.window, found.stride, found.question_length)
    search = functools.partial(answering.search, model=found.model, windows=windows, longest=found.answer_length,
                               check=check)  # fmt: skip

    def quality(params):
        scores = score(answering.predictions(test, search(params).found), answering.marked(test))
        return {"test_exact_match": scores.exact_match, "test_f1": scores.f1}

    _, one = next(reading.evaluation(windows, 32, 0))
    return Subject("answer", found.params, answering.family(found.model).params(found.model), quality,
                   lambda p: answering.look(p, found.model, one, found.answer_length, 1),
                   f"32 windows of {one['valid'].shape[1]} tokens")  # fmt: skip


def _encoder(workdir, settings, data_dir, check) -> Subject:
    from lmjax.data.masked import held_pairs
    from lmjax.data.text import load_text
    from lmjax.models import bert
    from lmjax.run import models

    found = models.load(workdir, "last", models.ENCODERS, "--start")
    rows = held_pairs(load_text(settings["data"], data_dir).valid, found.tokenizer, 32, found.model.context)
    one = rows(0)

    @jax.jit
    def sums(params, batch):
        _, (weight, metrics, _) = bert.bert_pretrain_loss(params, found.model, batch, None, ())
        return metrics | {"weight": weight}

    def quality(params):
        total = {}
        for i in range(-(-settings["validation"] // 32)):
            check()
            for name, value in jax.device_get(sums(params, rows(i))).items():
                total[name] = total.get(name, 0.0) + float(value)
        return {"validation_masked_loss": total["masked_loss"] / total["weight"],
                "validation_next_accuracy": 100 * total["next_accuracy"] / total["weight"]}  # fmt: skip

    encode = jax.jit(lambda params: bert.encode(params, found.model, one))
    return Subject("bert_pretrain", found.params, bert.pretrain_params(found.model), quality, encode,
                   f"32 rows of {found.model.context} tokens")  # fmt: skip


SUBJECTS = {
    "gpt_char": _gpt, "lstm_ptb": _lstm, "bert_pretrain": _encoder, "classify": _classifier, "tag": _tagger,
    "answer": _reader, "translate_multi30k": _translator, "vit": _vit, "compress_mnist": _mnist,
}  # fmt: skip


def write_small(start, folder: Path, small: store.Small, about: dict) -> int:
    """Makes `folder` a workdir that holds a model made small of the run `start`: its bytes of weights."""
    start = Path(start)
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        for place in (start, start / "run-0"):
            if (place / name).is_file():
                shutil.copyfile(place / name, folder / name)
                break
    return store.save(folder / store.FILE, small, about)


def latencies(call: Callable, trees: dict, rounds: int, check=lambda: None, least: float = 0.02) -> dict:
    """{name: seconds of call(tree) in each round [rounds]}: in a round each tree has its turn, so that what else the
    machine does meets all. A turn is as many calls as take `least` seconds, at most 50."""
    for tree in trees.values():
        jax.block_until_ready(call(tree))
    began = time.perf_counter()
    jax.block_until_ready(call(next(iter(trees.values()))))
    calls = max(1, min(50, round(least / (time.perf_counter() - began))))
    taken = {name: [] for name in trees}
    for n in range(rounds):
        check()
        for name in [*trees][:: 1 if n % 2 else -1]:
            began = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(call(trees[name]))
            taken[name].append((time.perf_counter() - began) / calls)
    return taken
