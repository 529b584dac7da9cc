"""BERT: its sizes, its twin in flax with the same weights, what a position sees, padding, its tasks, and learning."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from lmjax import config, param
from lmjax.errors import UserError
from lmjax.models import bert as m

SMALL = config.BERT(vocab=64, context=16, layers=2, heads=4, dim=32, dropout=0.0)
B, T = 3, 16
RNG = np.random.default_rng(0)
LENGTHS = (16, 9, 4)
VALID = np.arange(T)[None] < np.array(LENGTHS)[:, None]
PLACES = np.array([[1, 7, 12], [2, 8, 0], [3, 0, 0]])
WEIGHTS = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)
BATCH = {
    "tokens": RNG.integers(0, 64, (B, T), np.int32), "valid": VALID, "segments": RNG.integers(0, 2, (B, T), np.int32),
    "places": PLACES, "targets": RNG.integers(0, 64, (B, 3), np.int32), "weights": WEIGHTS,
    "next": np.array([0, 1, 1]), "next_weights": np.full(B, WEIGHTS.sum() / B, np.float32),
}  # fmt: skip
INPUTS = {name: BATCH[name] for name in ("tokens", "valid", "segments")}
TAGS = {**INPUTS, "labels": RNG.integers(0, 5, (B, T)), "weights": VALID.astype(np.float32)}
TASKS = {
    "pretrain": (m.pretrain_params, m.bert_pretrain_loss, BATCH),
    "classify": (partial(m.classifier_params, classes=5), m.classify_loss, {**INPUTS, "labels": np.array([4, 0, 2])}),
    "tag": (partial(m.tagger_params, classes=5), m.tag_loss, TAGS),
    "span": (m.span_params, m.span_loss, {**INPUTS, "start": np.array([3, 5, 0]), "end": np.array([11, 5, 3])}),
}


@cache
def start(make, model):
    """Weights larger than a run's first, and biases that are not zero: every part of the network shows."""

    rng = np.random.default_rng(1)

    def one(path, spec):
        return (path.endswith("scale") + 0.15 * rng.normal(size=spec.shape)).astype(np.float32)

    return param.map_params(one, make(model))


def fresh(make):
    """Much like where a run starts, without the time that compiling its draws takes."""
    return jax.tree.map(lambda x: 0.1 * (x - x.round()) + x.round(), start(make, SMALL))


@partial(jax.jit, static_argnums=1)
def forward(params, model, tokens, valid=None, segments=None, key=None):
    return m.bert(params, model, tokens, valid, segments, key)


@partial(jax.jit, static_argnums=(0, 2))
def loss_and_gradient(loss, params, model, batch, key=None):
    (total, (weight, metrics, _)), gradient = jax.value_and_grad(loss, has_aux=True)(params, model, batch, key, ())
    return total, weight, metrics, gradient


@partial(jax.jit, static_argnums=(0, 2))
def loss_alone(loss, params, model, batch, key=None):
    return loss(params, model, batch, key, ())[0]


@partial(jax.jit, static_argnums=1)
def embedded(params, model, tokens, valid):
    return m.sentence_embedding(params, model, tokens, valid)


def base(**sizes):
    return config.BERT(vocab=30522, context=512, **{"layers": 12, "heads": 12, "dim": 768, **sizes})


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (base(), 109_482_240),
        (base(layers=24, heads=16, dim=1024), 335_141_888),
        (base(layers=6, dim=384), 22_713_216),
        (base(layers=2, heads=2, dim=128), 4_385_920),
    ],
    ids=["base", "large", "MiniLM", "tiny"],
)
def test_bert_has_its_published_sizes_with_its_pooler(model, count):
    assert param.count(m.bert_params(model)) + param.count(m.pooler_params(model)) == count


def test_the_heads_have_their_sizes_and_base_runs_by_shape():
    assert param.count(m.bert_params(base(layers=6, segments=0))) == 66_362_880  # DistilBERT
    specs = m.pretrain_params(base())
    assert param.count(specs) == 110_106_428
    batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, BATCH))
    total, _ = jax.eval_shape(lambda p, b: m.bert_pretrain_loss(p, base(), b, None, ()), param.shapes(specs), batch)
    assert total.shape == ()


