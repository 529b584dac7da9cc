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

from lmjax.nn.xla import written
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
    """What sampling reads, [V] each, from the words' counts [V].

    keep: a place's chance to stay. share, other: Walker's alias method, noise is i with chance share[i], else other[i],
    for i uniform. input, output: factors on a word's gradients (`calm`).
    """
    f, keep = thinning(config, counts)
    q = f**0.75 / np.sum(f**0.75)
    share, other = alias(q)
    kept = f * keep / np.sum(f * keep)
    pairs = config.positions * ((config.window + 1) if not config.cbow else 1)  # of an update: 2 (W+1)/2 a place
    given = {"input": pairs * kept * (1 + config.negative), "output": pairs * (kept + config.negative * q)}
    factors = {name: np.minimum(1.0, config.calm / n) if config.calm else np.ones_like(f) for name, n in given.items()}
    tables = {"keep": keep, "share": share, **factors}
    return {name: jnp.asarray(x, jnp.float32) for name, x in tables.items()} | {"other": jnp.asarray(other)}


def thinning(config, counts):
    """f(w) and keep(w), [V] each."""
    f = np.asarray(counts, np.float64) / np.sum(counts)
    keep = np.minimum(np.sqrt(config.sample / f) + config.sample / f, 1.0) if config.sample else np.ones_like(f)
    return f, keep


def alias(q):
    """Walker's tables for a distribution q [V]: (share float [V], other int32 [V])."""
    V = len(q)
    share, other = np.asarray(q, np.float64) * V, np.arange(V, dtype=np.int32)
    small, large = list(np.flatnonzero(share < 1)), list(np.flatnonzero(share >= 1))
    while small and large:
        i, j = small.pop(), large[-1]
        other[i] = j
        share[j] -= 1 - share[i]
        if share[j] < 1:
            small.append(large.pop())
    share[small + large] = 1.0  # what rounding left
    return share, other


def words_a_row(config, counts) -> int:
    """R: so many words of running text fill a row's T places, and seldom more (4 standard deviations)."""
    f, keep = thinning(config, counts)
    stays, places = float(np.sum(f * keep)), config.positions // config.rows
    stays += 4 * np.sqrt(max(stays * (1 - stays), 0.0) / places)
    return max(1, int(places / stays + 1e-3))


def word2vec_update(params, tables, config, batch, key, report):
    """`word2vec_gradients` of a batch: "tokens" and "row", as `draw_blocks` takes them."""
    blocks = draw_blocks(tables, config, batch["tokens"], batch["row"], key)
    return word2vec_gradients(params, tables, config, blocks, report)


