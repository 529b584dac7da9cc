"""Translation between English and German on Multi30k: the Transformer of Vaswani et al. 2017 and the rungs below it.

    bash launch/run.sh experiments/translate_multi30k.py --preset=transformer_de_en --data_dir=DATA

is the last rung of a much-read PyTorch tutorial's ladder (github.com/bentrevett/pytorch-seq2seq, legacy 6): German to
English, 9 M parameters, ten epochs, words that occur twice, greedy decoding; published perplexity 5.32, BLEU 36.52.

    bash launch/run.sh experiments/translate_multi30k.py --preset=rnn_de_en --data_dir=DATA

is the rung below it (legacy 4): gated recurrent units that learn where to look (Bahdanau et al. 2015), 20.5 M
parameters; published perplexity 23.18, BLEU 28.11. Measured, seed 0: 6.62 and 33.1, in 50 minutes of one core.
Departure: every word is predicted after the right ones; the tutorial feeds back the model's own in half of the batches.

    bash launch/run.sh experiments/translate_multi30k.py --preset=tiny_en_de --data_dir=DATA

is the text-only Transformer-Tiny of Wu et al. 2021, English to German: 2.6 M parameters over 10,000 joint byte pairs,
beam 5, the mean of the last ten epochs' weights; published BLEU 41.02 (flickr2016), 33.36 (flickr2017), 29.88 (mscoco).
Measured, seed 0: 41.35, 33.18 and 29.23, in two hours of one core; after half of its 100 epochs 40.51, 32.18 and 28.80.

A finished run is trained on by more --epochs in its --workdir, to the bits that as many in one go would have ended in.

Multi30k is looked for under DATA and downloaded where it is not there; --data=FOLDER takes train.de, train.en,
valid.de, ... of your own. BLEU is taken on the tokens that the published work scored, and the record keeps sacrebleu's
signature. Needs the translate extra. WORKDIR/TEST.txt holds the translations, and experiments/translate.py translates
lines of yours.
"""

from dataclasses import dataclass

from lmjax.config import RNNSearch, Seq2Seq, setting, sized_pair
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("multi30k", "multi30k, or a folder with train.de, train.en, valid.de, ...")
    source: str = setting("de", "language to translate from: the ending of its files")
    target: str = setting("en", "language to translate into")
    tokens: str = setting(
        "spacy", "rules that cut lines into lower-case tokens; spaces: the files are tokens already",
        choices=("spacy", "moses", "spaces"),
    )  # fmt: skip
    vocab: int = setting(0, "joint byte-pair units of both languages; 0: the words of each that occur twice", low=0)
    network: str = setting("transformer", "which of the two below is trained", choices=("transformer", "rnn"))
    model: Seq2Seq = setting(Seq2Seq(), "the Transformer")
    rnn: RNNSearch = setting(RNNSearch(), "the recurrent network with attention")
    rows: int = setting(128, "sentence pairs of a step; 0: as many as --budget holds", low=0)
    budget: int = setting(4096, "tokens of a step, padding too, where --rows=0", low=1)
    shapes: int = setting(6, "lengths that batches are padded to; each is compiled by itself", low=1)
    epochs: int = setting(10, "passes over the pairs", low=1)
    lr: float = setting(5e-4, "Adam's learning rate, the highest with --warmup", low=0.0)
    warmup: int = setting(0, "steps it rises over, to fall as 1/sqrt(step); 0: it stays", low=0)
    beta2: float = setting(0.999, "Adam's decay of squared gradients", low=0.0, high=1.0)
    smoothing: float = setting(0.0, "share of each target spread over the vocabulary", low=0.0, high=0.99)
    clip: float = setting(1.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    average: int = setting(0, "epochs at the end whose weights are averaged; 0: the best epoch's", low=0)
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)
    beam: int = setting(1, "hypotheses of a sentence; 1: greedy", low=1)
    alpha: float = setting(1.0, "of the length penalty, ((offset + length) / (offset + 1))^alpha", low=0.0)
    offset: float = setting(5.0, "of the length penalty: 5 is GNMT's, 0 divides by length^alpha as fairseq", low=0.0)


PRESETS = {
    "transformer_de_en": {
        "help": "3+3 layers, d 256: published test perplexity 5.32, BLEU 36.52 on flickr2016",
        "model.positions": "learned", "model.dropout_attention": 0.1, "model.dropout_hidden": 0.1,
        "model.init_words": 0.017,
    },
    "rnn_de_en": {
        "help": "GRUs with attention, 256 and 512: published test perplexity 23.18, BLEU 28.11 on flickr2016",
        "network": "rnn", "lr": 1e-3,
    },
    "tiny_en_de": {
        "help": "4+4 layers, d 128, joint BPE: published BLEU 41.02, 33.36, 29.88",
        "source": "en", "target": "de", "tokens": "moses", "vocab": 10_000, "model.layers": 4, "model.heads": 4,
        "model.dim": 128, "model.hidden": 256, "model.shared": True, "model.dropout": 0.3, "rows": 0,
        "epochs": 100, "lr": 5e-3, "warmup": 2000, "beta2": 0.98, "smoothing": 0.1, "clip": 0.0, "average": 10,
        "beam": 5, "offset": 0.0,
    },
}  # fmt: skip
LADDER, RUNG = "pytorch-seq2seq legacy 6", "pytorch-seq2seq legacy 4"
WU = "Wu et al. 2021, Transformer-Tiny"
PUBLISHED = {
    "transformer_de_en": {"test_perplexity": (5.32, LADDER, "V"), "bleu_2016_flickr": (36.52, LADDER, "V")},
    "rnn_de_en": {"test_perplexity": (23.18, RUNG, "V"), "bleu_2016_flickr": (28.11, RUNG, "V")},
    "tiny_en_de": {"bleu_2016_flickr": (41.02, WU, "V"), "bleu_2017_flickr": (33.36, WU, "R"),
                   "bleu_2017_mscoco": (29.88, WU, "R")},
}  # fmt: skip
NEEDS = {preset: {"extra": "translate"} for preset in PRESETS}


