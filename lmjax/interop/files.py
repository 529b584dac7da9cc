"""Files that are written whole or not at all, and the library of safetensors files."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from lmjax.errors import UserError, install


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """The name to write to, beside `path`; it becomes `path` where the block ends well, and is gone where it does not.

    UserError where the folder or the disk refuses.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield new
        os.replace(new, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; choose another file") from None
    finally:
        with contextlib.suppress(OSError):
            new.unlink()


def safetensors_library():
    """safetensors, with its numpy part; UserError where it is not installed."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise UserError("safetensors is not installed: " + install("weights")) from None
    return safetensors
