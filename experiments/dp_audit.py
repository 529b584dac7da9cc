"""Does a model give away what it was trained on? Canaries are planted in its text, with noise and without.

    LMJAX_EXTRAS=privacy bash launch/run.sh experiments/dp_audit.py

trains a small GPT twice on a few hundred windows of the Python documentation (nothing to download), without privacy and
by DP-SGD, among them canaries: windows of random characters, of which a coin each decided whether it is trained on.
Afterwards it is asked which they were, by their likelihood. For each training:

    rank_accuracy    how often a planted canary is likelier than one that was not planted; 0.5 by chance
    exposure         bits by which a planted one stands out among those that were not (Carlini et al. 2019)
    least_epsilon    a lower bound on epsilon, at 95 % confidence, that this one run shows (Steinke et al. 2023)

A least_epsilon above the training's own epsilon would be a fault in its privacy, and the run ends with status 1. A low
one proves nothing: it is what this attack finds.
"""

from dataclasses import dataclass

from lmjax.config import GPT, setting, sized
from lmjax.errors import UserError
from lmjax.privacy.options import Private
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("pydoc", "pydoc (embedded), tinyshakespeare, or a text file or folder")
    epsilons: tuple[float, ...] = setting((0.0, 2.0), "one training each; 0: without noise and clipping", low=0.0)
    privacy: Private = setting(Private(clip=1.0, lot=64.0, delta=1e-4), "the rest of it; epsilon is of --epsilons")
    examples: int = setting(400, "windows of the text that are trained on", low=1)
    canaries: int = setting(300, "windows of random characters, half of them trained on", low=4)
    model: GPT = setting(GPT(context=16, layers=1, heads=4, dim=64), "the network")
    steps: int = setting(800, "steps of a training", low=1)
    lr: float = setting(5e-3, "learning rate of Adam", low=0.0)
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)

    def __post_init__(self):
        super().__post_init__()
        if self.privacy.on or self.seeds > 1 or self.lanes:
            raise ValueError("--privacy.epsilon, --privacy.noise, --seeds, --lanes: set --epsilons in their place")


PRESETS = {}
NEEDS = {"": {"extra": "privacy"}}


def main(config):
    import jax
    import numpy as np

    from lmjax.data import tokenizers
    from lmjax.data.batches import drawn_from
    from lmjax.data.text import load_text
    from lmjax.evaluate.perplexity import log_likelihoods
    from lmjax.models.gpt import gpt, gpt_loss, gpt_params
    from lmjax.privacy import accounting, audit, sampling
    from lmjax.privacy.step import private_recipe
    from lmjax.run.tasks import private
    from lmjax.run.training import finish, fit, session
    from lmjax.train import optim

    text = load_text(config.data, config.data_dir or None)
    tokenizer = tokenizers.choose("character", text, 0)
    model, rng = sized(config.model, tokenizer.vocab), drawn_from(config.seed, audit.COINS + 1)
    T, lot = model.context, config.privacy.lot
    windows = sampling.disjoint(tokenizer.encode(text.train), T)
    if len(windows["tokens"]) < config.examples:
        raise UserError(f"--examples={config.examples}, and {config.data} has {len(windows['tokens'])}: lower it")
    taken = rng.permutation(len(windows["tokens"]))[: config.examples]
    canaries = sampling.disjoint(rng.integers(0, tokenizer.vocab, config.canaries * (T + 1)), T)
    planted = audit.coins(config.canaries, config.seed)
    rows = {name: np.concatenate([windows[name][taken], canaries[name][planted]]) for name in windows}
    N = len(rows["tokens"])
    most = sampling.room(N, lot, multiple=config.accumulate * jax.device_count())

    def loss(params, batch, key, carry):
        return gpt_loss(params, model, batch, key, carry)

    @jax.jit
    def nll(params, batch):
        return -log_likelihoods(gpt(params, model, batch["tokens"]), batch["targets"]).sum(1)

    def once(run, privacy):
        mechanism, spent = accounting.settled(privacy, accounting.Mechanism(N, lot, config.steps))
        run.say(accounting.line(mechanism, privacy.delta, spent))

        def recipe(config):
            rate = optim.warmup_cosine(config.lr, config.steps, config.steps // 20)
            tx = optim.adamw(rate, b2=0.99)
            return private_recipe(loss, tx, privacy, mechanism, accumulate=config.accumulate, learning_rate=rate)

        def findings(params):
            found = np.asarray(nll(params, canaries))
            inside, outside = found[planted], found[~planted]
            return {
                "loss": float(inside.mean() / T),
                "loss_of_others": float(outside.mean() / T),
                "rank_accuracy": audit.rank_accuracy(-found, planted),
                "exposure": float(np.mean([audit.exposure(one, outside) for one in inside])),
                "least_epsilon": audit.least_epsilon(-found, planted, privacy.delta),
            }

        outcome = fit(
            run,
            specs=gpt_params(model),
            recipe=recipe,
            batches=lambda seed: sampling.batches(rows, lot, seed, most),
            steps=config.steps,
            evaluate=findings,
            evaluate_every=config.steps,
            tokens_per_step=round(lot * T),
        )
        last = outcome.history[-1]
        found = {"planted_loss": last["loss"], "other_loss": last["loss_of_others"]}
        found |= {name: last[name] for name in ("rank_accuracy", "exposure", "least_epsilon")}
        return found | ({"epsilon": spent} if privacy.on else {}), outcome

    with session("dp_audit", config) as run:
        run.say(f"{planted.sum()} of {config.canaries} canaries planted among {config.examples} windows")
        metrics, outcome = private.each_epsilon(run, once)
        finish(run, PRESETS, outcome, metrics, None, f"{planted.sum()} of {config.canaries} canaries planted")
        broken = [e for e in config.epsilons if e and metrics[f"least_epsilon_{private.named(e)}"] > e]
        if broken:
            print(f"dp_audit.py: more than epsilon {broken[0]:g} leaked: the training is not as private as it says")
            raise SystemExit(1)


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
