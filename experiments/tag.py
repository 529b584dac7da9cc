"""Tags words."""

from dataclasses import dataclass

from lmjax.config import FeatureCRF, Tagger, setting
from lmjax.run import flags
from lmjax.run.options import Run


@dataclass(frozen=True)
class Config(Run):
    preset: str = ""
    data: str = setting("generated", "generated (nothing to download), conll2000, conll2003, or a path: CoNLL's columns "
                        "or CoNLL-U")  # fmt: skip
    chunks: bool = setting(True, "tags are of chunks (B-PER, I-PER, O); false: each stands for itself, as NOUN")
    columns: int = setting(0, "columns between word and tag that are read too, the first so many: parts of speech", low=0)
    network: str = setting("lstm", "which of the two below is trained, or an HMM, which is counted",
                           choices=("lstm", "features", "hmm"))  # fmt: skip
    model: Tagger = setting(Tagger(), "words and letters through LSTMs")
    features: FeatureCRF = setting(FeatureCRF(), "a CRF on features of the word and its neighbours")
    scheme: str = setting("iobes", "how chunks are marked while learning", choices=("bio", "iobes"))
    vectors: str = setting("", "word vectors to begin with, such as WORKDIR/vectors.txt of word2vec.py")
    min_count: int = setting(1, "words, or features, seen less often in training are unknown", low=1)
    forget: float = setting(0.5, "probability that a word seen once is unknown for a step", low=0.0, high=1.0)
    zeros: bool = setting(True, "digits are all read as 0")
    batch: int = setting(32, "sentences of a step", low=1)
    longest: int = setting(200, "words of a training sentence; longer ones are cut in pieces", low=2)
    shapes: int = setting(4, "lengths that batches are padded to; each is compiled by itself", low=1)
    epochs: int = setting(8, "passes over the sentences", low=1)
    lr: float = setting(3e-3, "AdamW's highest learning rate, falling by half a cosine", low=0.0)
    weight_decay: float = setting(0.0, "AdamW's decay of all but biases", low=0.0)
    clip: float = setting(5.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)


PRESETS = {
    "conll2000_bilstm_crf": {"help": "x", "data": "conll2000", "columns": 1, "epochs": 15},
    "conll2003_lample": {"help": "x", "data": "conll2003", "epochs": 20},
}
PUBLISHED = {}


def main(config):
    import jax
    import numpy as np

    from lmjax.data import tag_rows, tagged
    from lmjax.evaluate.tagging import accuracy, chunk_scores
    from lmjax.models import crf, tagger
    from lmjax.run import tagging
    from lmjax.run.training import best_params, finish, fit, session
    from lmjax.train import optim

    data = tagged.load_tagged(config.data, config.data_dir or None, config.chunks)
    splits = tagged.splits(data)
    scheme = config.scheme if data.chunks else "plain"

    with session("tag", config) as run:
        known = tag_rows.vocabulary(splits["train"], scheme, config.columns, config.min_count, zeros=config.zeros)
        known.save(run.workdir / "vocabulary.json")
        model = tagging.sized(config.features if config.network == "features" else config.model, known)
        family = tagging.FAMILIES[type(model)]
        encoded = {name: tag_rows.rows(part, known) for name, part in splits.items() if name != "train"}
        train = tag_rows.rows(tag_rows.split_long(splits["train"], config.longest), known)
        legal = crf.allowed(known.tags, scheme)
        devices = jax.device_count() if config.strategy in ("auto", "pmap") else 1
        batch, steps = tag_rows.batches(
            train, config.batch, config.seed, shapes=config.shapes, parts=devices * config.accumulate,
            once=np.array(known.once), forget=config.forget,
        )  # fmt: skip

        def scores(params, name):
            found = tagging.answers(tagging.Tagger(params, model, known), encoded[name], check=run.check)
            return [tagging.plain(tags, scheme) for tags, _ in found]

        def loss(params, batch, key, carry):
            return tagger.tag_loss(params, batch, family.emissions(params, model, batch, key), legal)

        def validate(params):
            called, true = scores(params, "valid"), [one.tags for one in splits["valid"]]
            _, _, f1 = chunk_scores(true, called)[""]
            return {"loss": 1 - f1, "f1": 100 * f1}

        rate = optim.warmup_cosine(config.lr, config.epochs * steps, steps // 2)
        outcome = fit(
            run,
            specs=family.params(model),
            loss=loss,
            tx=optim.adamw(rate, weight_decay=config.weight_decay),
            accumulate=config.accumulate,
            clip=config.clip,
            batch=batch,
            steps=config.epochs * steps,
            evaluate=validate,
            evaluate_every=steps,
            tokens_per_step=round(sum(map(len, train.words)) / steps),
            learning_rate=rate,
        )
        params = best_params(run, family.params(model))
        called, true = scores(params, "test"), [one.tags for one in splits["test"]]
        precision, recall, f1 = chunk_scores(true, called)[""]
        metrics = {"validation_f1": max(line["f1"] for line in outcome.history), "test_f1": 100 * f1,
                   "test_precision": 100 * precision, "test_recall": 100 * recall,
                   "test_accuracy": 100 * accuracy(true, called)}  # fmt: skip
        finish(run, PRESETS, outcome, metrics, PUBLISHED.get(config.preset, {}))


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
