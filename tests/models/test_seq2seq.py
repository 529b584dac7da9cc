"""The translator: its published sizes, its twin in flax, who sees what, its beam's cache, and that it learns."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from lmjax import config, param
from lmjax.data.batches import pair_batch
from lmjax.models import seq2seq
from lmjax.nn.positions import sinusoids

SMALL = config.Seq2Seq(40, 50, context=16, layers=2, heads=4, dim=32, hidden=48, dropout=0.0)
PRE = replace(SMALL, pre_norm=True, positions="learned")
TIED = replace(SMALL, source_vocab=50, shared=True, layers=1)
RNG = np.random.default_rng(0)
SOURCE, TOKENS = RNG.integers(3, 40, (3, 10), np.int32), RNG.integers(3, 50, (3, 12), np.int32)
SEEN = np.arange(10)[None] < np.array([[10], [7], [4]])
BATCH = {"source": SOURCE, "seen": SEEN, "tokens": TOKENS, "targets": np.roll(TOKENS, -1, 1),
         "weights": np.ones((3, 12), np.float32)}  # fmt: skip


@cache
def start(model):
    """Biases that are not zero and norms that are not one: every part of the network shows."""
    first = jax.jit(lambda: param.init(seq2seq.seq2seq_params(model), jax.random.key(0)))()
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), first)


@partial(jax.jit, static_argnums=1)
def forward(params, model, source, seen, tokens):
    return seq2seq.seq2seq(params, model, source, seen, tokens)


def test_the_published_sizes():
    ladder = config.Seq2Seq(7853, 5893, positions="learned")
    # The tutorial prints 9,038,341 for these vocabularies, with its two tables of 100 positions.
    assert param.count(seq2seq.seq2seq_params(ladder)) == 9_038_341
    tiny = config.Seq2Seq(9_900, 9_900, layers=4, heads=4, dim=128, hidden=256, shared=True)
    assert round(param.count(seq2seq.seq2seq_params(tiny)) / 1e6, 1) == 2.6  # Wu et al. 2021
    base = config.Seq2Seq(37_000, 37_000, layers=6, heads=8, dim=512, hidden=2048, shared=True)
    assert round(param.count(seq2seq.seq2seq_params(base)) / 1e6) == 63  # Vaswani et al. 2017, table 3: 65
    given = np.zeros((2, 9), np.int32), np.ones((2, 9), bool), np.zeros((2, 7), np.int32)
    specs = seq2seq.seq2seq_params(base)
    logits = jax.eval_shape(lambda p: seq2seq.seq2seq(p, base, *given), param.shapes(specs))
    assert logits.shape == (2, 7, 37_000)


class Flax(linen.Module):
    """The same network from flax's parts."""

    model: config.Seq2Seq

    @linen.compact
    def __call__(self, source, seen, tokens):
        D, pre = self.model.dim, self.model.pre_norm
        norm = partial(linen.LayerNorm, epsilon=1e-5, use_fast_variance=False)

        def embed(ids, V, side):
            where = self.param(f"{side}_position", lambda key: jnp.zeros((self.model.context, D)))
            return linen.Embed(V, D, name=side)(ids) * np.sqrt(D) + where[None, : ids.shape[1]]

        def add(x, f, name):
            return x + f(norm(name=name)(x)) if pre else norm(name=name)(x + f(x))

        def attend(name, mask, keys=None):
            layer = linen.MultiHeadDotProductAttention(num_heads=self.model.heads, name=name)
            return lambda x: layer(x, x if keys is None else keys, mask=mask)

        def mlp(name):
            up, down = linen.Dense(self.model.hidden, name=f"{name}up"), linen.Dense(D, name=f"{name}down")
            return lambda x: down(jax.nn.relu(up(x)))

        x, both_ways = embed(source, self.model.source_vocab, "source"), seen[:, None, None]
        for i in range(self.model.layers):
            x = add(x, attend(f"e{i}self", both_ways), f"e{i}norm1")
            x = add(x, mlp(f"e{i}"), f"e{i}norm2")
        memory = norm(name="encoder_norm")(x) if pre else x
        x = embed(tokens, self.model.target_vocab, "target")
        for i in range(self.model.layers):
            x = add(x, attend(f"d{i}self", linen.make_causal_mask(tokens)), f"d{i}norm1")
            x = add(x, attend(f"d{i}read", both_ways, memory), f"d{i}norm3")
            x = add(x, mlp(f"d{i}"), f"d{i}norm2")
        x = norm(name="decoder_norm")(x) if pre else x
        return linen.Dense(self.model.target_vocab, name="head")(x)


