"""SeqGAN and RelGAN on made-up data whose true distribution is known (Yu et al. 2017, section 4, arXiv:1609.05473; Nie
et al. 2019).

An LSTM with random weights, the oracle, writes the training sequences, and says afterwards how likely it would have
written what the trained generator writes: NLL_oracle, in nats a token. Lower is better, but a generator that writes its
one likeliest sequence over and over has a low one too; so the share of distinct sequences stands beside it, and the
likelihood of held-out sequences.

    bash launch/run.sh experiments/seqgan.py

needs no file, and a minute: a small oracle from a seed, maximum likelihood and then the game, two seeds as lanes of one
program.
The presets are the table's rows, with the published oracle's file (`seqgan-oracle/target_params.npz` under DATA):

    bash launch/run.sh experiments/seqgan.py --preset=mle --data_dir=DATA
    bash launch/run.sh experiments/seqgan.py --preset=seqgan --data_dir=DATA [--start=WORKDIR OF mle]
    bash launch/run.sh experiments/seqgan.py --preset=relgan --data_dir=DATA

A step is an epoch of maximum likelihood or a round of the game. The same command on the same --workdir goes on where a
killed run stopped. --oracle=generated runs the presets on an oracle of your own; --method=relgan is RelGAN on the small
one, four minutes: NLL_oracle falls from 5.50 to 4.40 in five rounds of 50 updates, with 99.8 % of the sequences
distinct, and then to 3.64 (the oracle's own: 3.51) while the generator collapses to 6 %, which the log says.

What the published oracle's file says: its own sequences 5.744 (published: 5.750), uniformly random ones 11.42 and an
untrained generator's 11.44. The published 10.310 for random ones must be of another oracle: with this one no
generator that knows nothing of it can be there. Maximum likelihood ends at 9.013, five seeds (published: 9.038), in
some 18 minutes of one core: 9.48 after 5 epochs, 9.15 after 10, 9.03 after 20, 9.00 to 9.02 from the 30th on. Held-
out sequences are likeliest after the fifth (7.61 nats a token; 8.95 after 80): what the table's figure rewards in
later epochs is not a better model of the data. Scheduled sampling is at its best, 9.06, after 25 epochs and ends at
9.171 ± 0.017 (published: 8.985). PG-BLEU, 200 updates from the last generators, ends at 8.65 ± 0.14 (published: 8.946)
with 99.7 % of its sequences distinct, in twelve minutes. seqgan_cpu from the same ends at 8.794 ± 0.059 (published:
8.736, with fifty times the discriminator's updates) with 99.97 % distinct, in 40 minutes: 8.91 after 5 rounds, 8.75
after 30, and slowly up from there, as its discriminator comes to know what is made up.
"""

from dataclasses import dataclass

from lmjax.config import Generator, MemoryGenerator, TextDiscriminator, ViewsDiscriminator, setting
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    oracle: str = setting("generated", "the true distribution: generated, published, or the path of an .npz like that")
    oracle_seed: int = setting(0, "draws the generated oracle, and the sequences of any", low=0)
    model: Generator = setting(Generator(vocab=300, length=12), "the generator; the oracle has its sizes")
    judge: TextDiscriminator = setting(
        TextDiscriminator(windows=(1, 2, 3, 4, 5), maps=(50, 50, 50, 50, 50)), "the discriminator"
    )
    method: str = setting(
        "seqgan", "an LSTM that learns from rewards, or a memory that learns from the discriminator's gradient",
        choices=("seqgan", "relgan"),
    )  # fmt: skip
    memory: MemoryGenerator = setting(MemoryGenerator(head_size=32), "RelGAN's generator")
    views: ViewsDiscriminator = setting(ViewsDiscriminator(views=8, maps=(50, 50, 50, 50)), "RelGAN's discriminator")
    updates: int = setting(50, "RelGAN: updates of the generator in a round", low=1)
    judge_updates: int = setting(5, "RelGAN: of the discriminator after each", low=1)
    sharpness: float = setting(2.0, "RelGAN: what the relaxed tokens' inverse temperature grows to", low=1.0)
    sharpen: int = setting(5000, "RelGAN: updates of the generator it takes to get there from 1", low=1)
    seeds: int = setting(2, "trainings side by side in one program: of --seed, and those that follow it", low=1)
    form: str = setting("in_turn", "of lanes on a CPU", choices=("measured", "at_once", "in_turn"))
    sequences: int = setting(2000, "training sequences that the oracle writes", low=1)
    held_out: int = setting(1000, "sequences of its that validation reads", low=1)
    written: int = setting(2000, "sequences of the generator's that the oracle judges", low=1)
    batch: int = setting(64, "sequences of an update", low=2)
    epochs: int = setting(15, "of maximum likelihood", low=0)
    start: str = setting("", "folder of a run with the same generator and seeds, whose last one is begun with; then no "
                             "epochs of maximum likelihood are trained")  # fmt: skip
    scheduled: float = setting(
        0.0, "scheduled sampling: what the chance of reading its own token grows by, each epoch", low=0.0, high=1.0
    )
    reward: str = setting("discriminator", "of the policy gradient", choices=("discriminator", "bleu"))
    order: int = setting(3, "longest n-grams of the BLEU that is the reward", low=1)
    rounds: int = setting(15, "of the game, or of the policy gradient: updates of the generator", low=0)
    rollouts: int = setting(16, "completions of each prefix", low=1)
    policy_keep: float = setting(
        0.8, "share of the roll-out policy that a round leaves as it was", low=0.0, high=1.0
    )
    judge_first: int = setting(5, "rounds of the discriminator before the game", low=0)
    judge_rounds: int = setting(1, "of the discriminator for each of the game", low=1)
    judge_epochs: int = setting(3, "over the sequences of such a round", low=1)
    judge_sequences: int = setting(
        320, "true ones of such a round, and as many made up; 0: all training sequences", low=0
    )
    lr: float = setting(0.01, "learning rate of the generator", low=0.0)
    reward_lr: float = setting(0.0, "of the generator in the game; 0: 0.01, and RelGAN's 1e-4", low=0.0)
    judge_lr: float = setting(0.0, "of the discriminator; 0: 1e-3, and RelGAN's 1e-4", low=0.0)

    def __post_init__(self):
        super().__post_init__()
        if self.batch % 2:
            raise ValueError(f"batch={self.batch} is odd: a discriminator's is half true, half made up")
        for name in ("sequences", "written"):
            if getattr(self, name) < self.batch:
                raise ValueError(f"{name}={getattr(self, name)} is less than batch={self.batch}: raise it")
        if self.method == "relgan" and self.scheduled:
            raise ValueError(f"scheduled={self.scheduled} with method=relgan: scheduled sampling is SeqGAN's")
        if self.method == "relgan" and self.reward != "discriminator":
            raise ValueError(f"reward={self.reward} with method=relgan: a reward is SeqGAN's, leave it out")
        reader = {"seqgan": "judge", "relgan": "views"}[self.method]
        widths = getattr(self, reader).windows
        if self.rounds and self.reward == "discriminator" and max(widths) > self.model.length:
            raise ValueError(
                f"{reader}.windows={widths} are wider than model.length={self.model.length}: choose narrower"
            )


