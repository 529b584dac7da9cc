"""BERT's pre-training in small: words hidden from a text are told, and whether a second stretch follows the first.

    bash launch/run.sh experiments/bert_pretrain.py

reads the Python documentation that Python itself carries (nothing to download) through 5,000 word pieces.

    bash launch/run.sh experiments/bert_pretrain.py --preset=tiny --data_dir=DATA --workdir=runs/tiny

is BERT-Tiny's shape (2 layers, 128 wide) on WikiText-2, 2.4 million word pieces. Needs DATA/wikitext-2 or a connection
to fetch it. experiments/bert_finetune.py --start=runs/tiny goes on from there. On a GPU, --preset=gpu is four layers of
width 256 with rows of 256.

Measured, seed 0, 30 minutes of one core: a masked loss of 4.08 nats on rows of 128, 31.7 % of the masked tokens and
89.8 % of the second task. With short rows in the first 27,000 steps of 30,000, not 22,500, 5.43 nats and 19.6 %. With
rows of 128 from the start it stays where words are told by how often they come: 6.31 nats and 14.8 % after as many
tokens as 4,000 steps of 32 rows; --short=32 leaves that within a tenth of the way, to a training loss of 3.4 for both.

The run ends with what it reaches on rows drawn from the validation text, the same for every run: the loss in nats and
the accuracy in percent of the masked tokens, and the accuracy of the second task.

Paper: Devlin et al. 2019, sections 3.1 and A.1. Departures: see lmjax/data/masked.py, and a small text in place of 3.3
billion words, so there is no published figure; half a cosine in place of a straight line; no dropout, where a text is
seen a few times.
"""

from dataclasses import dataclass

from lmjax.config import BERT, setting, sized
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("pydoc", "pydoc (embedded), wikitext-2, tfds:NAME, or a text file or folder")
    tokenizer: str = setting("wordpiece", "wordpiece (learnt on the text), or the path of BERT's vocab.txt")
    vocab: int = setting(5000, "with --tokenizer=wordpiece: pieces to learn", low=100)
    model: BERT = setting(BERT(context=64, layers=2, heads=2, dim=128, dropout=0.0), "the network")
    batch: int = setting(32, "rows of a step", low=1)
    short: int = setting(
        0, "tokens of a row in the first 3/4 of the steps, more rows then; 0: all of model.context", low=0
    )
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)
    steps: int = setting(1000, "steps to train for", low=1)
    lr: float = setting(1e-3, "highest learning rate", low=0.0)
    lr_end: float = setting(1e-5, "learning rate at the last step, after half a cosine", low=0.0)
    warmup: int = setting(100, "steps over which the learning rate rises", low=0)
    weight_decay: float = setting(0.01, "AdamW's decay of matrices", low=0.0)
    clip: float = setting(1.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    validation: int = setting(512, "rows to validate on", low=1)

    def __post_init__(self):
        super().__post_init__()
        if self.short > self.model.context:
            raise ValueError(f"--short={self.short} is more than --model.context={self.model.context}: lower it")


PRESETS = {
    "tiny": {
        "help": "WikiText-2, BERT-Tiny's shape: 2 layers of width 128",
        "data": "wikitext-2", "vocab": 8192, "model.context": 128, "batch": 16, "short": 32,
        "steps": 30_000, "warmup": 1000, "lr": 2e-3,
    },
    "gpu": {
        "help": "WikiText-2, BERT-Mini's shape: 4 layers of width 256, in bf16",
        "data": "wikitext-2", "vocab": 8192, "model.context": 256, "model.layers": 4, "model.heads": 4,
        "model.dim": 256, "model.dropout": 0.1, "model.dtype": "bfloat16", "batch": 128, "steps": 20_000,
        "warmup": 1000,
    },
}  # fmt: skip
NEEDS = {"gpu": {"gpu": True}}


def main(config):
    import jax

    from lmjax.data import tokenizers
    from lmjax.data.masked import documents, held_pairs, masked_pairs
    from lmjax.data.text import load_text
    from lmjax.models import bert
    from lmjax.run.lanes import each
    from lmjax.run.training import finish, fit, session
    from lmjax.train import optim
    from lmjax.train.step import Recipe

    text = load_text(config.data, config.data_dir or None)
    tokenizer = tokenizers.choose(config.tokenizer, text, config.vocab)
    with session("bert_pretrain", config) as run:
        tokenizer = run.kept("tokenizer.json", tokenizer)
        model = sized(config.model, tokenizer.vocab)
        found = documents(text.train, tokenizer)

        def rows(seed):
            long = masked_pairs(found, tokenizer, config.batch, model.context, seed)
            if not config.short:
                return long
            # As the paper begins with 128 of 512 tokens: attention over few places is learnt sooner.
            many, steps = config.batch * model.context // config.short, config.steps * 3 // 4
            short = masked_pairs(found, tokenizer, many, config.short, seed)
            return lambda step: short(step) if step < steps else long(step)

        held = held_pairs(text.valid, tokenizer, 32, model.context)

        @jax.jit
        def sums(params, batch):
            _, (weight, metrics, _) = bert.bert_pretrain_loss(params, model, batch, None, ())
            x = bert.encode(params, model, batch)
            x = jax.numpy.take_along_axis(x, batch["places"][:, :, None], axis=1)
            right = bert.masked_logits(params, model, x).argmax(-1) == batch["targets"]
            return metrics | {"masked_accuracy": (right * batch["weights"]).sum(), "weight": weight}

        def validate(params):
            total = {}
            for i in range(-(-config.validation // 32)):
                run.check()
                for name, value in jax.device_get(sums(params, held(i))).items():
                    total[name] = total.get(name, 0.0) + float(value)
            mean = {name: value / total["weight"] for name, value in total.items() if name != "weight"}
            percent = {name: 100 * mean[name] for name in ("masked_accuracy", "next_accuracy")}
            return {"loss": mean["masked_loss"] + mean["next_loss"], "masked_loss": mean["masked_loss"], **percent}

        def recipe(config):
            model = sized(config.model, tokenizer.vocab)
            rate = optim.warmup_cosine(config.lr, config.steps, config.warmup, config.lr_end)
            return Recipe(
                tx=optim.adamw(rate, weight_decay=config.weight_decay),
                loss=lambda *given: bert.bert_pretrain_loss(given[0], model, *given[1:]),
                accumulate=config.accumulate,
                clip=config.clip,
                learning_rate=rate,
            )

        outcome = fit(
            run,
            specs=bert.pretrain_params(model),
            recipe=recipe,
            batches=rows,
            steps=config.steps,
            evaluate=validate,
            evaluate_every=max(config.steps // 10, 1),
            tokens_per_step=config.batch * model.context,
        )
        names = ("loss", "masked_loss", "masked_accuracy", "next_accuracy")

        def figures(run, outcome):
            return {f"validation_{name}": outcome.history[-1][name] for name in names}

        finish(run, PRESETS, outcome, each(run, outcome, figures, tell=False))


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