def as_flax(params, model):
    def dense(p):
        return {"kernel": p["w"], "bias": p["b"]}

    def split(p, axis, names):
        return {name: dense({k: x.take(j, axis=x.ndim - axis) for k, x in p.items()}) for j, name in enumerate(names)}

    tree = {side: {"embedding": params[side]} for side in ("source", "target")}
    tree["head"] = {"kernel": params["head"]["w"].T, "bias": params["head"]["b"]}
    tree |= {name: params[name] for name in ("encoder_norm", "decoder_norm") if name in params}
    for side in ("source", "target"):
        where = sinusoids(jnp.arange(model.context), model.dim)
        tree[f"{side}_position"] = params.get(f"{side}_position", where)
    for letter, blocks in (("e", params["encoder"]), ("d", params["decoder"])):
        for i, p in enumerate(blocks):
            at = f"{letter}{i}"
            tree |= {f"{at}{name}": p[name] for name in ("norm1", "norm2", "norm3") if name in p}
            tree |= {f"{at}{name}": dense(p[name]) for name in ("up", "down")}
            tree[f"{at}self"] = split(p["qkv"], 2, ("query", "key", "value")) | {"out": dense(p["out"])}
            if letter == "d":
                tree[f"{at}read"] = {"query": dense(p["query"]), "out": dense(p["read"])}
                tree[f"{at}read"] |= split(p["memory"], 2, ("key", "value"))
    return tree


@pytest.mark.parametrize("model", [SMALL, PRE], ids=["post-norm, waves", "pre-norm, learned"])
def test_logits_are_flax(model):
    params = start(model)
    theirs = jax.jit(lambda p: Flax(model).apply({"params": p}, SOURCE, SEEN, TOKENS))(as_flax(params, model))
    np.testing.assert_allclose(forward(params, model, SOURCE, SEEN, TOKENS), theirs, atol=2e-4)


def test_the_encoder_sees_both_ways_the_decoder_its_past_and_all_of_the_memory():
    params = start(PRE)

    @jax.jit
    def reach(name):
        """Of the logits at target position 5, through the position tables."""

        def at(tables):
            logits = seq2seq.seq2seq(params | tables, PRE, SOURCE[:1], SEEN[:1], TOKENS[:1])
            return (logits[:, 5] ** 2).sum()

        tables = {side: params[side] for side in ("source_position", "target_position")}
        return {side: jnp.abs(g).sum(-1) for side, g in jax.grad(at)(tables).items()}

    seen = reach(0)
    assert (seen["source_position"][:10] > 0).all()
    assert (seen["target_position"][:6] > 0).all()
    assert (seen["target_position"][6:] == 0).all()

    @jax.jit
    def memory_reach(table):
        changed = params | {"source_position": table}
        return (seq2seq.encode(changed, PRE, SOURCE[:1], SEEN[:1])[:, 4] ** 2).sum()

    assert (jnp.abs(jax.grad(memory_reach)(params["source_position"])).sum(-1)[:10] > 0).all()


def test_source_padding_is_invisible():
    params = start(SMALL)
    together = forward(params, SMALL, SOURCE, SEEN, TOKENS)
    other = np.where(SEEN, SOURCE, 7)
    np.testing.assert_allclose(forward(params, SMALL, other, SEEN, TOKENS), together, atol=1e-5)
    for row, n in enumerate((10, 7, 4)):
        alone = forward(params, SMALL, SOURCE[row : row + 1, :n], SEEN[row : row + 1, :n], TOKENS[row : row + 1])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)


