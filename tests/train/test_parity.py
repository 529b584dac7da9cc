"""The same three steps on one device, eight, a mesh and in micro-batches: the same numbers, for every model."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.data import tag_rows
from lmjax.data.tagged import Sentence
from lmjax.models import bert, bilstm, cnn, crf, gpt, lstm_lm, reader, rnnsearch, seq2seq, tagger, vit
from lmjax.run.plans import collectives
from lmjax.train import lanes, optim, parallel
from lmjax.train.state import new_state
from lmjax.train.step import make_step

B, T, V, STEPS = 16, 8, 64, 3


def batch(i):
    """Rows of very different weight: a mean of the devices' means would be far off."""
    rng = np.random.default_rng(i)
    tokens = rng.integers(0, V, (B, T + 1), np.int32)
    lengths = np.minimum(rng.integers(1, T + 1, B), np.arange(1, B + 1))
    weights = (np.arange(T)[None] < lengths[:, None]).astype(np.float32)
    return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights, "start": np.full(B, i == 0)}


def pictures(i):
    """Images of very different weight, most of it in the last rows."""
    rng = np.random.default_rng(i)
    weights = np.where(np.arange(B) < B // 2, 0, rng.integers(1, 9, B)).astype(np.float32)
    images = rng.normal(size=(B, 8, 8, 1)).astype(np.float32)
    return {"images": images, "labels": rng.integers(0, 5, B, np.int32), "weights": weights}


def masked(i):
    """Rows of very different length and number of masked places; the second task weighs as much in all."""
    one, rng = batch(i), np.random.default_rng(i)
    length, places = one["weights"].sum(1).astype(int), np.arange(3)
    weights = (places[None] < length[:, None] // 2).astype(np.float32)
    return {
        "tokens": one["tokens"], "valid": one["weights"] > 0, "segments": rng.integers(0, 2, (B, T), np.int32),
        "places": np.broadcast_to(places, (B, 3)).astype(np.int32), "targets": one["targets"][:, :3],
        "weights": weights, "next": rng.integers(0, 2, B, np.int32),
        "next_weights": np.full(B, weights.sum() / B, np.float32),
    }  # fmt: skip


def sentence_pairs(i):
    """Sources and targets of very different length."""
    source, target = batch(i), batch(i + STEPS)
    given = {name: target[name] for name in ("tokens", "targets", "weights")}
    return {"source": source["tokens"], "seen": source["weights"] > 0, **given}


def texts(i):
    """Texts of very different length, most of the weight in the last rows."""
    one, rows = batch(i), pictures(i)
    return {"tokens": one["tokens"], "valid": one["weights"] > 0, "labels": rows["labels"], "weights": rows["weights"]}


TAGS = ("O", "B-A", "I-A")


def tagged_words(i):
    """Sentences of very different length, each with its letters in its own part of the batch."""
    rng = np.random.default_rng(i)
    sentences = []
    for row in range(B):
        tags = [TAGS[tag] for tag in rng.integers(0, 2, rng.integers(1, T + 1) if row % 3 else 1)]
        sentences.append(Sentence(tuple(map(str, rng.integers(0, 999, len(tags)))), tuple(tags)))
    known = tag_rows.Vocabulary(tuple(map(str, range(V))), ("", "?", *"0123456789"), (), TAGS, "bio", zeros=False)
    return tag_rows.padded(tag_rows.rows(sentences, known), range(B), B, T, parts=(8, 2))


class Family(NamedTuple):
    specs: dict
    loss: object
    carry: object
    batch: Callable = batch


def gpt_family(**changes):
    c = config.GPT(vocab=V, context=T, layers=2, heads=4, dim=32, **changes)
    return Family(gpt.gpt_params(c), lambda p, b, k, s: gpt.gpt_loss(p, c, b, k, s), ())


def lstm_family(**changes):
    c = config.LSTM(vocab=V, dim=32, **changes)
    return Family(lstm_lm.lstm_params(c), lambda p, b, k, s: lstm_lm.lstm_loss(p, c, b, k, s), lstm_lm.lstm_carry(c, B))


def vit_family():
    c = config.ViT(size=8, patch=4, channels=1, classes=5, layers=2, heads=4, dim=32)
    return Family(vit.vit_params(c), lambda p, b, k, s: vit.vit_loss(p, c, b, k, s), (), pictures)


def bert_family():
    c = config.BERT(vocab=V, context=T, layers=2, heads=4, dim=32, dropout=0.0)
    return Family(bert.pretrain_params(c), lambda p, b, k, s: bert.bert_pretrain_loss(p, c, b, k, s), (), masked)


def seq2seq_family():
    c = config.Seq2Seq(V, V, layers=2, heads=4, dim=32, hidden=64, shared=True, dropout=0.0)
    loss = lambda p, b, k, s: seq2seq.seq2seq_loss(p, c, b, k, s, smoothing=0.1)  # noqa: E731
    return Family(seq2seq.seq2seq_params(c), loss, (), sentence_pairs)


def rnnsearch_family():
    c = config.RNNSearch(V, V, embed=16, dim=32, dropout=0.0)
    loss = lambda p, b, k, s: rnnsearch.rnnsearch_loss(p, c, b, k, s)  # noqa: E731
    return Family(rnnsearch.rnnsearch_params(c), loss, (), sentence_pairs)


def cnn_family():
    c = config.CNN(V, embed=16, windows=(2, 3), maps=8, dropout=0.0)
    return Family(cnn.cnn_params(c, 5), lambda p, b, k, s: cnn.cnn_loss(p, c, b, k, s), (), texts)


def bilstm_family():
    c = config.BiLSTM(V, embed=16, dim=16, dropout=0.0)
    return Family(bilstm.bilstm_params(c, 5), lambda p, b, k, s: bilstm.bilstm_loss(p, c, b, k, s), (), texts)


def questions(i):
    """Texts and questions of very different length, an answer in each, most of the weight in a few."""
    one, asked, rng = batch(i), batch(i + STEPS), np.random.default_rng(i)
    start, last = rng.integers(0, 1 + one["weights"].sum(1).astype(int) // 2), one["weights"].sum(1).astype(int) - 1
    return {
        "words": one["tokens"], "letters": rng.integers(0, 256, (B, T, 8)).astype(np.uint8),
        "match": rng.integers(0, 2, (B, T, 2)).astype(np.float32), "valid": one["weights"] > 0,
        "question": asked["tokens"], "question_letters": rng.integers(0, 256, (B, T, 8)).astype(np.uint8),
        "asked": asked["weights"] > 0, "start": np.minimum(start, last).astype(np.int32),
        "end": last.astype(np.int32), "weights": np.where(np.arange(B) < B // 2, 0, np.arange(B)).astype(np.float32),
    }  # fmt: skip


def reader_family():
    c = config.Reader(vocab=V, embed=16, filters=0, dim=8, highway=0, dropout=0.0, dropout_word=0.0)
    return Family(reader.reader_params(c), lambda p, b, k, s: reader.reader_loss(p, c, b, k, s), (), questions)


def tagger_family():
    c = config.Tagger(words=V, letters=12, tags=3, word_dim=16, letter_dim=8, letter_cells=8, cells=16, dropout=0.0)
    legal = crf.allowed(TAGS, "bio")
    loss = lambda p, b, k, s: tagger.tag_loss(p, b, tagger.emissions(p, c, b, k), legal)  # noqa: E731
    return Family(tagger.tagger_params(c), loss, (), tagged_words)


FAMILIES = {
    "gpt": gpt_family,
    "gpt scanned": lambda: gpt_family(scan=True),
    "gpt remat": lambda: gpt_family(remat=True),
    "lstm": lstm_family,
    "lstm tied": lambda: lstm_family(tied=True),
    "vit": vit_family,
    "bert": bert_family,
    "seq2seq": seq2seq_family,
    "rnnsearch": rnnsearch_family,
    "tagger": tagger_family,
    "reader": reader_family,
    "cnn": cnn_family,
    "bilstm": bilstm_family,
}

STRATEGIES = {
    "pmap over 8": lambda axes: parallel.data_parallel(),
    "mesh 4x2": lambda axes: parallel.mesh({"data": 4, "model": 2}, axes),
    "FSDP over 8": lambda axes: parallel.mesh({"data": 8}, axes),
}


def run(family, strategy=None, accumulate=1, loss=None):
    tx = optim.sgd(0.5)
    step = make_step(loss or family.loss, tx, accumulate=accumulate, clip=1.0, averaging=optim.ema(0.9))
    state = new_state(param.init(family.specs, jax.random.key(0)), tx, family.carry, optim.ema(0.9))
    strategy = strategy(param.axes(family.specs)) if strategy else parallel.local()
    state, compiled = strategy.place(state), strategy.compile(step)
    losses = []
    for i in range(STEPS):
        state, metrics = compiled(state, strategy.batch(family.batch(i)), jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return losses, strategy.host(state)


def assert_same(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), one[1], other[1])


@pytest.fixture(scope="module")
def alone():
    done = {}

    def get(name):
        if name not in done:
            done[name] = run(FAMILIES[name]())
        return done[name]

    return get


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        *itertools.product(["gpt", "lstm", "bert", "seq2seq"], STRATEGIES),
        ("rnnsearch", "pmap over 8"),
        ("rnnsearch", "mesh 4x2"),
        ("tagger", "pmap over 8"),
        ("tagger", "mesh 4x2"),
        ("reader", "mesh 4x2"),
        ("cnn", "pmap over 8"),
        ("cnn", "mesh 4x2"),
        ("bilstm", "pmap over 8"),
        ("bilstm", "mesh 4x2"),
        ("vit", "pmap over 8"),
        ("vit", "mesh 4x2"),
        ("gpt scanned", "mesh 4x2"),
        ("gpt remat", "pmap over 8"),
        ("lstm tied", "mesh 4x2"),
    ],
)
def test_strategies_agree_with_one_device(name, strategy, alone):
    assert_same(run(FAMILIES[name](), STRATEGIES[strategy]), alone(name))


@pytest.mark.parametrize(
    ("name", "strategy"),
    [("gpt", None), ("lstm", None), ("lstm", "pmap over 8"), ("gpt", "mesh 4x2"), ("gpt", "FSDP over 8"),
     ("vit", None), ("bert", None), ("seq2seq", None), ("rnnsearch", None), ("tagger", "pmap over 8"),
     ("reader", "pmap over 8"), ("cnn", None),
     ("bilstm", None)],
)  # fmt: skip
def test_accumulation_agrees_with_the_whole_batch(name, strategy, alone):
    assert_same(run(FAMILIES[name](), STRATEGIES.get(strategy), accumulate=2), alone(name))


@pytest.mark.parametrize(
    "name", ["gpt", "lstm", "vit", "bert", "seq2seq", "rnnsearch", "tagger", "reader", "cnn", "bilstm"]
)
def test_a_lane_among_others_agrees_with_the_training_alone(name, alone):
    family, averaging = FAMILIES[name](), optim.ema(0.9)

    def begin(seed, hyper):
        return new_state(param.init(family.specs, jax.random.key(seed)), optim.sgd(0.5), family.carry, averaging)

    def make(hyper):
        return make_step(family.loss, optim.sgd(hyper["lr"]), clip=1.0, averaging=averaging)

    several = [lanes.Lane(7, {"lr": 0.1}), lanes.Lane(0, {"lr": 0.5})]
    form = lanes.Together(parallel.local(), lanes.draws(several, lambda seed: jax.random.key(1)), [0, 1])
    state = form.place(lanes.start_lanes(begin, several)())
    step = parallel.local().compile(lanes.over_lanes(make))
    for i in range(STEPS):
        state, _ = form.launch(step, state, form.batch([family.batch(i + 9), family.batch(i)]))
    ours = lanes.one_of(form.host(state), 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), ours, alone(name)[1])


@pytest.mark.parametrize("name", ["gpt", "lstm", "bert", "seq2seq"])
def test_a_forgotten_sum_over_devices_is_caught(name, alone, monkeypatch):
    broken = parallel.data_parallel()
    monkeypatch.setattr(jax.lax, "psum", lambda x, axis: x)
    with pytest.raises(AssertionError):
        assert_same(run(FAMILIES[name](), lambda axes: broken), alone(name))


def test_the_pmap_of_several_processes_has_the_bits_of_pmap(monkeypatch):
    one = run(lstm_family(), STRATEGIES["pmap over 8"])
    monkeypatch.setattr(parallel, "across", lambda mesh: True)
    other = run(lstm_family(), STRATEGIES["pmap over 8"])
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_parameters_are_really_split_over_the_mesh():
    family = gpt_family()
    strategy = parallel.mesh({"data": 4, "model": 2}, param.axes(family.specs))
    tx = optim.adamw(1e-3)
    state = strategy.place(new_state(param.init(family.specs, jax.random.key(0)), tx))
    qkv = state.params["blocks"][0]["qkv"]["w"]
    assert qkv.sharding.shard_shape(qkv.shape) == (8, 2, 3, 8)
    moments = [x for x in jax.tree.leaves(state.opt) if x.shape == qkv.shape]
    assert moments
    assert all(m.sharding == qkv.sharding for m in moments)


@pytest.mark.parametrize("name", ["gpt", "bert"])
def test_a_mesh_sends_weights_not_rows(name):
    """What FSDP sends is of the parameters' size, however many rows a batch has."""
    family = FAMILIES[name]()
    strategy, tx = parallel.mesh({"data": 8}, param.axes(family.specs)), optim.adamw(1e-3)
    state = strategy.plan(jax.eval_shape(lambda: new_state(param.init(family.specs, jax.random.key(0)), tx)))
    many = jax.tree.map(lambda x: np.repeat(x, 16, axis=0), family.batch(0))
    program = strategy.compile(make_step(family.loss, tx)).lower(state, strategy.batch(many), jax.random.key(1))
    sent = sum(one.payload for one in collectives.of_program(program.compile().as_text(), 8))
    assert sent < 4 * 4 * param.count(family.specs)


def test_a_step_is_compiled_once_under_every_strategy():
    family = lstm_family()
    tx = optim.sgd(0.5)
    for make in [lambda axes: parallel.local(), *STRATEGIES.values()]:
        strategy, traces = make(param.axes(family.specs)), []

        def loss(p, b, k, s, traces=traces):
            traces.append(1)
            return family.loss(p, b, k, s)

        state = strategy.place(new_state(param.init(family.specs, jax.random.key(0)), tx, family.carry))
        step = strategy.compile(make_step(loss, tx))
        for i in range(4):
            state, _ = step(state, strategy.batch(batch(i)), jax.random.key(1))
        assert len(traces) == 1


def test_a_batch_that_does_not_divide_is_one_line():
    with pytest.raises(ValueError, match=r"12 rows does not divide over 8 devices"):
        parallel.data_parallel().batch({"x": jnp.zeros((12, 2))})
