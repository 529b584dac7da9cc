"""GloVe: word vectors whose products tell how often words stand together (Pennington, Socher & Manning 2014, EMNLP).

    J    = 1/2 sum over X_ij > 0 of f(X_ij) (w_i . v_j + b_i + c_j - log X_ij)^2   (eq. 8, halved as in the program)
    f(x) = min(1, (x / x_max)^alpha)                                               (eq. 9)

w are the vectors of words, v (the paper's w~) those of contexts, b and c (b~) their biases; the result is w + v.

How it is computed. X is symmetric: an entry X_ij stands for X_ji too, so that one visit learns from both. A row of a
table is [w, b, 1] or [v, 1, c], whose product is all of eq. 8's sum; the ones get no gradient. A group of entries
shares its word i, whose rows are fetched and changed once for K others, by the sum of the gradients that these give it.

B groups, K entries of a group, D width of a vector, E of a table, V word types.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.param import Param


class Entries(NamedTuple):
    """X[word, other] = X[other, word] = count; no entry where count is 0."""

    word: jax.Array  # int32 [B]
    other: jax.Array  # int32 [B,K]
    count: jax.Array  # float32 [B,K]


def width(config) -> int:
    """E: D+2 and zeros up to a multiple of 8, for XLA on CPU adds rows of other lengths at a quarter of the speed."""
    return -(-(config.dim + 2) // 8) * 8


def glove_params(config):
    """ "word": [w, b, 1, 0...] and "context": [v, 1, c, 0...], each word's. As the authors' program begins."""
    D, limit = config.dim, 0.5 / (config.dim + 1)

    def start(one):
        def init(key, shape, dtype):
            x = jax.random.uniform(key, shape, dtype, -limit, limit)
            return x.at[:, one].set(1.0).at[:, D + 2 :].set(0.0)

        return init

    shape, axes = (config.vocab, width(config)), ("vocab", None)
    return {"word": Param(shape, axes, start(D + 1)), "context": Param(shape, axes, start(D))}


def glove_vectors(params, config):
    """w + v (section 4.2), [V,D]."""
    return (params["word"] + params["context"])[:, : config.dim]


def weight(config, x):
    """f(x), eq. 9; 0 for x = 0, which is no entry."""
    return jnp.where(x > 0, jnp.minimum(x / config.x_max, 1.0) ** config.alpha, 0.0)


def draw_entries(batch) -> Entries:
    """What the updates of a step read, leaves [turns, B, ...], of a batch [B, turns, ...]. Nothing in it is random."""
    return Entries(*(batch[name].swapaxes(0, 1) for name in Entries._fields))


def glove_gradients(params, config, entries: Entries):
    """The gradients of J's part of these entries, as train/sparse.py's `adagrad` takes them, and (loss, entries).

    {name: (ids [N], rows [N,E], squares [N,E])}: what the entries of a group give its word is summed up in `rows`,
    and in `squares` the square of what each gave. The loss is that part of J; `entries` counts both triangles.
    """
    D, E, word = config.dim, width(config), entries.word[:, None]
    ids = jnp.concatenate([word, entries.other], axis=1)  # [B,1+K]; the first is no entry
    count = jnp.pad(entries.count, ((0, 0), (1, 0)))
    target, f = jnp.log(jnp.where(count > 0, count, 1.0)), weight(config, count)
    mirrored = jnp.where(ids == word, 0.0, f)  # X_ii is one entry
    w, v = params["word"][ids], params["context"][ids]  # [B,1+K,E]

    def side(x, y, f):
        """Of the groups' words x [B,E] and the others y: the slopes e, what x is given, and the loss."""
        error = jnp.einsum("bd,bkd->bk", x, y) - target
        e = f * error
        own = jnp.einsum("bk,bkd->bd", e, y), jnp.einsum("bk,bkd->bd", e * e, y * y)
        return e, own, 0.5 * jnp.sum(e * error)

    def rows(own, e, x, one):
        """Gradients and squares of a table: `own` of the groups' words, e x of the others; none of the ones."""
        free, first = np.arange(E) != one, np.arange(ids.shape[1]) == 0
        parts = [
            e[:, :, None] * jnp.where(free, x, 0.0)[:, None] + jnp.where(first[:, None] & free, own[:, None], 0.0)
            for own, e, x in zip(own, (e, e * e), (x, x * x), strict=True)
        ]
        return ids.reshape(-1), *(x.reshape(-1, E) for x in parts)

    as_word, own_word, loss = side(w[:, 0], v, f)
    as_context, own_context, mirrored_loss = side(v[:, 0], w, mirrored)
    touched = {
        "word": rows(own_word, as_context, v[:, 0], D + 1),
        "context": rows(own_context, as_word, w[:, 0], D),
    }
    entries = sum(jnp.sum(f > 0, dtype=jnp.float32) for f in (f, mirrored))
    return touched, (loss + mirrored_loss, entries)
