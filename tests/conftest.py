"""Every test runs on eight simulated CPU devices, with implicit broadcasting of ranks an error."""

import os
import signal

from xla_flags import QUICK

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a suite started in the background: its programs heed ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["JAX_PLATFORMS"] = os.environ.get("LMJAX_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count=8 {QUICK}"

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """The runs that are killed first: they take longest, and two processes should end together."""
    items.sort(key=lambda item: "test_resume" not in item.nodeid)
