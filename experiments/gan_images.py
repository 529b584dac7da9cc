"""GANs that draw digits, measured and looked at.

    bash launch/run.sh experiments/gan_images.py

draws the 8 x 8 digits that scikit-learn carries (nothing to download), five seeds as lanes of one program, by WGAN-GP.

    bash launch/run.sh experiments/gan_images.py --preset=mnist_dcgan --data_dir=DATA
    bash launch/run.sh experiments/gan_images.py --preset=mnist_wgan_gp --data_dir=DATA
    bash launch/run.sh experiments/gan_images.py --preset=mnist_hinge --data_dir=DATA
    bash launch/run.sh experiments/gan_images.py --preset=mnist_conditional --data_dir=DATA

are MNIST, one seed each; --seeds=5 where there is a GPU. --data=FOLDER takes IDX files of your own, --data=tfds:NAME
a set of the TFDS catalogue with an image and a label, grey or in colour. --data=stacked_digits, or --preset=
stacked_dcgan and stacked_pacgan2 with MNIST's, have three digits in one image's channels, and a thousand modes to find.

The digits, seeds 0 to 4, in nine minutes of a core that had five other jobs: classifier_frechet 6.5 ± 0.2 (of the
training images 1.85), classifier_score 6.4 ± 0.1 (9.1), precision 65.7, recall 88.3, all ten classes, class_kl 0.019,
nothing copied. By the non-saturating loss, tried with two seeds, classifier_frechet of validation images was 12.4 where
the slope penalty had 8.3.

The workdir has samples.png, training.png (the same noise at each validation, a row each), interpolation.png (between
draws of noise) and neighbours.png (samples above the training images nearest to them).

What is measured is by features of a small classifier that is trained first, on the same training images, and kept in
judge.npz: classifier_frechet and classifier_score are made as FID and the Inception score are, of other features, and
can be set beside neither. precision and recall are Kynkäänniemi's (in percent, of up to 2,000 images); classes, those
with at least a tenth of an even share; modes, of stacked digits, those with any at all; class_kl, of the classes from
even ones; copied, the share of samples nearer to a training image than 99 % of test images are; closeness, the median
distance to it over that of test images. Validation images, cut from the end of training, are what settings were chosen
by; figures in the record are of the test images.

Papers: Goodfellow et al. 2014, Radford et al. 2016 (DCGAN), Gulrajani et al. 2017 (WGAN-GP), Miyato et al. 2018
(spectral norms), Miyato & Koyama 2018 (projection); Heusel et al. 2017, Salimans et al. 2016, Kynkäänniemi et al. 2019
(what is measured). None has a figure on these sets that could be compared. Departures: small networks; samples are made
by an average of the generator's weights.
"""

from dataclasses import dataclass, replace

from lmjax.config import Game, ImageGAN, setting
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting(
        "digits", "digits (with scikit-learn), mnist, either after stacked_, tfds:NAME, or a folder of IDX files"
    )
    model: ImageGAN = setting(ImageGAN(), "both networks")
    game: Game = setting(
        Game(loss="wasserstein", penalty=10.0, critic_steps=3, b1=0.0, b2=0.9, decay=True, ema=0.99),
        "what they play for",
    )
    conditional: bool = setting(False, "the generator is asked for a class")
    seeds: int = setting(5, "trainings side by side in one program: of --seed, and those that follow it", low=1)
    form: str = setting("at_once", "of lanes on a CPU", choices=("measured", "at_once", "in_turn"))
    batch: int = setting(64, "rows of a step; a row is a pack", low=1)
    steps: int = setting(1500, "updates of the generator", low=1)
    samples: int = setting(2000, "images a lane is judged by", low=100)
    judge_epochs: int = setting(60, "passes of the classifier that judges over the training images", low=1)
    validations: int = setting(8, "of a training, each a row of training.png", low=1)

    def __post_init__(self):
        super().__post_init__()
        if self.game.penalty and self.model.critic_batch_norm:
            raise ValueError("game.penalty with model.critic_batch_norm: the slope of one image would depend on others")


_MNIST = {"data": "mnist", "seeds": 1, "samples": 5000, "judge_epochs": 3, "game.lr": 2e-4, "game.critic_lr": 2e-4,
          "game.ema": 0.999, "game.decay": False}  # fmt: skip
