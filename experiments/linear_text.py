"""Linear text classifiers: naive Bayes, logistic regression, SVM, NBSVM and fastText, on reviews, news and spam.

    launch/run.sh experiments/linear_text.py --preset=imdb_nbsvm --data_dir=DATA
    launch/run.sh experiments/linear_text.py --preset=r8_fasttext --seeds=5 --data_dir=DATA
    launch/run.sh experiments/linear_text.py --preset=sms_splits --data_dir=DATA
    launch/run.sh experiments/linear_text.py --data=FILE --model=svm --ngrams=2

The presets, on the test documents in percent, with their time on two cores (published figures are recalled):

    preset            what                                      here             published   seconds
    imdb_bow          bags of words, unit length, SVM           88.80            87.80            43
    imdb_nbsvm        NBSVM on bigrams                          91.71            91.22            41
    imdb_mnb_bigram   naive Bayes on bigrams                    86.51            86.59            17
    imdb_svm_bigram   SVM on bigrams                            90.14            89.16            93
    r8_tfidf          TF-IDF, logistic regression               97.26            93.74             7
    r8_fasttext       fastText, words alone, --seeds=5          97.20 ± 0.14     96.13            45
    sms_spam          SVM, the first 30 % to train on           98.54            97.64             3
    sms_splits        the same, 10 random splits                98.34 ± 0.17     97.64            17

imdb_nbsvm --seeds=3: 91.53 ± 0.32; c=1, as published, gives 91.71, c=10, which one held-out tenth prefers, 91.15.
Of spam, sms_spam caught 90.2 and blocked 0.21 of ham, Matthews' coefficient 0.935; sms_splits 89.6 ± 1.1, 0.28 ± 0.12
and 0.928 ± 0.007; published 83.1, 0.18 and 0.893. Some test texts stand in training, word for word (123 of IMDB's, 4 of
R8's, 210 of the SMS); unseen_accuracy leaves them out, the figures that have a published one beside them do not.

A file of your own has lines of `label<TAB>text`; a folder with train and test files (and valid) keeps its splits.

What a run may choose, the strength of the regularisation (--c) or fastText's rate and epochs, it chooses on a tenth of
the training documents that is held out of that fit (--folds=10: on each tenth in turn), or on the folder's valid file;
the fit that is tested takes all of them. The test documents are read once, with what was chosen. --seeds repeats the
run with other tenths, other splits where the set has none, and other initial vectors.

Papers: Maas et al. 2011 (IMDB), Wang & Manning 2012 (NBSVM), Joulin et al. 2016 (fastText), Yao et al. 2019 (R8's
figures), Almeida et al. 2011 (SMS). Departures: word patterns of our own (--words), and c chosen where
the papers fix it (NBSVM: 1) or do not say.
"""

import itertools
import time
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags

MODELS = ("nb", "logistic", "svm", "nbsvm", "fasttext")
FREE = ("preset", "data_dir", "workdir", "seeds", "seed", "show")  # a published figure stands whatever these are


