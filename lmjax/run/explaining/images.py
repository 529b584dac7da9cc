"""The views of explain.py for a ViT: what of a picture speaks for a class."""

from functools import cache, partial

import jax
import numpy as np

from lmjax import config, param
from lmjax.data.images import evaluation, load_images, scaled
from lmjax.errors import UserError
from lmjax.explain import attention, attribution, neighbours, probes, uncertainty
from lmjax.models import vit
from lmjax.run.explaining.subject import Absent, Subject, layers_of
from lmjax.run.explaining.views import Bars, Picture, Table
from lmjax.run.weights import trained
from lmjax.run.workdir import stored_network


def of_vit(workdir: str, settings: dict) -> Subject:
    """An item is the place of a test image."""
    model = stored_network(workdir, config.ViT)
    params = trained(workdir, vit.vit_params(model), "last")

    @cache
    def pictures(data_dir):
        return load_images(settings["data"], data_dir or None)

    @jax.jit
    def say(images, key=None):
        return vit.vit(params, model, images, key=key)

    @jax.jit
    @attribution.with_gradient
    def scored(images, answer):
        return attribution.log_odds(vit.vit(params, model, images), answer)

    def items(asked, lines):
        images = pictures(asked.data_dir).test
        if lines is None:
            lines = range(min(asked.count, len(images)))
        found = []
        for line in list(lines)[: asked.count]:
            if not str(line).strip().isdecimal() or int(line) >= len(images):
                raise UserError(f"--input: {line!r} is no test image; expected a number from 0 to {len(images) - 1}")
            found.append((f"test image {int(line)}, a {images.labels[int(line)]}", int(line)))
        return found

    def problem(at, asked):
        """(pixels uint8, image, the empty baseline, the score at images, its description)."""
        images = pictures(asked.data_dir).test
        image = scaled(images.pixels[at])
        p = np.asarray(jax.nn.softmax(say(image[None])))[0]
        answer = int(asked.answer) if asked.answer.isdecimal() else int(p.argmax())
        if asked.answer and not (asked.answer.isdecimal() and answer < model.classes):
            raise UserError(f"--answer={asked.answer} is no class: expected a number from 0 to {model.classes - 1}")
        # What pixels are where there is nothing: their commonest value.
        ground = np.bincount(images.pixels.reshape(-1), minlength=256).argmax()
        ground = images.pixels.mean() if asked.baseline == "mean" else ground
        baseline = np.full_like(image, scaled(np.float32(ground)))
        return (images.pixels[at], image, baseline, lambda x: scored(x, answer),
                f"for class {answer}, probability {p[answer]:.4f}")  # fmt: skip

    def gradient(at, asked):
        pixels, image, _, at_images, note = problem(at, asked)
        return [Picture("gradient x input", note, pixels, attribution.gradient_input(at_images, image).sum(-1))]

    def integrated(at, asked):
        pixels, image, baseline, at_images, note = problem(at, asked)
        limits = {"tolerance": asked.tolerance, "most": asked.points}
        found = attribution.integrated_gradients(at_images, image, baseline, **limits)
        note += (f"; log-odds {found.whole:+.4f} of the empty picture's, their sum misses {found.gap:+.1e} "
                 f"({found.points} points)")  # fmt: skip
        return [Picture("integrated gradients", note, pixels, found.attribution.sum(-1))]

    def occlusion(at, asked):
        pixels, image, baseline, at_images, note = problem(at, asked)
        P, side = model.patch, model.size // model.patch
        parts = np.zeros((side, side, *image.shape), bool)
        for y in range(side):
            for x in range(side):
                parts[y, x, y * P : (y + 1) * P, x * P : (x + 1) * P] = True
        lost = attribution.occlusion(at_images, image, baseline, parts.reshape(-1, *image.shape))
        return [Picture("occlusion", note + "; lost where a patch is emptied", pixels, lost.reshape(side, side))]

    @jax.jit
    def look(images):
        return [layer.weights for layer in vit.hidden(params, model, images, look=True)[1]]

    def maps(at, asked):
        pixels, image, *_ = problem(at, asked)
        weights, side, found = look(image[None]), model.size // model.patch, []
        for n in layers_of(asked, len(weights)):
            layer = np.asarray(weights[n])[0, :, 0, 1:].reshape(-1, side, side)
            found.append(Picture(f"attention of layer {n}, mean of {len(layer)} heads", "of the class token", pixels,
                                 layer.mean(0)))  # fmt: skip
            for head in range(len(layer)) if asked.heads else ():
                found.append(Picture(f"attention of layer {n}, head {head}", "", pixels, layer[head]))
        return found

    def rolled(at, asked):
        pixels, image, *_ = problem(at, asked)
        through = np.asarray(attention.patch_rollout(params, model, image[None]))[0]
        return [Picture("attention rollout", "share of the class token's answer from each patch", pixels, through)]

    def dropout(at, asked):
        if not model.dropout:
            return Absent("the network was trained without dropout")
        _, image, *_ = problem(at, asked)
        copies = np.broadcast_to(image[None], (asked.draws, *image.shape))
        said = uncertainty.mc_dropout(say(copies, jax.random.key(asked.seed)))
        note = (f"mean and spread over {asked.draws} dropout masks; entropy {said.entropy:.3f} nats, of it "
                f"{said.mutual:.3f} that the masks disagree about")  # fmt: skip
        order = np.argsort(-said.mean, kind="stable")[:20]
        return [Bars("probabilities with dropout", note, [f"class {k}" for k in order], said.mean[order].tolist(),
                     said.sd[order].tolist())]  # fmt: skip

    @cache
    def training(asked):
        images = pictures(asked.data_dir).train[: asked.examples]
        states = jax.jit(partial(layers, model))
        return images.labels, np.concatenate([
            np.asarray(states(params, batch["images"])[-1]) for batch in evaluation(images, 256)
        ])[: len(images)]  # fmt: skip

    def nearest(at, asked):
        labels, vectors = training(asked)
        _, image, *_ = problem(at, asked)
        mine = np.asarray(layers(model, params, image[None])[-1])[0]
        rows = [[f"{cosine:.3f}", str(labels[i]), str(i)]
                for i, cosine in neighbours.nearest(vectors, mine, asked.neighbours)]  # fmt: skip
        note = f"of the first {len(labels):,}, by the cosine of the class token's last vector"
        return [Table("nearest training images", note, ["cosine", "class", "image"], rows)]

    def probed(asked):
        return probe_layers(model, params, pictures(asked.data_dir), asked)

    views = {"gradient": gradient, "integrated": integrated, "occlusion": occlusion, "attention": maps,
             "rollout": rolled, "dropout": dropout, "neighbours": nearest}  # fmt: skip
    return Subject("vit", views, {"probes": probed}, items)


