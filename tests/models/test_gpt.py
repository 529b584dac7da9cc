"""GPT: its size, its twin in flax with the same weights, what a position can see, its cache, and that it learns."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from lmjax import config, param
from lmjax.models.gpt import LLAMA, gpt, gpt_cache, gpt_loss, gpt_params, hidden

SMALL = config.GPT(vocab=64, context=16, layers=2, heads=4, dim=32)
TOKENS = np.random.default_rng(0).integers(0, 64, (3, 16), np.int32)
BATCH = {"tokens": TOKENS, "targets": np.roll(TOKENS, -1, 1), "weights": np.ones((3, 16), np.float32)}


LLAMA_SMALL = replace(SMALL, hidden=48, groups=2, rotary_base=100.0, **LLAMA)
WAVES = replace(SMALL, positions="sinusoidal")


@pytest.fixture(scope="module")
def params():
    return start(SMALL)


@cache
def start(model):
    """Weights larger than a run's first, and biases that are not zero: every part of the network shows."""

    @jax.jit
    def arrays():
        first = param.init(gpt_params(model), jax.random.key(0))
        return jax.tree.map(lambda x: 4 * x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), first)

    return arrays()


@partial(jax.jit, static_argnums=1)
def forward(params, model, tokens):
    return gpt(params, model, tokens)


@partial(jax.jit, static_argnums=1)
def loss_and_gradient(params, model, batch, key=None):
    (total, (weight, _, _)), gradient = jax.value_and_grad(gpt_loss, has_aux=True)(params, model, batch, key, ())
    return total / weight, gradient


def assert_trees_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({"layers": 12, "heads": 12, "dim": 768}, 124_439_808),
        ({"layers": 24, "heads": 16, "dim": 1024}, 354_823_168),
        ({"layers": 36, "heads": 20, "dim": 1280}, 774_030_080),
        ({"layers": 48, "heads": 25, "dim": 1600}, 1_557_611_200),
    ],
    ids=["124M", "355M", "774M", "1558M"],
)
def test_gpt2_has_its_published_sizes_and_runs_by_shape(sizes, count):
    model = config.GPT(vocab=50257, context=1024, dtype="bfloat16", scan=True, **sizes)
    specs = gpt_params(model)
    assert param.count(specs) == count == param.count(gpt_params(replace(model, scan=False)))
    tokens = jax.ShapeDtypeStruct((2, 1024), jnp.int32)
    logits = jax.eval_shape(lambda p, t: gpt(p, model, t), param.shapes(specs), tokens)
    assert logits.shape == (2, 1024, 50257)


def test_llama_and_its_kin_have_their_published_sizes():
    seven = config.GPT(vocab=32_000, context=2048, layers=32, heads=32, dim=4096, hidden=11_008, scan=True, **LLAMA)
    assert param.count(gpt_params(seven)) == 6_738_415_616  # Llama 7B
    small = config.GPT(vocab=49_152, context=2048, layers=30, heads=9, groups=3, dim=576, hidden=1536, **LLAMA)
    assert param.count(gpt_params(replace(small, tied=True))) == 134_515_008  # SmolLM2 135M


def test_the_nanogpt_rows_have_its_sizes():
    # nanoGPT prints the count without positions, in millions.
    for sizes, count in (((64, 4, 4, 128), 0.80), ((256, 6, 6, 384), 10.65)):
        model = config.GPT(65, *sizes, bias=False)
        assert round((param.count(gpt_params(model)) - model.context * model.dim) / 1e6, 2) == count


def test_weights_start_as_gpt2():
    model = config.GPT(vocab=500, context=16, layers=8, heads=4, dim=128)
    block = param.init(gpt_params(model), jax.random.key(0))["blocks"][3]
    for name, deviation in {"qkv": 0.02, "up": 0.02, "out": 0.02 / 4, "down": 0.02 / 4}.items():
        np.testing.assert_allclose(block[name]["w"].std(), deviation, rtol=0.05)
        assert not block[name]["b"].any()


class Flax(linen.Module):
    """The same network from flax's parts."""

    model: config.GPT

    @linen.compact
    def __call__(self, tokens):
        D, H, bias = self.model.dim, self.model.heads, self.model.bias
        norm = partial(linen.LayerNorm, epsilon=1e-5, use_bias=bias, use_fast_variance=False)
        token = linen.Embed(self.model.vocab, D, name="token")
        x = token(tokens) + linen.Embed(self.model.context, D, name="position")(jnp.arange(tokens.shape[1]))[None]
        for i in range(self.model.layers):
            attend = linen.MultiHeadDotProductAttention(num_heads=H, use_bias=bias, name=f"attention{i}")
            x = x + attend(norm(name=f"norm1_{i}")(x), mask=linen.make_causal_mask(tokens))
            y = linen.Dense(4 * D, use_bias=bias, name=f"up{i}")(norm(name=f"norm2_{i}")(x))
            x = x + linen.Dense(D, use_bias=bias, name=f"down{i}")(jax.nn.gelu(y))
        return token.attend(norm(name="norm")(x))


