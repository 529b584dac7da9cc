"""Choices after demonstrations: their likelihood is the full forward's, and padding and company change nothing."""

import jax
import numpy as np
import pytest

from lmjax import config, param
from lmjax.evaluate.choices import score_choices
from lmjax.models.gpt import LLAMA, gpt, gpt_params

PLAIN = config.GPT(vocab=40, context=32, layers=2, heads=4, dim=32)
PREFIX, QUERIES, CHOICES = [5, 6, 7, 8], [[1, 2, 3], [4], [9, 8, 7, 6, 5]], [[10], [11, 12, 13], [14, 15]]


@pytest.mark.parametrize(
    "model",
    [PLAIN, config.GPT(vocab=40, context=32, layers=2, heads=4, dim=32, groups=2, scan=True, **LLAMA)],
    ids=["gpt2", "llama scanned"],
)
def test_scores_and_continuations_are_those_of_the_full_forward(model):
    params = jax.tree.map(lambda x: 8 * x, param.init(gpt_params(model), jax.random.key(0)))
    compiled = jax.jit(lambda tokens: jax.nn.log_softmax(gpt(params, model, tokens)))

    def forward(line):  # padded: one program for all; nothing sees what is behind it
        return compiled(np.array([line + [0] * (16 - len(line))], np.int32))[0]

    scores, said = score_choices(params, model, PREFIX, QUERIES, CHOICES, rows=2)
    assert scores.shape == (3, 3)
    for q, query in enumerate(QUERIES):
        start = [*PREFIX, *query]
        for c, choice in enumerate(CHOICES):
            whole = forward([*start, *choice])
            expected = sum(whole[len(start) - 1 + i, token] for i, token in enumerate(choice))
            np.testing.assert_allclose(scores[q, c], expected, rtol=1e-4)
        line = list(start)
        for _ in range(3):
            line.append(int(forward(line)[len(line) - 1].argmax()))
        assert said[q] == line[len(start) :]
