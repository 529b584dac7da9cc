"""The HMM: its counts by hand, its likeliest row among all rows, and what it makes of words it has not seen."""

import itertools

import jax.numpy as jnp
import numpy as np

from lmjax.models import crf, hmm

# Two tags; words say themselves, or, unknown, whether they have a capital.
SENTENCES = [("the Cat sat", (0, 1, 0)), ("the Dog sat", (0, 1, 0)), ("a Dog", (0, 1)), ("Rex sat", (1, 0))]


def evidence(words):
    return [([word], ["any", "capital" if word[0].isupper() else "small"]) for word in words.split()]


def model(**settings):
    return hmm.count([tags for _, tags in SENTENCES], [evidence(words) for words, _ in SENTENCES], 2, **settings)


def test_the_transition_matrix_is_counted():
    links = hmm.links(model(smoothing=0.0), crf.allowed(("A", "B"), "plain"))
    np.testing.assert_allclose(np.exp(links.start), [3 / 4, 1 / 4], rtol=1e-6)
    np.testing.assert_allclose(np.exp(links.between[0]), [0, 3 / 6], rtol=1e-6)  # the other three are the last
    np.testing.assert_allclose(np.exp(links.end), [3 / 6, 1 / 4], rtol=1e-6)
    assert links.between[0, 0] == crf.NEVER
    smoothed = hmm.links(model(smoothing=0.5), crf.allowed(("A", "B"), "plain"))
    np.testing.assert_allclose(np.exp(smoothed.between[0, 0]), 0.5 / 7.5, rtol=1e-6)


def test_a_transition_that_may_not_be_has_no_probability():
    legal = crf.allowed(("O", "I-A"), "bio")
    links = hmm.links(model(), legal)
    assert links.start[1] == links.between[0, 1] == crf.NEVER
    np.testing.assert_allclose(np.exp(links.between[0, 0]) + np.exp(links.end[0]), 1, rtol=1e-5)


def test_viterbi_is_the_best_of_all_rows():
    counted = model()
    links = hmm.links(counted, crf.allowed(("A", "B"), "plain"))
    scores = hmm.emissions(counted, evidence("the Rex sat Fido a"))
    rows = {
        row: links.start[row[0]] + links.end[row[-1]] + sum(scores[t, tag] for t, tag in enumerate(row))
        + sum(links.between[pair] for pair in itertools.pairwise(row))
        for row in itertools.product(range(2), repeat=5)
    }  # fmt: skip
    tags, best = crf.viterbi(crf.Chain(*map(jnp.asarray, links)), jnp.asarray(scores)[:, None], jnp.ones((5, 1), bool))
    assert tuple(tags[:, 0].tolist()) == max(rows, key=rows.get) == (0, 1, 0, 1, 0)
    np.testing.assert_allclose(best[0], max(rows.values()), rtol=1e-5)


def test_a_word_says_what_its_counts_say():
    """sat: three times tag 0, filled up by one observation of the prior, 6 to 4; by Bayes over the prior."""
    scores = hmm.emissions(model(smoothing=0.0), evidence("sat"))
    np.testing.assert_allclose(scores[0], [np.log(3.6 / 4 / 0.6), np.log(0.4 / 4 / 0.4)], rtol=1e-5)


def test_unknown_words_are_told_by_what_rare_words_look_like():
    """Seen once: Cat and Rex, tag 1, and a, tag 0. Dog, seen twice, does not count among them."""
    counted = model()
    assert counted.said["capital"] == {1: 2}
    assert counted.said["small"] == {0: 1}
    capital, small = hmm.emissions(counted, evidence("Zoe zoo"))
    assert capital[1] - capital[0] > 1
    assert small[0] > small[1]
