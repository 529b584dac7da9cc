"""Counting against a plain loop, naive Bayes against counts by hand, and the solver against scipy's."""

from collections import Counter

import numpy as np
import pytest
from scipy import optimize, sparse

from lmjax.errors import UserError
from lmjax.models import bow

DOCUMENTS = ["to be or not to be", "not to be not to be", "", "be"]


@pytest.fixture
def data():
    """60 documents of 12 columns, their class in some of them; noisy, so that no model separates them."""
    rng = np.random.default_rng(0)

    def make(classes):
        labels = rng.integers(0, classes, 60)
        x = rng.poisson(0.5 + 0.7 * (np.arange(12) % classes == labels[:, None])).astype(np.float32)
        return sparse.csr_array(x), labels

    return make


def test_tokenize():
    text = ["Don't pay £5!!! x2"]
    assert bow.tokenize(text, "letters") == [["don't", "pay", "x"]]
    assert bow.tokenize(text, "words", lower=False) == [["Don't", "pay", "5", "x2"]]
    assert bow.tokenize(text, "marks") == [["don't", "pay", "£", "5", "!", "!", "!", "x2"]]
    assert bow.tokenize(text, "runs") == [["don't", "pay", "£", "5", "!!!", "x2"]]
    assert bow.tokenize(text, "spaces") == [["don't", "pay", "£5!!!", "x2"]]


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_counts_are_those_of_a_plain_loop(ngrams):
    documents = [document.split() for document in DOCUMENTS]
    known = bow.vocabulary(documents, ngrams)
    matrix = bow.count(documents, known).toarray()
    titles = bow.names(known, range(known.size))
    assert len(set(titles)) == known.size
    for words, row in zip(documents, matrix):
        expected = Counter(" ".join(words[i : i + n]) for n in range(1, ngrams + 1) for i in range(len(words) - n + 1))
        assert {title: int(n) for title, n in zip(titles, row) if n} == expected


def test_rare_and_unknown_words():
    documents = [document.split() for document in ("a b a b", "a c", "b a")]
    known = bow.vocabulary(documents, 2, min_count=2)
    assert bow.names(known, range(known.size)) == ["a", "b", "a b", "b a"]
    assert bow.count([["a", "z", "b", "a"]], known).toarray().tolist() == [[2, 1, 0, 1]]  # no n-gram across z
    assert list(bow.vocabulary(documents, most=1).words) == ["a"]
    with pytest.raises(UserError, match="lower min_count"):
        bow.vocabulary(documents, min_count=9)


def test_weighing():
    counts = sparse.csr_array(np.array([[2, 1, 0], [0, 1, 0]], np.float32))
    idf = bow.inverse_document_frequency(counts)
    assert idf == pytest.approx([np.log(3 / 2) + 1, 1, np.log(3) + 1])
    assert bow.weigh(counts, "binary").toarray().tolist() == [[1, 1, 0], [0, 1, 0]]
    row = np.array([2 * idf[0], 1, 0])
    unit = bow.weigh(counts, "tfidf", idf, unit=True).toarray()
    assert unit[0] == pytest.approx(row / np.linalg.norm(row))
    assert bow.weigh(sparse.csr_array((1, 3), dtype=np.float32), "binary", unit=True).toarray().tolist() == [[0, 0, 0]]
    assert counts.toarray()[0, 0] == 2  # left as it was


def test_log_count_ratio_by_hand():
    matrix = sparse.csr_array(np.array([[1, 1, 0], [0, 1, 1], [0, 1, 0]], np.float32))
    labels = np.array([0, 1, 1])
    p, q = np.array([1, 3, 2]) / 6, np.array([2, 2, 1]) / 5  # alpha = 1 more than the counts of classes 1 and 0
    assert bow.log_count_ratio(matrix, labels, 2)[:, 0] == pytest.approx(np.log(p / q), rel=1e-5)
    model = bow.naive_bayes(matrix, labels, 2)
    assert model.w[:, 0] == pytest.approx(np.log(p / q), rel=1e-5)
    assert model.b == pytest.approx([np.log(2 / 1)], rel=1e-5)
    left_out = bow.log_count_ratio(matrix, labels, 2, weights=np.array([1, 1, 0]))[:, 0]
    assert left_out == pytest.approx(np.log(np.array([1, 2, 2]) / 5 / q), abs=1e-6)


def test_log_count_ratio_of_more_classes_is_each_against_the_rest(data):
    matrix, labels = data(3)
    ratio = bow.log_count_ratio(matrix, labels, 3)
    assert ratio.shape == (12, 3)
    for n in range(3):
        one = bow.log_count_ratio(matrix, (labels == n).astype(int), 2)
        assert ratio[:, n] == pytest.approx(one[:, 0], rel=1e-5)


