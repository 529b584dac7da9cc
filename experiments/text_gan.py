"""Writes sentences like those of a set, and measures them: captions, news, Tang poems, or lines of your own.

    bash launch/run.sh experiments/text_gan.py

learns by likelihood from the sentences of the Python documentation (nothing to download), prints some of its own, and
judges 2,000 of them at each temperature. --data=FILE takes your own, one a line.

    bash launch/run.sh experiments/text_gan.py --preset=coco_texygen_mle --seeds=5 --data_dir=DATA --workdir=MLE
    bash launch/run.sh experiments/text_gan.py --preset=coco_seqgan --seeds=5 --data_dir=DATA --start=MLE --beside=MLE

The second is SeqGAN (Yu et al. 2017), which goes on from the first. DATA holds the folder `text-gan` with the files
that lmjax/data/captions.py names (plain or .gz), or they are fetched. Every figure's definition stands under the
table.

Quality and variety are traded for each other by the temperature alone, so one figure of a model says little (Caccia et
al. 2020, "Language GANs falling short"): WORKDIR/curve.png has test BLEU-4 against self-BLEU-4 from temperature 0.7 to
1.4, of this run, of those that --beside names, and of published ones. samples.txt has 200 sentences at each.

Published figures for captions are Texygen's (Zhu et al. 2018): image_coco.txt to train on and test_coco.txt for
references, 10,000 captions each, taken apart by nltk's word_tokenize; 10,000 generated ones. That this is how they were
taken is known from their row of the training lines, which the same functions give here to within 0.1 points.

Measured: coco_texygen_mle at temperature 1, five seeds, test BLEU-2..5 73.2 50.0 31.1 19.4 (published 73.1 49.7 30.5
18.9) and self-BLEU 91.6 77.4 59.1 41.9 (91.6 76.9 58.3 40.8), some 10 minutes of one core. Its 80 epochs overfit: the
validation loss is 3.53 nats a token after 10 and 4.60 at the end. The weights of the tenth (--select=best) score less,
71.2 46.4 27.5 16.9, and repeat themselves less, 87.8 68.8 47.5 30.6.

coco_seqgan from those, 73.8 49.4 29.5 17.9 (published 74.5 49.8 29.4 18.0) and 94.9 84.2 67.9 50.2 (95.0 84.0 67.0
48.9), half an hour. Its spread over seeds is wide, 2.9 points of BLEU-4. At equal self-BLEU its BLEU is below maximum
likelihood's along the whole curve: the game cost variety and bought nothing that temperature does not give.

tang_mle, two seeds, the epoch best on validation, ten minutes: BLEU-2..5 60.0 21.3 8.2 4.6 (of the training lines 65.4
27.5 11.5 6.6), nothing copied, and every one in four lines of five characters.

SeqGAN's discriminator there reads 10,000 true captions and 128 made up, mixed; here as many made up as true ones.
Departures: 500 training lines are held out for validation; sentences of like length share a batch, and no padding is
learnt; the game is about captions of at most 20 tokens.
"""

from dataclasses import dataclass, replace

