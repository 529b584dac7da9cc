"""Subword vectors: n-grams and their hash, gradients against the dense definition, and that stems are learnt."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.data.batches import stretches
from lmjax.models import subword, word2vec
from lmjax.run.tasks.vectors import subword_objective
from lmjax.train import parallel
from lmjax.train.sparse import make_sparse_step
from lmjax.train.state import State

WORDS = ["the", "a", "where", "there", "here", "banana", "naïve", "unwhereable", "東京都", "in"]
V = len(WORDS)
COUNTS = np.arange(V, 0, -1) ** 2
SMALL = {"vocab": V, "dim": 8, "window": 3, "block": 4, "shared": 6, "positions": 32, "sample": 0.0, "calm": 0.0,
         "buckets": 50}  # fmt: skip
KNOWN = {word: id for id, word in enumerate(WORDS)}


def model(**changes):
    return config.Subword(**(SMALL | changes))


def fnv1a(text: str) -> int:
    """FNV-1a of 32 bits as its authors define it; for ASCII fastText's is the same."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 % (1 << 32)
    return value


def buckets_of(grams, c):
    return [fnv1a(gram) % c.buckets for gram in grams]


def test_the_hash_is_fnv1a():
    """Its authors' test values, for what stands between the marks."""
    assert [fnv1a(text) for text in ("a", "foobar")] == [0xE40C292C, 0xBF9CF968]
    c = model(min_n=3, max_n=3, buckets=1 << 31)
    ids, _ = subword.ngrams(["a"], c)
    np.testing.assert_array_equal(ids, [fnv1a("<a>") % (1 << 31)])


def test_signs_beyond_ascii_are_hashed_as_the_program_does():
    """It widens signed bytes: é, C3 A9, is FFFFFFC3 FFFFFFA9."""
    value = 2166136261
    for byte in (0x3C, 0xFFFFFFC3, 0xFFFFFFA9, 0x3E):
        value = (value ^ byte) * 16777619 % (1 << 32)
    ids, _ = subword.ngrams(["é"], model(min_n=3, max_n=3, buckets=1 << 31))
    np.testing.assert_array_equal(ids, [value % (1 << 31)])


def test_the_ngrams_of_where_are_the_papers():
    """Section 3.2: <wh, whe, her, ere, re>, and not the word <her>."""
    c = model(min_n=3, max_n=3, buckets=100_003)
    ids, start = subword.ngrams(["where", "her"], c)
    assert ids[: start[1]].tolist() == buckets_of(["<wh", "whe", "her", "ere", "re>"], c)
    assert ids[start[1] :].tolist() == buckets_of(["<he", "her", "er>"], c)
    longer, _ = subword.ngrams(["her"], model(min_n=3, max_n=6, buckets=100_003))
    assert longer.tolist() == buckets_of(["<he", "<her", "<her>", "her", "her>", "er>"], c)
    single, _ = subword.ngrams(["her"], model(min_n=1, max_n=1, buckets=100_003))
    assert single.tolist() == buckets_of("her", c)


def test_ngrams_are_of_letters_not_bytes():
    start = subword.ngrams(WORDS, model(min_n=2, max_n=4)).start
    for word, begin, end in zip(WORDS, start, start[1:]):
        n = len(word) + 2
        assert end - begin == sum(max(n - k + 1, 0) for k in (2, 3, 4)), word
    assert subword.ngrams([], model()).start.tolist() == [0]
    assert len(subword.ngrams(["x"], model(min_n=4)).ids) == 0


def test_a_words_vector_is_the_mean_of_its_rows_and_another_words_of_its_ngrams():
    c = model()
    table = np.random.default_rng(0).normal(size=(V + c.buckets, c.dim)).astype(np.float32)
    ids, start = subword.ngrams(["banana", "whereas"], c)
    made = subword.compose(table, c, ["banana", "whereas", ""], KNOWN)
    own = [KNOWN["banana"], *(V + ids[: start[1]])]
    np.testing.assert_allclose(made[0], table[own].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made[1], table[V + ids[start[1] :]].mean(0), rtol=1e-5, atol=1e-6)
    assert made.dtype == np.float32


def tables_of(c, words=WORDS, counts=COUNTS):
    return subword.subword_tables(c, words, counts, subword.used_rows(c, words, counts))


draw = jax.jit(word2vec.draw_blocks, static_argnums=1)


def first(drawn):
    return jax.tree.map(lambda x: x[0], drawn)


def drawn(c, tokens, seed=0):
    tables = tables_of(c)
    rows = jnp.arange(c.rows, dtype=jnp.int32)
    blocks = first(draw(tables, c, jnp.asarray(tokens)[:, None], rows, jax.random.key(seed)))
    return tables, blocks, subword.pieces_a_row(c, tables, COUNTS) * c.rows


@partial(jax.jit, static_argnums=(2, 4))
def gradients(params, tables, c, blocks, room):
    loss = subword.subword_loss(params, tables, c, blocks, room)
    return subword.subword_gradients(params, tables, c, blocks, room)[0], loss


USED = subword.used_rows(model(), WORDS, COUNTS)


