"""BLEU as a reward: of sequences of one length against references of that length, on the device.

What nltk's sentence_bleu with equal weights and smoothing method1 (0.1 in place of a count of 0, Chen & Cherry 2014)
gives; the brevity penalty is 1. A clipped count asks how often an n-gram stands in the one reference that has it most:
that is looked up in a sorted table, whose key is the number of the n-gram's first n - 1 tokens and its last token.

M sequences, T tokens, V vocabulary.
"""

import jax.numpy as jnp
import numpy as np

from lmjax.errors import UserError

SMOOTHED = 0.1


def tables(references, vocab: int, order: int) -> list:
    """For each n from 1 to `order`: (the keys of the n-grams of references int [R,T], sorted; the most of each in one
    reference), numpy int32."""
    references = np.asarray(references, np.int64)
    if not 1 <= order <= references.shape[1]:
        raise UserError(f"n-grams of up to {order} tokens in sequences of {references.shape[1]}: expected fewer")
    found, numbers = [], references
    for n in range(1, order + 1):
        keys = numbers if n == 1 else numbers[:, :-1] * vocab + references[:, n - 1 :]
        if keys.max() >= 2**31:
            raise UserError(f"{len(references)} references of {vocab} types have too many {n}-grams: lower the order")
        known, numbers = np.unique(keys, return_inverse=True)
        numbers = numbers.reshape(keys.shape)
        pairs, times = np.unique(np.arange(len(keys))[:, None] * len(known) + numbers, return_counts=True)
        most = np.zeros(len(known), np.int32)
        np.maximum.at(most, pairs % len(known), times)
        found.append((known.astype(np.int32), most))
    return found


def bleu(tables, vocab: int, tokens):
    """BLEU [M] of tokens int32 [M,T] against the references of the tables, from 0 to 1."""
    total, numbers = 0.0, None
    for n, (known, most) in enumerate(tables, 1):
        keys = tokens if n == 1 else jnp.where(numbers[:, :-1] < 0, -1, numbers[:, :-1] * vocab + tokens[:, n - 1 :])
        place = jnp.minimum(jnp.searchsorted(known, keys), len(known) - 1)
        numbers = jnp.where(jnp.asarray(known)[place] == keys, place, -1)
        # The k-th time that an n-gram stands in a sequence counts where some reference has it k times.
        same = numbers[:, :, None] == numbers[:, None, :]
        times = (same & jnp.tril(jnp.ones(same.shape[1:], bool))[None]).sum(-1)
        matched = ((numbers >= 0) & (times <= jnp.asarray(most)[place])).sum(-1)
        if n == 1:
            any_token = matched > 0
        total += jnp.log(jnp.where(matched > 0, matched, SMOOTHED) / keys.shape[1])
    return jnp.where(any_token, jnp.exp(total / len(tables)), 0.0)
