"""The logit lens: what a GPT would say if it stopped after a layer (nostalgebraist 2020)."""

import jax
import jax.numpy as jnp

from lmjax.models import gpt


def logit_lens(params, config, tokens):
    """Logits float32 [L+1,B,T,V] of tokens [B,T]: behind the embedding, then behind each block, each through the
    model's own last norm and head. The last are the model's.

    params: of a GPT whose blocks are not stacked.
    """
    x, seen = gpt.hidden(params, config, tokens, look=True)
    embedded = gpt.hidden(params | {"blocks": []}, config, tokens, look=True)[0]
    norm = gpt.norm(config)
    states = [embedded, *(norm(params["norm"], layer.x) for layer in seen[:-1]), x]
    head = gpt.head(params)
    return jnp.stack([state @ head.T.astype(state.dtype) for state in states]).astype(jnp.float32)


def likeliest(logits, targets):
    """(token int, its probability, the probability and the rank of `targets` [B,T]), each [L+1,B,T] of logits
    [L+1,B,T,V]; rank 1 is the likeliest."""
    p = jax.nn.softmax(logits)
    best = p.argmax(-1)
    theirs = jnp.broadcast_to(targets[None], best.shape)[..., None]
    mine = jnp.take_along_axis(p, theirs, axis=-1)
    return best, p.max(-1), mine[..., 0], 1 + (p > mine).sum(-1)
