"""What a training run is at one moment: everything that a checkpoint holds and a step changes."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class State:
    """step: int32, steps taken. params: the model. opt: the optimizer's state. carry: values of each example that go on
    to the next batch (an LSTM's hidden state), every leaf with leading axis B, () where there are none. average: an
    averaged copy of the weights, () where there is none (see optim.py). bad: int32[2], steps skipped for a non-finite
    loss or gradient: in a row until now, and in all. best: of lanes that keep them, the weights that validated best."""

    step: jax.Array
    params: Any
    opt: Any
    carry: Any = ()
    average: Any = ()
    bad: jax.Array | None = None
    best: Any = ()


def count_bad(bad, finite):
    """`State.bad` after one more step, or update, that was finite or was skipped."""
    return jnp.stack([jnp.where(finite, 0, bad[0] + 1), bad[1] + jnp.where(finite, 0, 1)])


def new_state(params, tx, carry=(), averaging=None) -> State:
    """The state before the first step. `tx` is an optax transformation, `averaging` one of optim.py's."""
    average = () if averaging is None else averaging.init(params)
    return State(jnp.zeros((), jnp.int32), params, tx.init(params), carry, average, jnp.zeros((2,), jnp.int32))
