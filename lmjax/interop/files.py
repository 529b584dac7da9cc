"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from lmjax.errors import UserError


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
