"""The error a user can mend: one line that names the value, what was expected and the remedy."""


class UserError(ValueError):
    """Bad input. `str(error)` is one line for the user; at the command line it ends the run with exit status 2."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))
