"""Batches: pure functions of (seed, step) that show every target they promise, each the token after."""

import itertools

import numpy as np
import pytest

from lmjax.data import batches
from lmjax.errors import UserError

N = 1000
TOKENS = np.arange(N, dtype=np.uint16)  # each token is its own position, so a batch shows where it was taken


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def well_formed(batch, rows, length):
    for name, kind in (("tokens", np.int32), ("targets", np.int32), ("weights", np.float32)):
        assert batch[name].dtype == kind
        assert batch[name].shape == (rows, length)
        assert batch[name].flags.c_contiguous
    assert all(len(value) == rows for value in batch.values())
    counts = batch["weights"] == 1
    assert np.all(counts | (batch["weights"] == 0))
    np.testing.assert_array_equal(batch["targets"][counts], batch["tokens"][counts] + 1)
    assert np.all(np.diff(batch["weights"], axis=1) <= 0)  # padding stands at the end
    assert not batch["tokens"][~counts].any()
    assert not batch["targets"][~counts].any()


def seen(made):
    """How often each target counted: int[N]."""
    return np.bincount(np.concatenate([batch["targets"][batch["weights"] == 1] for batch in made]), minlength=N)


def test_windows_are_a_function_of_seed_and_step():
    batch = batches.windows(TOKENS, 6, 16, seed=3)
    later = batch(10)
    for step in (0, 5, 10):
        batch(step)
    same(batches.windows(TOKENS, 6, 16, seed=3)(10), later)
    for other in (batch(11), batches.windows(TOKENS, 6, 16, seed=4)(10), batches.windows(TOKENS, 6, 16, seed=10)(3)):
        assert not np.array_equal(other["tokens"], later["tokens"])
    well_formed(later, 6, 16)
    assert later["weights"].all()


def test_windows_begin_anywhere_and_nowhere_more_often():
    batch = batches.windows(TOKENS, 50, 16, seed=0)
    first = np.concatenate([batch(step)["tokens"][:, 0] for step in range(400)])
    places = N - 16
    counts = np.bincount(first, minlength=places)
    assert len(counts) == places
    assert counts[0] > 0
    assert counts[-1] > 0
    expected = len(first) / places
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - places) < 5 * np.sqrt(2 * places)


def test_a_batch_is_nobodys_view():
    tokens = TOKENS.astype(np.int32)
    made = [batches.windows(tokens, 2, 8, 0)(0), batches.contiguous(tokens, 1, 8)[0](0)]
    made += [batches.jittered(tokens, 1, 8, 0)[0](0), *batches.evaluation(tokens, 1, 999)]
    for batch in made:
        batch["tokens"][:] = -1
        batch["targets"][:] = -1
    np.testing.assert_array_equal(tokens, TOKENS)


