"""RNNsearch: its published size, its units against flax's, padding, its beam's cache, and that it learns to copy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

from lmjax import config, param
from lmjax.data.batches import pair_batch
from lmjax.models import rnnsearch
from lmjax.nn.recurrent import gru_layer, gru_params
from lmjax.param import normal

SMALL = config.RNNSearch(40, 50, embed=16, dim=24, dropout=0.0)
RNG = np.random.default_rng(0)
SOURCE, TOKENS = RNG.integers(3, 40, (3, 10), np.int32), RNG.integers(3, 50, (3, 12), np.int32)
SEEN = np.arange(10)[None] < np.array([[10], [7], [4]])


def start(model=SMALL):
    """Larger weights than a run's first, so that every part of the network shows."""
    first = jax.jit(lambda: param.init(rnnsearch.rnnsearch_params(model), jax.random.key(0)))()
    return jax.tree.map(lambda x: 20 * x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), first)


@jax.jit
def forward(params, source, seen, tokens):
    return rnnsearch.rnnsearch(params, SMALL, source, seen, tokens)


def test_the_published_size():
    # The tutorial prints 20,518,917; PyTorch has a second bias on the two gates of each of its three GRUs.
    specs = rnnsearch.rnnsearch_params(config.RNNSearch(7855, 5893))
    assert param.count(specs) + 3 * 2 * 512 == 20_518_917


def test_a_gru_layer_is_flax_both_ways_and_stops_at_a_rows_end():
    params = param.init(gru_params(5, 8, normal(0.5), normal(0.5)), jax.random.key(1))
    x, zero = jax.random.normal(jax.random.key(2), (7, 3, 5)), jnp.zeros((3, 8))
    lengths = np.array([7, 4, 1])
    seen = np.arange(7)[:, None] < lengths[None]

    def dense(part, i, bias):
        return {"kernel": params[part][:, i]} | ({"bias": bias} if bias is not None else {})

    cell = {f"i{gate}": dense("w", i, params["b"][i]) for i, gate in enumerate("rzn")}
    cell |= {f"h{gate}": dense("u", i, params["reset_b"] if gate == "n" else None) for i, gate in enumerate("rzn")}
    for reverse in (False, True):
        rnn = linen.RNN(linen.GRUCell(8), reverse=reverse, keep_order=True, return_carry=True)
        last, every = rnn.apply({"params": {"cell": cell}}, x.swapaxes(0, 1), seq_lengths=jnp.asarray(lengths))
        ours, ours_last = gru_layer(params, x, zero, seen, reverse=reverse)
        np.testing.assert_allclose(ours_last, last, atol=1e-5)
        np.testing.assert_allclose(ours.swapaxes(0, 1)[seen.T], every[seen.T], atol=1e-5)


def test_source_padding_is_invisible():
    params = start()
    together = forward(params, SOURCE, SEEN, TOKENS)
    np.testing.assert_allclose(forward(params, np.where(SEEN, SOURCE, 7), SEEN, TOKENS), together, atol=1e-5)
    alone = forward(params, SOURCE[1:2, :7], SEEN[1:2, :7], TOKENS[1:2])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_no_logit_depends_on_a_later_word_and_each_sees_the_whole_source():
    params = start()
    other = TOKENS.copy()
    other[:, 6:] = 3
    plain = forward(params, SOURCE, SEEN, TOKENS)
    np.testing.assert_array_equal(plain[:, :6], forward(params, SOURCE, SEEN, other)[:, :6])
    for place in range(4):
        changed = SOURCE.copy()
        changed[:, place] = (SOURCE[:, place] + 1) % 37 + 3
        assert (forward(params, changed, SEEN, TOKENS)[:, 0] != plain[:, 0]).any(1).all()


def test_the_beams_cache_equals_the_full_forward_though_hypotheses_change_places():
    params, W, rng = start(), 2, np.random.default_rng(1)
    step = jax.jit(lambda cache, tokens: rnnsearch.step(params, SMALL, cache, tokens))
    cache, history = rnnsearch.start_cache(params, SMALL, SOURCE, SEEN, W, 8), np.zeros((3, W, 0), np.int32)
    for _ in range(4):
        tokens = rng.integers(3, 40, (3, W, 1), np.int32)
        history = np.concatenate([history, tokens], axis=2)
        logits, cache = step(cache, tokens[:, :, 0])
        for w in range(W):
            full = rnnsearch.rnnsearch(params, SMALL, SOURCE, SEEN, history[:, w])
            np.testing.assert_allclose(logits[:, w], full[:, -1], atol=1e-5, rtol=1e-4)
        rows = rng.integers(0, W, (3, W))
        cache = rnnsearch.select(cache, jnp.asarray(rows))
        history = np.take_along_axis(history, rows[:, :, None], axis=1)


def test_the_loss_is_the_cross_entropy_of_what_counts():
    params, weights = start(), (np.arange(12)[None] < np.array([[12], [5], [9]])).astype(np.float32)
    targets = np.roll(TOKENS, -1, 1)
    batch = {"source": SOURCE, "seen": SEEN, "tokens": TOKENS, "targets": targets, "weights": weights}
    nll = optax.softmax_cross_entropy_with_integer_labels(forward(params, SOURCE, SEEN, TOKENS), targets)
    total, (weight, _, _) = rnnsearch.rnnsearch_loss(params, SMALL, batch, None, ())
    np.testing.assert_allclose(total, (nll * weights).sum(), rtol=1e-5)
    assert weight == 26


def test_it_learns_to_copy():
    """Sentences it has not seen: the decoder must look at one source word after another."""
    model, rng = config.RNNSearch(12, 12, embed=16, dim=32, dropout=0.0), np.random.default_rng(0)

    def copies(n):
        lines = [np.append(rng.integers(3, 12, 4), 2).astype(np.int32) for _ in range(n)]
        return pair_batch(lines, lines, 1, range(n), n, 5)

    tx, params = optax.adam(1e-2), param.init(rnnsearch.rnnsearch_params(model), jax.random.key(0))

    @jax.jit
    def train(params, batches):
        def step(state, batch):
            params, opt = state
            total, gradient = jax.value_and_grad(partial(loss, batch=batch))(params)
            updates, opt = tx.update(gradient, opt)
            return (optax.apply_updates(params, updates), opt), total

        return jax.lax.scan(step, (params, tx.init(params)), batches)

    def loss(params, batch):
        return rnnsearch.rnnsearch_loss(params, model, batch, None, ())[0] / 320

    (params, _), losses = train(params, jax.tree.map(lambda *x: np.stack(x), *[copies(64) for _ in range(400)]))
    fresh = copies(64)
    said = rnnsearch.rnnsearch(params, model, fresh["source"], fresh["seen"], fresh["tokens"]).argmax(-1)
    assert losses[0] > 2
    assert (said == fresh["targets"]).mean() > 0.95
