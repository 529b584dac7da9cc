"""word2vec with hierarchical softmax (Mikolov et al. 2013a, section 3; 2013b, section 2.1; Morin & Bengio 2005).

Words are the leaves of a Huffman tree. A word w is predicted from a vector h by all the turns on its way from the root,

    p(w | h) = product over the inner nodes n above w of s(± h . y_n),   + where the way to w turns left  (2013b, eq. 3)

so that frequent words, which stand high, cost few dot products, and no noise is drawn. As in the authors' program h is,
for skip-gram, the vector of a word within the window, by which the word in the place is predicted (the paper writes the
pair the other way round; over a text both are the same pairs), and for CBOW the mean of all of them.

How it is computed. Every way begins with the same few nodes, so the K most visited ones are taken as a matrix: all h
times K nodes, each pair of them weighed by how often the update asks for it. The ways' other nodes are listed, place
after place, E of them a block; an h meets the whole list of its block in one product, and what it is not asked is
weighed 0. Thinning, blocks, updates and `calm` are those of word2vec.py; a node counts as a word there.

B blocks, P places of a block, W window, Q vectors h of a block, E listed nodes of a block, K nodes of the tree's top, D
width, V word types.
"""

import heapq
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.models.word2vec import (
    Blocks,
    contexts,
    damping,
    flat,
    kept_shares,
    mean_of_contexts,
    pairs_an_update,
    thinning,
    turned,
)
from lmjax.nn.xla import in_lanes, written
from lmjax.param import Param, uniform, zeros

TOP = 32  # K


class Tree(NamedTuple):
    """The ways to all words: those of word w are nodes[start[w]:start[w + 1]], from the root."""

    nodes: np.ndarray  # int32, inner nodes
    left: np.ndarray  # bool, whether the way turns left there
    start: np.ndarray  # int64 [V+1]


class Ways(NamedTuple):
    """What an update asks, besides its blocks."""

    node: jax.Array  # int32 [B,E], below the top
    left: jax.Array  # float32 [B,E]
    place: jax.Array  # int32 [B,E], whose word's way it is on; P where the list has ended
    top: jax.Array  # float32 [B,P,K], 1: the way passes this node
    top_left: jax.Array  # float32 [B,P,K], 1: and turns left


def huffman(counts) -> Tree:
    """The Huffman tree of V words with these counts [V]; inner nodes are numbered by their counts, the root is 0."""
    V = len(counts)
    parent, is_left, total = np.zeros(2 * V - 1, np.int64), np.zeros(2 * V - 1, bool), [float(c) for c in counts]
    heap = [(c, i) for i, c in enumerate(total)]
    heapq.heapify(heap)
    for node in range(V, 2 * V - 1):
        (a, i), (b, j) = heapq.heappop(heap), heapq.heappop(heap)
        parent[[i, j]], is_left[i] = node, True
        total.append(a + b)
        heapq.heappush(heap, (a + b, node))
    here, steps = np.arange(V), []
    while len(here) and (moving := here != 2 * V - 2).any():
        steps.append((np.flatnonzero(moving), 2 * V - 2 - parent[here[moving]], is_left[here[moving]]))
        here = np.where(moving, parent[here], here)
    if not steps:
        return Tree(np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(V + 1, np.int64))
    word, node, left = (np.concatenate(x) for x in zip(*reversed(steps), strict=True))
    order = np.argsort(word, kind="stable")
    start = np.append(0, np.cumsum(np.bincount(word, minlength=V)))
    return Tree(node[order].astype(np.int32), left[order], start)


def hierarchical_params(config):
    """ "input": the word vectors; "output": those of the inner nodes, [V-1,D]. As the authors' program begins."""
    axes = ("vocab", "embed")
    return {
        "input": Param((config.vocab, config.dim), axes, uniform(0.5 / config.dim)),
        "output": Param((max(config.vocab - 1, 1), config.dim), axes, zeros),
    }


def hierarchical_tables(config, counts) -> dict:
    """What updates read, of the words' counts [V]: the ways, and as `word2vec_tables` keep, input and output.

    top, top_left: float32 [V,K], see Ways. nodes, left, begin, length: the ways below the top.
    """
    f, keep = thinning(config, counts)
    tree = huffman(counts)
    word, K = np.repeat(np.arange(len(f)), np.diff(tree.start)), top_nodes(config)
    top = np.zeros((2, len(f), K), np.float32)
    high = tree.nodes < K
    top[0, word[high], tree.nodes[high]] = 1
    top[1, word[high], tree.nodes[high]] = tree.left[high]
    length = np.bincount(word[~high], minlength=len(f))
    pairs = pairs_an_update(config, counts)
    visits = np.bincount(tree.nodes, pairs[word], minlength=max(len(f) - 1, 1))
    turns = kept_shares(config, counts) @ np.diff(tree.start)  # on a way
    tables = {
        "keep": keep, "input": damping(config, pairs * turns),
        "output": damping(config, visits), "top": top[0], "top_left": top[1], "left": tree.left[~high],
    }  # fmt: skip
    whole = {"nodes": tree.nodes[~high], "begin": np.cumsum(length) - length, "length": length}
    tables = {name: jnp.asarray(x, jnp.float32) for name, x in tables.items()}
    return tables | {name: jnp.asarray(x, jnp.int32) for name, x in whole.items()}