def as_flax(params):
    """The tree of our arrays (weights or gradients) under flax's names."""

    def dense(p):
        return {"kernel": p["w"]} | ({"bias": p["b"]} if "b" in p else {})

    tree = {name: {"embedding": table} for name, table in params["embed"].items()} | {"norm": params["norm"]}
    for i, block in enumerate(params["blocks"]):
        attention = {"out": dense(block["out"])}
        for j, name in enumerate(("query", "key", "value")):
            attention[name] = dense({k: x.take(j, axis=-2) for k, x in block["qkv"].items()})
        tree |= {f"norm1_{i}": block["norm1"], f"norm2_{i}": block["norm2"], f"attention{i}": attention}
        tree |= {f"up{i}": dense(block["up"]), f"down{i}": dense(block["down"])}
    return tree


@pytest.mark.parametrize("bias", [True, False])
def test_logits_and_gradients_are_flax(bias):
    model = replace(SMALL, bias=bias)
    params = start(model)
    flax = Flax(model)

    @jax.jit
    def theirs(weights):
        logits = flax.apply({"params": weights}, TOKENS)
        picked = optax.softmax_cross_entropy_with_integer_labels(logits, BATCH["targets"])
        return picked.mean(), logits

    (loss, logits), gradient = jax.value_and_grad(theirs, has_aux=True)(as_flax(params))
    np.testing.assert_allclose(forward(params, model, TOKENS), logits, atol=2e-4)
    ours, ours_gradient = loss_and_gradient(params, model, BATCH)
    np.testing.assert_allclose(ours, loss, rtol=1e-5)
    mean = jax.tree.map(lambda g: g / TOKENS.size, as_flax(ours_gradient))
    assert_trees_close(mean, gradient, atol=2e-5)


def test_no_logit_depends_on_a_later_position(params):
    @jax.jit
    def reach(position):
        """Gradient of the logits at a position with respect to each input vector, through the position table."""

        def at(table):
            changed = params | {"embed": params["embed"] | {"position": table}}
            return (gpt(changed, SMALL, TOKENS)[:, position] ** 2).sum()

        return jnp.abs(jax.grad(at)(params["embed"]["position"])).sum(-1)

    seen = np.stack([reach(i) for i in range(16)])
    assert (np.triu(seen, 1) == 0).all()
    assert (seen[np.tril_indices(16)] > 0).all()


@pytest.mark.parametrize("model", [SMALL, replace(SMALL, scan=True), LLAMA_SMALL, WAVES],
                         ids=["loop", "scan", "llama", "waves"])  # fmt: skip
@pytest.mark.parametrize("pieces", [(16,), (1,) * 16, (5, 1, 7, 3)], ids=["whole", "single", "mixed"])
def test_the_cache_equals_the_full_forward_at_every_position(model, pieces):
    params = start(model)
    step = jax.jit(lambda cache, tokens: gpt(params, model, tokens, cache=cache))
    kept, logits, at = gpt_cache(model, 3, 16), [], 0
    for size in pieces:
        new, kept = step(kept, TOKENS[:, at : at + size])
        logits.append(new)
        at += size
    np.testing.assert_allclose(np.concatenate(logits, 1), forward(params, model, TOKENS), atol=1e-4, rtol=1e-5)
    assert kept["position"].tolist() == [16] * 3


def test_rotary_positions_are_relative():
    """The last token's logits after the same tokens, wherever they stand; learned positions tell the difference."""
    step = jax.jit(lambda params, model, kept, tokens, valid: hidden(params, model, tokens, cache=kept, valid=valid)[0],
                   static_argnums=1)  # fmt: skip
    valid = np.ones((3, 5), bool)
    for model, same in ((LLAMA_SMALL, True), (SMALL, False)):
        kept = gpt_cache(model, 3, 16)
        moved = kept | {"position": kept["position"] + 7}
        a, b = (step(start(model), model, cache, TOKENS[:, :5], valid) for cache in (kept, moved))
        assert np.allclose(a, b, atol=2e-4) == same