@dataclass(frozen=True)
class Config:
    preset: str = setting("", "the preset's name")
    data: str = setting("reuters-r8", "imdb, reuters-r8, sms-spam, or the path of label<TAB>text lines")
    data_dir: str = setting("", "folder to look for data sets in before downloading; also the variable LMJAX_DATA")
    workdir: str = setting("", "folder that gets the record of this run (result.json); default: none is written")
    model: str = setting("logistic", "naive Bayes, logistic regression, L2-SVM, NBSVM or fastText", choices=MODELS)
    words: str = setting("words", "what a word is: letters, also digits (words), also each mark or runs of marks, "
                         "all between spaces, or each character",
                         choices=("letters", "words", "marks", "runs", "spaces", "characters"))  # fmt: skip
    lower: bool = setting(True, "read all in lower case")
    ngrams: int = setting(1, "longest n-gram of words", low=1, high=10)
    min_count: int = setting(1, "keep words and n-grams seen so often in training", low=1)
    most: int = setting(0, "keep this many most frequent words; 0: all", low=0)
    weighting: str = setting("binary", "of a word in a document", choices=("binary", "count", "tfidf"))
    unit: bool = setting(False, "scale each document to length 1")
    c: tuple[float, ...] = setting((0.01, 0.1, 1.0, 10.0), "weights of the loss beside |w|²/2 to choose from", low=1e-9)
    beta: float = setting(0.25, "NBSVM: share of the SVM's weights, the rest is their mean size", low=0.0, high=1.0)
    dim: int = setting(100, "fastText: width of the vectors", low=1)
    buckets: int = setting(200_000, "fastText: rows that n-grams are hashed into", low=1)
    rate: tuple[float, ...] = setting((0.5, 1.0), "fastText: first learning rates to choose from", low=1e-9)
    epochs: tuple[int, ...] = setting((10, 25), "fastText: passes to choose from", low=1)
    batch: int = setting(16, "fastText: documents of a step", low=1)
    folds: int = setting(1, "tenths of training to choose on, one after the other", low=1, high=10)
    split: str = setting("random", "how a set without test is cut: at random, or the first part is training",
                         choices=("random", "first"))  # fmt: skip
    share: float = setting(0.8, "training's share of such a set", low=0.01, high=0.99)
    target: str = setting("", "a class to report what was caught of it, and what of the others was called so")
    seeds: int = setting(1, "runs that differ in the held-out tenth, the random split and the initial vectors", low=1)
    seed: int = setting(0, "the first run's", low=0)
    show: int = setting(8, "indicative words of each class and confident mistakes to show", low=0)

    def __post_init__(self):
        if not (self.c and self.rate and self.epochs):
            raise ValueError("--c, --rate and --epochs need a value each to choose from: give one or several")


_MAAS, _WANG = "Maas et al. 2011, table 2", "Wang & Manning 2012, table 2"
_YAO, _ALMEIDA = "Yao et al. 2019, table 2", "Almeida et al. 2011, table 4"
_IMDB = {"data": "imdb", "words": "marks"}
_SMS = {"data": "sms-spam", "model": "svm", "words": "runs", "folds": 10, "share": 0.3, "target": "spam"}
PRESETS = {
    "imdb_bow": {"help": "unit-length bags of words and a linear SVM: published 87.80", **_IMDB, "model": "svm",
                 "unit": True, "c": (0.1, 0.3, 1.0, 3.0, 10.0)},
    "imdb_nbsvm": {"help": "NBSVM on bigrams: published 91.22", **_IMDB, "model": "nbsvm", "ngrams": 2},
    "imdb_mnb_bigram": {"help": "naive Bayes on bigrams: published 86.59", **_IMDB, "model": "nb", "ngrams": 2},
    "imdb_svm_bigram": {"help": "linear SVM on bigrams: published 89.16", **_IMDB, "model": "svm", "ngrams": 2,
                        "c": (0.001, 0.01, 0.1, 1.0)},
    "r8_tfidf": {"help": "TF-IDF and logistic regression: published 93.74", "words": "spaces", "weighting": "tfidf",
                 "unit": True, "c": (1.0, 10.0, 100.0, 1000.0)},
    "r8_fasttext": {"help": "fastText on words: published 96.13", "words": "spaces", "model": "fasttext"},
    "sms_spam": {"help": "SVM, trained on the first 30 %: published 97.64", **_SMS, "split": "first"},
    "sms_splits": {"help": "the same over 10 random splits", **_SMS, "seeds": 10},
}  # fmt: skip
_SPAM = {"test_accuracy": (97.64, _ALMEIDA), "matthews": (0.893, _ALMEIDA), "spam_caught": (83.1, _ALMEIDA),
         "ham_blocked": (0.18, _ALMEIDA)}  # fmt: skip
PUBLISHED = {
    "imdb_bow": {"test_accuracy": (87.80, _MAAS)},
    "imdb_nbsvm": {"test_accuracy": (91.22, _WANG)},
    "imdb_mnb_bigram": {"test_accuracy": (86.59, _WANG)},
    "imdb_svm_bigram": {"test_accuracy": (89.16, _WANG)},
    "r8_tfidf": {"test_accuracy": (93.74, _YAO)},
    "r8_fasttext": {"test_accuracy": (96.13, _YAO)},
    "sms_spam": _SPAM,
    "sms_splits": _SPAM,
}
NEEDS = {"r8_fasttext": {"flags": {"seeds": 5}}}


