"""word2vec: skip-gram and CBOW with negative sampling (Mikolov et al. 2013a, arXiv 1301.3781; 2013b, arXiv 1310.4546).

Skip-gram tells the words around a place from noise by the word in it (2013b, eq. 4), for each context c of a word w:

    log s(x_w . y_c) + sum of k noise words n drawn from q of log s(- x_w . y_n),   s the logistic function

CBOW tells the word in a place from noise by the mean of its contexts' vectors: x_w there becomes mean(x_c), y_c y_w.

    q(w)    ~ count(w)^(3/4)                    noise words (2013b, section 2.2)
    keep(w) = sqrt(t / f(w)) + t / f(w)         share of a word's places that stay, f its share of the text: as the
                                                authors' program has it (2013b, eq. 5, has only the first term)
    reach                                       uniform from 1 to the window, drawn for each place (2013a, section 3.2)

How it is computed. P neighbouring places are a block: their words, the words around them and one draw of C noise words,
which weighs as much as the k for each pair would. So all its dot products are one matrix product, [P,D] by [D,P+2W+C],
and so are both gradients. An update takes many blocks at once from the same vectors and adds up what it gives each
word. The authors' program updates after every pair; where an update gives a frequent word more than `calm` pairs, a
step along their sum would overshoot what their sequence would do, so it is shortened in proportion, by expected counts.

B blocks, P places of a block, W window, C noise words of a block, D width, V word types, R words of a row before and T
places after thinning.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.nn.xla import in_lanes, written
from lmjax.param import Param, uniform, zeros


class Blocks(NamedTuple):
    """What an update reads. Ids of places without a word are -1."""

    centre: jax.Array  # int32 [B,P]
    around: jax.Array  # int32 [B,P+2W], the places from W before a block to W behind it
    reach: jax.Array  # int32 [B,P]
    noise: jax.Array  # int32 [B,C]


def word2vec_params(config):
    """ "input": the word vectors; "output": those they are multiplied with. As the authors' program begins."""
    shape, axes = (config.vocab, config.dim), ("vocab", "embed")
    return {"input": Param(shape, axes, uniform(0.5 / config.dim)), "output": Param(shape, axes, zeros)}


def word2vec_tables(config, counts) -> dict:
    """What sampling reads, from the words' counts [V].

    keep: a place's chance to stay. share, other: Walker's alias method, see `pick`. input, output: factors on a word's
    gradients (`calm`), [V] each.
    """
    f, keep = thinning(config, counts)
    q = f**0.75 / np.sum(f**0.75)
    share, other = alias(q)
    pairs = pairs_an_update(config, counts)
    noise = pairs.sum() * config.negative * q
    given = {"input": pairs * (1 + config.negative), "output": pairs + noise}
    factors = {name: damping(config, n) for name, n in given.items()}
    tables = {"keep": keep, "share": share, **factors}
    return {name: jnp.asarray(x, jnp.float32) for name, x in tables.items()} | {"other": jnp.asarray(other)}


def pairs_an_update(config, counts):
    """The pairs that an update is expected to take of each word, [V]: (W+1) a place, and of CBOW one."""
    return config.positions * (1 if config.cbow else config.window + 1) * kept_shares(config, counts)


def kept_shares(config, counts):
    """The words' shares of what thinning leaves, [V]."""
    f, keep = thinning(config, counts)
    return f * keep / np.sum(f * keep)


def damping(config, given):
    """Factors on the gradients of rows that an update is expected to give so many pairs."""
    return np.minimum(1.0, config.calm / np.maximum(given, config.calm)) if config.calm else np.ones_like(given)


def thinning(config, counts):
    """f(w) and keep(w), [V] each."""
    f = np.asarray(counts, np.float64) / np.sum(counts)
    keep = np.minimum(np.sqrt(config.sample / f) + config.sample / f, 1.0) if config.sample else np.ones_like(f)
    return f, keep


def alias(q):
    """Walker's tables for a distribution q [V]: (share float [2^k], other int32 [2^k]), 2^k places, at least V."""
    size = 1 << (len(q) - 1).bit_length()
    share, other = np.pad(np.asarray(q, np.float64) * size, (0, size - len(q))), np.arange(size, dtype=np.int32)
    small, large = list(np.flatnonzero(share < 1)), list(np.flatnonzero(share >= 1))
    while small and large:
        i, j = small.pop(), large[-1]
        other[i] = j
        share[j] -= 1 - share[i]
        if share[j] < 1:
            small.append(large.pop())
    for i in small + large:  # what rounding left; a place of no word never becomes one
        share[i] = i < len(q)
    return share, other