class Flax(linen.Module):
    """The same network, its pre-training heads too, from flax's parts."""

    model: config.BERT

    @linen.compact
    def __call__(self, tokens, valid, segments, places):
        c, D = self.model, self.model.dim
        norm = partial(linen.LayerNorm, epsilon=1e-12, use_fast_variance=False)
        gelu = partial(jax.nn.gelu, approximate=False)
        token = linen.Embed(c.vocab, D, name="token")
        x = token(tokens) + linen.Embed(c.context, D, name="position")(jnp.arange(tokens.shape[1]))[None]
        x = norm(name="embed")(x + linen.Embed(2, D, name="segment")(segments))
        for i in range(c.layers):
            attend = linen.MultiHeadDotProductAttention(num_heads=c.heads, name=f"attention{i}")
            x = norm(name=f"norm1_{i}")(x + attend(x, mask=valid[:, None, None, :]))
            y = linen.Dense(D, name=f"down{i}")(gelu(linen.Dense(4 * D, name=f"up{i}")(x)))
            x = norm(name=f"norm2_{i}")(x + y)
        y = norm(name="norm")(gelu(linen.Dense(D, name="transform")(x[jnp.arange(B)[:, None], places])))
        words = token.attend(y) + self.param("bias", linen.initializers.zeros, (c.vocab,))[None, None]
        return words, linen.Dense(2, name="next")(jnp.tanh(linen.Dense(D, name="pooler")(x[:, 0])))


def as_flax(params):
    """The tree of our arrays (weights or gradients) under flax's names."""

    def dense(p):
        return {"kernel": p["w"], "bias": p["b"]}

    embed, masked = params["bert"]["embed"], params["masked"]
    tree = {name: {"embedding": embed[name]} for name in ("token", "position", "segment")} | {"embed": embed["norm"]}
    for i, block in enumerate(params["bert"]["blocks"]):
        attention = {"out": dense(block["out"])}
        for j, name in enumerate(("query", "key", "value")):
            attention[name] = dense({k: x.take(j, axis=-2) for k, x in block["qkv"].items()})
        tree |= {f"norm1_{i}": block["norm1"], f"norm2_{i}": block["norm2"], f"attention{i}": attention}
        tree |= {f"up{i}": dense(block["up"]), f"down{i}": dense(block["down"])}
    tree |= {"transform": dense(masked["transform"]), "norm": masked["norm"], "bias": masked["bias"]}
    return tree | {"pooler": dense(params["pooler"]), "next": dense(params["next"])}


def test_the_pretraining_loss_is_the_sum_of_two_means_and_all_gradients_are_flax():
    params, flax = start(m.pretrain_params, SMALL), Flax(SMALL)

    @jax.jit
    def theirs(weights):
        words, follows = flax.apply({"params": weights}, *INPUTS.values(), PLACES)
        nll = optax.softmax_cross_entropy_with_integer_labels(words, BATCH["targets"])
        second = optax.softmax_cross_entropy_with_integer_labels(follows, BATCH["next"]).mean()
        return (nll * WEIGHTS).sum() / WEIGHTS.sum() + second, (words, follows, second)

    (loss, (words, follows, second)), gradient = jax.value_and_grad(theirs, has_aux=True)(as_flax(params))
    total, weight, metrics, ours = loss_and_gradient(m.bert_pretrain_loss, params, SMALL, BATCH)
    np.testing.assert_allclose(total / weight, loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["next_loss"] / weight, second, rtol=1e-5)
    right = np.mean(follows.argmax(-1) == BATCH["next"])
    np.testing.assert_allclose(metrics["next_accuracy"] / weight, right, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a / weight, b, atol=2e-5), as_flax(ours), gradient)
    x = forward(params["bert"], SMALL, **INPUTS)
    picked = jnp.take_along_axis(x, PLACES[..., None], axis=1)
    np.testing.assert_allclose(m.masked_logits(params, SMALL, picked), words, atol=2e-4)
    np.testing.assert_allclose(m.next_logits(params, SMALL, x), follows, atol=2e-4)


def test_rows_taken_by_themselves_add_up_to_the_batch():
    params = start(m.pretrain_params, SMALL)
    whole = loss_and_gradient(m.bert_pretrain_loss, params, SMALL, BATCH)
    rows = [{name: x[i : i + 1] for name, x in BATCH.items()} for i in range(B)]
    parts = [loss_and_gradient(m.bert_pretrain_loss, params, SMALL, row) for row in rows]
    added = jax.tree.map(lambda *x: sum(x), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), added, whole)


def test_without_a_second_task_there_is_the_masked_loss_alone():
    params = start(m.pretrain_params, SMALL)
    batch = {name: x for name, x in BATCH.items() if not name.startswith("next")}
    both, (_, metrics, _) = jax.jit(lambda p: m.bert_pretrain_loss(p, SMALL, BATCH, None, ()))(params)
    total = loss_alone(m.bert_pretrain_loss, params, SMALL, batch)
    np.testing.assert_allclose(total, metrics["masked_loss"], rtol=1e-5)
    np.testing.assert_allclose(total + metrics["next_loss"], both, rtol=1e-5)


def test_every_position_sees_both_sides_and_no_padding():
    params = start(m.bert_params, SMALL)

    @jax.jit
    def reach(position):
        """Gradient of a position's output with respect to each input vector, [B,T]."""

        def at(moved):
            embed = params["embed"] | {"token": jnp.concatenate([params["embed"]["token"], moved.reshape(-1, 32)])}
            tokens = 64 + jnp.arange(B * T).reshape(B, T)
            return (m.bert(params | {"embed": embed}, SMALL, tokens, VALID)[:, position] ** 2).sum()

        return jnp.abs(jax.grad(at)(params["embed"]["token"][BATCH["tokens"]])).sum(-1)

    for row, length in enumerate(LENGTHS):
        seen = np.stack([reach(i)[row] for i in range(length)])
        assert (seen[:, :length] > 0).all()
        assert (seen[:, length:] == 0).all()


