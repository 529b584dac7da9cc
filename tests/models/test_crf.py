"""The chain's scans against every row of tags there is, gradients, and what is never said."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.models import crf

TAGS = ("O", "B-A", "I-A", "B-B", "I-B")
LENGTHS = (1, 3, 5, 4)
K, T, B = len(TAGS), max(LENGTHS), len(LENGTHS)
SEEN = jnp.asarray(np.arange(T)[:, None] < np.array(LENGTHS)[None])


def problem(scheme="bio", seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32)
              for name, shape in (("start", K), ("between", (K, K)), ("end", K))}  # fmt: skip
    legal = crf.allowed(TAGS, scheme)
    return params, legal, crf.chain(params, legal), jnp.asarray(scale * rng.normal(size=(T, B, K)), jnp.float32)


def every_row(links, emissions, b):
    """{tags: score} of sentence b, by the definition."""
    links, emissions, found = [np.asarray(x, np.float64) for x in links], np.asarray(emissions, np.float64), {}
    for tags in itertools.product(range(K), repeat=LENGTHS[b]):
        inside = sum(links[1][pair] for pair in itertools.pairwise(tags))
        found[tags] = links[0][tags[0]] + links[2][tags[-1]] + inside
        found[tags] += sum(emissions[t, b, tag] for t, tag in enumerate(tags))
    return found


@pytest.mark.parametrize("scheme", ["bio", "plain"])
def test_partition_viterbi_marginals_and_score_are_those_of_all_rows(scheme):
    _, _, links, emissions = problem(scheme)
    total, every = crf.log_partition(links, emissions, SEEN), crf.marginals(links, emissions, SEEN)
    tags, best = crf.viterbi(links, emissions, SEEN)
    np.testing.assert_allclose(every.sum(-1), 1, rtol=1e-5)
    for b, length in enumerate(LENGTHS):
        rows = every_row(links, emissions, b)
        scores = np.array(list(rows.values()))
        np.testing.assert_allclose(total[b], np.logaddexp.reduce(scores), rtol=1e-5)
        top = max(rows, key=rows.get)
        assert tuple(tags[:length, b].tolist()) == top
        np.testing.assert_allclose(best[b], rows[top], rtol=1e-5)
        share = np.zeros((length, K))
        for row, score in rows.items():
            share[np.arange(length), row] += np.exp(score - total[b])
        np.testing.assert_allclose(every[:length, b], share, atol=1e-5)
        padded = jnp.zeros((T, B), int).at[:length, b].set(jnp.array(top))
        np.testing.assert_allclose(crf.score(links, emissions, padded, SEEN)[b], rows[top], rtol=1e-5)


def test_the_gradient_is_that_of_the_definition():
    """By hand it is the marginals; here beside autodiff through a scan of logsumexp."""
    params, legal, _, emissions = problem()
    weights = jnp.arange(1.0, B + 1)

    def plain(params, emissions):
        links = crf.chain(params, legal)
        alpha = links.start[None] + emissions[0]
        for t in range(1, T):
            new = jax.nn.logsumexp(alpha[:, :, None] + links.between[None], axis=1) + emissions[t]
            alpha = jnp.where(SEEN[t][:, None], new, alpha)
        return (weights * jax.nn.logsumexp(alpha + links.end[None], axis=-1)).sum()

    def ours(params, emissions):
        return (weights * crf.log_partition(crf.chain(params, legal), emissions, SEEN)).sum()

    one, other = (jax.grad(f, (0, 1))(params, emissions) for f in (plain, ours))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


@pytest.mark.parametrize("scale", [1.0, 100.0, 3000.0])
def test_gradients_are_finite_and_padding_has_none(scale):
    params, legal, _, emissions = problem(scale=scale)
    tags = crf.viterbi(crf.chain(params, legal), -emissions, SEEN)[0]  # an unlikely row, and a legal one

    def loss(params, emissions):
        return crf.crf_nll(crf.chain(params, legal), emissions, tags, SEEN).sum()

    value, (to_params, to_emissions) = jax.value_and_grad(loss, (0, 1))(params, emissions)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((to_params, to_emissions)))
    assert not np.asarray(to_emissions)[~np.asarray(SEEN)].any()
    assert np.abs(to_emissions).max() > 1e-3


def test_what_stands_in_padding_changes_nothing():
    _, _, links, emissions = problem()
    other = jnp.where(SEEN[:, :, None], emissions, 7.0)
    for f in (crf.log_partition, lambda *given: crf.viterbi(*given)[0], crf.marginals):
        np.testing.assert_array_equal(f(links, emissions, SEEN), f(links, other, SEEN))


@pytest.mark.parametrize("scheme", ["bio", "iobes"])
def test_no_emission_makes_a_row_that_is_not_legal(scheme):
    """Emissions that shout for what may not be, thousands of nats loud."""
    tags = ("O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B") if scheme == "iobes" else TAGS
    legal = crf.allowed(tags, scheme)
    links = crf.chain({"start": jnp.zeros(len(tags)), "between": jnp.zeros((len(tags),) * 2),
                       "end": jnp.zeros(len(tags))}, legal)  # fmt: skip
    rng = np.random.default_rng(1)
    emissions = jnp.asarray(rng.normal(size=(12, 64, len(tags))) * 1000, jnp.float32)
    seen = jnp.asarray(np.arange(12)[:, None] < rng.integers(1, 13, 64)[None])
    shouted = np.asarray(emissions.argmax(-1))
    assert illegal(shouted, seen, legal) > 30
    assert illegal(np.asarray(crf.viterbi(links, emissions, seen)[0]), seen, legal) == 0
    every = np.asarray(crf.marginals(links, emissions, seen))
    assert every[0][:, ~legal.start].max() < 1e-6
    np.testing.assert_allclose(every.sum(-1), 1, rtol=1e-4)


def illegal(tags, seen, legal) -> int:
    """Sentences with a tag where it may not stand, by looking at each."""
    count = 0
    for b in range(tags.shape[1]):
        row = tags[: int(seen[:, b].sum()), b]
        fine = legal.start[row[0]] and legal.end[row[-1]]
        count += not (fine and all(legal.between[pair] for pair in itertools.pairwise(row)))
    return count


def test_what_is_allowed():
    def pairs(scheme, tags):
        legal = crf.allowed(tags, scheme)
        return {f"{a} {b}" for a, row in zip(tags, legal.between) for b, ok in zip(tags, row) if ok}

    assert pairs("bio", ("O", "B-A", "I-A", "I-B")) == {
        "O O", "O B-A", "B-A O", "B-A B-A", "B-A I-A", "I-A O", "I-A B-A", "I-A I-A", "I-B O", "I-B B-A", "I-B I-B",
    }  # fmt: skip
    assert pairs("iobes", ("O", "B-A", "E-A", "S-A")) == {
        "O O", "O B-A", "O S-A", "B-A E-A", "E-A O", "E-A B-A", "E-A S-A", "S-A O", "S-A B-A", "S-A S-A",
    }  # fmt: skip
    legal = crf.allowed(("O", "B-A", "I-A", "E-A", "S-A"), "iobes")
    assert legal.start.tolist() == [True, True, False, False, True]
    assert legal.end.tolist() == [True, False, False, True, True]
    assert all(x.all() for x in crf.allowed(("NOUN", "VERB"), "plain"))
