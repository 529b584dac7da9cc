"""Every test runs on eight simulated CPU devices, with implicit broadcasting of ranks an error."""

import os

os.environ["JAX_PLATFORMS"] = os.environ.get("LMJAX_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
