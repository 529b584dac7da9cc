"""Poisson sampling: a function of (seed, step), each example by itself, in one shape."""

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.privacy import sampling

N, LOT = 500, 50.0


def test_each_example_is_drawn_by_itself_with_one_probability():
    draw, steps = sampling.poisson(N, LOT, seed=3), 2000
    taken = np.zeros((steps, N), bool)
    for step in range(steps):
        taken[step, draw(step)] = True
    rate = LOT / N
    assert abs(taken.mean() - rate) < 0.001
    assert np.abs(taken.mean(0) - rate).max() < 5 * np.sqrt(rate * (1 - rate) / steps)  # no example is favoured
    counts = taken.sum(1)
    assert abs(counts.var() / (N * rate * (1 - rate)) - 1) < 0.15  # as of a binomial: sizes of batches vary
    pairs = (taken[:, :-1] & taken[:, 1:]).mean()
    assert abs(pairs - rate**2) < 0.0005


def test_a_batch_is_a_function_of_seed_and_step():
    rows = {"x": np.arange(N, dtype=np.float32)[:, None], "weights": np.ones((N, 3), np.float32)}
    a, b, other = (sampling.batches(rows, LOT, seed, 96) for seed in (0, 0, 1))
    a(7)
    np.testing.assert_array_equal(a(5)["x"], b(5)["x"])
    assert not np.array_equal(a(5)["x"], a(6)["x"])
    assert not np.array_equal(a(5)["x"], other(5)["x"])
    assert rows["weights"].all()  # the examples themselves are not written to


def test_all_batches_have_one_shape_and_rows_that_fill_weigh_nothing():
    rows = {"x": np.arange(N, dtype=np.float32)}
    most = sampling.room(N, LOT, multiple=8)
    batch, draw = sampling.batches(rows, LOT, 0, most), sampling.poisson(N, LOT, 0, most)
    for step in range(20):
        one, taken = batch(step), draw(step)
        assert one["x"].shape == one["weights"].shape == (most,)
        np.testing.assert_array_equal(one["x"][one["weights"] > 0], taken)
        assert one["weights"].sum() == len(taken)


def test_a_draw_that_does_not_fit_gives_a_random_part():
    tight, free = sampling.poisson(N, LOT, 0, most=30), sampling.poisson(N, LOT, 0)
    for step in range(20):
        some, every = tight(step), free(step)
        assert len(some) == min(30, len(every))
        assert set(some) <= set(every)
        assert len(every) < 35 or some[-1] != every[29]  # not just the first of them


def test_the_room_is_small_and_hardly_ever_too_small():
    from scipy.stats import binom

    most = sampling.room(55_000, 600)
    assert 700 < most < 800
    assert binom.sf(most, 55_000, 600 / 55_000) <= sampling.OVERFLOW
    assert sampling.room(10, 10, multiple=8) == 16
    with pytest.raises(UserError, match="a lot of 20 of 10 examples"):
        sampling.room(10, 20)


def test_a_character_of_a_text_is_in_one_example_alone():
    rows = sampling.disjoint(np.arange(23), 4)
    seen = np.concatenate([rows["tokens"], rows["targets"][:, -1:]], 1)
    np.testing.assert_array_equal(seen.ravel(), np.arange(20))
    np.testing.assert_array_equal(rows["targets"][:, :-1], rows["tokens"][:, 1:])
    with pytest.raises(UserError, match="makes 1 examples of 4"):
        sampling.disjoint(np.arange(9), 4)