PAPER = {
    "oracle": "published", "model.vocab": 5000, "model.length": 20, "seeds": 5, "sequences": 10_000, "held_out": 2000,
    "written": 10_000, "epochs": 80, "rounds": 0, "judge_lr": 1e-4, "judge_sequences": 0,
    "judge.windows": TextDiscriminator().windows, "judge.maps": TextDiscriminator().maps,
}  # fmt: skip
_RELGAN = {"method": "relgan", "rounds": 60}
PRESETS = {
    "mle": {"help": "maximum likelihood: NLL_oracle 9.038", **PAPER},
    "scheduled": {"help": "scheduled sampling: 8.985", **PAPER, "scheduled": 0.002},
    "pg_bleu": {"help": "policy gradient, BLEU for a reward: 8.946", **PAPER, "reward": "bleu", "reward_lr": 0.001,
                "rollouts": 1, "rounds": 200},
    "seqgan": {
        "help": "SeqGAN: 8.736; 2e15 FLOP a seed, for a GPU",
        **PAPER, "rounds": 200, "judge_first": 50, "judge_rounds": 5,
    },
    "seqgan_cpu": {
        "help": "SeqGAN with 1 in 50 of the discriminator's updates, at ten times their rate",
        **PAPER, "rounds": 60, "judge_first": 20, "judge_epochs": 1, "judge_sequences": 1024, "judge_lr": 1e-3,
    },
    "relgan": {
        "help": "RelGAN: 6.680; a GPU's, too",
        **PAPER, **_RELGAN, "epochs": 150, "memory.head_size": 256, "views.views": 64,
        "views.maps": ViewsDiscriminator().maps,
    },
    "relgan_cpu": {
        "help": "RelGAN with a memory an eighth as wide, 8 views, a third of the maps and a fifth of the updates",
        **PAPER, **_RELGAN, "epochs": 30, "judge_updates": 1, "views.maps": (100, 100, 100, 100), "seeds": 3,
    },
}  # fmt: skip
_YU, _NIE = ("Yu et al. 2017, table 1", "V"), ("Nie et al. 2019, table 1", "R")
PUBLISHED = {
    "mle": {"nll_oracle": (9.038, *_YU)},
    "scheduled": {"nll_oracle": (8.985, *_YU)},
    "pg_bleu": {"nll_oracle": (8.946, *_YU)},
    "seqgan": {"nll_oracle": (8.736, *_YU)},
    "seqgan_cpu": {"nll_oracle": (8.736, *_YU)},
    "relgan": {"nll_oracle": (6.680, *_NIE)},
    "relgan_cpu": {"nll_oracle": (6.680, *_NIE)},
}
NEEDS = {
    "pg_bleu": {"start": "seqgan/mle"},
    "seqgan": {"start": "seqgan/mle", "gpu": True},
    "seqgan_cpu": {"start": "seqgan/mle"},
    "relgan": {"gpu": True},
}