class Outcome(NamedTuple):
    """One run: the test documents' scores [N,K], the chosen candidate and what each reached on the held-out tenth, and
    how much each shown word speaks for each class."""

    scores: Any
    chosen: str
    tried: dict[str, float]
    words: list[str]
    weights: Any  # [words,K]


def published(config: Config) -> dict[str, tuple[float, str]]:
    """The figures of the preset's paper; none where another setting than the preset's is asked for."""
    if config.preset not in PUBLISHED:
        return {}
    own = flags.parse(Config, PRESETS, argv=["", f"--preset={config.preset}"])
    same = all(getattr(config, f.name) == getattr(own, f.name) for f in fields(Config) if f.name not in FREE)
    return PUBLISHED[config.preset] if same else {}


def divide(data, config: Config, seed: int) -> tuple:
    """Cuts a Labelled: (training Documents, test Documents, the held-out parts to choose on: bool [N] each)."""
    import numpy as np

    from lmjax.data.labelled import Documents

    train, test, rng = data.train, data.test, np.random.default_rng(seed)
    if test is None:
        order = rng.permutation(len(train.texts)) if config.split == "random" else np.arange(len(train.texts))
        cut = round(config.share * len(order))
        train, test = data.train.take(order[:cut]), data.train.take(order[cut:])
    if data.valid is not None:
        held = np.arange(len(train.texts) + len(data.valid.texts)) >= len(train.texts)
        joined = np.concatenate([train.labels, data.valid.labels])
        train, parts = Documents(train.texts + data.valid.texts, joined), [held]
    else:
        tenth = rng.permutation(len(train.texts)) * 10 // len(train.texts)
        parts = [tenth == fold for fold in range(config.folds)]
    seen = [set(train.labels[~held].tolist()) for held in parts]
    missing = [name for n, name in enumerate(data.classes) if any(n not in labels for labels in seen)]
    if missing or not len(test.texts) or not all(held.any() for held in parts):
        raise UserError(
            f"{data.name} has {len(train.texts):,} training and {len(test.texts):,} test documents, too few"
            f"{' of ' + ', '.join(missing[:5]) if missing else ''}: give more, or set --share"
        )
    return train, test, parts


def choose(candidates: dict, predict, labels, parts) -> tuple[str, dict[str, float]]:
    """The candidate that is best on the held-out parts, the first of equals: (its name, the accuracy of each in %).
    predict(candidate, weights, held) gives the held-out documents' classes, fitted on the others."""
    import numpy as np

    tried = {}
    for name, candidate in candidates.items():
        right = [predict(candidate, 1.0 - held, held) == labels[held] for held in parts]
        tried[name] = 100 * float(np.concatenate(right).mean())
    return max(tried, key=tried.get), tried


def run_linear(config: Config, train, test, classes: int, parts) -> Outcome:
    import numpy as np

    from lmjax.models import bow

    known = bow.vocabulary(bow.tokenize(train.texts, config.words, config.lower), config.ngrams, config.min_count,
                           config.most)  # fmt: skip
    counts = [bow.count(bow.tokenize(part.texts, config.words, config.lower), known) for part in (train, test)]
    idf = bow.inverse_document_frequency(counts[0])
    x, x_test = (bow.weigh(part, config.weighting, idf, config.unit) for part in counts)
    loss = "logistic" if config.model == "logistic" else "squared_hinge"

    def fit(c, weights):
        if config.model == "nb":
            return bow.naive_bayes(x, train.labels, classes, weights)
        if config.model != "nbsvm":
            return bow.fit(x, train.labels, classes, loss, c, weights=weights)
        ratio = bow.log_count_ratio(x, train.labels, classes, weights)
        model = bow.fit(x, train.labels, classes, loss, c, weights=weights, ratio=ratio)
        return bow.scale(bow.interpolate(model, config.beta), ratio)

    def predict(c, weights, held):
        return bow.scores(fit(c, weights), x[np.flatnonzero(held)]).argmax(1)

    candidates = {"alpha=1": 1.0} if config.model == "nb" else {f"c={c:g}": c for c in config.c}
    chosen, tried = choose(candidates, predict, train.labels, parts)
    model = fit(candidates[chosen], np.ones(len(train.labels)))
    weights = bow.class_weights(model)
    top = np.unique(np.argsort(-weights, axis=0)[: config.show])
    return Outcome(bow.scores(model, x_test), chosen, tried, bow.names(known, top), weights[top])