def test_padding_is_invisible():
    """Each row as alone without any, for every head, whatever stands in the padding."""
    params = start(m.bert_params, SMALL)
    junk = {**INPUTS, "tokens": np.where(VALID, INPUTS["tokens"], 63)}
    whole, other = forward(params, SMALL, **INPUTS), forward(params, SMALL, **junk)
    for row, n in enumerate(LENGTHS):
        alone = forward(params, SMALL, **{name: x[row : row + 1, :n] for name, x in INPUTS.items()})[0]
        np.testing.assert_allclose(whole[row, :n], alone, atol=1e-5)
        np.testing.assert_array_equal(whole[row, :n], other[row, :n])
    for make, loss, batch in TASKS.values():
        totals = [loss_alone(loss, start(make, SMALL), SMALL, {**batch, **x}) for x in (INPUTS, junk)]
        np.testing.assert_array_equal(*totals)


def test_a_sentence_is_the_mean_of_its_tokens_at_length_one():
    params = start(m.bert_params, SMALL)
    vectors = embedded(params, SMALL, BATCH["tokens"], VALID)
    x = np.asarray(forward(params, SMALL, BATCH["tokens"], VALID))
    for row, n in enumerate(LENGTHS):
        mean = x[row, :n].mean(0)
        np.testing.assert_allclose(vectors[row], mean / np.linalg.norm(mean), atol=1e-6)


def test_an_answer_is_never_in_the_padding():
    params = start(m.span_params, SMALL)
    for scores in m.spans(params, SMALL, INPUTS):
        assert np.isfinite(scores).all()
        assert (jax.nn.softmax(scores)[~VALID] == 0).all()


def test_segments_show_only_where_the_model_has_them():
    params = start(m.bert_params, SMALL)
    first = forward(params, SMALL, BATCH["tokens"], VALID)
    zeros = forward(params, SMALL, BATCH["tokens"], VALID, np.zeros((B, T), np.int32))
    np.testing.assert_allclose(first, zeros, atol=1e-4)
    assert np.abs(first - forward(params, SMALL, **INPUTS))[0].max() > 0.01
    without = replace(SMALL, segments=0)
    bare = start(m.bert_params, without)
    assert "segment" not in bare["embed"]
    same = forward(bare, without, BATCH["tokens"], VALID)
    np.testing.assert_allclose(forward(bare, without, **INPUTS), same, atol=1e-4)


def test_dropout_needs_a_key_and_changes_with_it():
    model = replace(SMALL, dropout=0.5)
    for task in ("pretrain", "tag"):  # with the pooler, and without
        make, loss, batch = TASKS[task]
        params = start(make, SMALL)
        plain = loss_alone(loss, params, SMALL, batch)
        assert loss_alone(loss, params, model, batch) == plain
        losses = {float(loss_alone(loss, params, model, batch, jax.random.key(i))) for i in range(2)}
        assert len(losses | {float(plain)}) == 3


def test_bfloat16_computes_near_float32():
    params = fresh(m.pretrain_params)
    total = loss_alone(m.bert_pretrain_loss, params, SMALL, BATCH)
    half, *_, gradient = loss_and_gradient(m.bert_pretrain_loss, params, replace(SMALL, dtype="bfloat16"), BATCH)
    np.testing.assert_allclose(half, total, rtol=3e-3)
    assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_is_learnt_by_heart(task):
    make, loss, batch = TASKS[task]
    tx, params = optax.adam(3e-3), fresh(make)

    @jax.jit
    def train(params):
        def step(state, _):
            params, opt = state
            total, weight, metrics, gradient = loss_and_gradient(loss, params, SMALL, batch)
            updates, opt = tx.update(jax.tree.map(lambda g: g / weight, gradient), opt)
            return (optax.apply_updates(params, updates), opt), (total / weight, metrics)

        return jax.lax.scan(step, (params, tx.init(params)), None, length=100)[1]

    losses, metrics = train(params)
    chance = {"pretrain": np.log(64) + np.log(2), "classify": np.log(5), "tag": np.log(5), "span": None}[task]
    if chance:
        np.testing.assert_allclose(losses[0], chance, atol=0.15)
    assert losses[-1] < 0.05
    if task == "span":
        assert metrics["exact_match"][-1] == B


def test_a_row_longer_than_the_positions_is_one_line():
    with pytest.raises(UserError, match=r"20 tokens a row, and model.context is 16"):
        m.bert(start(m.bert_params, SMALL), SMALL, np.zeros((1, 20), np.int32))
