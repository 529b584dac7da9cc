"""Every test runs on eight simulated CPU devices, with implicit broadcasting of ranks an error."""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a suite started in the background: its programs heed ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["JAX_PLATFORMS"] = os.environ.get("LMJAX_TEST_PLATFORM", "cpu")
# Most of the suite's time is compilation of programs that run once: LLVM's optimizations (level 3 for users, and in the
# runs the tests start as users do) would double it. LMJAX_TEST_OPTIMIZATION=3 runs all of it with them.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level="
    + os.environ.get("LMJAX_TEST_OPTIMIZATION", "0")
)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """The runs that are killed first: they take longest, and two processes should end together."""
    items.sort(key=lambda item: "test_resume" not in item.nodeid)
