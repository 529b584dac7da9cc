"""In-context learning as Brown et al. 2020 measured it (GPT-3, section 2.4): demonstrations, a query, no update.

The demonstrations are read once; their cache serves every query. Of each choice what counts is the log-probability of
its tokens after the query, as it is, or less that after an empty query (Zhao et al. 2021, "calibrate before use").

B queries at once, P tokens of the demonstrations, T of a query, C choices, V vocabulary.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.models import gpt


@partial(jax.jit, static_argnums=1)
def read_prefix(params, model, tokens, room):
    """The cache of tokens [P], with as many slots more as `room` has entries."""
    cache = gpt.gpt_cache(model, 1, tokens.shape[0] + room.shape[0])
    return gpt.hidden(params, model, tokens[None], cache=cache)[1]


@partial(jax.jit, static_argnums=1)
def read_queries(params, model, prefix, tokens, valid):
    """After the prefix and queries [B,T], each at the right end of its row: (log-probabilities [B,V], cache)."""
    B = tokens.shape[0]
    rows = 1 if model.scan else 0  # behind the layers' axis
    blocks = jax.tree.map(lambda x: jnp.repeat(x, B, axis=rows), prefix["blocks"])
    cache = prefix | {"blocks": blocks, "valid": jnp.repeat(prefix["valid"], B, 0),
                      "position": jnp.repeat(prefix["position"], B)}  # fmt: skip
    x, cache = gpt.hidden(params, model, tokens, cache=cache, valid=valid)
    return log_probabilities(params, x[:, -1]), cache


@partial(jax.jit, static_argnums=1)
def read_more(params, model, cache, tokens):
    """After tokens [B,T] more: (log-probabilities [B,T,V], cache)."""
    x, cache = gpt.hidden(params, model, tokens, cache=cache)
    return log_probabilities(params, x), cache


def log_probabilities(params, x):
    logits = x.reshape(-1, x.shape[-1]) @ gpt.head(params).astype(x.dtype).T
    return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1).reshape(*x.shape[:-1], -1)


def score_choices(
    params, model, prefix: Sequence[int], queries: Sequence, choices: Sequence, *, rows: int = 16, check=lambda: None
) -> tuple[np.ndarray, list[list[int]]]:
    """(float [N,C], greedy continuations): log P(choice | prefix, query), and what the model says by itself.

    prefix, queries, choices: token ids. The continuation has as many tokens as the longest choice. The model must have
    positions for all three together. check: called between batches; it may raise to stop.
    """
    longest, width = max(map(len, choices)), max(map(len, queries))
    # One shape for all: padding at the left takes room in the cache, but no position.
    cache = read_prefix(params, model, np.asarray(prefix, np.int32), np.zeros(width + longest))
    scores, said = [], []
    for first in range(0, len(queries), rows):
        some = list(queries[first : first + rows])
        tokens, valid = np.zeros((rows, width), np.int32), np.zeros((rows, width), bool)
        for row, query in enumerate(some):
            tokens[row, width - len(query) :], valid[row, width - len(query) :] = query, True
        valid[len(some) :, -1] = True
        begin, after = read_queries(params, model, cache, tokens, valid)
        columns = []
        for choice in choices:
            total = begin[:, choice[0]]
            if len(choice) > 1:  # the cache is a value: each choice goes on from the same
                given = np.broadcast_to(np.asarray(choice[:-1], np.int32), (rows, len(choice) - 1))
                more, _ = read_more(params, model, after, given)
                total = total + sum(more[:, t, token] for t, token in enumerate(choice[1:]))
            columns.append(total)
        scores.append(np.stack(jax.device_get(columns), axis=1)[: len(some)])
        line = [begin.argmax(-1)]
        for _ in range(longest - 1):
            more, after = read_more(params, model, after, line[-1][:, None])
            line.append(more[:, -1].argmax(-1))
        said += np.stack(jax.device_get(line), axis=1)[: len(some)].tolist()
        check()
    return np.concatenate(scores).astype(np.float64), said