def run_fasttext(config: Config, train, test, classes: int, parts, seed: int) -> Outcome:
    import jax
    import numpy as np

    from lmjax import param
    from lmjax.models import bow, fasttext

    documents = [bow.tokenize(part.texts, config.words, config.lower) for part in (train, test)]
    known = bow.vocabulary(documents[0], 1, config.min_count, config.most)
    size = fasttext.FastText(known.size, classes, config.dim, config.ngrams, config.buckets * (config.ngrams > 1))
    x, x_test = (fasttext.features(part, known.words, size) for part in documents)

    def fit(candidate, texts):
        rate, epochs = candidate
        params = param.init(fasttext.fasttext_params(size), jax.random.key(seed))
        rates = {"epochs": epochs, "rate": rate, "size": config.batch, "seed": seed}
        params, losses = fasttext.train(params, x, train.labels, texts, **rates)
        if not np.isfinite(losses[-1]):
            raise UserError(f"rate={rate:g}: the loss is {losses[-1]} after {epochs} epochs; lower --rate")
        return params

    def predict(candidate, weights, held):
        return fasttext.scores(fit(candidate, np.flatnonzero(weights)), x, np.flatnonzero(held)).argmax(1)

    pairs = itertools.product(config.rate, config.epochs)
    candidates = {f"rate={rate:g} epochs={epochs}": (rate, epochs) for rate, epochs in pairs}
    chosen, tried = choose(candidates, predict, train.labels, parts)
    params = fit(candidates[chosen], np.arange(len(train.labels)))
    often = np.bincount(x.rows, minlength=known.size)[: known.size] >= 5
    weights = np.asarray(params["embed"][: known.size] @ params["softmax"])
    # Against the best other class: the mean of all would show words that speak against the rest alike.
    others = np.stack([np.delete(weights, n, axis=1).max(1) for n in range(classes)], axis=1)
    weights = np.where(often[:, None], weights - others, -np.inf)
    top = np.unique(np.argsort(-weights, axis=0)[: config.show])
    scores = fasttext.scores(params, x_test, np.arange(len(test.texts)))
    return Outcome(scores, chosen, tried, bow.names(known, top), weights[top])


def measure(confusion, classes: tuple[str, ...], target: str) -> dict[str, float]:
    """The figures of one run, in percent but Matthews' coefficient."""
    from lmjax.evaluate import classification as figures

    found = {"test_accuracy": 100 * figures.accuracy(confusion), "macro_f1": 100 * figures.macro_f1(confusion),
             "matthews": figures.matthews(confusion)}  # fmt: skip
    if target:
        n = classes.index(target)
        others = classes[1 - n] if len(classes) == 2 else "others"
        found |= {f"{target}_caught": 100 * figures.caught(confusion, n),
                  f"{others}_blocked": 100 * figures.blocked(confusion, n)}  # fmt: skip
    return found