def test_contiguous_streams_go_on_where_they_were():
    batch, steps = batches.contiguous(TOKENS, 7, 12)
    assert steps == (N // 7 - 1) // 12
    epoch = [batch(step) for step in range(steps)]
    for made in epoch:
        well_formed(made, 7, 12)
    for before, after in itertools.pairwise(epoch):
        np.testing.assert_array_equal(after["tokens"][:, 0], before["targets"][:, -1])
    assert [made["start"].all() for made in epoch] == [True] + [False] * (steps - 1)
    assert not any(made["start"].any() for made in epoch[1:])
    assert seen(epoch).max() == 1
    assert seen(epoch).sum() == 7 * 12 * steps
    for step in (0, steps - 1):
        same(batch(step), batch(step + 3 * steps))


@pytest.mark.parametrize("unroll", [20, 70])
def test_jittered_sees_every_target_of_an_epoch_once(unroll):
    tokens = np.arange(3000)
    batch, steps = batches.jittered(tokens, 2, unroll, seed=1)
    after = 0
    for epoch in range(3):  # epochs differ in length: walk until the next begins
        made = [batch(after)]
        assert made[0]["start"].all()
        while not (following := batch(after + len(made)))["start"].any():
            made.append(following)
        after += len(made)
        if epoch == 0:
            assert steps == len(made)
        counts = np.bincount(np.concatenate([each["targets"][each["weights"] == 1] for each in made]), minlength=3000)
        assert counts[[0, 1500]].tolist() == [0, 0]  # the first of each stream has nothing before it
        assert np.delete(counts, [0, 1500]).tolist() == [1] * 2998
        for each in made:
            well_formed(each, 2, unroll + 10)
            np.testing.assert_array_equal(each["lengths"], each["weights"].sum(1))
            np.testing.assert_allclose(each["scale"], each["lengths"] / unroll, rtol=1e-6)
        for before, later in itertools.pairwise(made):
            assert np.array_equal(later["tokens"][:, 0], before["targets"][[0, 1], before["lengths"] - 1])


def test_jittered_is_a_function_of_seed_and_step():
    batch, _ = batches.jittered(TOKENS, 2, 20, seed=1)
    far = batch(500)
    same(batches.jittered(TOKENS, 2, 20, seed=1)[0](500), far)
    for step in (0, 499, 700, 500):
        again = batch(step)
    same(again, far)
    lengths = [int(batch(step)["lengths"][0]) for step in range(20)]
    other = batches.jittered(TOKENS, 2, 20, seed=2)[0]
    assert lengths != [int(other(step)["lengths"][0]) for step in range(20)]


def test_jittered_lengths_are_the_papers():
    batch, steps = batches.jittered(np.zeros(150_000, np.int32), 1, 70, seed=0)
    lengths = np.array([batch(step)["lengths"][0] for step in range(steps - 1)])
    half = lengths < 52
    assert 0.03 < half.mean() < 0.07
    assert abs(lengths[half].mean() - 35) < 1
    assert abs(lengths[~half].mean() - 69.5) < 0.5
    assert lengths.min() >= 5
    assert lengths.max() == 80


@pytest.mark.parametrize("length", [2, 3, 50, 97, 1000])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("unroll", [1, 7, 64])
def test_evaluation_counts_every_target_once(length, rows, unroll):
    streams = list(batches.evaluation(TOKENS[:length], rows, unroll))
    windows = list(batches.evaluation_windows(TOKENS[:length], unroll, rows))
    for made in (streams, windows):
        for batch in made:
            well_formed(batch, rows, unroll)
        assert seen(made)[1:length].tolist() == [1] * (length - 1)
        assert seen(made).sum() == length - 1
        assert all(batch["weights"].any() for batch in made)  # no batch of padding alone
    assert [batch["start"].tolist() for batch in streams] == [[number == 0] * rows for number in range(len(streams))]
    for before, after in itertools.pairwise(streams):
        on = after["weights"][:, 0] == 1
        np.testing.assert_array_equal(after["tokens"][on, 0], before["targets"][on, -1])


def test_too_short_is_said_with_the_lengths():
    def refused(function, *expected):
        with pytest.raises(UserError) as caught:
            function()
        for part in expected:
            assert part in str(caught.value), str(caught.value)

    refused(lambda: batches.windows(TOKENS[:64], 2, 64, 0), "64 tokens", "at least 65", "context=64")
    batches.windows(TOKENS[:65], 2, 64, 0)(0)
    refused(lambda: batches.contiguous(TOKENS[:83], 4, 20), "83 tokens", "at least 84", "batch=4", "unroll=20")
    assert batches.contiguous(TOKENS[:84], 4, 20)[1] == 1
    refused(lambda: batches.jittered(TOKENS[:83], 4, 20, 0), "83 tokens", "at least 84")
    refused(lambda: batches.evaluation(TOKENS[:1], 1, 20), "1 tokens", "at least 2")
    refused(lambda: batches.evaluation_windows(TOKENS[:0], 20, 1), "0 tokens", "at least 2")
    refused(lambda: batches.windows(TOKENS.reshape(10, 100), 1, 4, 0), "(10, 100)")
    refused(lambda: batches.windows(TOKENS.astype(float), 1, 4, 0), "float64")


def sentences(n=60, seed=0):
    """Pairs of 2 to 20 tokens, each its own number all through, the end (2) last."""
    rng = np.random.default_rng(seed)
    return [[np.append(np.full(rng.integers(1, 20), 10 + i), 2).astype(np.int32) for i in range(n)] for _ in range(2)]


@pytest.mark.parametrize("sizes", [{"rows": 8}, {"budget": 64, "multiple": 4}])
def test_bucketed_batches_see_every_pair_once_an_epoch_in_few_shapes(sizes):
    source, target = sentences()
    data = batches.bucketed(source, target, 1, shapes=3, seed=5, **sizes)
    assert len(data.lengths) == 3
    for epoch in range(2):
        seen, shapes, weight = [], set(), 0.0
        for step in range(epoch * data.steps, (epoch + 1) * data.steps):
            batch = data.batch(step)
            shapes.add(batch["source"].shape)
            rows = np.flatnonzero(batch["seen"].any(1))
            seen += [int(batch["source"][row, 0]) for row in rows]
            weight += batch["weights"].sum()
            for row in rows:
                i = int(batch["source"][row, 0]) - 10
                np.testing.assert_array_equal(batch["source"][row][batch["seen"][row]], source[i])
                counts = batch["weights"][row] > 0
                np.testing.assert_array_equal(batch["targets"][row][counts], target[i])
                np.testing.assert_array_equal(batch["tokens"][row][counts], [1, *target[i][:-1]])
        assert sorted(seen) == list(range(10, 70))
        assert len(shapes) == 3
        assert weight == sum(map(len, target))
        if "budget" in sizes:
            assert all(rows * length <= 64 or rows == 4 for rows, length in shapes)
            assert all(rows % 4 == 0 for rows, _ in shapes)
    np.testing.assert_allclose(data.tokens, sum(map(len, target)) / data.steps)


def test_bucketed_batches_are_a_function_of_seed_and_step():
    source, target = sentences()
    one, again, other = (batches.bucketed(source, target, 1, rows=8, seed=seed) for seed in (0, 0, 1))
    order = [0, one.steps + 1, 3, 2 * one.steps, 1]
    for step in order:
        for name, array in one.batch(step).items():
            np.testing.assert_array_equal(array, again.batch(step)[name])
    epochs = [[one.batch(step)["source"][0, 0] for step in range(e * one.steps, (e + 1) * one.steps)] for e in (0, 1)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != [other.batch(step)["source"][0, 0] for step in range(one.steps)]


def test_sorted_batches_hold_every_pair_once_and_say_which():
    source, target = sentences()
    numbers = []
    for who, batch in batches.sorted_batches(source, target, 1, 7):
        assert batch["source"].shape[0] == 7
        for row, i in enumerate(who):
            np.testing.assert_array_equal(batch["source"][row][batch["seen"][row]], source[i])
        numbers += list(who)
    assert sorted(numbers) == list(range(60))


def test_sorted_batches_are_padded_to_the_lengths_given_where_these_hold_them():
    source, target = [np.ones(n, np.int32) for n in (3, 20, 5)], [np.zeros(0, np.int32)] * 3

    def lengths(ends):
        found = batches.sorted_batches(source, target, 1, 2, ends=ends)
        return [(who.tolist(), batch["source"].shape[1]) for who, batch in found]

    assert lengths((8, 16, 32)) == [([0, 2], 8), ([1], 32)]
    assert lengths((8, 16)) == lengths(())  # one is longer than all


def test_lengths_are_cut_where_padding_is_least():
    import itertools

    lengths = np.random.default_rng(0).geometric(0.2, 200)
    values = np.unique(lengths)
    for most in (1, 2, 3, 4):
        found = batches.cut_lengths(lengths, most)

        def padding(ends):
            return (np.array(ends)[np.searchsorted(ends, lengths)] - lengths).sum()

        best = min(padding([*some, values[-1]]) for some in itertools.combinations(values[:-1], most - 1))
        assert padding(found) == best
        assert len(found) <= most
    np.testing.assert_array_equal(batches.cut_lengths(np.array([3, 5, 5]), 8), [3, 5])
