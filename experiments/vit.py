"""A Vision Transformer on hand-written digits, and a picture of where it looks.

    bash launch/run.sh experiments/vit.py

trains on the 8 x 8 digits that scikit-learn carries (nothing to download) for half a minute of one core and ends with
the accuracy on 360 of them in percent: 98.6.

    bash launch/run.sh experiments/vit.py --preset=mnist --data_dir=DATA

is MNIST from scratch: 99.31 % of the test images (seed 0), in seven minutes of two cores. Needs the four IDX files
under DATA/mnist, or a connection to fetch them. --data=FOLDER takes IDX files of your own.

rollout.png in the workdir has, for some test images and those that were called wrongly, how much of the answer came
from each patch. Validation images are cut from the end of training; what was chosen for the digits was chosen on them,
and the test images are read once, at the end.

Papers: Dosovitskiy et al. 2021 (ViT), which has no figure on MNIST; Abnar & Zuidema 2020 (attention rollout).
Departure: it is small, and trained on the task alone, with images moved by a pixel or two.
"""

from dataclasses import dataclass, replace

from lmjax.config import ViT, setting
from lmjax.errors import install
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("digits", "digits (with scikit-learn), mnist, tfds:NAME, or a folder of IDX files")
    model: ViT = setting(ViT(patch=2, layers=4, heads=4, dim=64), "the network")
    batch: int = setting(64, "images of a step", low=1)
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)
    epochs: float = setting(60.0, "passes over the training images", low=0.0)
    shift: int = setting(1, "pixels an image is moved by at most, each way", low=0)
    lr: float = setting(2e-3, "highest learning rate", low=0.0)
    lr_end: float = setting(1e-5, "learning rate at the last step, after half a cosine", low=0.0)
    warmup: int = setting(100, "steps over which the learning rate rises", low=0)
    weight_decay: float = setting(0.05, "AdamW's decay of matrices", low=0.0)
    clip: float = setting(1.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    pictures: int = setting(12, "test images in rollout.png; 0: none is drawn", low=0)


PRESETS = {
    "mnist": {
        "help": "60,000 images of 28 x 28 pixels from scratch: no published figure",
        "data": "mnist", "model.patch": 7, "model.layers": 6, "model.dim": 96, "batch": 100,
        "epochs": 16.0, "shift": 2, "warmup": 300,
    },
}  # fmt: skip


def fitted(model: ViT, pictures):
    """The config with the images' size and classes. ValueError where it asks for others."""
    y, x, channels = pictures.train.pixels.shape[1:]
    if y != x:
        raise ValueError(f"{pictures.name} has images of {y} x {x} pixels: expected as many rows as columns")
    for name, asked, found in (("size", model.size, y), ("classes", model.classes, pictures.classes)):
        if asked not in (0, found):
            raise ValueError(f"model.{name}={asked}, and {pictures.name} has {found}: leave it at 0")
    return replace(model, size=y, channels=channels, classes=pictures.classes)


def main(config):
    import jax
    import numpy as np

    from lmjax.data import images
    from lmjax.explain.attention import patch_rollout
    from lmjax.models.vit import vit, vit_loss, vit_params
    from lmjax.run.lanes import each
    from lmjax.run.settings import to_json
    from lmjax.run.training import finish, fit, session
    from lmjax.run.workdir import write
    from lmjax.train import optim
    from lmjax.train.step import Recipe

    pictures = images.load_images(config.data, config.data_dir or None)
    model = fitted(config.model, pictures)
    _, steps_per_epoch = images.batches(pictures.train, config.batch, config.seed, config.shift)
    steps = max(round(config.epochs * steps_per_epoch), 1)

    def recipe(config):
        model = fitted(config.model, pictures)
        rate = optim.warmup_cosine(config.lr, steps, config.warmup, config.lr_end)
        return Recipe(
            tx=optim.adamw(rate, weight_decay=config.weight_decay),
            loss=lambda *given: vit_loss(given[0], model, *given[1:]),
            accumulate=config.accumulate,
            clip=config.clip,
            learning_rate=rate,
        )

    with session("vit", config) as run:
        write(run.workdir / "network.json", to_json(model))  # the sizes are the data's
        sums = jax.jit(lambda params, batch: vit_loss(params, model, batch, None, ())[:2])

        def score(params, part):
            """Mean cross entropy in nats and accuracy in percent."""
            total, right, weight = 0.0, 0.0, 0.0
            for rows in images.evaluation(part, 256):
                run.check()
                new, (count, metrics, _) = jax.device_get(sums(params, rows))
                total, right, weight = total + float(new), right + float(metrics["accuracy"]), weight + float(count)
            return {"loss": total / weight, "accuracy": 100 * right / weight}

        outcome = fit(
            run,
            specs=vit_params(model),
            recipe=recipe,
            batches=lambda seed: images.batches(pictures.train, config.batch, seed, config.shift)[0],
            steps=steps,
            evaluate=lambda params: score(params, pictures.valid),
            evaluate_every=max(steps // 10, 1),
            tokens_per_step=config.batch * (model.size // model.patch) ** 2,
        )
        look = jax.jit(lambda p, x: (vit(p, model, x).argmax(-1), patch_rollout(p, model, x)))

        def figures(run, outcome):
            test, last = score(outcome.params, pictures.test), outcome.history[-1]
            if config.pictures:
                parts = images.evaluation(pictures.test, 256)
                found = [jax.device_get(look(outcome.params, rows["images"])) for rows in parts]
                called, seen = (np.concatenate(part)[: len(pictures.test)] for part in zip(*found))
                if draw(pictures.test, called, seen, config.pictures, run.workdir / "rollout.png") is None:
                    run.say("rollout.png needs matplotlib: " + install("plot"))
            return {"test_accuracy": test["accuracy"], "test_error": 100 - test["accuracy"], "test_loss": test["loss"],
                    "validation_accuracy": last["accuracy"], "validation_loss": last["loss"]}  # fmt: skip

        finish(run, PRESETS, outcome, each(run, outcome, figures, tell=False))


def draw(test, called, seen, count: int, path):
    """Test images beside their rollout, `seen` [N,Y/P,X/P]: up to half of them wrong, the rest the first. The path;
    None without the plot extra."""
    import numpy as np

    from lmjax.run.pictures import canvas

    wrong = np.flatnonzero(called != test.labels)[: count // 2]
    first = np.setdiff1d(np.arange(len(test)), wrong)[: count - len(wrong)]
    columns, size = 6, test.pixels.shape[1:]
    rows = -(-count // columns)
    figure = canvas(1.5 * columns, 3.3 * rows, dpi=110)
    if figure is None:
        return None
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for n, i in enumerate([*first, *wrong]):
        above, below = grid[2 * (n // columns) : 2 * (n // columns) + 2, n % columns]
        above.imshow(test.pixels[i], cmap="gray_r", vmin=0, vmax=255)  # three channels: in their own colours
        right = called[i] == test.labels[i]
        title = f"{called[i]}" if right else f"{called[i]}, is {test.labels[i]}"
        above.set_title(title, fontsize=10, color="black" if right else "#c1440e")
        below.imshow(seen[i], cmap="inferno", vmin=0, extent=(-0.5, size[1] - 0.5, size[0] - 0.5, -0.5))
        below.contour(test.pixels[i].mean(-1), levels=[127.5], colors="white", linewidths=1)
    figure.savefig(path)
    return path


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