def show(outcome: Outcome, test, classes: tuple[str, ...], confusion, most: int):
    """What a reader may learn of one run: indicative words, the confusion matrix, and the most confident mistakes."""
    import numpy as np

    from lmjax.evaluate import classification as figures

    print("\nmost indicative")
    for n, name in enumerate(classes[:20]):
        best = np.argsort(-outcome.weights[:, n])[:most]
        print(f"  {name:10} {', '.join(outcome.words[i] for i in best)}")
    print(f"\n{'class':12}{'precision':>10}{'recall':>8}{'F1':>8}")
    for name, row in zip(classes[:20], figures.precision_recall_f1(confusion)):
        print(f"  {name:10}{100 * row[0]:10.2f}{100 * row[1]:8.2f}{100 * row[2]:8.2f}")
    if len(classes) <= 10:
        width = max(8, *(len(name) + 2 for name in classes))
        print(f"\n{'is, called':12}{''.join(f'{name:>{width}}' for name in classes)}")
        for name, row in zip(classes, confusion):
            print(f"  {name:10}{''.join(f'{count:{width},}' for count in row)}")
    called = outcome.scores.argmax(1)
    at = np.arange(len(called))
    margin = outcome.scores[at, called] - outcome.scores[at, test.labels]
    wrong = [i for i in np.argsort(-margin)[:most] if margin[i] > 0]
    if wrong:
        print("\nmost confident mistakes")
    for i in wrong:
        text = " ".join(test.texts[i].split())
        print(f"  {classes[test.labels[i]]}, called {classes[called[i]]} by {margin[i]:.1f}: "
              f"{text[:100] + '...' if len(text) > 100 else text}")  # fmt: skip


def main(config: Config):
    import numpy as np

    from lmjax.data.labelled import load_labelled, seen
    from lmjax.evaluate import classification as figures
    from lmjax.run import record
    from lmjax.run.workdir import workdir

    began = time.perf_counter()
    data = load_labelled(config.data, config.data_dir or None)
    if config.target and config.target not in data.classes:
        raise UserError(f"target={config.target} is no class of {data.name}: expected one of {', '.join(data.classes)}")
    with workdir(config.workdir, "linear_text", config) if config.workdir else nullcontext() as folder:
        metrics, seeds, notes, first = {}, range(config.seed, config.seed + config.seeds), [], None
        for seed in seeds:
            train, test, parts = divide(data, config, seed)
            twice = seen(train, test)
            if first is None:
                print(
                    f"{data.name}: {len(train.texts):,} training and {len(test.texts):,} test documents, "
                    f"{len(data.classes)} classes; {twice.sum():,} test texts stand in training too"
                )
            arguments = config, train, test, len(data.classes), parts
            outcome = run_fasttext(*arguments, seed) if config.model == "fasttext" else run_linear(*arguments)
            confusion = figures.confusion_matrix(test.labels, outcome.scores.argmax(1), len(data.classes))
            found = {"validation_accuracy": outcome.tried[outcome.chosen]}
            found |= measure(confusion, data.classes, config.target)
            if twice.any() and not twice.all():
                right = outcome.scores.argmax(1) == test.labels
                found["unseen_accuracy"] = 100 * float(right[~twice].mean())
            for name, value in found.items():
                metrics.setdefault(name, []).append(value)
            notes.append(outcome.chosen)
            tried = ", ".join(f"{name} {value:.2f}" for name, value in outcome.tried.items())
            print(f"seed {seed}: held out {tried}; {outcome.chosen}: test {found['test_accuracy']:.2f}", flush=True)
            first = first or (outcome, test, data.classes, confusion)
        if config.show:
            show(*first, config.show)
        papers = published(config)
        print(f"\n{'':22}{'mean':>9}{'sd':>8}{'published':>11}")
        for name, values in metrics.items():
            spread = f"{np.std(values, ddof=1):8.3f}" if len(values) > 1 else f"{'-':>8}"
            print(f"{name:22}{np.mean(values):9.3f}{spread}{papers[name][0] if name in papers else '':>11}")
        seconds = time.perf_counter() - began
        sources = dict.fromkeys(source for _, source in papers.values())
        print(f"{''.join(source + '; ' for source in sources)}{seconds:.1f} seconds")
        if folder:
            judged = {name: record.Published(*figure) for name, figure in papers.items()}
            notes = "chosen: " + ", ".join(notes)
            result = record.result(
                "linear_text", config.preset, seeds, metrics, judged, wall_seconds=seconds, notes=notes
            )
            record.save(folder, result)
            print(f"{result['verdict']}; the record is {folder / 'result.json'}")


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