def incidence():
    """[V,U]: how often a word has a row."""
    ids, start = subword.word_rows(WORDS, model(), KNOWN)
    has = np.zeros((V, V + 50), np.float32)
    np.add.at(has, (np.repeat(np.arange(V), np.diff(start)), ids), 1)
    return has[:, USED]


def summed(like, ids, rows, factor):
    np.testing.assert_array_equal(factor, 1)  # nothing is calmed
    total = np.zeros(like.shape, np.float32)
    np.add.at(total, np.asarray(ids), np.asarray(rows))
    return total


def handed(params, tables, touched):
    """The gradient of every row."""
    zero = {name: np.zeros(x.shape, np.float32) for name, x in params.items()}
    return jax.jit(subword.descend)(zero, tables, touched, -1.0)[0]["input"]


TOKENS = np.array([[3, 1, 3, 0, -1, 2, 1, 7, 8, 3, 5, 6, 6, 9, 4, 2]], np.int32)


@pytest.mark.parametrize("cbow", [False, True], ids=["skip-gram", "cbow"])
def test_gradients_are_word2vecs_of_the_composed_table_handed_to_every_row(cbow):
    """By the definition: x = mean of rows for the whole vocabulary, and every row gets the whole gradient of x."""
    c = model(cbow=cbow, positions=16)
    tables, blocks, room = drawn(c, TOKENS)
    rng = np.random.default_rng(1)
    params = {"input": rng.normal(size=(len(USED), 8)), "output": rng.normal(size=(V, 8))}
    params = {name: jnp.asarray(x, jnp.float32) for name, x in params.items()}
    has = incidence()
    x = has @ params["input"] / has.sum(1, keepdims=True)
    plain = word2vec.word2vec_tables(c, COUNTS)
    of_words = jax.jit(word2vec.word2vec_gradients, static_argnums=2)
    whole = {"input": x, "output": params["output"]}
    expected, _ = of_words(whole, plain, c, blocks)
    told = word2vec.word2vec_loss(whole, c, blocks)
    touched, (loss, weight) = gradients(params, tables, c, blocks, room)
    np.testing.assert_allclose((loss, weight), told, rtol=1e-5)
    dx = summed(x, *expected["input"])
    np.testing.assert_allclose(handed(params, tables, touched), has.T @ dx, rtol=1e-4, atol=1e-5)
    dy = summed(x, *expected["output"])
    np.testing.assert_allclose(summed(x, *touched["output"]), dy, rtol=1e-4, atol=1e-5)


