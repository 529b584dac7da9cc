"""The audit finds a leak that was planted, and none where there is none."""

import math
import sys

import jax
import numpy as np
import optax
import pytest

from lmjax import param
from lmjax.errors import UserError
from lmjax.losses import choice
from lmjax.nn.linear import linear, linear_params
from lmjax.privacy import audit, sampling
from lmjax.privacy.step import private_step
from lmjax.train import parallel
from lmjax.train.state import new_state


def test_exposure_is_the_rank_among_the_others_in_bits():
    others = np.arange(1.0, 1024.0)
    assert audit.exposure(0.0, others) == 10.0
    assert audit.exposure(2000.0, others) == 0.0
    assert audit.exposure(511.5, others) == 1.0


def test_coins_are_a_function_of_the_seed_and_fair():
    np.testing.assert_array_equal(audit.coins(100, 3), audit.coins(100, 3))
    assert not np.array_equal(audit.coins(100, 3), audit.coins(100, 4))
    assert 0.47 < audit.coins(10_000, 0).mean() < 0.53


def test_least_epsilon_of_scores():
    pytest.importorskip("jax_privacy")
    rng, planted = np.random.default_rng(0), audit.coins(400, 0)
    blind = rng.normal(size=400)
    assert audit.least_epsilon(blind, planted, 1e-5) < 0.3
    assert audit.rank_accuracy(blind, planted) == pytest.approx(0.5, abs=0.08)
    telling = blind + 10 * planted
    assert audit.least_epsilon(telling, planted, 1e-5) > 3
    assert audit.rank_accuracy(telling, planted) == 1.0
    assert audit.least_epsilon(telling, planted, 1e-5, confidence=0.5) > audit.least_epsilon(telling, planted, 1e-5)


def test_what_cannot_be_audited_is_refused_in_one_line(monkeypatch):
    with pytest.raises(UserError, match="3 canaries, of which 3 were trained on"):
        audit.least_epsilon([1, 2, 3], [True] * 3, 1e-5)
    with pytest.raises(UserError, match="no finite numbers"):
        audit.least_epsilon([1, math.nan], [True, False], 1e-5)
    monkeypatch.setitem(sys.modules, "jax_privacy", None)
    with pytest.raises(UserError, match="LMJAX_EXTRAS=privacy"):
        audit.least_epsilon([1, 2], [True, False], 1e-5)


def test_a_planted_leak_is_found_without_noise_and_not_with_it():
    """Canaries are points of random class, which a layer wide enough learns by heart."""
    pytest.importorskip("jax_privacy")
    M, D, K, tx = 300, 512, 4, optax.sgd(2.0)
    rng, planted = np.random.default_rng(0), audit.coins(M, 0)
    x, labels = rng.normal(size=(M, D)).astype(np.float32) / 22, rng.integers(0, K, M, np.int32)
    rows = {"x": x[planted], "labels": labels[planted]}
    most = sampling.room(len(rows["x"]), 20.0)
    batch, specs = sampling.batches(rows, 20.0, 0, most), linear_params(D, K, (None, None))

    def loss(params, batch, key, carry):
        return choice(linear(params, batch["x"]), batch["labels"], batch["weights"], carry)

    def found(clip, noise):
        step = parallel.local().compile(private_step(loss, tx, clip=clip, noise_multiplier=noise, lot=20.0))
        state = parallel.local().place(new_state(param.init(specs, jax.random.key(0)), tx))
        for i in range(60):
            state, _ = step(state, batch(i), jax.random.key(1))
        scores = jax.nn.log_softmax(linear(state.params, x))[np.arange(M), labels]
        return audit.least_epsilon(scores, planted, 1e-5)

    assert found(0.0, 0.0) > 1.5
    assert found(1.0, 8.0) < 0.5