_DCGAN = {"model.critic_batch_norm": True, "game.loss": "non-saturating", "game.penalty": 0.0, "game.critic_steps": 1,
          "game.b1": 0.5, "game.b2": 0.999, "steps": 8000}  # fmt: skip
_STACKED = {**_MNIST, **_DCGAN, "data": "stacked_mnist", "samples": 26_000, "model.width": 64, "steps": 40_000}
PRESETS = {
    "mnist_dcgan": {"help": "MNIST, DCGAN: batch norm in both networks, non-saturating loss", **_MNIST, **_DCGAN},
    "mnist_wgan_gp": {"help": "MNIST, WGAN-GP: five updates of the critic for one", **_MNIST, "game.critic_steps": 5,
                      "steps": 3000},
    "mnist_hinge": {"help": "MNIST, hinge loss with spectral norms", **_MNIST, "game.loss": "hinge",
                    "game.spectral": True, "game.penalty": 0.0, "game.critic_steps": 1, "steps": 8000},
    "stacked_dcgan": {"help": "three digits in one image, DCGAN: published 99 of 1,000 modes", **_STACKED},
    "stacked_pacgan2": {"help": "the same, packs of 2: published 1,000", **_STACKED, "model.pack": 2},
    "mnist_conditional": {"help": "MNIST, asked for a class: DCGAN with a projection", **_MNIST, **_DCGAN,
                          "conditional": True},
}  # fmt: skip
# Recalled, not read: see record.Published. Their networks are larger and they have 128,000 stacks, so a record beside
# these is partial.
_LIN = "Lin et al. 2018, table 2"
PUBLISHED = {
    "stacked_dcgan": {"modes": (99.0, _LIN), "class_kl": (3.40, _LIN)},
    "stacked_pacgan2": {"modes": (1000.0, _LIN), "class_kl": (0.06, _LIN)},
}
NEEDS = {name: {"gpu": True, "flags": {"seeds": 5}} for name in PRESETS if name != "mnist_dcgan"}
CHUNK = 500  # images made together, normalized by their own statistics