def test_gradients_of_words_of_one_length_are_those_of_jax():
    """The whole gradient of the mean is jax.grad's times the number of rows, where all words have as many."""
    words = ["bat", "cat", "mat", "hut"]
    c = config.Subword(**(SMALL | {"vocab": 4, "positions": 8}))
    used = subword.used_rows(c, words, np.ones(4))
    tables = subword.subword_tables(c, words, np.ones(4), used)
    tokens = jnp.asarray([[[0, 1, 2, 1, 3, 0, 2, 2]]], jnp.int32)
    blocks = first(draw(tables, c, tokens, jnp.arange(1), jax.random.key(2)))
    params = {"input": jax.random.normal(jax.random.key(0), (len(used), 8)),
              "output": jax.random.normal(jax.random.key(1), (4, 8))}  # fmt: skip
    ids, start = subword.word_rows(words, c, {word: id for id, word in enumerate(words)})
    ids = np.array([used.tolist().index(id) for id in ids])

    near, far = np.zeros((2, 4, 4), np.float32)  # how often a word is told another, and is told from it
    for b, p in np.ndindex(*blocks.centre.shape):
        w, reach = int(blocks.centre[b, p]), int(blocks.reach[b, p])
        for offset in range(-reach, reach + 1):
            y = int(blocks.around[b, p + c.window + offset])
            if offset and y >= 0:
                near[w, y] += 1
                np.add.at(far[w], np.asarray(blocks.noise[b]), c.negative / c.shared)

    def objective(params):
        x = jnp.stack([params["input"][ids[a:b]].mean(0) for a, b in itertools.pairwise(start)])
        scores = x @ params["output"].T
        return -(near * jax.nn.log_sigmoid(scores) + far * jax.nn.log_sigmoid(-scores)).sum()

    touched, (loss, _) = gradients(params, tables, c, blocks, 12)
    expected, gradient = jax.jit(jax.value_and_grad(objective))(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    rows = start[1] - start[0]
    mine = handed(params, tables, touched)
    np.testing.assert_allclose(mine, rows * gradient["input"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(summed(params["output"], *touched["output"]), gradient["output"], rtol=1e-4, atol=1e-5)


def test_words_without_room_are_left_out():
    c = model(positions=16)
    tables, blocks, room = drawn(c, TOKENS)
    choose = jax.jit(subword.choose, static_argnums=2)
    assert bool(choose(tables, blocks.centre.reshape(-1), room).fits.all())
    tight = choose(tables, blocks.centre.reshape(-1), 5)
    assert not bool(tight.fits.all())
    words = np.asarray(blocks.centre.reshape(-1))
    first = [int(np.argmax(words == word)) for word in words]  # each word's pieces, in the order of first places
    sizes = [int(tables["count"][words[p]]) if first[p] == p and words[p] >= 0 else 0 for p in range(16)]
    np.testing.assert_array_equal(tight.fits, np.cumsum(sizes) <= 5)
    params = param.init(subword.subword_params(c, USED), jax.random.key(0))
    _, (_, weight) = gradients(params, tables, c, blocks, 5)
    assert 0 < weight < gradients(params, tables, c, blocks, room)[1][1]


def test_a_row_is_calmed_by_the_pairs_of_all_its_words():
    c = model(calm=4.0, positions=1024)
    factors = tables_of(c)["input"]
    pairs = incidence().T @ (COUNTS / COUNTS.sum() * 1024 * 4 * 6)
    np.testing.assert_allclose(factors, np.minimum(1, 4 / np.maximum(pairs, 1e-9)), rtol=1e-5)
    assert np.all(np.asarray(tables_of(model())["input"]) == 1)
    params = {"input": jnp.zeros((len(USED), 8))}
    factor = np.append(factors, 0)[[[0, 1, 0, len(USED)]]]
    touched = {"input": (jnp.asarray([[0, 1, 0, len(USED)]]), jnp.ones((1, 8)), jnp.asarray(factor))}
    new, _ = subword.descend(params, {}, touched, 0.5)
    np.testing.assert_allclose(new["input"][:3, 0], [-factors[0], -factors[1] / 2, 0], rtol=1e-5)
    tables, blocks, room = drawn(c, np.tile(TOKENS, 64))
    rows = param.init(subword.subword_params(c, USED), jax.random.key(0))
    ids, _, factor = gradients(rows, tables, c, blocks, room)[0]["input"]
    np.testing.assert_array_equal(factor, np.append(factors, 0)[np.minimum(ids, len(USED))])


def train(c, words, counts, tokens, steps, turns=4, strategy=None, lr=0.05):
    used = subword.used_rows(c, words, counts)
    specs, tables, draw, gradients, loss, update = subword_objective(c, words, counts, used)
    batch, _ = stretches(tokens, c.rows, turns, word2vec.words_a_row(c, counts))
    strategy = strategy(param.axes(specs)) if strategy else parallel.local()
    params = param.init(specs, jax.random.key(0))
    state = State(jnp.zeros((), jnp.int32), params, tables, (), (), jnp.zeros(2, jnp.int32))
    step = make_sparse_step(draw, gradients, loss, lambda step: lr, turns, update)
    state, step = strategy.place(state), strategy.compile(step)
    losses = []
    for i in range(steps):
        state, metrics = step(state, strategy.batch(batch(i)), jax.random.key(1))
        losses.append(float(metrics["loss"]))
    params = strategy.host(state).params
    return losses, params | {"input": subword.unpacked(params["input"], used, c)}


STEMS = ["kalom", "prust", "vindel", "sorga"]


@pytest.mark.parametrize("cbow", [False, True], ids=["skip-gram", "cbow"])
def test_a_word_never_seen_is_near_the_words_of_its_stem(cbow):
    """Four stems whose forms stand only beside each other: new forms are put there by their n-grams alone."""
    rng = np.random.default_rng(0)
    ends = ["", "s", "ed", "ing", "er"]
    words = [stem + end for stem in STEMS for end in ends]
    topic = np.repeat(rng.integers(0, 4, 3000), 8)
    tokens = (topic * len(ends) + rng.integers(0, len(ends), len(topic))).astype(np.int32)
    counts = np.bincount(tokens)
    c = model(cbow=cbow, vocab=20, positions=64, block=8, dim=16, calm=32.0, buckets=2000)
    losses, params = train(c, words, counts, tokens, steps=100, turns=8)
    known = {word: id for id, word in enumerate(words)}
    asked = [stem + end for stem in STEMS for end in ("ish", "ment", "est")]
    x, new = (subword.compose(params["input"], c, some, known) for some in (words, asked))
    x, new = (some / np.linalg.norm(some, axis=1, keepdims=True) for some in (x, new))
    nearest = np.argsort(-new @ x.T, axis=1)[:, :3]
    assert np.mean(nearest // len(ends) == np.arange(len(asked))[:, None] // 3) > 0.9
    assert losses[-1] < losses[0]


STRATEGIES = {
    "pmap over 8": lambda axes: parallel.data_parallel(),
    "mesh 4x2": lambda axes: parallel.mesh({"data": 4, "model": 2}, axes),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_many_devices_are_as_one(name):
    c = model(rows=8, positions=64, sample=0.05, buckets=54)
    tokens = np.random.default_rng(0).choice(V, 2000, p=COUNTS / COUNTS.sum()).astype(np.int32)
    losses, params = train(c, WORDS, COUNTS, tokens, 3)
    others, other = train(c, WORDS, COUNTS, tokens, 3, strategy=STRATEGIES[name])
    np.testing.assert_allclose(losses, others, rtol=1e-5)
    for table in ("input", "output"):
        np.testing.assert_allclose(params[table], other[table], rtol=1e-4, atol=1e-6, err_msg=table)
