"""The process around the application: the key, the socket, slow clients, and an end that lets requests end."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from lmjax.errors import UserError

KEY = "LMJAX_API_KEY"


def key_of(path: str) -> str:
    """The key in a file, or in the environment; "" for none. UserError where the file holds none."""
    if not path:
        return os.environ.get(KEY, "").strip()
    try:
        key = Path(path).expanduser().read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise UserError(f"--api_key_file={path} cannot be read ({why}): expected a file with the key alone") from None
    if len(key) < 8 or any(not 32 < ord(c) < 127 for c in key):
        raise UserError(f"--api_key_file={path}: expected one key of at least 8 letters and digits")
    return key


def loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def bound(host: str, port: int):
    """The socket that is listened at, until the block ends. UserError where it cannot be had."""
    with contextlib.ExitStack() as stack:
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            listening = stack.enter_context(socket.socket(family))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError as error:
            why = error.strerror or str(error)
            raise UserError(f"--host={host} --port={port} cannot be listened at ({why}): choose another") from None
        yield listening


def patient(limits):
    """uvicorn's protocol with a limit to what a client may take: seconds for the lines of a request, connections."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Patient(H11Protocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.slow = None
            if len(self.connections) > limits.connections:
                return transport.close()
            self._wait()

        def data_received(self, data):
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()

        def on_response_complete(self):
            super().on_response_complete()
            self._wait()

        def connection_lost(self, exc):
            self._stop()
            super().connection_lost(exc)

        def _wait(self):
            self._stop()
            if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
                self.slow = self.loop.call_later(limits.seconds, self.transport.abort)

        def _stop(self):
            if self.slow is not None:
                self.slow.cancel()
                self.slow = None

    return Patient


def run(app, listening: socket.socket, limits, *, drain: int):
    """Serves until SIGTERM or ^C; requests that run then have `drain` seconds to end. Ends with status 0 or 130."""
    import uvicorn

    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it tells of every request that is no HTTP
    config = uvicorn.Config(
        app, http=patient(limits), ws="none", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=drain, timeout_keep_alive=limits.seconds,
        h11_max_incomplete_event_size=16_384, lifespan="on",
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # where the server hands it on, at its end
    server = uvicorn.Server(config)
    asyncio.run(server.serve([listening]))
