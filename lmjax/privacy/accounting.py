"""What a private training costs: every figure is dp-accounting's, by privacy loss distributions (Koskela et al. 2020).

Neighbours are data sets of which one has one example more. What counts are the weights alone: the log of the training
loss, and settings that were chosen by trying, are not covered, and whoever knows the seed can take the noise off.
"""

import math
from functools import partial
from typing import NamedTuple

from lmjax.errors import UserError, install

ORDERS = [2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 64, 96, 128, 256, 512]  # of Rényi's divergences


class Mechanism(NamedTuple):
    """What was done with the examples.

    examples: how many there are. lot: how many a step draws in the mean, each by itself. noise: standard deviation over
    the longest gradient. most: how many a step holds, a random part of those drawn where they are more; 0: all. At the
    room of sampling.py it changes no digit of epsilon that is printed, and dp-accounting needs ten times as long.
    releases: noise, over what one example changes, of what was published of all examples once.
    """

    examples: int
    lot: float
    steps: int
    noise: float = 0.0
    most: int = 0
    releases: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        return min(self.lot / self.examples, 1.0)


def library():
    """dp_accounting; UserError where it is not installed."""
    try:
        import dp_accounting
        import dp_accounting.pld
        import dp_accounting.rdp
    except ImportError:
        raise UserError("privacy is accounted for by dp-accounting, which is not installed: "
                        + install("privacy")) from None  # fmt: skip
    return dp_accounting


def event(mechanism: Mechanism):
    """The mechanism in dp-accounting's terms, a DpEvent."""
    dp = library()
    rate, noise, most = mechanism.rate, mechanism.noise, mechanism.most
    if most and most < mechanism.examples:
        step = dp.TruncatedSubsampledGaussianDpEvent(mechanism.examples, rate, most, noise)
    else:
        step = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise))
    once = [dp.GaussianDpEvent(release) for release in mechanism.releases]
    return dp.ComposedDpEvent([*once, *[dp.SelfComposedDpEvent(step, mechanism.steps)] * (mechanism.steps > 0)])


def epsilon(mechanism: Mechanism, delta: float) -> float:
    """The least epsilon for which the mechanism is (epsilon, delta)-private; infinite without noise.

    Seconds for thousands of steps. UserError where delta is no probability.
    """
    if not 0 < delta < 1:
        raise UserError(f"delta={delta:g}: expected a probability between 0 and 1")
    accountant = library().pld.PLDAccountant()
    return float(accountant.compose(event(mechanism)).get_epsilon(delta))


def noise_for(target: float, mechanism: Mechanism, delta: float) -> float:
    """The least noise, to a thousandth, with which the mechanism keeps within `target` epsilon.

    UserError where no noise does, because of what was released before.
    """
    dp = library()
    once = epsilon(mechanism._replace(steps=0), delta) if mechanism.releases else 0.0
    if once >= target:
        raise UserError(f"epsilon={target:g} is not reachable: what is released before training costs {once:.3g}; "
                        "give that more noise, or raise epsilon")  # fmt: skip

    def found(accountant, interval, tolerance):
        return dp.calibrate_dp_mechanism(
            accountant, lambda noise: event(mechanism._replace(noise=noise)), target, delta,
            bracket_interval=interval, tol=tolerance,
        )  # fmt: skip

    fine = 1e-4 if target < 2 else 1e-3  # of the distributions; a coarse one errs to the safe side
    try:
        # Rényi's bound takes milliseconds and lies above: between it and less than its half the distributions look.
        above = found(lambda: dp.rdp.RdpAccountant(ORDERS), dp.LowerEndpointAndGuess(0.1, 2.0), 1e-2)
        accountant = partial(dp.pld.PLDAccountant, value_discretization_interval=fine)
        noise = found(accountant, dp.ExplicitBracketInterval(0.4 * above, above), 1e-3)
    except (dp.NoBracketIntervalFoundError, ValueError, OverflowError) as error:
        raise UserError(f"epsilon={target:g} at delta={delta:g} is not reachable by noise ({error}): set another "
                        "epsilon or delta, fewer steps or a smaller lot") from None  # fmt: skip
    return float(noise)


def settled(privacy, mechanism: Mechanism) -> tuple[Mechanism, float]:
    """(the mechanism with its noise, its epsilon) of an experiment's settings, options.Private; epsilon is infinite
    where there is no noise."""
    if not privacy.on:
        return mechanism, math.inf
    if privacy.delta >= 1 / mechanism.examples:
        raise UserError(f"delta={privacy.delta:g} of {mechanism.examples:,} examples: one of 1/{mechanism.examples} or "
                        "more lets a whole example out; set a smaller one")  # fmt: skip
    noise = privacy.noise or noise_for(privacy.epsilon, mechanism, privacy.delta)
    mechanism = mechanism._replace(noise=noise)
    return mechanism, epsilon(mechanism, privacy.delta)


def line(mechanism: Mechanism, delta: float, spent: float) -> str:
    """What is said of it at the start of a run."""
    if math.isinf(spent):
        return "not private: no noise (epsilon infinite)"
    before = f", and before it noise {', '.join(f'{n:g}' for n in mechanism.releases)}" if mechanism.releases else ""
    return (
        f"epsilon {spent:.4g} at delta {delta:g}: {mechanism.steps:,} steps of {mechanism.lot:g} in "
        f"{mechanism.examples:,} examples, noise {mechanism.noise:.4g}{before} (dp-accounting)"
    )