def main(config):
    import jax
    import numpy as np

    from lmjax.data import images
    from lmjax.evaluate import images as figures
    from lmjax.models import convnet, gan
    from lmjax.run import lanes
    from lmjax.run.tasks.playing import playing
    from lmjax.run.training import finish, fit, session
    from lmjax.train import adversarial

    pictures, game = images.load_images(config.data, config.data_dir or None), config.game
    model = fitted(config, pictures)
    pair = gan.image_pair(model)
    called = lanes.names(lanes.asked(config, whole=True))

    def batches(seed):
        return lane_batches(pictures.train, config.batch, game.critic_steps, pair.pack, seed, config.conditional)

    with session("gan_images", config) as run:
        judge, accuracy = classifier(run, config, pictures.single or pictures)
        look = jax.jit(lambda x: convnet.seen(judge, x))

        def seen(x):
            """Probabilities and features of images [N,Y,X,C]."""
            found = [jax.device_get(look(x[i : i + CHUNK])) for i in range(0, len(x), CHUNK)]
            return tuple(np.concatenate(part) for part in zip(*found))

        made = jax.jit(jax.vmap(lambda params, z, y: gan.samples(pair, params["generator"], z, y), (0, None, None)))
        asked = np.arange(config.samples) % pictures.classes if config.conditional else None
        z = np.asarray(jax.random.normal(jax.random.key(0), (config.samples, pair.latent)))

        def draw(params, z, labels):
            """Images [N lanes, M, Y, X, C] of noise [M, Z]."""
            parts = [np.asarray(made(params, z[i : i + CHUNK], None if labels is None else labels[i : i + CHUNK]))
                     for i in range(0, len(z), CHUNK)]  # fmt: skip
            return np.concatenate(parts, axis=1)

        real = {name: images.scaled(getattr(pictures, name).pixels) for name in ("train", "valid", "test")}
        real_features = {name: seen(real[name])[1] for name in ("valid", "test")}
        target = {name: figures.gaussian(x) for name, x in real_features.items()}
        kept = None
        frames = run.workdir / "frames"
        frames.mkdir(exist_ok=True)

        def validate(params):
            nonlocal kept
            kept = draw(params, z, asked)
            lines = [quality(kept[i], target["valid"], asked) for i in range(len(called))]
            return {name: float(np.mean([line[name] for line in lines])) for name in lines[0]}

        def quality(x, target, labels=None):
            probabilities, features = seen(x)
            called = probabilities.argmax(1)
            classes, uneven = figures.class_coverage(called, pictures.classes)
            found = {
                "classifier_frechet": figures.frechet_distance(figures.gaussian(features), target),
                "classifier_score": figures.classifier_score(probabilities),
                "classes": classes,
                "class_kl": uneven,
            }
            if pictures.single:
                found["modes"] = len(np.unique(called))
            return found | ({"asked_accuracy": 100 * float((called == labels).mean())} if labels is not None else {})

        def after(history, state):
            np.save(frames / f"{history[-1]['step']:07}.npy", kept[0, :20])
            adversarial.tell(run.say, history, state, called)
            return state

        outcome = fit(
            run, specs=pair.specs, recipe=lambda config: playing(pair, config.game, config.steps), batches=batches,
            steps=config.steps, evaluate=validate, evaluate_every=-(-config.steps // config.validations),
            decide=after, tokens_per_step=config.batch * pair.pack * game.critic_steps,
            rank=lambda metrics: metrics["classifier_frechet"], whole=True,
        )  # fmt: skip
        validate(outcome.params)
        metrics = {}
        for i in range(len(called)):
            x = kept[i]
            found = quality(x, target["test"], asked)
            features = seen(x)[1]
            few = min(len(real["test"]), 2000)
            found["precision"], found["recall"] = figures.precision_recall(real_features["test"][:few], features[:few])
            near = figures.copies(real["train"], real["test"][:1000], x[:1000])
            found |= {"closeness": near.closeness, "copied": near.copied}
            for name, value in found.items():
                metrics.setdefault(name, []).append(value)
            if i == 0:
                picture(kept, near.nearest, real["train"], lambda z, y: draw(outcome.params, z, y), pair,
                        pictures.classes, config, frames, run.workdir)  # fmt: skip
        best = quality(real["train"][: config.samples], target["test"])
        notes = (f"judge {accuracy:.2f} % right on test; training images have classifier_frechet "
                 f"{best['classifier_frechet']:.2f} and classifier_score {best['classifier_score']:.2f}")  # fmt: skip
        run.say(notes)
        published = PUBLISHED.get(config.preset, {})
        finish(run, PRESETS, outcome, metrics, published, "; ".join([notes, *adversarial.failures(outcome.history)]),
               as_published=not published)


def fitted(config, pictures):
    """The config of both networks with the images' size and classes. ValueError where it asks for others."""
    y, x, channels = pictures.train.pixels.shape[1:]
    if y != x or y % 4:
        raise ValueError(f"{pictures.name} has images of {y} x {x} pixels: expected squares of a multiple of 4")
    if config.model.size not in (0, y):
        raise ValueError(f"model.size={config.model.size}, and {pictures.name} has {y}: leave it at 0")
    return replace(config.model, size=y, channels=channels, classes=pictures.classes if config.conditional else 0)


def lane_batches(train, batch: int, updates: int, pack: int, seed: int, conditional: bool):
    """batch(step): real [B, updates, pack, Y, X, C], row int [B], and labels [B, updates, pack] where asked for."""
    import numpy as np

    from lmjax.data import images

    at, _ = images.batches(train, batch * updates * pack, seed)
    row = np.arange(batch, dtype=np.int32)

    def one(step):
        found = at(step)
        part = {"real": found["images"].reshape(batch, updates, pack, *found["images"].shape[1:]), "row": row}
        return part | ({"labels": found["labels"].reshape(batch, updates, pack)} if conditional else {})

    return one


def classifier(run, config, pictures):
    """(parameters of the classifier that judges, its accuracy on test images in percent), trained once a workdir."""
    import jax
    import numpy as np
    from flax.traverse_util import flatten_dict, unflatten_dict

    from lmjax import param
    from lmjax.data import images
    from lmjax.models.convnet import convnet, convnet_loss, convnet_params
    from lmjax.train import optim, parallel
    from lmjax.train.state import new_state
    from lmjax.train.step import make_step

    path = run.workdir / "judge.npz"
    size, _, channels = pictures.train.pixels.shape[1:]
    specs = convnet_params(size, channels, pictures.classes)
    if path.exists():
        with np.load(path) as kept:
            params = unflatten_dict(dict(kept), sep="/")
    else:
        batch, per_epoch = images.batches(pictures.train, 128, 0, shift=1)
        steps = config.judge_epochs * per_epoch
        tx = optim.adamw(optim.warmup_cosine(2e-3, steps, 50), weight_decay=0.01)
        strategy = parallel.local()
        state = strategy.place(new_state(param.init(specs, jax.random.key(0)), tx))
        step = strategy.compile(make_step(convnet_loss, tx))
        for i in range(steps):
            state, _ = step(state, batch(i), jax.random.key(1))
            if i % 50 == 0:
                run.check()
        params = jax.device_get(state.params)
        np.savez(path.with_suffix(".new.npz"), **flatten_dict(params, sep="/"))
        path.with_suffix(".new.npz").replace(path)
    look = jax.jit(lambda params, x: convnet(params, x)[0].argmax(-1))
    right = [(np.asarray(look(params, rows["images"])) == rows["labels"]) * rows["weights"]
             for rows in images.evaluation(pictures.test, 500)]  # fmt: skip
    accuracy = 100 * float(np.concatenate(right).sum() / len(pictures.test))
    run.say(f"the classifier that judges calls {accuracy:.2f} % of the test images right")
    return params, accuracy


def picture(kept, nearest, train, draw, pair, classes: int, config, frames, folder):
    """samples.png, interpolation.png, neighbours.png and training.png; nothing without the plot extra."""
    import numpy as np

    lanes = kept.shape[0]
    per_lane = max(2, 10 // lanes)
    save(folder / "samples.png", np.concatenate([x[: 20 * per_lane].reshape(per_lane, 20, *x.shape[1:]) for x in kept]))
    rng = np.random.default_rng(0)
    ends = rng.standard_normal((2, 8, 1, pair.latent)).astype(np.float32)
    share = np.linspace(0, 1, 16, dtype=np.float32)[None, :, None]
    # Along the arc: noise of many numbers lies near a sphere, and the mean of two draws does not.
    between = ends[0] * np.cos(share * np.pi / 2) + ends[1] * np.sin(share * np.pi / 2)
    # Statistics of the batch are those of its draws, so it is filled up with others.
    z = np.concatenate([between.reshape(-1, pair.latent), rng.standard_normal((CHUNK - 128, pair.latent))])
    labels = np.repeat(np.arange(8), 16) % classes if config.conditional else None
    labels = None if labels is None else np.concatenate([labels, np.arange(CHUNK - 128) % classes])
    made = draw(z.astype(np.float32), labels)[0, :128]
    save(folder / "interpolation.png", made.reshape(8, 16, *made.shape[1:]))
    rows = [part[20 * i : 20 * (i + 1)] for i in range(3) for part in (kept[0], train[nearest])]
    save(folder / "neighbours.png", np.stack(rows))
    save(folder / "training.png", np.stack([np.load(path) for path in sorted(frames.glob("*.npy"))]))


def save(path, grid):
    """Images [rows, columns, Y, X, C] from -1 to 1 as one picture: grey ones with 1 for ink, or in their colours."""
    import numpy as np

    from lmjax.run.pictures import canvas

    rows, columns, Y, X, C = grid.shape
    frame = 1.0 if C > 1 else -1.0  # white
    sheet = np.pad(grid, ((0, 0), (0, 0), (1, 0), (1, 0), (0, 0)), constant_values=frame)
    sheet = sheet.transpose(0, 2, 1, 3, 4).reshape(rows * (Y + 1), columns * (X + 1), C)
    figure = canvas(0.45 * columns, 0.45 * rows, dpi=110)
    if figure is None:
        return
    axes = figure.add_subplot()
    axes.imshow((sheet + 1) / 2, cmap="gray_r", vmin=0, vmax=1)
    axes.axis("off")
    figure.savefig(path)


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