@pytest.mark.parametrize("model", [SMALL, LLAMA_SMALL], ids=["gpt2", "llama"])
def test_padding_is_invisible(model):
    """Rows of 3, 9 and 12 tokens in 12 columns, padded on the left with junk: as each row alone; the cache goes on."""
    params = start(model)
    lengths, width = (3, 9, 12), 12
    tokens, valid = np.full((3, width), 7, np.int32), np.zeros((3, width), bool)
    for row, n in enumerate(lengths):
        tokens[row, width - n :], valid[row, width - n :] = TOKENS[row, :n], True
    step = jax.jit(lambda cache, tokens, valid: hidden(params, model, tokens, cache=cache, valid=valid))
    x, kept = step(gpt_cache(model, 3, 16), tokens, valid)
    assert kept["position"].tolist() == list(lengths)
    following = np.stack([TOKENS[row, n : n + 1] for row, n in enumerate(lengths)])
    y, _ = step(kept, following, np.ones((3, 1), bool))
    alone = jax.jit(lambda tokens: hidden(params, model, tokens)[0])
    for row, n in enumerate(lengths):
        expected = alone(TOKENS[row : row + 1, : n + 1])[0]
        np.testing.assert_allclose(x[row, width - n :], expected[:-1], rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(y[row, 0], expected[-1], rtol=2e-5, atol=2e-5)


def test_weights_of_zero_hide_a_target(params):
    hidden_target = {**BATCH, "weights": BATCH["weights"].copy()}
    hidden_target["weights"][1, 4:] = 0
    other = {**hidden_target, "targets": hidden_target["targets"].copy()}
    other["targets"][1, 4:] = 0
    a, b = loss_and_gradient(params, SMALL, hidden_target), loss_and_gradient(params, SMALL, other)
    assert_trees_close(a, b, rtol=0)
    assert a[0] != loss_and_gradient(params, SMALL, BATCH)[0]


def test_scanned_and_recomputed_layers_are_the_plain_ones_dropout_too(params):
    model = replace(SMALL, dropout=0.2)
    stacked = params | {"blocks": jax.tree.map(lambda *layers: jnp.stack(layers), *params["blocks"])}
    loss, gradient = loss_and_gradient(params, model, BATCH, jax.random.key(1))
    expected = gradient | {"blocks": jax.tree.map(lambda *layers: jnp.stack(layers), *gradient["blocks"])}
    for scan, remat in ((False, True), (True, False), (True, True)):
        variant = replace(model, scan=scan, remat=remat)
        new_loss, new = loss_and_gradient(stacked if scan else params, variant, BATCH, jax.random.key(1))
        np.testing.assert_allclose(new_loss, loss, rtol=1e-5)
        assert_trees_close(new, expected if scan else gradient, atol=2e-3, rtol=1e-4)  # gradients of sums, up to 100


def test_dropout_needs_a_key_and_changes_with_it(params):
    model = replace(SMALL, dropout=0.5)
    plain = loss_and_gradient(params, SMALL, BATCH)[0]
    assert loss_and_gradient(params, model, BATCH)[0] == plain
    losses = {float(loss_and_gradient(params, model, BATCH, jax.random.key(i))[0]) for i in range(3)}
    assert len(losses | {float(plain)}) == 4


def test_a_traced_rate_of_dropout_is_the_plain_number(params):
    def logits(rate):
        return gpt(params, replace(SMALL, dropout=rate), TOKENS, key=jax.random.key(0))

    np.testing.assert_allclose(jax.jit(logits)(0.25), jax.jit(lambda: logits(0.25))(), atol=1e-4)


def test_bfloat16_computes_near_float32_and_keeps_float32_gradients(params):
    model = replace(SMALL, dtype="bfloat16")
    half = param.init(gpt_params(SMALL), jax.random.key(0))
    assert forward(half, model, TOKENS).dtype == jnp.bfloat16
    (loss, gradient), (exact, _) = loss_and_gradient(half, model, BATCH), loss_and_gradient(half, SMALL, BATCH)
    np.testing.assert_allclose(loss, exact, rtol=2e-3)
    assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("model", [SMALL, LLAMA_SMALL], ids=["gpt2", "llama"])
def test_a_batch_is_learnt_by_heart(model):
    tx, params = optax.adam(3e-3), param.init(gpt_params(model), jax.random.key(0))

    @jax.jit
    def train(params):
        def step(state, _):
            params, opt = state
            loss, gradient = loss_and_gradient(params, model, BATCH)
            updates, opt = tx.update(gradient, opt)
            return (optax.apply_updates(params, updates), opt), loss

        return jax.lax.scan(step, (params, tx.init(params)), None, length=150)[1]

    losses = train(params)
    np.testing.assert_allclose(losses[0], np.log(64), atol=0.1)
    assert losses[-1] < 0.05
