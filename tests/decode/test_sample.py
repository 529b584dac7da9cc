"""Decoding: what is drawn, where it stops, and that the cache, the padding and the length of a prompt do not show."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import config, param
from lmjax.decode.sample import Decoder, cut_tail, generate, pad, pick, stages
from lmjax.models import gpt, lstm_lm
from lmjax.run.models import decoder

V = 17
GPT = config.GPT(vocab=V, context=16, layers=2, heads=2, dim=16)
LSTM = config.LSTM(vocab=V, dim=16, init_range=0.5)
# Large weights: logits far apart, so that a greedy choice does not hang on the last bit.
PARAMS = {
    GPT: jax.tree.map(lambda x: x * 8.0, param.init(gpt.gpt_params(GPT), jax.random.key(0))),
    LSTM: param.init(lstm_lm.lstm_params(LSTM), jax.random.key(0)),
}
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [10]]


def run(model, prompts=PROMPTS, count=6, temperature=0.0, room=8, seed=0, **options):
    program = decoder(model)
    tokens, valid = pad(prompts, program.context and program.context - 1)
    key = jax.random.key(seed)
    new = generate(
        program, PARAMS[model], tokens, valid, key, room=room, count=count, temperature=temperature, **options
    )
    return np.asarray(new)


@partial(jax.jit, static_argnums=0)
def forward(model, tokens):
    if model is GPT:
        return gpt.gpt(PARAMS[GPT], GPT, tokens)
    return lstm_lm.lstm_lm(PARAMS[LSTM], LSTM, tokens, lstm_lm.lstm_carry(LSTM, 1))[0]


def greedy(model, tokens):
    """The likeliest next token, without a cache; what stands behind `tokens` is not seen."""
    padded = np.zeros((1, 16), np.int32)
    padded[0, : len(tokens)] = tokens
    return int(jnp.argmax(forward(model, padded)[0, len(tokens) - 1]))


@pytest.mark.parametrize("model", [GPT, LSTM], ids=["gpt", "lstm"])
def test_greedy_is_the_argmax_of_the_full_forward(model):
    for prompt, new in zip(PROMPTS, run(model), strict=True):
        tokens = list(prompt)
        for _ in range(6):
            tokens.append(greedy(model, tokens))
        assert new[:6].tolist() == tokens[len(prompt) :]


def test_a_full_context_is_read_again_from_its_last_half():
    (new,) = run(GPT, [[1, 2, 3]], count=30, room=32)
    tokens, window = [1, 2, 3], 0
    for _ in range(30):
        if len(tokens) - window == GPT.context:
            window = len(tokens) - GPT.context // 2
        tokens.append(greedy(GPT, tokens[window:]))
    assert new[:30].tolist() == tokens[3:]


@pytest.mark.parametrize("scan", [False, True], ids=["loop", "scan"])
def test_a_cache_that_grows_changes_no_token(scan):
    model = replace(GPT, context=256, scan=scan)
    params = jax.tree.map(lambda x: x * 8.0, param.init(gpt.gpt_params(model), jax.random.key(0)))
    tokens, valid = pad(PROMPTS)
    one = partial(generate, params=params, prompts=tokens, valid=valid, key=jax.random.key(1), room=200, count=190)
    program = decoder(model)
    assert len(stages(tokens.shape[1], 200)) == 3
    grown, fixed = one(program, temperature=1.0), one(program._replace(grow=None), temperature=1.0)
    np.testing.assert_array_equal(grown, fixed)
    assert (np.asarray(grown)[:, 190:] == -1).all()
    assert (np.asarray(grown)[:, :190] >= 0).all()


@pytest.mark.parametrize(("filled", "room"), [(1, 1), (16, 64), (16, 65), (32, 128), (16, 2000)])
def test_a_cache_grows_in_a_bounded_number_of_stages(filled, room):
    ends = stages(filled, room)
    assert ends[-1] == room
    assert ends == sorted(set(ends))
    assert len(ends) <= max(1, np.log2(room / 32) + 1)


def test_no_token_at_all_where_none_is_asked_for():
    assert (run(GPT, count=0) == -1).all()


@pytest.mark.parametrize("model", [GPT, LSTM], ids=["gpt", "lstm"])
def test_a_row_does_not_see_its_neighbours_or_its_padding(model):
    together = run(model)
    for row, prompt in enumerate(PROMPTS):
        np.testing.assert_array_equal(run(model, [prompt])[0], together[row])


def test_rows_end_apart_and_the_loop_with_the_last():
    free = run(GPT)
    end = int(free[0, 2])
    ended = run(GPT, end=end)
    for row, whole in zip(ended, free, strict=True):
        at = list(whole[:6]).index(end) if end in whole[:6] else 6
        assert row[:at].tolist() == whole[:at].tolist()
        assert (row[at:] == end).all()


def test_a_prompt_of_another_length_or_another_setting_compiles_nothing():
    run(LSTM)
    before = generate._cache_size()
    for prompts in ([[1]] * 3, [[1] * 16, [2] * 9, [3]]):
        run(LSTM, prompts, count=3, temperature=0.7, top_k=3, top_p=0.9, seed=1, end=2)
    assert generate._cache_size() == before + 1  # once for settings given as numbers where there were none
    run(LSTM, [[5] * 4] * 3, count=8, temperature=0.1, top_k=9, top_p=0.2, seed=5, end=1)
    assert generate._cache_size() == before + 1


def test_samples_differ_by_row_and_key_and_come_again():
    prompts = [[1, 2]] * 4
    one, again, other = (run(LSTM, prompts, temperature=1.0, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert len({row.tobytes() for row in one}) == 4
    assert (one != other).any()


def probabilities(logits, top_k, top_p):
    return np.asarray(jax.nn.softmax(cut_tail(jnp.log(jnp.array([logits])), top_k, top_p)))[0]


@pytest.mark.parametrize(
    ("top_k", "top_p", "expected"),
    [
        (0, 1.0, [0.1, 0.4, 0.3, 0.2]),
        (2, 1.0, [0, 4 / 7, 3 / 7, 0]),
        (1, 1.0, [0, 1, 0, 0]),
        (9, 1.0, [0.1, 0.4, 0.3, 0.2]),
        (0, 0.5, [0, 4 / 7, 3 / 7, 0]),
        (0, 0.35, [0, 1, 0, 0]),
        (0, 0.0, [0, 1, 0, 0]),
        (3, 0.5, [0, 4 / 7, 3 / 7, 0]),
        (3, 0.8, [0, 4 / 9, 3 / 9, 2 / 9]),
    ],
)
def test_the_tail_is_cut_exactly(top_k, top_p, expected):
    np.testing.assert_allclose(probabilities([0.1, 0.4, 0.3, 0.2], top_k, top_p), expected, atol=1e-6)


def test_draws_follow_the_distribution():
    logits = jnp.log(jnp.broadcast_to(jnp.array([[0.1, 0.4, 0.3, 0.2]]), (20000, 4)))
    for temperature in (1.0, 0.5):
        drawn = np.bincount(pick(logits, jax.random.key(0), temperature, 0, 1.0), minlength=4) / 20000
        expected = np.array([0.1, 0.4, 0.3, 0.2]) ** (1 / temperature)
        np.testing.assert_allclose(drawn, expected / expected.sum(), atol=0.012)


def test_a_model_of_one_function_decodes():
    def step(params, cache, token):
        return jax.nn.one_hot((token + 1) % V, V), cache

    counting = Decoder(lambda params, tokens, valid, room: step(params, (), tokens[:, -1]), step)
    new = generate(counting, (), *pad([[3], [5]]), jax.random.key(0), room=4, count=4, temperature=0.0)
    np.testing.assert_array_equal(new, [[4, 5, 6, 7], [6, 7, 8, 9]])


def test_prompts_are_padded_at_the_left_and_cut_to_their_end():
    tokens, valid = pad([[1, 2, 3], list(range(40))], limit=20)
    assert tokens.shape == (2, 20)
    assert tokens[0, -3:].tolist() == [1, 2, 3]
    assert valid.sum(1).tolist() == [3, 20]
    assert tokens[1].tolist() == list(range(20, 40))
