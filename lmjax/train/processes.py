"""What the processes of one run tell each other: what the first one found, and whether a signal came to any of them.

Every process runs the same program, so each must make these calls in the same order. A run of one process makes them
too: there they cost nothing.
"""

import hashlib
import json
from collections import deque

import jax
import numpy as np

from lmjax.errors import UserError
from lmjax.train import parallel

PIECE = 2**24  # bytes sent at once: a device holds one for each process
BEHIND = 2  # votes under way: as many as steps (loop.IN_FLIGHT), so that counting them never waits for the device


def several() -> bool:
    return jax.process_count() > 1


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def from_first(make) -> bytes:
    """The bytes that make() gives in the first process, where alone it is called, in all; its UserError likewise."""
    if not several():
        return make()
    said, refused = b"", None
    if first():
        try:
            said = make()
        except UserError as error:
            refused = error
    fate = _send(json.dumps([str(refused), refused.status] if refused else []).encode())
    if refused is not None:
        raise refused
    if fate := json.loads(fate):
        error = UserError(fate[0])
        error.status = fate[1]
        raise error
    return _send(said)


def arrays_from_first(arrays):
    """Numpy arrays of the first process, bit by bit, in all. arrays: a list, in the others of the same shapes."""
    if not several():
        return arrays
    sent = []
    for x in arrays:
        x = np.asarray(x, order="C")
        raw = _pieces(x.reshape(-1).view(np.uint8))
        sent.append(raw.view(x.dtype).reshape(x.shape))
    return sent


def check_same(tree, what: str):
    """Raises UserError where a process holds other arrays than the first: they would train on a mixture."""
    if not several():
        return
    ours = hashlib.sha256()
    for x in jax.tree.leaves(tree):
        x = np.asarray(x)
        ours.update(f"{x.shape} {x.dtype}".encode() + np.ascontiguousarray(x).tobytes())
    ours = np.frombuffer(ours.digest(), np.uint8)
    differ = _at_most(int(not np.array_equal(_pieces(ours), ours)) * (jax.process_index() + 1))
    if differ:
        raise UserError(
            f"process {differ - 1} has another {what} than process 0: give every host the same data and flags"
        )


def agreement():
    """agree(signal): whether any process was called with a signal by now, as told to all at the same call.

    It is asynchronous: a call starts a vote, and counts the one before the last. Returns the signal, or None.
    """
    vote, votes, decided = parallel.ballot(), deque(), None

    def agree(signal):
        nonlocal decided
        if decided is None:
            votes.append(vote(signal or 0))
            if len(votes) > BEHIND:
                decided = int(votes.popleft().addressable_data(0)) or None
        return decided

    return agree


def _at_most(value: int) -> int:
    return int(parallel.ballot()(value).addressable_data(0))


def _send(data: bytes) -> bytes:
    """`data` of the first process; the others' is not looked at."""
    length = int.from_bytes(_pieces(np.frombuffer(len(data).to_bytes(8, "big"), np.uint8)).tobytes(), "big")
    raw = np.frombuffer(data, np.uint8) if first() else np.zeros(length, np.uint8)
    return _pieces(raw).tobytes()


def _pieces(raw):
    from jax.experimental import multihost_utils

    out = np.empty_like(raw)
    for start in range(0, raw.size, PIECE):
        out[start : start + PIECE] = multihost_utils.broadcast_one_to_all(raw[start : start + PIECE])
    return out
