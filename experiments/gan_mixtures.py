"""What a generator misses: GANs on 8 Gaussians in a ring and 25 in a grid, ten seeds as lanes of one program.

    bash launch/run.sh experiments/gan_mixtures.py
"""

from dataclasses import dataclass

from lmjax.config import Game, PointGAN, setting
from lmjax.run import flags
from lmjax.run.options import Run


@dataclass(frozen=True)
class Config(Run):
    preset: str = ""
    data: str = setting("ring", "which mixture", choices=("ring", "grid"))
    model: PointGAN = setting(PointGAN(), "both networks")
    game: Game = setting(Game(lr=3e-4, critic_lr=3e-4), "what they play for")
    lanes: int = setting(10, "trainings, with the seeds from --seed on, in one program", low=1)
    batch: int = setting(100, "rows of a step; a row is a pack", low=1)
    steps: int = setting(4000, "updates of the generator", low=1)
    samples: int = setting(2500, "points a lane is judged by", low=10)
    frames: int = setting(40, "validations, each a picture of training.gif", low=1)


def main(config):
    import jax
    import jax.numpy as jnp
    import numpy as np

    from lmjax.data import mixtures
    from lmjax.evaluate.mixtures import coverage
    from lmjax.models import gan
    from lmjax.nn.norm import spectral_start
    from lmjax.run.training import finish, fit, session
    from lmjax.train import adversarial
    from lmjax.train.lanes import Lanes, stack

    mixture, game = mixtures.MIXTURES[config.data](), config.game
    pair = gan.point_pair(config.model)
    seeds = tuple(range(config.seed, config.seed + config.lanes))
    alone = [mixtures.batches(mixture, config.batch, game.critic_steps, pair.pack, seed) for seed in seeds]
    players = adversarial.Players(
        lambda params, other, batch, key, values, psum: gan.generator_loss(
            pair, game, params, other, batch, key, values, psum),
        lambda params, other, batch, key, values, psum: gan.discriminator_loss(
            pair, game, params, other, batch, key, values, psum),
        *(adversarial.adam(rate, game.b1, game.b2) for rate in adversarial.rates(game, config.steps)),
        spectral_start if game.spectral else lambda params: {},
    )  # fmt: skip
    averaging = adversarial.generator_average(game.ema) if game.ema else None
    step = adversarial.make_step(
        players, critic_steps=game.critic_steps, unroll=game.unroll, averaging=averaging, spread=gan.spread
    )

    with session("gan_mixtures", config) as run:
        frames = run.workdir / "frames"
        frames.mkdir(exist_ok=True)
        z = jax.random.normal(jax.random.key(0), (config.samples, pair.latent))
        made = jax.jit(jax.vmap(lambda params: gan.samples(pair, params["generator"], z)))
        figures, points, told = [], None, {}

        def judge(params):
            nonlocal points, figures
            points = np.asarray(made(params))
            figures = [coverage(part, mixture.means, mixture.deviation) for part in points]
            mean = {name: float(np.mean([f[name] for f in figures])) for name in ("modes", "high_quality", "reverse_kl")}
            return mean | {"least_modes": min(f["modes"] for f in figures)}

        def after(history, state):
            np.save(frames / f"{history[-1]['step']:07}.npy", points.astype(np.float16))
            for line in adversarial.notices(state, [f"seed {seed}" for seed in seeds]):
                who = line.partition(",")[0].partition("for")[0]
                if who not in told:
                    run.say(line)
                told[who] = line
            return state

        outcome = fit(
            run, specs=pair.specs, tx=players, step=step, averaging=averaging,
            batch=lambda i: stack([batch(i) for batch in alone]),
            steps=config.steps, evaluate=judge, evaluate_every=max(config.steps // config.frames, 1), decide=after,
            tokens_per_step=config.batch * pair.pack * config.lanes, rank=lambda metrics: metrics["reverse_kl"],
            lanes=Lanes(seeds),
        )  # fmt: skip
        judge(outcome.params)
        names = ("modes", "high_quality", "reverse_kl")
        metrics = {name: [f[name] for f in figures] for name in names}
        finish(run, PRESETS, outcome, metrics, {}, "; ".join(told.values()), list(seeds))


PRESETS = {}

if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
