"""Continuous batching: a row says what it says alone, whoever joins or leaves, and nothing is compiled anew."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from lmjax import config, param
from lmjax.decode import slots
from lmjax.decode.sample import generate, pad
from lmjax.models import gpt, lstm_lm
from lmjax.run.models import Trained, apart, decoder, unstacked

V = 17
LLAMA = config.GPT(vocab=V, context=64, layers=1, heads=4, groups=2, dim=16, **gpt.LLAMA)
LSTM = config.LSTM(vocab=V, dim=16, init_range=0.5)
PARAMS = {
    LLAMA: jax.tree.map(lambda x: x * 8.0, param.init(gpt.gpt_params(LLAMA), jax.random.key(0))),
    LSTM: param.init(lstm_lm.lstm_params(LSTM), jax.random.key(0)),
}
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 9] * 2, [10]]
MODELS = pytest.mark.parametrize("model", [LLAMA, LSTM], ids=["llama", "lstm"])


def greedy(model):
    """What decode/sample.py gives for PROMPTS."""
    room = {"room": 16, "count": 16, "temperature": 0.0}
    return np.asarray(generate(decoder(model), PARAMS[model], *pad(PROMPTS), jax.random.key(0), **room))


def alone(model, prompt, count, row):
    """The tokens of one row in a batch of four slots."""
    some = slots.empty(apart(model), 4, 32)
    token, some = slots.join(apart(model), PARAMS[model], some, 0, 32, prompt, row)
    said = [token]
    while len(said) < count:
        some = slots.step(apart(model), PARAMS[model], some)
        said.append(int(some.token[0]))
    return said


@MODELS
def test_rows_that_join_and_leave_say_what_each_says_alone(model):
    """Three rows, one step apart, the first gone before the last comes into its slot; then the batch is moved."""
    program, params = apart(model), PARAMS[model]
    cold = slots.draws(temperature=0.0)
    some, said = slots.empty(program, 4, 32), {0: [], 1: [], 2: []}

    def join(some, slot, who):
        token, some = slots.join(program, params, some, slot, 32, PROMPTS[who], cold)
        said[who].append(token)
        return some

    def step(some, rows):
        some = slots.step(program, params, some)
        for slot, who in rows.items():
            said[who].append(int(some.token[slot]))
        return some

    some = join(some, 0, 0)
    some = step(some, {0: 0})
    some = join(some, 1, 1)
    some = step(some, {0: 0, 1: 1})
    some = join(some, 0, 2)
    some = step(some, {0: 2, 1: 1})
    some = slots.fit(program, some, [1, 0], 64)
    some = step(some, {0: 1, 1: 2})
    some = step(some, {0: 1, 1: 2})
    expected = greedy(model)
    for who, tokens in said.items():
        assert tokens == expected[who, : len(tokens)].tolist()


@MODELS
def test_what_a_row_draws_hangs_on_its_seed_alone(model):
    program, params = apart(model), PARAMS[model]
    row = slots.draws(seed=7, temperature=1.0)
    one = alone(model, PROMPTS[0], 8, row)
    some, said = slots.empty(program, 4, 32), []
    _, some = slots.join(program, params, some, 3, 32, PROMPTS[1], slots.draws(seed=1, top_k=3))
    token, some = slots.join(program, params, some, 1, 32, PROMPTS[0], row)
    said.append(token)
    while len(said) < 8:
        if len(said) == 4:
            _, some = slots.join(program, params, some, 3, 32, PROMPTS[2], slots.draws(seed=2, top_p=0.5))
        some = slots.step(program, params, some)
        said.append(int(some.token[1]))
    assert said == one
    others = [alone(model, PROMPTS[0], 8, slots.draws(seed=seed, choice=choice)) for seed, choice in ((8, 0), (7, 1))]
    assert one not in others
    assert others[0] != others[1]


def test_each_row_is_cut_by_its_own_settings():
    """Greedy, top_k=1 and a nucleus of nothing take the likeliest; a row that cuts nothing draws as if all did so."""
    logits = jax.random.normal(jax.random.key(3), (4, 50))
    rows = [slots.draws(temperature=0.0), slots.draws(top_k=1), slots.draws(top_p=0.0), slots.draws(seed=5)]
    together = slots.pick(logits, jax.tree.map(lambda *x: np.concatenate(x), *rows))
    assert together[:3].tolist() == logits[:3].argmax(-1).tolist()
    free = jax.tree.map(lambda x: np.repeat(x, 4), rows[3])
    assert slots.pick(logits, free)[3] == together[3]


def test_prompts_and_rows_of_any_length_share_what_is_compiled():
    def programs():
        return slots._read._cache_size(), slots._step._cache_size(), slots._put._cache_size(), slots._fit._cache_size()

    def use(lengths):
        some = slots.empty(apart(LLAMA), 4, 32)
        for slot, length in enumerate(lengths):
            row = slots.draws(seed=slot, temperature=0.5 * slot, top_k=slot, top_p=0.9)
            _, some = slots.join(apart(LLAMA), PARAMS[LLAMA], some, slot, 32, [1] * length, row)
        slots.step(apart(LLAMA), PARAMS[LLAMA], some)

    use([16, 1])
    before = programs()
    use([3, 12, 9, 15])
    assert programs() == before


def test_stacked_blocks_are_taken_apart():
    stacked = replace(LLAMA, scan=True)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), param.shapes(gpt.gpt_params(stacked)))
    params, model, _, _ = unstacked(Trained(params, stacked, None))
    assert model == LLAMA
    assert jax.tree.structure(params) == jax.tree.structure(PARAMS[LLAMA])


def test_sizes_grow_by_powers_to_the_last():
    assert slots.sizes(1, 16) == [1, 4, 16]
    assert slots.sizes(1, 6) == [1, 4, 6]
    assert slots.sizes(256, 100) == [100]
