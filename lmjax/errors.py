"""How a run ends early: errors that are one line for the user and carry the process's exit status."""


class UserError(ValueError):
    """Bad input. `str(error)` is one line: the offending value, what was expected, the remedy. Exit status 2."""

    status = 2

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def install(extra: str) -> str:
    """How a user comes by the packages of one of pyproject.toml's extras: the end of a sentence."""
    return f"set LMJAX_EXTRAS={extra} before launch/run.sh, or pip install 'lmjax[{extra}]'"


class Diverged(UserError):
    """Training met too many non-finite losses or gradients in a row; the last finite checkpoint is kept."""

    status = 3


class Interrupted(UserError):
    """A signal asked the run to stop and it did, after saving. Exit status 128 + the signal's number, as a shell's."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.status = 128 + signum