def top_nodes(config) -> int:
    """K."""
    return min(TOP, max(config.vocab - 1, 1))


def nodes_a_block(config, tables, counts) -> int:
    """E: so many nodes below the top has a block, and seldom more (4 standard deviations)."""
    kept, length = kept_shares(config, counts), np.asarray(tables["length"])
    mean, most = kept @ length, config.block * int(length.max())
    wide = config.block * mean + 4 * np.sqrt(config.block * (kept @ length**2 - mean**2))
    return max(1, min(most, int(np.ceil(wide / 8)) * 8))


def find_ways(tables, config, centre, room: int) -> Ways:
    """The ways of words centre int32 [...,P], -1 for none. room: E; what does not fit is left out."""
    words, here = jnp.maximum(centre, 0), centre >= 0
    length = jnp.where(here, tables["length"][words], 0)
    end = jnp.cumsum(length, axis=-1)
    offset = tables["begin"][words] + length - end  # a node's number in the tables less its number in the list
    number = jnp.arange(room, dtype=jnp.int32)
    past = jnp.broadcast_to(number, (*end.shape[:-1], room))[..., None] >= end[..., None, :]
    place = past.sum(-1, dtype=jnp.int32)  # [...,E]
    at = jnp.take_along_axis(offset, jnp.minimum(place, config.block - 1), axis=-1)
    at = at + jnp.broadcast_to(number, at.shape)
    top, top_left = (tables[name][words] * here[..., None] for name in ("top", "top_left"))
    if not len(tables["nodes"]):
        return Ways(jnp.zeros_like(place), jnp.zeros(place.shape), jnp.full_like(place, config.block), top, top_left)
    return Ways(tables["nodes"][at], tables["left"][at], place, top, top_left)


class Asked(NamedTuple):
    """Dot products, how often each is asked for, and how often of these the answer is left."""

    scores: jax.Array  # [B,E,Q], at listed nodes
    asked: jax.Array  # [B,E,Q]
    left: jax.Array  # [B,E,Q]
    top_scores: jax.Array  # [B,Q,K], at the top's
    top_asked: jax.Array  # [B,Q,K]
    top_left: jax.Array  # [B,Q,K]


def hierarchical_gradients(params, tables, config, blocks: Blocks, ways: Ways):
    """As `word2vec_gradients`."""

    def gradients(part):
        touched, asked = _gradients(params, tables, config, *part)
        return touched, asked.scores.sum((0, 1)).sum() + asked.top_scores.sum((0, 1)).sum()

    touched, sums = zip(*in_lanes(gradients, (blocks, ways)), strict=True)
    return jax.tree.map(lambda *x: jnp.concatenate(x), *touched), jnp.isfinite(sum(sums))[None]


def hierarchical_loss(params, tables, config, blocks: Blocks, ways: Ways):
    """Minus the logarithm of the words' probabilities, summed, in nats, and the number of words predicted."""
    s, asked, left, top_s, top_asked, top_left = _gradients(params, tables, config, blocks, ways)[1]
    listed = jnp.sum(asked * jax.nn.softplus(s) - left * s)
    return listed + jnp.sum(top_asked * jax.nn.softplus(top_s) - top_left * top_s), top_asked[:, :, 0].sum()  # the root


def _gradients(params, tables, config, blocks, ways):
    """({name: (ids, gradient, factor)}, Asked)."""
    ids = jnp.maximum(blocks.around, 0)
    if config.cbow:
        near, told, h = mean_of_contexts(params, config, blocks)
        pairs = told * jnp.eye(config.block)[None]  # [B,P,P]
    else:
        h, pairs = params["input"][ids], contexts(config, blocks)  # [B,Q,D], [B,Q,P]
    K = ways.top.shape[-1]
    y, top = params["output"][ways.node], params["output"][:K]  # [B,E,D], [K,D]
    mine = (ways.place[:, :, None] == jnp.arange(config.block)[None, None]).astype(jnp.float32)  # [B,E,P]
    asked = jnp.einsum("bep,bqp->beq", mine, pairs)
    left = asked * ways.left[:, :, None]
    scores = jnp.einsum("bed,bqd->beq", y, h)
    ds = written(asked * jax.nn.sigmoid(scores) - left)
    top_asked, top_left = (jnp.einsum("bqp,bpk->bqk", pairs, x) for x in (ways.top, ways.top_left))
    every = h.reshape(-1, h.shape[-1])  # [BQ,D]: all that the top is asked is one product
    top_scores = (every @ top.T).reshape(top_asked.shape)
    dtop_scores = written(top_asked * jax.nn.sigmoid(top_scores) - top_left).reshape(-1, K)
    dh = jnp.einsum("bqe,bed->bqd", turned(ds), y) + (dtop_scores @ top).reshape(h.shape)
    dy = jnp.einsum("beq,bqd->bed", ds, h)
    dtop = written(dtop_scores.T) @ every
    if config.cbow:
        dh = jnp.einsum("bcp,bpd->bcd", near, dh)
    nodes, rows = flat(ways.node, dy)
    output = jnp.concatenate([nodes, jnp.arange(K)]), jnp.concatenate([rows, dtop])
    touched = {"input": flat(ids, dh), "output": output}
    touched = {name: (ids, rows, tables[name][ids]) for name, (ids, rows) in touched.items()}
    return touched, Asked(scores, asked, left, top_scores, top_asked, top_left)