def layers(model, params, images):
    """The class token's vectors [B,D] behind each block, the last normalised."""
    x, seen = vit.hidden(params, model, images, look=True)
    return [*(layer.x[:, 0] for layer in seen[:-1]), x[:, 0]]


def probe_layers(model, params, pictures, asked):
    """How many test images a linear classifier gets right from each layer's class token, trained and untrained."""
    parts, shown = [pictures.train[: asked.examples], pictures.test[: asked.examples]], []
    states = jax.jit(partial(layers, model))
    for weights in (params, param.init(vit.vit_params(model), jax.random.key(asked.seed))):
        known, asks = (
            [np.concatenate(layer)[: len(part)] for layer in
             zip(*([np.asarray(x) for x in states(weights, batch["images"])] for batch in evaluation(part, 256)))]
            for part in parts
        )  # fmt: skip
        shown.append([
            probes.probe(a, parts[0].labels, b, parts[1].labels, model.classes, asked.seed) for a, b in zip(known, asks)
        ])  # fmt: skip
    rows = [[str(n), f"{a.accuracy:.1f}", f"{b.accuracy:.1f}"] for n, (a, b) in enumerate(zip(*shown))]
    largest = 100 * float(np.bincount(parts[1].labels).max() / len(parts[1]))
    note = (f"test accuracy in %, of {len(parts[1]):,} images, of logistic regressions on the class token of "
            f"{len(parts[0]):,}; the largest class alone {largest:.1f}")  # fmt: skip
    return [Table("probes of each layer", note, ["layer", "trained", "untrained"], rows)]