def main(config):
    import math

    from lmjax.data import batches, pairs
    from lmjax.evaluate.perplexity import compile_loss, mean_nll
    from lmjax.evaluate.translation import bleu
    from lmjax.run.lanes import each
    from lmjax.run.tasks.translating import TOKENS, Translator, family, fits, translate
    from lmjax.run.training import finish, fit, session
    from lmjax.train import optim
    from lmjax.train.step import Recipe

    text = pairs.load_pairs(config.data, config.source, config.target, config.data_dir or None)
    cut = [TOKENS[config.tokens](language) for language in (config.source, config.target)]
    bleu([""], [""])  # its library is missed now, not after training

    def tokens(split):
        return pairs.Sentences(*([rule(line) for line in side] for rule, side in zip(cut, split, strict=True)))

    train, valid = tokens(text.train), tokens(text.valid)
    tests = {name: tokens(split) for name, split in text.tests.items()}
    if config.vocab:
        vocabularies = [pairs.joint_vocabulary([*train.source, *train.target], config.vocab)] * 2
    else:
        vocabularies = [pairs.word_vocabulary(side) for side in train]
    with session("translate_multi30k", config, may_change=("beam", "alpha", "offset"), may_grow=("epochs",)) as run:
        source, target = (
            run.kept(f"{name}.json", made)
            for name, made in zip(("source", "target"), vocabularies, strict=True)
        )
        network = config.rnn if config.network == "rnn" else config.model
        model, begin = sized_pair(network, source.vocab, target.vocab), target.id(pairs.BEGIN)
        kind = family(model)

        def encoded(split):
            ids = pairs.Sentences(pairs.encode(source, split.source), pairs.encode(target, split.target))
            for side, lines in zip(ids, split, strict=True):
                fits(model, side, lines)
            return ids

        sides = encoded(train)

        def reading(seed):
            return batches.bucketed(
                *sides, begin, rows=config.rows, budget=config.budget, shapes=config.shapes, seed=seed
            )

        data = reading(config.seed)
        plain = compile_loss(lambda params, batch, key, carry: kind.loss(params, model, batch, key, carry))

        def perplexity(params, split):
            rows = (batch for _, batch in batches.sorted_batches(*split, begin, 128))
            return math.exp(mean_nll(plain, params, rows, check=run.check))

        held_out = encoded(valid)

        def validate(params):
            value = perplexity(params, held_out)
            return {"loss": math.log(value), "perplexity": value}

        steps = config.epochs * data.steps

        def recipe(config):
            network = config.rnn if config.network == "rnn" else config.model
            model = sized_pair(network, source.vocab, target.vocab)
            rate = optim.inverse_square_root(config.lr, config.warmup) if config.warmup else lambda step: config.lr
            return Recipe(
                tx=optim.adamw(rate, b2=config.beta2),
                loss=lambda *given: kind.loss(given[0], model, *given[1:], smoothing=config.smoothing),
                accumulate=config.accumulate,
                clip=config.clip,
                averaging=optim.last_snapshots(config.average, data.steps, steps) if config.average else None,
                learning_rate=rate,
            )

        outcome = fit(
            run,
            specs=kind.params(model),
            recipe=recipe,
            batches=lambda seed: reading(seed).batch,
            steps=steps,
            evaluate=validate,
            evaluate_every=data.steps,
            tokens_per_step=round(data.tokens),
            best=not config.average,
            alike=False,
        )
        signature = ""

        def figures(run, outcome):
            nonlocal signature
            translator = Translator(outcome.params, model, source, target, cut[0])
            metrics = {"validation_perplexity": min(line["perplexity"] for line in outcome.history)}
            for name, split in tests.items():
                said = translate(translator, split.source, width=config.beam, alpha=config.alpha, offset=config.offset,
                                 check=run.check)  # fmt: skip
                (run.workdir / f"{name}.txt").write_text("\n".join(said) + "\n", encoding="utf-8")
                metrics[f"bleu_{name.removeprefix('test_')}"], signature = bleu(said, split.target)
                if name == next(iter(tests)):
                    metrics["test_perplexity"] = perplexity(outcome.params, encoded(split))
                    show(split, said)
            return metrics

        found = each(run, outcome, figures)
        finish(run, PRESETS, outcome, found, PUBLISHED.get(config.preset, {}), notes=f"BLEU: {signature}")


def show(split, said, count: int = 4):
    """A few sentences as a reader would look at them."""
    for i in range(0, len(said), max(len(said) // count, 1)):
        print(f"\n  source     {split.source[i]}\n  reference  {split.target[i]}\n  said       {said[i]}")
    print(flush=True)


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
