"""What one request may ask for, and the errors that say no: plain data, that flags know before JAX is loaded."""

from dataclasses import dataclass

from lmjax.config import setting


@dataclass(frozen=True)
class Limits:
    body: int = setting(1 << 20, "bytes of a request's body", low=1)
    characters: int = setting(50_000, "characters of all texts of a request, before they become tokens", low=1)
    tokens: int = setting(1024, "tokens of a prompt and its continuation together", low=2)
    items: int = setting(64, "texts of one request", low=1)
    rows: int = setting(16, "continuations of one request: its prompts times n", low=1)
    stops: int = setting(4, "stop texts of a request, of at most 64 characters each", low=0)
    seconds: int = setting(20, "for a client to send its request, and to take what it is sent", low=1)
    connections: int = setting(512, "connections that are open at once", low=1)


class Refusal(Exception):
    """A request that is not served: its HTTP status, a line that says why, and OpenAI's `param` and `code`."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None, wait: int = 0):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.wait = status, message, param, code, wait


def busy() -> Refusal:
    """429, with the seconds after which to come again."""
    return Refusal(429, "all slots and the queue are taken: try again in a second", code="rate_limit_exceeded", wait=1)


KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error",
         503: "server_error"}  # fmt: skip


def error(refusal: Refusal) -> dict:
    """The body of an error, as OpenAI's API has it."""
    kind = KINDS.get(refusal.status, "invalid_request_error")
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}}
