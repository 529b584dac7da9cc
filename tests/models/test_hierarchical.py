"""Hierarchical softmax: the tree, the ways, and the gradients against probabilities by their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config
from lmjax.models import hierarchical, word2vec

V = 40
COUNTS = np.arange(V, 0, -1) ** 2


def model(**changes):
    small = {"vocab": V, "dim": 8, "window": 3, "block": 4, "positions": 8, "sample": 0.0, "calm": 0.0}
    return config.Word2Vec(**(small | {"hierarchical": True} | changes))


def way(tree, word):
    return [(int(n), bool(turn)) for n, turn in zip(tree.nodes, tree.left, strict=True)][
        tree.start[word] : tree.start[word + 1]
    ]


def test_a_tree_of_five_words_by_hand():
    tree = hierarchical.huffman([10, 7, 3, 2, 1])  # 1+2, 3+3, 6+7, 10+13: depths 1, 2, 3, 4, 4
    assert list(np.diff(tree.start)) == [1, 2, 3, 4, 4]
    assert all(way(tree, word)[0][0] == 0 for word in range(5))  # all from the root
    assert [n for n, _ in way(tree, 3)] == [n for n, _ in way(tree, 4)] == [0, 1, 2, 3]
    assert [turn for _, turn in way(tree, 3)][-1] != [turn for _, turn in way(tree, 4)][-1]


def test_the_tree_is_as_short_as_the_entropy_allows():
    tree, p = hierarchical.huffman(COUNTS), COUNTS / COUNTS.sum()
    mean, entropy = p @ np.diff(tree.start), -(p @ np.log2(p))
    assert entropy <= mean < entropy + 1
    assert set(tree.nodes) == set(range(V - 1))


@pytest.mark.parametrize("counts", [[3], [3, 2]])
def test_one_word_and_two(counts):
    c = model(vocab=len(counts))
    tables = hierarchical.hierarchical_tables(c, counts)
    ways = hierarchical.find_ways(
        tables, c, jnp.zeros((2, 4), jnp.int32), hierarchical.nodes_a_block(c, tables, counts)
    )
    assert ways.top.shape == (2, 4, 1)
    assert ways.top.sum() == 8 * (len(counts) - 1)
    assert np.all(ways.place == 4)


def setting(c, tokens, monkeypatch, top, room=None):
    monkeypatch.setattr(hierarchical, "TOP", top)
    tables = hierarchical.hierarchical_tables(c, COUNTS)
    tokens = jnp.asarray(tokens, jnp.int32)[None, None]
    blocks = word2vec.draw_blocks(tables, c, tokens, jnp.zeros(1, jnp.int32), jax.random.key(0))
    blocks = jax.tree.map(lambda x: x[0], blocks)
    room = room or hierarchical.nodes_a_block(c, tables, COUNTS)
    rng = np.random.default_rng(1)
    params = {"input": rng.normal(size=(V, 8)), "output": rng.normal(size=(V - 1, 8))}
    params = {name: jnp.asarray(x, jnp.float32) for name, x in params.items()}
    return params, tables, blocks, hierarchical.find_ways(tables, c, blocks.centre, room)


def log_probability(params, tree, word, h):
    return sum(jax.nn.log_sigmoid((1 if left else -1) * (h @ params["output"][n])) for n, left in way(tree, word))


def dense(params, c, blocks):
    """Pair by pair, node by node."""
    total, tree, places = 0.0, hierarchical.huffman(COUNTS), np.asarray(blocks.around)
    for b, p in np.ndindex(*blocks.centre.shape):
        w, reach = int(blocks.centre[b, p]), int(blocks.reach[b, p])
        inside = [o for o in range(-reach, reach + 1) if o and places[b, p + c.window + o] >= 0]
        near = [params["input"][int(places[b, p + c.window + o])] for o in inside]
        if w < 0 or not near:
            continue
        for h in [jnp.mean(jnp.stack(near), 0)] if c.cbow else near:
            total -= log_probability(params, tree, w, h)
    return total


@pytest.mark.parametrize("cbow", [False, True], ids=["skip-gram", "cbow"])
@pytest.mark.parametrize("top", [1, 5, 64])
def test_gradients_and_loss_are_those_of_the_definition(cbow, top, monkeypatch):
    c = model(cbow=cbow)
    params, tables, blocks, ways = setting(c, [3, 39, 3, 0, -1, 2, 38, 7], monkeypatch, top, room=4 * 12)
    touched, finite = hierarchical.hierarchical_gradients(params, tables, c, blocks, ways)
    loss, pairs = hierarchical.hierarchical_loss(params, tables, c, blocks, ways)
    expected, gradient = jax.value_and_grad(dense)(params, c, blocks)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert finite
    assert pairs > 0
    for name in ["output"] if cbow else ["input", "output"]:  # a context of CBOW gets the mean's gradient whole
        ids, rows, factor = touched[name]
        np.testing.assert_array_equal(factor, 1)
        summed = jnp.zeros(params[name].shape).at[ids].add(rows)
        np.testing.assert_allclose(summed, gradient[name], rtol=1e-4, atol=1e-5)


def test_probabilities_of_all_words_sum_to_one():
    rng = np.random.default_rng(0)
    params, h = {"output": jnp.asarray(rng.normal(size=(V - 1, 8)))}, jnp.asarray(rng.normal(size=8))
    tree = hierarchical.huffman(COUNTS)
    np.testing.assert_allclose(sum(np.exp(log_probability(params, tree, w, h)) for w in range(V)), 1, rtol=1e-5)


def test_what_does_not_fit_the_list_is_left_out(monkeypatch):
    c = model()
    room = {
        name: setting(c, [30, 39, 31, 35, 38, 37, 36, 33], monkeypatch, 1, room=n)
        for name, n in (("all", 48), ("few", 8))
    }
    few, every = room["few"][3], room["all"][3]
    np.testing.assert_array_equal(few.node, every.node[:, :8])
    np.testing.assert_array_equal(few.place, every.place[:, :8])
    assert (every.place < 4).sum() > 16


def test_nodes_near_the_root_are_calmed():
    tables = hierarchical.hierarchical_tables(model(calm=4.0, positions=1024), COUNTS)
    assert tables["output"][0] == pytest.approx(4 / (1024 * 4))  # every pair passes the root
    assert tables["output"][V - 2] > tables["output"][0]