def draw_blocks(tables, config, tokens, row, key) -> Blocks:
    """Thins rows of running text, cuts them into blocks, and draws reaches and noise.

    tokens int32 [rows,R], -1 where there is no word. row int32 [rows]: each row's number, by which it draws its own, so
    that it may lie on any device.
    """
    T, W, P = config.positions // config.rows, config.window, config.block

    def one(item):
        tokens, row = item
        sizes = np.cumsum([tokens.shape[0], T, T // P * config.shared])
        bits = random_bits(jax.random.fold_in(key, row), sizes[-1] + T // P * config.shared)
        thin, reach, pick, accept = jnp.split(bits, sizes)
        stays = (fraction(thin) < tables["keep"][tokens]) & (tokens >= 0)
        place = jnp.where(stays, jnp.cumsum(stays) - 1, T)
        kept = jnp.full(T, -1, jnp.int32).at[place].set(tokens, mode="drop")
        # The remainder by V is even to a share of V / 2^32.
        noise = (pick % config.vocab).astype(jnp.int32)
        noise = jnp.where(fraction(accept) < tables["share"][noise], noise, tables["other"][noise])
        return kept, (reach % W).astype(jnp.int32) + 1, noise

    kept, reach, noise = lax.map(one, (tokens, row))
    around = np.arange(T // P)[:, None] * P + np.arange(P + 2 * W)[None]
    around = jnp.pad(kept, ((0, 0), (W, W)), constant_values=-1)[:, around]
    B = tokens.shape[0] * (T // P)
    return Blocks(kept.reshape(B, P), around.reshape(B, P + 2 * W), reach.reshape(B, P), noise.reshape(B, -1))


def random_bits(key, count: int):
    """uint32 [count], by Philox: its numbers cost a third of those of jax.random's threefry on CPU, where these took a
    fifth of an update. One draw for all that a row needs, for a draw's beginning costs too."""
    state = jnp.resize(jax.random.key_data(key), 4)
    return lax.rng_bit_generator(state, (count,), jnp.uint32, algorithm=lax.RandomAlgorithm.RNG_PHILOX)[1]


def fraction(bits):
    """Random bits uint32 as floats, even in [0,1)."""
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


def contexts(config, blocks: Blocks):
    """float32 [B,P,P+2W]: 1 where a place is a context of another: within its reach, not itself, and words in both."""
    P, W = config.block, config.window
    apart = jnp.asarray(np.arange(P + 2 * W)[None] - W - np.arange(P)[:, None])[None]  # [1,P,P+2W]
    near = (jnp.abs(apart) <= blocks.reach[:, :, None]) & (apart != 0)
    return (near & (blocks.centre >= 0)[:, :, None] & (blocks.around >= 0)[:, None, :]).astype(jnp.float32)


def word2vec_gradients(params, tables, config, blocks: Blocks, report):
    """The gradients of an update, of the rows it touches only: ({name: (ids [N], rows [N,D])}, (loss, weight)).

    They are sums over the update's pairs of minus the objective above, damped by `calm`. The loss, their sum, costs a
    logarithm for each dot product and is taken where `report` (traced) is true; else it is 0, and so is the weight, the
    number of words predicted.
    """
    given = cbow if config.cbow else skip_gram
    touched, parts = given(params, config, blocks)
    touched = {name: (ids, rows * tables[name][ids][:, None]) for name, (ids, rows) in touched.items()}

    def loss():
        return objective(*parts), jnp.sum(parts[1])

    return touched, lax.cond(report, loss, lambda: (jnp.zeros(()), jnp.zeros(())))


def objective(scores, pairs, noise):
    """The negative of the objective, summed. scores [B,P,E+C]: dot products with E words, then with C noise words;
    pairs [B,P,E]: 1 where a word is to be predicted; noise [B,P,1]: the weight of each noise word."""
    near, far = scores[..., : pairs.shape[-1]], scores[..., pairs.shape[-1] :]
    return jnp.sum(pairs * jax.nn.softplus(-near)) + jnp.sum(noise * jax.nn.softplus(far))


def slope(scores, pairs, noise):
    """The derivative of `objective` with respect to each score."""
    s = jax.nn.sigmoid(scores)
    near, far = s[..., : pairs.shape[-1]], s[..., pairs.shape[-1] :]
    return written(jnp.concatenate([pairs * (near - 1), noise * far], axis=-1))


def skip_gram(params, config, blocks: Blocks):
    """({name: (ids, gradient)}, what `objective` takes), with E = P+2W, the places around a block."""
    centre = jnp.maximum(blocks.centre, 0)
    asked = jnp.concatenate([jnp.maximum(blocks.around, 0), blocks.noise], axis=1)
    x, y = params["input"][centre], params["output"][asked]  # [B,P,D], [B,E+C,D]
    pairs = contexts(config, blocks)
    noise = pairs.sum(-1, keepdims=True) * (config.negative / config.shared)
    scores = jnp.einsum("bpd,bcd->bpc", x, y)
    ds = slope(scores, pairs, noise)
    dx = jnp.einsum("bpc,bcd->bpd", ds, y)
    dy = jnp.einsum("bcp,bpd->bcd", written(ds.swapaxes(1, 2)), x)
    return {"input": flat(centre, dx), "output": flat(asked, dy)}, (scores, pairs, noise)


def cbow(params, config, blocks: Blocks):
    """As `skip_gram`, with E = 1. As the authors' program: each context gets the mean's gradient whole, not a share."""
    around, centre = jnp.maximum(blocks.around, 0), jnp.maximum(blocks.centre, 0)
    x, y = params["input"][around], params["output"][centre]  # [B,P+2W,D], [B,P,D]
    unasked = params["output"][blocks.noise]  # [B,C,D]
    near = contexts(config, blocks)
    count = near.sum(-1, keepdims=True)
    mean = jnp.einsum("bpc,bcd->bpd", near / jnp.maximum(count, 1), x)
    told = (count > 0).astype(jnp.float32)  # a word without contexts is not asked for
    noise = told * (config.negative / config.shared)
    scores = jnp.concatenate([(mean * y).sum(-1, keepdims=True), jnp.einsum("bpd,bcd->bpc", mean, unasked)], axis=2)
    ds = slope(scores, told, noise)
    first, rest = ds[:, :, :1], ds[:, :, 1:]
    dmean = first * y + jnp.einsum("bpc,bcd->bpd", rest, unasked)
    dx = jnp.einsum("bcp,bpd->bcd", written(near.swapaxes(1, 2)), dmean)
    dunasked = jnp.einsum("bcp,bpd->bcd", written(rest.swapaxes(1, 2)), mean)
    (ids, dy), (others, dunasked) = flat(centre, first * mean), flat(blocks.noise, dunasked)
    output = jnp.concatenate([ids, others]), jnp.concatenate([dy, dunasked])
    return {"input": flat(around, dx), "output": output}, (scores, told, noise)


def flat(ids, rows):
    return ids.reshape(-1), rows.reshape(-1, rows.shape[-1])
