"""A GPT on characters: the small language model to begin with, and nanoGPT's two Shakespeare rows.

    bash launch/run.sh experiments/gpt_char.py

trains on the Python documentation that Python itself carries (0.46 million characters, nothing to download), about
three minutes on two cores, and ends with the validation loss in nats, bits per character, and a sample.

    bash launch/run.sh experiments/gpt_char.py --preset=nanogpt_cpu --data_dir=DATA

is nanoGPT's CPU recipe on tinyshakespeare, but for a learning rate of 2e-3: its own 1e-3 gave 1.90 here, over the whole
validation split, where nanoGPT's 1.88 is an estimate from 20 batches. 2,000 steps, about two minutes on two cores.
Needs tinyshakespeare/input.txt under DATA, or a connection to fetch it. On a GPU, --preset=nanogpt_gpu is its larger
row, validation loss 1.47.
On several devices the same command shares each batch among them (pmap); --strategy=mesh --mesh=4,2 splits the
parameters as well. --data=PATH takes a text file or folder of your own, --tokenizer=bpe larger units than characters.

The same command with the same --workdir goes on where a stopped run was, to the same bits.

Papers: Radford et al. 2019 (GPT-2). Recipes: github.com/karpathy/nanoGPT, config/train_shakespeare_char.py and README.
"""

from dataclasses import dataclass

