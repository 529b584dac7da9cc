"""A language model that keeps its text to itself: bits a character against epsilon, on tinyshakespeare.

    LMJAX_EXTRAS=privacy,plot bash launch/run.sh experiments/dp_text.py --preset=shakespeare --data_dir=DATA

trains a small GPT by DP-SGD (Abadi et al. 2016) once for each epsilon, and once without privacy, all else alike, and
draws WORKDIR/curve.png. Without --preset it is the Python documentation, nothing to download.

What is private is an example, a window of --model.context characters and the one before it; the text is cut into such
windows, so that a character is in one alone. Two windows of one scene are two examples: who knows one may well guess at
the other. The characters that occur, and the number of windows, are taken for public. Noise, rate and steps are as
dp-accounting's epsilon says; the log of the training loss is not covered by it.

Beside the curve stand the bits of single characters' frequencies, the least that a model of text has to beat.

There is no published curve of the kind. Papers: Abadi et al. 2016; McMahan et al. 2018 (private language models).
"""

from dataclasses import dataclass

from lmjax.config import GPT, setting, sized
from lmjax.errors import install
from lmjax.privacy.options import Private
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("pydoc", "pydoc (embedded), tinyshakespeare, wikitext-2, or a text file or folder")
    epsilons: tuple[float, ...] = setting((1.0, 8.0, 0.0), "one training each; 0: without noise and clipping", low=0.0)
    privacy: Private = setting(Private(clip=0.5, lot=256.0), "the rest of it; epsilon is that of --epsilons")
    model: GPT = setting(GPT(context=32, layers=1, heads=2, dim=64), "the network")
    steps: int = setting(200, "steps of a training", low=1)
    lr: float = setting(5e-3, "highest learning rate, of Adam", low=0.0)
    warmup: int = setting(20, "steps over which it rises; then it falls by half a cosine", low=0)
    ema: float = setting(0.95, "evaluate a moving average of the weights with this decay; 0: the weights", low=0.0,
                         high=0.9999)  # fmt: skip
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)
    sample: int = setting(200, "characters to generate at the end", low=0)

    def __post_init__(self):
        super().__post_init__()
        if self.privacy.on:
            raise ValueError("--privacy.epsilon or --privacy.noise: this experiment takes --epsilons")


PRESETS = {
    "shakespeare": {
        "help": "tinyshakespeare at epsilon 1, 3, 8 and without privacy: no published figure",
        "data": "tinyshakespeare", "epsilons": (1.0, 3.0, 8.0, 0.0),
    },
}  # fmt: skip
NEEDS = {name: {"extra": "privacy"} for name in ("", "shakespeare")}


def main(config):
    import jax
    import numpy as np

    from lmjax.data import batches, tokenizers
    from lmjax.data.text import load_text
    from lmjax.evaluate.perplexity import bits, compile_loss, mean_nll
    from lmjax.models.gpt import gpt_loss, gpt_params
    from lmjax.privacy import accounting, sampling
    from lmjax.privacy.step import private_recipe
    from lmjax.run import models
    from lmjax.run.lanes import each
    from lmjax.run.tasks import private
    from lmjax.run.training import finish, fit, session
    from lmjax.train import optim

    text = load_text(config.data, config.data_dir or None)
    tokenizer = tokenizers.choose("character", text, 0)
    with session("dp_text", config) as run:
        tokenizer = run.kept("tokenizer.json", tokenizer)
        model = sized(config.model, tokenizer.vocab)
        train, valid = tokenizer.encode(text.train), tokenizer.encode(text.valid)
        rows = sampling.disjoint(train, model.context)
        N, lot = len(rows["tokens"]), config.privacy.lot
        most = sampling.room(N, lot, multiple=config.accumulate * jax.device_count())

        def loss(params, batch, key, carry):
            return gpt_loss(params, model, batch, key, carry)

        compiled = compile_loss(loss)

        def validate(params):
            windows = batches.evaluation_windows(valid, model.context, 256)
            nll = mean_nll(compiled, params, windows, check=run.check)
            return {"loss": nll, "bits_per_character": bits(nll)}

        def once(run, privacy):
            mechanism, spent = accounting.settled(privacy, accounting.Mechanism(N, lot, config.steps))
            run.say(accounting.line(mechanism, privacy.delta, spent))

            def recipe(config):
                rate = optim.warmup_cosine(config.lr, config.steps, config.warmup)
                return private_recipe(
                    loss, optim.adamw(rate, b2=0.99), privacy, mechanism, accumulate=config.accumulate,
                    averaging=optim.ema(config.ema) if config.ema else None, learning_rate=rate,
                )  # fmt: skip

            outcome = fit(
                run,
                specs=gpt_params(model),
                recipe=recipe,
                batches=lambda seed: sampling.batches(rows, lot, seed, most),
                steps=config.steps,
                evaluate=validate,
                evaluate_every=max(config.steps // 5, 1),
                tokens_per_step=round(lot * model.context),
            )

            def figures(run, outcome):
                last = outcome.history[-1]
                if config.sample:
                    trained, key = models.Trained(outcome.params, model, tokenizer), jax.random.key(run.config.seed)
                    (said,) = models.complete(trained, ["\n"], config.sample, key=key, temperature=0.8)
                    (run.workdir / "sample.txt").write_text(said, encoding="utf-8")
                found = {"bits_per_character": last["bits_per_character"]}
                return found | ({"epsilon": spent} if privacy.on else {})

            return each(run, outcome, figures, tell=False), outcome

        metrics, outcome = private.each_epsilon(run, once)
        share = np.bincount(train, minlength=tokenizer.vocab) + 1
        alone = float(-np.log2(share / share.sum())[valid].mean())
        points = {e: metrics[f"bits_per_character_{private.named(e)}"] for e in config.epsilons}
        points = {e: value if isinstance(value, list) else [value] for e, value in points.items()}
        drawn = private.curve(points, run.workdir / "curve.png", "bits a character", config.data,
                              {"frequencies alone": alone})  # fmt: skip
        metrics["bits_of_frequencies"] = [alone] * len(next(iter(points.values()))) if config.seeds > 1 else alone
        seeds = [config.seed + n for n in range(config.seeds)]
        note = f"an example is {model.context + 1} characters, {N:,} of them; delta {config.privacy.delta:g}"
        finish(run, PRESETS, outcome, metrics, None, note, seeds)
        run.say(str(drawn) if drawn else "curve.png needs matplotlib: " + install("plot"))


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