def test_naive_bayes_of_more_classes_gives_posteriors(data):
    matrix, labels = data(3)
    model = bow.naive_bayes(matrix, labels, 3)
    theta = np.stack([1 + matrix.toarray()[labels == n].sum(0) for n in range(3)])
    theta /= theta.sum(1, keepdims=True)
    joint = np.bincount(labels)[None] / 60 * np.prod(theta[None] ** matrix.toarray()[:, None], axis=2)
    scores = bow.scores(model, matrix)
    posterior = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert posterior == pytest.approx(joint / joint.sum(1, keepdims=True), rel=1e-4)


def objective(flat, x, labels, classes, loss, c, weights, ratio):
    """LIBLINEAR's objective in float64 numpy."""
    columns = 1 if classes == 2 else classes
    w, b = flat[:-columns].reshape(-1, columns), flat[-columns:]
    s = x @ (ratio * w) + b
    if loss == "logistic" and classes > 2:
        each = np.log(np.exp(s).sum(1)) - s[np.arange(len(s)), labels]
    else:
        y = 2.0 * (labels[:, None] if classes == 2 else np.eye(classes)[labels]) - 1
        each = (np.logaddexp(0, -y * s) if loss == "logistic" else np.maximum(0, 1 - y * s) ** 2).sum(1)
    return 0.5 * (w**2).sum() + c * (weights * each).sum()


@pytest.mark.parametrize(
    ("classes", "loss", "scaled"),
    [(2, "logistic", False), (2, "squared_hinge", True), (3, "logistic", True), (3, "squared_hinge", False)],
)
def test_fit_finds_the_minimum_that_scipy_finds(data, classes, loss, scaled):
    matrix, labels = data(classes)
    ratio = bow.log_count_ratio(matrix, labels, classes) if scaled else np.ones((1, 1))
    weights = (np.arange(60) % 5 > 0).astype(float)
    arguments = matrix.toarray().astype(float), labels, classes, loss, 0.3, weights, ratio
    columns = 1 if classes == 2 else classes
    best = optimize.minimize(objective, np.zeros(13 * columns), arguments, tol=1e-10)
    model = bow.fit(matrix, labels, classes, loss, 0.3, weights=weights, ratio=ratio if scaled else None)
    found = np.concatenate([model.w.ravel(), model.b])
    assert objective(found, *arguments) == pytest.approx(best.fun, rel=1e-4)
    assert model.w.ravel() == pytest.approx(best.x[:-columns], abs=0.02)


def test_a_step_goes_to_the_minimum_along_its_direction(data):
    matrix, labels = data(2)
    arguments = matrix.toarray().astype(float), labels, 2, "squared_hinge", 0.3, np.ones(60), np.ones((1, 1))
    model = bow.fit(matrix, labels, 2, "squared_hinge", 0.3, steps=1)
    step = np.concatenate([model.w.ravel(), model.b])
    downhill = -optimize.approx_fprime(np.zeros(13), objective, 1e-7, *arguments)
    assert step / np.linalg.norm(step) == pytest.approx(downhill / np.linalg.norm(downhill), abs=1e-3)
    assert optimize.minimize_scalar(lambda a: objective(a * step, *arguments)).x == pytest.approx(1, abs=1e-3)


def test_nbsvm_is_between_naive_bayes_and_the_svm():
    model = bow.Linear(np.array([[1.0], [-3.0]]), np.array([0.5]))
    ratio = np.array([[2.0], [-1.0]])
    assert bow.interpolate(model, 1).w.tolist() == model.w.tolist()
    assert bow.scale(bow.interpolate(model, 0), ratio).w.tolist() == (2 * ratio).tolist()  # |w|'s mean times r
    assert bow.scale(bow.interpolate(model, 0.25), ratio).w[:, 0] == pytest.approx([2 * 1.75, -0.75])


def test_scores_and_weights_of_two_classes_and_more():
    x = np.array([[1.0, 0.0]])
    two = bow.Linear(np.array([[2.0], [1.0]]), np.array([-3.0]))
    assert bow.scores(two, x).tolist() == [[0, -1]]
    assert bow.class_weights(two).tolist() == [[-2, 2], [-1, 1]]
    with pytest.raises(UserError, match="expected one of logistic, squared_hinge"):
        bow.fit(sparse.csr_array(x), np.array([0]), 2, "hinge", 1.0)
