"""Where a command's answers go."""

import contextlib
import sys
from pathlib import Path

from lmjax.errors import UserError


@contextlib.contextmanager
def written(path: str, flag: str = "--output"):
    """A text file to write to, UTF-8, the screen where `path` is empty. UserError where it cannot be written; flag:
    what named it."""
    if not path:
        yield sys.stdout
        return
    try:
        with open(Path(path).expanduser(), "w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise UserError(f"{flag}={path} cannot be written ({error.strerror}): choose another file") from None