from lmjax.config import Generator, TextDiscriminator, setting, sized
from lmjax.errors import UserError
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Game:
    """SeqGAN's, as Texygen plays it on captions; its sequences have one length."""

    length: int = setting(21, "tokens of a sequence, its end counted; longer lines are left out", low=2)
    epochs: int = setting(3, "of likelihood on filled-up rows, to learn that nothing follows an end", low=0)
    first: int = setting(80, "rounds of the discriminator before the game", low=0)
    each: int = setting(15, "rounds of the discriminator for each update of the generator", low=1)
    sequences: int = setting(96, "true sequences of such a round, and as many made up", low=32)
    rollouts: int = setting(16, "completions of each prefix", low=1)
    policy_keep: float = setting(0.8, "share of the roll-out policy that a round leaves as it was", low=0.0, high=1.0)
    lr: float = setting(0.01, "learning rate of the policy gradient", low=0.0)
    discriminator_lr: float = setting(1e-4, "learning rate of the discriminator", low=0.0)
    discriminator: TextDiscriminator = setting(
        TextDiscriminator(embed=32, windows=(2, 3), maps=(100, 200), dropout=0.25, l2=0.2), "the discriminator"
    )


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("pydoc", "coco, coco-texygen, emnlp-news, tang, quan-tang, pydoc, or a file, a sentence a line")
    longest: int = setting(0, "tokens of a training line, longer ones are left out; 0: any", low=0)
    model: Generator = setting(Generator(), "the generator; its length is that of the longest training line")
    form: str = setting("in_turn", "of lanes on a CPU", choices=("measured", "at_once", "in_turn"))
    batch: int = setting(64, "sentences a step", low=1)
    shapes: int = setting(4, "lengths that batches are padded to: fewer compile faster, more run faster", low=1)
    epochs: int = setting(20, "passes over the training lines", low=1)
    lr: float = setting(0.01, "learning rate of Adam", low=0.0)
    clip: float = setting(5.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    rounds: int = setting(0, "of the game against a discriminator (SeqGAN); 0: likelihood alone", low=0)
    start: str = setting("", "with --rounds: workdir of a run by likelihood on the same set with the same seeds, which "
                             "the game goes on from")  # fmt: skip
    game: Game = setting(Game(), "with --rounds")
    select: str = setting(
        "best", "the weights that are judged: of the epoch best on validation lines, or the last; with --rounds, those "
        "of --start that the game goes on from", choices=("best", "last"),
    )  # fmt: skip
    samples: int = setting(2_000, "sentences that are judged, at each temperature and of each training", low=40)
    temperatures: tuple[float, ...] = setting((0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4), "the table's and the curve's")
    judge_cells: int = setting(64, "cells and width of the language models of nll_real and reverse_nll", low=1)
    judge_epochs: int = setting(10, "their passes over what they learn from", low=1)
    judge_lr: float = setting(0.005, "their learning rate", low=0.0)
    beside: tuple[str, ...] = setting((), "workdirs of finished runs on the same set, drawn into the same picture")
    show: int = setting(10, "sentences printed at temperature 1", low=0)

    def __post_init__(self):
        super().__post_init__()
        if not self.temperatures or min(self.temperatures) < 0.05:
            raise ValueError("--temperatures: expected numbers of at least 0.05, such as --temperatures=0.8,1,1.2")
        if self.rounds and max(self.game.discriminator.windows) > self.game.length:
            raise ValueError(f"game.discriminator.windows={self.game.discriminator.windows} are wider than "
                             f"game.length={self.game.length}: choose narrower")  # fmt: skip


JUDGING = ("samples", "temperatures", "judge_cells", "judge_epochs", "judge_lr", "beside", "show", "select")
FREE = ("start", "temperatures", "beside", "show")  # what a run may set otherwise and still be its preset's
COLUMNS = (*(f"{name}_{n}" for name in ("test_bleu", "self_bleu") for n in (2, 3, 4, 5)),
           "nll_real", "distinct_2", "copied", "length")  # fmt: skip
KEPT = 200  # sentences of each temperature in samples.txt
PRESETS = {
    "coco_texygen_mle": {
        "help": "Texygen's MLE: test BLEU-2..5 73.1 49.7 30.5 18.9, self-BLEU 91.6 76.9 58.3 40.8",
        "data": "coco-texygen", "epochs": 80, "select": "last", "samples": 10_000,
    },
    "coco_seqgan": {
        "help": "Texygen's SeqGAN, from --start=WORKDIR of coco_texygen_mle: 74.5 49.8 29.4 18.0, 95.0 84.0 67.0 48.9",
        "data": "coco-texygen", "rounds": 100, "select": "last", "samples": 10_000,
    },
    "coco_mle": {"help": "LeakGAN's form of the captions, the best of 80 epochs", "data": "coco", "epochs": 80,
                 "samples": 10_000},
    "news_mle": {
        "help": "EMNLP 2017 news, its 10,000 validation sentences to train on (papers: 278,686)",
        "data": "emnlp-news", "epochs": 40, "model.embed": 128, "model.cells": 128, "lr": 0.005, "samples": 10_000,
    },
    "tang_mle": {
        "help": "Tang poems, four lines of five characters", "data": "quan-tang", "epochs": 20, "model.embed": 64,
        "model.cells": 128, "lr": 0.005,
    },
}  # fmt: skip

# Zhu et al. 2018 and docs/evaluation.md of Texygen: test BLEU-2..5 and self-BLEU-2..5 in percent. Their generator has
# 32 cells and reads batches of 64 at a rate of .01, for 80 epochs.
TEXYGEN = {
    "MLE": ((73.1, 49.7, 30.5, 18.9), (91.6, 76.9, 58.3, 40.8)),
    "SeqGAN": ((74.5, 49.8, 29.4, 18.0), (95.0, 84.0, 67.0, 48.9)),
    "MaliGAN": ((67.3, 43.2, 25.7, 15.9), (91.8, 78.1, 60.6, 43.7)),
    "RankGAN": ((74.3, 46.7, 26.4, 15.6), (95.9, 88.2, 76.2, 61.8)),
    "LeakGAN": ((74.6, 52.8, 35.5, 23.0), (96.6, 91.3, 84.8, 78.0)),
    "TextGAN": ((59.3, 46.3, 27.7, 20.7), (94.2, 93.1, 80.4, 74.6)),
    "training lines": ((74.0, 52.0, 33.7, 21.8), (89.2, 74.7, 57.3, 41.5)),
}


def rows(method: str) -> dict:
    pairs = zip(("test_bleu", "self_bleu"), TEXYGEN[method])
    source = "Zhu et al. 2018, Texygen"
    return {f"{name}_{n}": (value, source, "V") for name, row in pairs for n, value in enumerate(row, 2)}


PUBLISHED = {"coco_texygen_mle": rows("MLE"), "coco_seqgan": rows("SeqGAN")}
NEEDS = {
    "coco_texygen_mle": {"flags": {"seeds": 5}},
    "coco_seqgan": {"flags": {"seeds": 5}, "start": "text_gan/coco_texygen_mle"},
    "tang_mle": {"flags": {"seeds": 2}},
}


def main(config):
    from lmjax.data import captions
    from lmjax.run import lanes
    from lmjax.run.tasks import generating
    from lmjax.run.training import session

    if bool(config.rounds) != bool(config.start):
        raise UserError("--rounds and --start go together: a game goes on from a run by likelihood, such as "
                        "--rounds=100 --start=WORKDIR")  # fmt: skip
    text = captions.load_sentences(config.data, config.data_dir or None, config.longest)
    words = captions.vocabulary(text.train)
    train, valid = captions.rows(text.train, words), captions.rows(text.valid, words)
    seeds = [one.seed for one in lanes.asked(config, whole=True).lanes]
    beside = [generating.read(folder, config.data) for folder in config.beside]
    with session("text_gan", config, may_change=JUDGING) as run:
        run.say(f"{len(text.train):,} training lines of {train.lengths.mean() - 1:.1f} tokens, at most "
                f"{train.lengths.max() - 1}, {len(words):,} types; {text.notes}")  # fmt: skip
        model = replace(sized(config.model, len(words)), length=int(train.lengths.max()), start=captions.END)
        learn = by_playing if config.rounds else by_likelihood
        tools = generating.scorer(model, run.check), generating.writer(model, words, run.check)
        outcome, generators = learn(run, text, train, valid, model, seeds, *tools)
        judged(run, outcome, text, words, model, seeds, generators, beside, *tools)


def by_likelihood(run, text, train, valid, model, seeds, nats, write):
    """(Outcome, the weights of a generator for each seed), trained side by side.

    nats, write: scorer and writer of `model`, see run/generating.py.
    """

    from lmjax.data import captions
    from lmjax.models.seqgan import generator_params
    from lmjax.run.tasks import generating
    from lmjax.run.training import fit
    from lmjax.train import optim
    from lmjax.train.lanes import lane
    from lmjax.train.step import Recipe

    config = run.config
    _, per_epoch = captions.by_length(train, config.batch, config.seed, config.shapes)

    def recipe(config):
        return Recipe(optim.adamw(config.lr), generating.likelihood(model), clip=config.clip)

    outcome = fit(
        run,
        specs=generator_params(model),
        recipe=recipe,
        batches=lambda seed: captions.by_length(train, config.batch, seed, config.shapes)[0],
        steps=config.epochs * per_epoch,
        evaluate=lambda params: {"loss": nats(params, valid)},
        evaluate_every=per_epoch,
        tokens_per_step=round(train.lengths.sum() / per_epoch),
        best=config.select == "best",
    )
    return outcome, [lane(outcome.params, n) for n in range(len(seeds))] if outcome.lanes else [outcome.params]


def by_playing(run, text, train, valid, model, seeds, nats, write):
    """The same by SeqGAN's game, from the generators of a run by likelihood.

    Rows of the game are filled up with ends, so the generator first learns by a few epochs of likelihood on such rows
    that nothing follows an end; the first two points of the history are before and after them.
    """
    import jax
    import numpy as np

    from lmjax.evaluate import generation
    from lmjax.models.seqgan import generator_params, sample
    from lmjax.models.text_discriminator import discriminator_params, truth
    from lmjax.run import lanes
    from lmjax.run.tasks import sequences, writing
    from lmjax.run.training import fit
    from lmjax.run.weights import all_trained
    from lmjax.run.workdir import stored
    from lmjax.train.lanes import lane
    from lmjax.train.step import Recipe

    config, game, N = run.config, run.config.game, len(seeds)
    was = stored(config.start)
    for name in ("data", "longest", "seed", "seeds"):
        there, here = was["config"].get(name), getattr(config, name)
        if was["experiment"] != "text_gan" or there != here or was["config"].get("rounds"):
            raise UserError(f"--start={config.start} is a run of {was['experiment']} with {name}={there}: expected "
                            f"one of text_gan by likelihood with {name}={here}")  # fmt: skip
    short = replace(model, length=game.length)
    rows = train.tokens[train.lengths <= game.length, : game.length]
    run.say(f"the game is about the {len(rows):,} training lines of at most {game.length - 1} tokens")
    critic = replace(game.discriminator, vocab=model.vocab)
    generator, specs = generator_params(model), {}
    for name in ("generator", "policy"):
        specs[name] = generator
    specs["discriminator"] = discriminator_params(critic)
    begun = all_trained(config.start, generator, N, config.select, "--start")
    plan = writing.Plan(game.epochs, game.first, config.rounds, game.each, config.batch, game.sequences)

    def recipe(config):
        game = config.game
        tx = sequences.players(config.lr, game.lr, game.discriminator_lr)
        return Recipe(tx, step=sequences.make_step(
            sequences.Game(short, critic, tx, writing.judged_by(critic), game.rollouts, game.policy_keep, epochs=1)
        ))  # fmt: skip

    known = generation.references(text.valid)

    @jax.jit
    def believed(params):
        made = sample(params["generator"], short, jax.random.key(17), 512)
        return truth(params["discriminator"], critic, made).mean()

    def validate(params):
        found = []
        for n in range(N):
            own = lane(params, n)
            sentences = write(own["generator"], jax.random.key(17), 1000, 1.0)
            found.append({
                "loss": nats(own["generator"], valid), "judged": float(believed(own)),
                "bleu_4": 100 * generation.bleu(sentences, known, (4,))[4],
                "self_bleu_4": 100 * generation.self_bleu(sentences, (4,))[4],
                "distinct": len(set(map(tuple, sentences))) / len(sentences),
            })  # fmt: skip
        means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
        return means | {f"{name}_{n}": value for n, one in enumerate(found) for name, value in one.items()}

    outcome = fit(
        run,
        specs=specs,
        recipe=recipe,
        batches=lambda seed: lambda step: writing.batch(plan, rows, seed, step),
        steps=plan.steps,
        evaluate=validate,
        evaluate_every=10,
        tokens_per_step=0,
        decide=writing.notices(run.say, lanes.names(lanes.asked(config, whole=True))),
        whole=True,
        weights={"generator": begun, "policy": begun},
    )
    return outcome, [lane(outcome.params["generator"], n) for n in range(N)]


def judged(run, outcome, text, words, model, seeds, generators, beside, nats, write):
    """The table, the curve, the samples and the record of the `generators`, weights of one a seed."""
    import jax
    import numpy as np

    from lmjax.evaluate import generation
    from lmjax.run.tasks import generating
    from lmjax.run.training import finish

    config, check = run.config, run.check
    cells = replace(model, embed=config.judge_cells, cells=config.judge_cells)
    judges = generating.judges(text, words, cells, config.judge_epochs, config.judge_lr, check)
    temperatures = sorted({*config.temperatures, 1.0})
    found, kept = {}, {}
    for number, temperature in enumerate(temperatures):
        for seed, params in zip(seeds, generators):
            key = jax.random.fold_in(jax.random.key(seed), number)
            sentences = write(params, key, config.samples, temperature)
            scores = judges.scores(sentences)
            if temperature == 1.0:
                scores |= {"nll_gen": nats(params, judges.readable), "reverse_nll": judges.reverse(sentences)}
            found.setdefault(temperature, []).append(scores)
            kept.setdefault(temperature, sentences[:KEPT])
    figures = {name: [[one[name] for one in found[t]] for t in temperatures] for name in COLUMNS}
    name = config.preset or ("seqgan" if config.rounds else "likelihood")
    curve = generating.Curve(name, config.data, temperatures, figures)
    generating.save(curve, run.workdir / "curve.json")

    training = text.train + text.valid
    at = np.random.default_rng(0).permutation(len(training))[: config.samples]
    training = [training[i] for i in at]
    real = judges.scores(training) | {"reverse_nll": judges.reverse(training)}

    print(f"\n{config.samples:,} sentences at each temperature, mean of {len(seeds)} trainings; nll_gen and "
          f"reverse_nll on the {len(judges.readable.lengths):,} of {len(text.test):,} test lines without a word that "
          "training lacks\n")  # fmt: skip
    print(f"{'temperature':15}" + "".join(f"{column.replace('test_', '').replace('_', '-'):>12}" for column in COLUMNS))
    for temperature in temperatures:
        row = [np.mean([one[column] for one in found[temperature]]) for column in COLUMNS]
        print(f"{temperature:<15g}" + "".join(f"{value:12.2f}" for value in row))
    print(f"{'training lines':15}" + "".join(f"{real[column]:12.2f}" for column in COLUMNS))
    others = TEXYGEN if config.data == "coco-texygen" else {}
    for other, rows in others.items():
        print(f"{other:15}" + "".join(f"{value:12.2f}" for row in rows for value in row) + "   published")
    print("\n" + "\n".join(f"{name}: {meaning}" for name, meaning in generation.DEFINITIONS.items()) + "\n")

    with open(run.workdir / "samples.txt", "w", encoding="utf-8") as file:
        for temperature, sentences in kept.items():
            file.write(f"# temperature {temperature:g}, seed {seeds[0]}\n")
            file.writelines(" ".join(sentence) + "\n" for sentence in sentences)
    print("\n".join(" ".join(sentence) for sentence in kept[1.0][: config.show]) + "\n")
    marks = {other: (rows[1][2], rows[0][2]) for other, rows in others.items()}
    marks = marks or {"training lines": (real["self_bleu_4"], real["test_bleu_4"])}
    generating.draw([curve, *beside], marks, run.workdir / "curve.png", f"{config.data}: temperature's trade")
    metrics = {figure: [one[figure] for one in found[1.0]] for figure in found[1.0][0]}
    notes = f"at temperature 1; {text.notes}; reverse_nll of training lines {real['reverse_nll']:.3f}"
    published = PUBLISHED.get(config.preset, {}) if config.data == "coco-texygen" else {}
    finish(run, PRESETS, outcome, metrics, published, notes, free=FREE)


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