def words_a_row(config, counts) -> int:
    """R: so many words of running text fill a row's T places, and seldom more (4 standard deviations)."""
    f, keep = thinning(config, counts)
    stays, places = float(np.sum(f * keep)), config.positions // config.rows
    stays += 4 * np.sqrt(max(stays * (1 - stays), 0.0) / places)
    return max(1, int(places / stays + 1e-3))


def draw_blocks(tables, config, tokens, row, key) -> Blocks:
    """Thins rows of running text, cuts them into blocks, and draws reaches and noise: leaves [updates, B, ...].

    tokens int32 [rows,updates,R], -1 where there is no word. row int32 [rows]: each row's number, by which it draws its
    own, so that it may lie on any device.
    """
    T, W, P, C = (
        config.positions // config.rows,
        config.window,
        config.block,
        0 if config.hierarchical else config.shared,
    )
    updates, R = tokens.shape[1:]

    def one(item):
        tokens, row = item
        bits = random_bits(jax.random.fold_in(key, row), (updates, max(R, T) + T // P * C))
        each, noise = jnp.split(bits, [max(R, T)], axis=1)
        stays = (fraction(each[:, :R], 16) < tables["keep"][tokens]) & (tokens >= 0)
        place = jnp.where(stays, jnp.cumsum(stays, axis=1) - 1, T)
        kept = jnp.full((updates, T), -1, jnp.int32)
        kept = jax.vmap(lambda kept, place, tokens: kept.at[place].set(tokens, mode="drop"))(kept, place, tokens)
        reach = (each[:, :T] & 0xFFFF) % W  # of the bits that thinning leaves; even to a share of W / 2^16
        return kept, reach.astype(jnp.int32) + 1, pick(tables, noise) if C else noise.astype(jnp.int32)

    kept, reach, noise = (x.swapaxes(0, 1) for x in lax.map(one, (tokens, row)))  # [updates,rows,...]
    around = np.arange(T // P)[:, None] * P + np.arange(P + 2 * W)[None]
    around = jnp.pad(kept, ((0, 0), (0, 0), (W, W)), constant_values=-1)[..., around]
    B, sizes = len(tokens) * (T // P), (P, P + 2 * W, P, C)
    return Blocks(*(x.reshape(updates, B, n) for x, n in zip((kept, around, reach, noise), sizes, strict=True)))


def pick(tables, bits):
    """Noise words of random bits uint32, by Walker's tables of 2^k places: k bits choose a place, the others a side."""
    k = len(tables["share"]).bit_length() - 1
    place = (bits >> (32 - k)).astype(jnp.int32)
    return jnp.where(fraction(bits << k, 32 - k) < tables["share"][place], place, tables["other"][place])


def random_bits(key, shape):
    """uint32 of that shape, by Philox: its numbers cost a third of those of jax.random's threefry on CPU."""
    state = jnp.resize(jax.random.key_data(key), 4)
    return lax.rng_bit_generator(state, shape, jnp.uint32, algorithm=lax.RandomAlgorithm.RNG_PHILOX)[1]


def fraction(bits, count: int):
    """The first `count` of random bits uint32, at most 24 of them, as floats even in [0,1)."""
    count = min(count, 24)
    return (bits >> (32 - count)).astype(jnp.float32) * 2.0**-count


def contexts(config, blocks: Blocks):
    """float32 [B,P+2W,P]: 1 where a place is a context of another: within its reach, not itself, and words in both."""
    P, W = config.block, config.window
    apart = jnp.asarray(np.arange(P + 2 * W)[:, None] - W - np.arange(P)[None])[None]  # [1,P+2W,P]
    near = (jnp.abs(apart) <= blocks.reach[:, None, :]) & (apart != 0)
    return (near & (blocks.around >= 0)[:, :, None] & (blocks.centre >= 0)[:, None, :]).astype(jnp.float32)


def word2vec_gradients(params, tables, config, blocks: Blocks):
    """The gradients of an update, of the rows it touches only, as train/sparse.py's `sgd` takes them:
    ({name: (ids [N], rows [N,D], factor [N])}, finite bool [1]).

    Rows are sums over the update's pairs of the gradients of minus the objective above, factor is what `calm` leaves of
    them. Slopes are bounded, so that gradients are finite where all dot products are.
    """

    def gradients(blocks):
        touched, parts = (cbow if config.cbow else skip_gram)(params, config, blocks)
        touched = {name: (ids, rows, tables[name][ids]) for name, (ids, rows) in touched.items()}
        return touched, parts[0].sum((0, 1))

    touched, sums = zip(*in_lanes(gradients, blocks), strict=True)
    return jax.tree.map(lambda *x: jnp.concatenate(x), *touched), jnp.isfinite(sum(sums).sum())[None]


def word2vec_loss(params, config, blocks: Blocks):
    """Minus the objective, summed over the update's pairs, in nats, and the number of words predicted."""
    scores, pairs, noise = (cbow if config.cbow else skip_gram)(params, config, blocks)[1]
    near, far = jnp.split(scores, [pairs.shape[1]], axis=1)
    return jnp.sum(pairs * jax.nn.softplus(-near)) + jnp.sum(noise * jax.nn.softplus(far)), pairs.sum()


def slope(scores, pairs, noise):
    """The derivative of `word2vec_loss` with respect to each score. scores [B,E+C,P]: dot products with E words, then
    with C noise words; pairs [B,E,P]: 1 where a word is to be predicted; noise [B,1,P]: the weight of a noise word."""
    near, far = jnp.split(jax.nn.sigmoid(scores), [pairs.shape[1]], axis=1)
    return written(jnp.concatenate([pairs * (near - 1), noise * far], axis=1))


def skip_gram(params, config, blocks: Blocks):
    """({name: (ids, gradient)}, what `slope` takes), with E = P+2W, the places around a block."""
    centre = jnp.maximum(blocks.centre, 0)
    asked = jnp.concatenate([jnp.maximum(blocks.around, 0), blocks.noise], axis=1)
    x, y = params["input"][centre], params["output"][asked]  # [B,P,D], [B,E+C,D]
    pairs = contexts(config, blocks)
    noise = pairs.sum(1, keepdims=True) * (config.negative / config.shared)
    scores = jnp.einsum("bcd,bpd->bcp", y, x)
    ds = slope(scores, pairs, noise)
    dx = jnp.einsum("bpc,bcd->bpd", turned(ds), y)
    dy = jnp.einsum("bcp,bpd->bcd", ds, x)
    return {"input": flat(centre, dx), "output": flat(asked, dy)}, (scores, pairs, noise)


def cbow(params, config, blocks: Blocks):
    """As `skip_gram`, with E = 1. As the authors' program: each context gets the mean's gradient whole, not a share."""
    around, centre = jnp.maximum(blocks.around, 0), jnp.maximum(blocks.centre, 0)
    y = params["output"][centre]  # [B,P,D]
    unasked = params["output"][blocks.noise]  # [B,C,D]
    near, told, mean = mean_of_contexts(params, config, blocks)
    noise = told * (config.negative / config.shared)
    scores = jnp.concatenate([(mean * y).sum(-1)[:, None], jnp.einsum("bcd,bpd->bcp", unasked, mean)], axis=1)
    ds = slope(scores, told, noise)
    first, rest = ds[:, 0, :, None], written(ds[:, 1:])
    dmean = first * y + jnp.einsum("bpc,bcd->bpd", turned(rest), unasked)
    dx = jnp.einsum("bcp,bpd->bcd", near, dmean)
    dunasked = jnp.einsum("bcp,bpd->bcd", rest, mean)
    (ids, dy), (others, dunasked) = flat(centre, first * mean), flat(blocks.noise, dunasked)
    output = jnp.concatenate([ids, others]), jnp.concatenate([dy, dunasked])
    return {"input": flat(around, dx), "output": output}, (scores, told, noise)


def mean_of_contexts(params, config, blocks: Blocks):
    """(`contexts`, [B,1,P]: 1 where a place has some, without which it is not asked for, their mean vectors [B,P,D])"""
    near = contexts(config, blocks)
    count = near.sum(1, keepdims=True)
    x = params["input"][jnp.maximum(blocks.around, 0)]
    mean = jnp.einsum("bpc,bcd->bpd", turned(near / jnp.maximum(count, 1)), x)
    return near, (count > 0).astype(jnp.float32), mean


def turned(x):
    """[B,C,P] as [B,P,C], in memory too: products want their sums' axis last on the left and first on the right."""
    return written(x.swapaxes(1, 2))


def flat(ids, rows):
    return ids.reshape(-1), rows.reshape(-1, rows.shape[-1])