def main(config):
    from dataclasses import replace

    from lmjax.data.oracle import load_oracle
    from lmjax.errors import UserError
    from lmjax.models import relgan, seqgan
    from lmjax.models.text_discriminator import discriminator_params
    from lmjax.nn.dropout import absent
    from lmjax.run import lanes
    from lmjax.run.tasks import sequences, writing
    from lmjax.run.training import finish, fit, session
    from lmjax.run.weights import all_trained
    from lmjax.train.step import Recipe

    model, several = config.model, lanes.asked(config, whole=True)
    seeds, called = [one.seed for one in several.lanes], lanes.names(several)
    if not model.vocab:
        raise UserError("model.vocab=0: there is no data to take it from, give the number of token types")
    oracle = load_oracle(
        config.oracle, model.vocab, model.embed, model.cells, config.oracle_seed, config.data_dir or None
    )
    plays, relaxes = config.rounds > 0, config.method == "relgan"
    net = relgan if relaxes else seqgan
    writer = replace(config.memory, vocab=model.vocab, length=model.length, start=model.start) if relaxes else model
    specs = {"generator": net.generator_params(writer)}
    judge = None
    if plays and relaxes:
        judge = replace(config.views, vocab=model.vocab)
        specs |= {"discriminator": relgan.discriminator_params(judge)}
    elif plays:
        specs |= {"policy": net.generator_params(writer)}
        if config.reward == "discriminator":
            judge = replace(config.judge, vocab=model.vocab)
            specs |= {"discriminator": discriminator_params(judge)}
    plan = writing.Plan(
        epochs=0 if config.start else config.epochs, first=config.judge_first if judge and not relaxes else 0,
        rounds=config.rounds, judge_rounds=config.judge_updates if relaxes else config.judge_rounds if judge else 0,
        batch=config.batch, judge_sequences=config.judge_sequences or config.sequences,
        updates=config.updates if relaxes else 0,
    )  # fmt: skip
    with session("seqgan", config, may_grow=("rounds",) if plays else ("epochs",)) as run:
        data = writing.from_oracle(oracle, model, config.oracle_seed, config.sequences, config.held_out)
        begin = None
        if config.start:
            begin = all_trained(config.start, {"generator": specs["generator"]}, len(seeds), "last", "--start")
            begin |= {"policy": begin["generator"]} if "policy" in specs else {}
        reward = None
        if plays and not relaxes:
            reward = writing.judged_by(judge) if judge else writing.bleu_reward(data.train, model.vocab, config.order)
        rates = (1e-4, 1e-4) if relaxes else (0.01, 1e-3)

        def recipe(config):
            game_lr, judge_lr = (usual if absent(rate) else rate for rate, usual in
                                 zip((config.reward_lr, config.judge_lr), rates))  # fmt: skip
            tx = sequences.players(config.lr, game_lr if plays else None, judge_lr if judge else None)
            game = sequences.Game(
                writer, judge, tx, reward, config.rollouts, config.policy_keep, config.judge_epochs,
                probability=None if absent(config.scheduled) else lambda epoch: config.scheduled * (epoch + 1),
                net=net,
                sharpness=lambda step: config.sharpness ** ((step - plan.epochs) * config.updates / config.sharpen),
            )  # fmt: skip
            return Recipe(tx, step=sequences.make_step(game))

        judged = None
        if judge:
            judged = writing.fooled_by(judge, data.valid) if relaxes else writing.judged_by(judge)
        score = writing.scorer(oracle, model, data.valid, config.written, judged, net, writer)
        first = score(writing.untrained(specs, seeds))
        run.say(f"NLL_oracle of the oracle's own sequences {writing.mean_nll(oracle, model, data.valid):.4f}, of an "
                f"untrained generator's {first['nll_oracle']:.4f}")  # fmt: skip
        outcome = fit(
            run,
            specs=specs,
            recipe=recipe,
            batches=lambda seed: lambda step: writing.batch(plan, data.train, seed, step),
            steps=plan.steps,
            evaluate=score,
            evaluate_every=5,
            tokens_per_step=0,
            decide=writing.notices(run.say, called),
            whole=True,
            weights=begin,
        )
        published = PUBLISHED.get(config.preset, {}) if config.oracle == "published" else {}
        writing.draw(outcome.history, plan, published.get("nll_oracle", (None,))[0], run.workdir / "nll_oracle.png")
        metrics = {
            "nll_oracle": writing.lane_values(outcome.history[-1], "nll_oracle"),
            "nll_oracle_best_validation": writing.best_of_each(outcome.history, "nll_oracle"),
            "nll_oracle_untrained": writing.lane_values(first, "nll_oracle"),
            "validation_loss": writing.lane_values(outcome.history[-1], "loss"),
            "validation_loss_best": writing.best_of_each(outcome.history, "loss"),
            "distinct_share": writing.lane_values(outcome.history[-1], "distinct"),
        }
        notes = "begun with the weights of a run of maximum likelihood" if config.start else ""
        # Short of the paper's schedule is partial, whatever the preset's name.
        presets = PRESETS | {f"{name}_cpu": PRESETS[name] for name in ("seqgan", "relgan")}
        finish(run, presets, outcome, metrics, published, notes, free=("start",))


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