@pytest.mark.parametrize("model", [SMALL, PRE, TIED], ids=["post-norm", "pre-norm", "tied"])
def test_the_beams_cache_equals_the_full_forward_though_hypotheses_change_places(model):
    """Three hypotheses swap lines after every token; each line's logits are those of its own history."""
    params, W = start(model), 3
    rng = np.random.default_rng(1)
    step = jax.jit(lambda cache, tokens: seq2seq.step(params, model, cache, tokens))
    cache = jax.jit(lambda: seq2seq.start_cache(params, model, SOURCE, SEEN, W, 8))()
    history = np.zeros((3, W, 0), np.int32)
    for _ in range(6):
        tokens = rng.integers(3, 40, (3, W, 1), np.int32)
        history = np.concatenate([history, tokens], axis=2)
        logits, cache = step(cache, tokens[:, :, 0])
        for w in range(W):
            full = forward(params, model, SOURCE, SEEN, history[:, w])
            np.testing.assert_allclose(logits[:, w], full[:, -1], atol=1e-5, rtol=1e-4)
        rows = rng.integers(0, W, (3, W))
        cache = seq2seq.select(cache, jnp.asarray(rows))
        history = np.take_along_axis(history, rows[:, :, None], axis=1)


def test_the_loss_is_the_smoothed_cross_entropy_of_what_counts():
    params, smooth = start(SMALL), 0.1
    logits = forward(params, SMALL, SOURCE, SEEN, TOKENS)
    weights = BATCH["weights"] * (np.arange(12)[None] < np.array([[12], [5], [9]]))
    target = optax.smooth_labels(jax.nn.one_hot(BATCH["targets"], 50), smooth)
    expected = (optax.softmax_cross_entropy(logits, target) * weights).sum()
    total, (weight, _, _) = seq2seq.seq2seq_loss(params, SMALL, BATCH | {"weights": weights}, None, (), smooth)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert weight == 26


def test_every_rate_of_dropout_needs_a_key_and_changes_the_loss():
    one = replace(SMALL, layers=1)
    params = start(one)

    @partial(jax.jit, static_argnums=0)
    def loss(model, key):
        return seq2seq.seq2seq_loss(params, model, BATCH, key, ())[0]

    plain = float(loss(one, None))
    for rate in ("dropout", "dropout_attention", "dropout_hidden"):
        model = replace(one, **{rate: 0.5})
        assert float(loss(model, jax.random.key(0))) != plain


def test_it_learns_to_turn_a_sentence_round():
    """On pairs it has not seen: the model must read the memory and count."""
    model = replace(SMALL, source_vocab=12, target_vocab=12, dropout=0.0)
    rng = np.random.default_rng(0)

    def pairs(n):
        source = [np.append(rng.integers(3, 12, 5), 2).astype(np.int32) for _ in range(n)]
        return source, [np.append(s[-2::-1], 2).astype(np.int32) for s in source]

    tx, params = optax.adam(3e-3), param.init(seq2seq.seq2seq_params(model), jax.random.key(0))

    @jax.jit
    def train(params, batches):
        def step(state, batch):
            params, opt = state
            total, gradient = jax.value_and_grad(lambda p: seq2seq.seq2seq_loss(p, model, batch, None, ())[0])(params)
            updates, opt = tx.update(gradient, opt)
            return (optax.apply_updates(params, updates), opt), total / 384

        return jax.lax.scan(step, (params, tx.init(params)), batches)

    batches = [pair_batch(*pairs(64), 1, range(64), 64, 6) for _ in range(300)]
    (params, _), losses = train(params, jax.tree.map(lambda *x: np.stack(x), *batches))
    fresh = pair_batch(*pairs(64), 1, range(64), 64, 6)
    said = forward(params, model, fresh["source"], fresh["seen"], fresh["tokens"]).argmax(-1)
    assert losses[0] > 2
    assert (said == fresh["targets"]).mean() > 0.95
