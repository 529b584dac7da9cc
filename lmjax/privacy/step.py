"""DP-SGD as a step of the house's form, `step(state, batch, key, axis) -> (state, metrics)` (Abadi et al. 2016)."""

import jax
import jax.numpy as jnp
import optax

from lmjax.privacy.clipping import clipped_sums
from lmjax.train.state import count_bad
from lmjax.train.step import Recipe, keep

NOISE = 0x6E6F6973  # the place of the noise among what a step draws


def noise(key, tree, deviation):
    """Normal noise of the tree's shape."""
    leaves, structure = jax.tree.flatten(tree)
    drawn = [deviation * jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


def private_step(
    loss, tx, *, clip, noise_multiplier, lot, accumulate: int = 1, ghost: bool = True, frozen: tuple[str, ...] = (),
    averaging=None, learning_rate=None,
):  # fmt: skip
    """A private step for a loss and an optax transformation; see make_step in train/step.py for what is not here.

    The gradient is the sum of the examples' own, none longer than `clip`, with normal noise of deviation
    noise_multiplier times clip, over `lot`, the number of examples drawn in the mean: how many there were is private.
    The noise is drawn of (seed, step), alike on every device, and added once, after the devices' sums.
    frozen: parts of the parameters, by name, that stay as they are and are no part of the gradient.

    A step whose sums are not finite changes nothing, as elsewhere; what that tells of its examples is not accounted
    for. Metrics: the loss's over the weight; gradient_norm, with noise; example_norm, the mean before clipping;
    clipped, the share of examples clipped; examples.
    """

    def step(state, batch, key, axis):
        key = jax.random.fold_in(key, state.step)
        fixed = {name: state.params[name] for name in frozen}
        params = {name: x for name, x in state.params.items() if name not in frozen} if frozen else state.params

        def of_rest(rest, *given):
            return loss(fixed | rest if frozen else rest, *given)

        sums = axis.psum(clipped_sums(of_rest, params, batch, axis.fold(key), clip, accumulate=accumulate, ghost=ghost))
        with jax.named_scope("update"):
            drawn = noise(jax.random.fold_in(key, NOISE), sums.gradient, noise_multiplier * clip)
            gradient = jax.tree.map(lambda g, z: (g + z) / lot, sums.gradient, drawn)
            norm = optax.tree.norm(gradient)
            finite = jnp.isfinite(sums.total) & jnp.isfinite(norm)
            if frozen:
                gradient = gradient | jax.tree.map(jnp.zeros_like, fixed)
            updates, opt = tx.update(gradient, state.opt, state.params)
            if frozen:
                updates = updates | jax.tree.map(jnp.zeros_like, fixed)
            params = optax.apply_updates(state.params, updates)
        params, opt = keep(finite, params, state.params), keep(finite, opt, state.opt)
        average = state.average
        if averaging is not None:
            average = keep(finite, averaging.update(average, params, state.step), average)
        bad, some = count_bad(state.bad, finite), jnp.maximum(sums.examples, 1.0)
        report = {name: value / jnp.maximum(sums.weight, 1e-12) for name, value in sums.metrics.items()}
        report |= {
            "loss": sums.total / jnp.maximum(sums.weight, 1e-12), "gradient_norm": norm, "bad": bad[0],
            "examples": sums.examples, "example_norm": sums.norms / some, "clipped": sums.longer / some,
        }  # fmt: skip
        if learning_rate is not None:
            report["learning_rate"] = learning_rate(state.step)
        new = state.replace(step=state.step + 1, params=params, opt=opt, average=average, bad=bad)
        return new, report

    return step


def private_recipe(loss, tx, privacy, mechanism, **more) -> Recipe:
    """The Recipe of a private training. privacy: options.Private; mechanism: what it settled to (accounting.settled);
    more: of `private_step`."""
    step = private_step(
        loss, tx, clip=privacy.clip, noise_multiplier=mechanism.noise, lot=privacy.lot, ghost=privacy.ghost, **more
    )
    known = {name: value for name, value in more.items() if name in Recipe._fields}
    return Recipe(tx=tx, loss=loss, step=step, **known)
