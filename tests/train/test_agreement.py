"""What several processes agree on, in one: votes are stand-ins, and what is gathered lies on eight devices.

tests/experiments/test_processes.py has two real ones.
"""

import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lmjax.errors import UserError
from lmjax.train import parallel, processes
from lmjax.train.interrupt import Interrupts


def test_all_hear_of_a_signal_at_the_same_question(monkeypatch):
    """Each process asks with what came to itself; the answer is that of two questions before, and stays."""
    cast = []  # the largest vote of each round: as if every process had voted by then

    def ballot():
        asked = iter(range(100))

        def vote(number):
            i = next(asked)
            cast.extend([0] * (i + 1 - len(cast)))
            cast[i] = max(cast[i], number)
            return SimpleNamespace(addressable_data=lambda _: cast[i])

        return vote

    monkeypatch.setattr(parallel, "ballot", ballot)
    one, other = (Interrupts(agree=processes.agreement()) for _ in range(2))
    heard = []
    for i in range(8):
        if i == 3:
            other._handle(signal.SIGTERM, None)
        heard.append((other.requested, one.requested))
    assert [i for i, pair in enumerate(heard) if pair[0]] == [i for i, pair in enumerate(heard) if pair[1]] == [5, 6, 7]
    assert (one.came, other.came, heard[-1][1]) == (None, signal.SIGTERM, signal.SIGTERM)


def test_a_vote_is_the_largest_number():
    vote = parallel.ballot()
    assert int(vote(7).addressable_data(0)) == 7
    assert int(vote(0).addressable_data(0)) == 0


def test_what_is_near_is_whole_on_each_device(monkeypatch):
    monkeypatch.setattr(parallel, "across", lambda mesh: True)
    x = np.arange(32.0, dtype=np.float32).reshape(8, 4)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    monkeypatch.setattr(parallel, "whole", lambda x: jax.device_put(x, NamedSharding(mesh, P())))
    near = parallel.nearby(mesh)({"w": jax.device_put(x, NamedSharding(mesh, P("data")))})
    assert len(near["w"].addressable_shards) == 8
    for shard in near["w"].addressable_shards:
        np.testing.assert_array_equal(shard.data, x)
    assert float(jax.jit(jnp.sum)(near["w"])) == x.sum()


def test_local_is_refused_in_several_processes(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="--strategy=local in several processes"):
        parallel.choose("local", None)


def test_alone_nothing_is_sent():
    assert processes.from_first(lambda: b"x") == b"x"
    processes.check_same([np.zeros(2)], "weights")
    with pytest.raises(UserError, match="no"):
        processes.from_first(lambda: (_ for _ in ()).throw(UserError("no")))
