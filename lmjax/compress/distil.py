"""Distillation: a small network learns what a large one says (Hinton et al. 2015; Sanh et al. 2019).

Teacher and student are functions, of any kind: what the teacher says may come with a batch, computed once, or be
computed in the step. Losses are (sum, weight), as in losses.py.

N examples (any leading axes), K classes, T tokens, D width.
"""

import jax
import jax.numpy as jnp

from lmjax.losses import cross_entropy, right


def soft_cross_entropy(logits, teacher, temperature, weights=None):
    """T^2 times the cross entropy between softmax(teacher / T) and softmax(logits / T), in nats: (sum, weight).

    logits, teacher [...,K], weights [...] or None: all count alike. The factor keeps the gradient's size whatever T is;
    for a large T it becomes (z - v) / K, with z and v the logits less their means (Hinton et al. 2015, eq. 4).
    """
    student = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
    target = jax.nn.softmax(teacher.astype(jnp.float32) / temperature)
    each = -(target * student).sum(-1) * temperature**2
    weights = jnp.ones(each.shape) if weights is None else weights
    return (weights * each).sum(), weights.sum()


def distilled(student, *, temperature, hard=0.0, teacher=lambda batch: batch["teacher"]):
    """A loss for make_step: (1 - hard) soft_cross_entropy + hard cross_entropy, with the accuracy on the labels.

    student(params, batch, key) -> logits [...,K]. teacher(batch) -> logits, through which no gradient flows; default:
    those that the batch has as "teacher". The batch has labels [...], and weights [...] where some count less.
    temperature, hard: may be traced.
    """

    def loss(params, batch, key, carry):
        logits = student(params, batch, key)
        labels, weights = batch["labels"], batch.get("weights")
        weights = jnp.ones(labels.shape) if weights is None else weights
        soft, weight = soft_cross_entropy(logits, jax.lax.stop_gradient(teacher(batch)), temperature, weights)
        true, _ = cross_entropy(logits, labels, weights)
        return (1 - hard) * soft + hard * true, (weight, {"accuracy": right(logits, labels, weights)}, carry)

    return loss


def cosine_states(student, teacher, valid):
    """1 - cos of the angle between hidden states, of the tokens that count (DistilBERT's third loss): (sum, weight).

    student, teacher [...,T,D], valid bool [...,T].
    """
    student, teacher = student.astype(jnp.float32), teacher.astype(jnp.float32)
    lengths = jnp.linalg.norm(student, axis=-1) * jnp.linalg.norm(teacher, axis=-1)
    each = 1 - (student * teacher).sum(-1) / jnp.maximum(lengths, 1e-12)
    return jnp.where(valid, each, 0).sum(), valid.sum().astype(jnp.float32)


def squared_states(student, teacher, valid, projection=None):
    """The mean over D of squared differences of hidden states, of the tokens that count: (sum, weight).

    student [...,T,d], teacher [...,T,D], valid bool [...,T]. projection [d,D]: for a student of another width
    (TinyBERT's eq. 8, Jiao et al. 2020); learnt beside it.
    """
    student = student if projection is None else student @ projection
    each = jnp.square(student.astype(jnp.float32) - teacher.astype(jnp.float32)).mean(-1)
    return jnp.where(valid, each, 0).sum(), valid.sum().astype(jnp.float32)
