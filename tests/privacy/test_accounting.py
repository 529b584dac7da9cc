"""Epsilon is dp-accounting's, to the digit, and the noise for one keeps within it."""

import math
import sys

import pytest

from lmjax.errors import UserError
from lmjax.privacy import accounting
from lmjax.privacy.accounting import Mechanism
from lmjax.privacy.options import Private

MNIST = Mechanism(60_000, 600.0, 1000, 4.0)


def test_epsilon_is_dp_accountings_to_the_digit():
    dp = pytest.importorskip("dp_accounting")
    from dp_accounting import pld

    theirs = pld.PLDAccountant()
    theirs.compose(dp.PoissonSampledDpEvent(0.01, dp.GaussianDpEvent(4.0)), 1000)
    assert accounting.epsilon(MNIST, 1e-5) == theirs.get_epsilon(1e-5)
    theirs.compose(dp.GaussianDpEvent(7.0))
    both = accounting.epsilon(MNIST._replace(releases=(7.0,)), 1e-5)
    assert both == pytest.approx(theirs.get_epsilon(1e-5), abs=1e-9)  # in the other order: the last bit may differ
    assert accounting.epsilon(MNIST._replace(noise=0.0), 1e-5) == math.inf
    assert accounting.epsilon(Mechanism(100, 10.0, 0, 0.0, releases=(2.0,)), 1e-5) == pytest.approx(
        dp.get_epsilon_gaussian(2.0, 1e-5), abs=1e-3
    )


def test_what_does_not_fit_into_a_batch_changes_no_printed_digit():
    pytest.importorskip("dp_accounting")
    from lmjax.privacy import sampling

    one = Mechanism(500, 25.0, 4, 3.0)
    most = sampling.room(one.examples, one.lot)
    assert accounting.epsilon(one._replace(most=most), 1e-5) == pytest.approx(accounting.epsilon(one, 1e-5), abs=1e-7)
    assert accounting.epsilon(one._replace(most=20), 1e-5) > accounting.epsilon(one, 1e-5) + 1e-4


@pytest.mark.parametrize("target", [0.5])
def test_the_noise_for_an_epsilon_spends_it_and_no_more(target):
    pytest.importorskip("dp_accounting")
    mechanism, spent = accounting.settled(Private(epsilon=target, lot=600), MNIST._replace(noise=0.0, releases=(16.0,)))
    assert 0.98 * target < spent <= target
    assert spent == accounting.epsilon(mechanism, 1e-5)
    assert "1,000 steps of 600 in 60,000 examples" in accounting.line(mechanism, 1e-5, spent)
    assert "noise 16" in accounting.line(mechanism, 1e-5, spent)


def test_noise_that_is_given_is_accounted_for_and_none_is_no_privacy():
    pytest.importorskip("dp_accounting")
    mechanism, spent = accounting.settled(Private(noise=4.0, lot=600), MNIST._replace(noise=0.0))
    assert mechanism == MNIST
    assert spent == accounting.epsilon(MNIST, 1e-5)
    mechanism, spent = accounting.settled(Private(lot=600), MNIST._replace(noise=0.0))
    assert (mechanism.noise, spent) == (0.0, math.inf)
    assert accounting.line(mechanism, 1e-5, spent).startswith("not private")


def test_what_cannot_be_is_refused_in_one_line():
    pytest.importorskip("dp_accounting")
    with pytest.raises(UserError, match=r"epsilon=0\.5 is not reachable: what is released before training costs 3"):
        accounting.noise_for(0.5, MNIST._replace(releases=(1.3,)), 1e-5)
    with pytest.raises(UserError, match="delta=0: expected a probability"):
        accounting.epsilon(MNIST, 0.0)
    with pytest.raises(UserError, match=r"delta=0\.001 of 1,000 examples"):
        accounting.settled(Private(epsilon=1.0, delta=1e-3), Mechanism(1000, 10.0, 5))
    with pytest.raises(ValueError, match="leave one out"):
        Private(epsilon=1.0, noise=1.0)
    with pytest.raises(ValueError, match="set one above 0"):
        Private(epsilon=1.0, clip=0.0)


def test_without_the_library_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UserError, match="LMJAX_EXTRAS=privacy"):
        accounting.epsilon(MNIST, 1e-5)