from lmjax.config import GPT, setting, sized
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("pydoc", "pydoc (embedded), tinyshakespeare, wikitext-2, tfds:NAME, or a text file or folder")
    tokenizer: str = setting(
        "character",
        "units of the text: character, word, bpe (byte pairs trained on it), or the path of a tokenizer",
    )
    vocab: int = setting(8192, "with --tokenizer=bpe: units to learn", low=258)
    model: GPT = setting(GPT(context=128), "the network")
    batch: int = setting(8, "rows of a step", low=1)
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)
    steps: int = setting(2000, "steps to train for", low=1)
    lr: float = setting(2e-3, "highest learning rate", low=0.0)
    lr_end: float = setting(1e-4, "learning rate at the last step, after half a cosine", low=0.0)
    warmup: int = setting(100, "steps over which the learning rate rises", low=0)
    beta2: float = setting(0.99, "AdamW's decay of squared gradients", low=0.0, high=1.0)
    weight_decay: float = setting(0.1, "AdamW's decay of matrices", low=0.0)
    clip: float = setting(1.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    ema: float = setting(
        0.0, "evaluate an exponential moving average of the weights with this decay; 0: the weights", low=0.0, high=1.0
    )
    sample: int = setting(400, "tokens to generate at the end", low=0)
    temperature: float = setting(0.8, "of the sample: below 1 safer, above 1 wilder, 0 always the likeliest", low=0.0)


PRESETS = {
    "nanogpt_cpu": {
        "help": "tinyshakespeare, 0.8 M parameters, 2,000 steps: published 1.88, at half this learning rate",
        "data": "tinyshakespeare", "model.context": 64, "model.bias": False, "batch": 12,
    },
    "nanogpt_gpu": {
        "help": "tinyshakespeare, 10.6 M parameters, 5,000 steps: best validation loss 1.4697",
        "data": "tinyshakespeare", "model.layers": 6, "model.heads": 6, "model.dim": 384, "model.context": 256,
        "model.dropout": 0.2, "model.bias": False, "batch": 64, "lr": 1e-3, "steps": 5000, "evaluate_every": 250,
    },
    "gpt2": {
        "help": "GPT-2's size (124 M) in bf16 on --data of your own or from TFDS: 0.5 M tokens a step",
        "data": "wikitext-2", "tokenizer": "bpe", "vocab": 50257, "model.layers": 12, "model.heads": 12,
        "model.dim": 768, "model.context": 1024, "model.dtype": "bfloat16", "batch": 480, "accumulate": 40,
        "steps": 600_000, "lr": 6e-4,
        "lr_end": 6e-5, "warmup": 2000, "beta2": 0.95, "evaluate_every": 1000,
    },
    "gpt3_xl": {
        "help": "GPT-3 XL's size (1.3 G) over 2,048 tokens, 1 M a step: --dry_run --strategy=mesh plans its memory",
        "data": "wikitext-2", "tokenizer": "bpe", "vocab": 50257, "model.layers": 24, "model.heads": 16,
        "model.dim": 2048, "model.context": 2048, "model.dtype": "bfloat16", "model.scan": True, "model.remat": True,
        "batch": 512, "accumulate": 32, "steps": 300_000, "lr": 2e-4, "lr_end": 2e-5, "warmup": 375, "beta2": 0.95,
        "evaluate_every": 1000,
    },
}  # fmt: skip
PUBLISHED = {
    "nanogpt_cpu": {"validation_loss": (1.88, "nanoGPT README, CPU recipe", "V")},
    "nanogpt_gpu": {"best_validation_loss": (1.4697, "nanoGPT README", "V")},
}
NEEDS = {
    "nanogpt_cpu": {"flags": {"seeds": 3}},
    "nanogpt_gpu": {"gpu": True, "minutes": 4},
    "gpt2": {"by_hand": "many GPUs and a text of your own"},
    "gpt3_xl": {"by_hand": "a cluster and a text of your own"},
}


def main(config):
    import jax

    from lmjax.data import batches, tokenizers
    from lmjax.data.text import load_text
    from lmjax.evaluate.perplexity import bits, compile_loss, mean_nll
    from lmjax.models.gpt import gpt_loss, gpt_params
    from lmjax.run import models
    from lmjax.run.lanes import each
    from lmjax.run.training import finish, fit, session
    from lmjax.train import optim
    from lmjax.train.step import Recipe

    text = load_text(config.data, config.data_dir or None)
    tokenizer = tokenizers.choose(config.tokenizer, text, config.vocab)
    with session("gpt_char", config) as run:
        tokenizer = run.kept("tokenizer.json", tokenizer)
        model = sized(config.model, tokenizer.vocab)
        train, valid = tokenizer.encode(text.train), tokenizer.encode(text.valid)

        def loss(model):
            return lambda params, batch, key, carry: gpt_loss(params, model, batch, key, carry)

        score = compile_loss(loss(model))

        def validate(params):
            windows = batches.evaluation_windows(valid, model.context, max(config.batch, 64))
            nll = mean_nll(score, params, windows, check=run.check)
            return {"loss": nll, "bits_per_character": bits(nll) * len(valid) / len(text.valid)}

        def recipe(config):
            rate = optim.warmup_cosine(config.lr, config.steps, config.warmup, config.lr_end)
            return Recipe(
                tx=optim.adamw(rate, b2=config.beta2, weight_decay=config.weight_decay),
                loss=loss(sized(config.model, tokenizer.vocab)),
                accumulate=config.accumulate,
                clip=config.clip,
                averaging=optim.ema(config.ema) if config.ema else None,
                learning_rate=rate,
            )

        outcome = fit(
            run,
            specs=gpt_params(model),
            recipe=recipe,
            batches=lambda seed: batches.windows(train, config.batch, model.context, seed),
            steps=config.steps,
            evaluate=validate,
            evaluate_every=max(config.steps // 8, 1),
            tokens_per_step=config.batch * model.context,
        )

        def figures(run, outcome):
            last = outcome.history[-1]
            return {"validation_loss": last["loss"], "bits_per_character": last["bits_per_character"],
                    "best_validation_loss": min(line["loss"] for line in outcome.history)}  # fmt: skip

        def write(run, outcome):
            trained = models.Trained(outcome.params, model, tokenizer)
            key = jax.random.key(run.config.seed)
            (text,) = models.complete(trained, ["\n"], config.sample, key=key, temperature=config.temperature)
            (run.workdir / "sample.txt").write_text(text, encoding="utf-8")
            print("\n" + text)
            return {}

        finish(run, PRESETS, outcome, each(run, outcome, figures, tell=False), PUBLISHED.get(config.preset, {}))
        if config.sample:
            each(run, outcome, write)


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
