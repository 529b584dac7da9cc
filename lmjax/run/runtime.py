"""What has to be set before JAX is imported: the C library's allocator and XLA's flags. Measured on two CPU cores."""

import contextlib
import ctypes
import os

# XLA's CPU backend allocates its scratch memory anew at every step. glibc takes blocks of that size from the kernel and
# gives them back at once, so each step wrote to fresh zero pages: 15,000 page faults a step of a 2 x 200 LSTM, 30 % of
# its time. With these it keeps what was freed. (option of mallopt(3), value)
KEEP_FREED_MEMORY = (
    (-4, 0),  # M_MMAP_MAX: no block straight from the kernel
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: nothing back to it
    (-2, 2**26),  # M_TOP_PAD: grow by 64 MiB at a time
    (-8, 1),  # M_ARENA_MAX: one pool, so that any thread's freed block serves any other
)
XLA_FLAGS: dict[str, str] = {}


def prepare():
    """Settings of the process, to be made before `import jax`. What the user has set in the environment wins."""
    if not any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        with contextlib.suppress(OSError, AttributeError):  # no glibc
            mallopt = ctypes.CDLL(None).mallopt
            for option, value in KEEP_FREED_MEMORY:
                mallopt(option, value)
    given = os.environ.get("XLA_FLAGS", "")
    ours = [f"--{name}={value}" for name, value in XLA_FLAGS.items() if name not in given]
    os.environ["XLA_FLAGS"] = " ".join([*ours, given]).strip()
