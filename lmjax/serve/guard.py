"""What every request passes before a route sees it: the key, the host, the body's size, time and form.

Denies by default: whatever the path, known or not, a request without the key is 401.
"""

import asyncio
import base64
import hmac
import json
import logging
import time

from pydantic_core import from_json

from lmjax.serve.limits import Limits, Refusal, error

DROPPED = 16 << 20  # bytes of a body too large that are read all the same: who is cut off while sending sees no answer
LOCAL = ("localhost", "127.0.0.1", "[::1]")
log = logging.getLogger("lmjax.serve")


class Guard:
    """ASGI middleware. key: "" for none. hosts: the Host headers that are taken, None for all; without a key they keep
    away pages whose name was turned to this machine. seen(path, status, seconds): called behind each request."""

    def __init__(self, app, *, limits: Limits, key: str = "", hosts=None, seen=lambda path, status, seconds: None):
        self.app, self.limits, self.key, self.hosts, self.seen = app, limits, key, hosts, seen

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        began, status = time.perf_counter(), 0

        async def told(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = message | {"headers": [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]}
            async with asyncio.timeout(self.limits.seconds):  # a client that takes nothing holds nothing
                await send(message)

        try:
            await self._pass(scope, receive, told)
        except Refusal as refusal:
            if not status:
                await refuse(told, refusal)
        except TimeoutError:  # it took nothing of what it was sent
            log.info("a client that did not read was dropped")
            raise
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"][:200])
            if status:
                raise
            await refuse(told, Refusal(500, "the server failed at this request; its log says why"))
        finally:
            self.seen(scope["path"], status, time.perf_counter() - began)

    async def _pass(self, scope, receive, send):
        headers = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), value)
        if self.key and not self._keyed(headers.get(b"authorization", b"")):
            raise Refusal(401, "no key, or another than this server's: send Authorization: Bearer KEY",
                          code="invalid_api_key")  # fmt: skip
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self.hosts is not None and _name(host) not in self.hosts:
            raise Refusal(403, "this server answers to localhost only: set a key to use it by another name")
        if scope["method"] not in ("POST", "PUT", "PATCH", "DELETE"):
            return await self.app(scope, receive, send)
        body = await self._body(headers, receive)
        if body is None:
            return None  # the client left
        if scope["method"] == "POST":
            _check(headers, body)
        sent = False

        async def replay():
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return await self.app(scope, replay, send)

    def _keyed(self, given: bytes) -> bool:
        """Whether an Authorization header has the key: as a Bearer's, or, from a browser, as a Basic password."""
        kind, _, value = given.partition(b" ")
        if kind.lower() == b"basic":
            try:
                value = base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except ValueError:
                value = b""
        elif kind.lower() != b"bearer":
            value = b""
        return hmac.compare_digest(value.strip(), self.key.encode())

    async def _body(self, headers, receive) -> bytes | None:
        most = self.limits.body
        large = Refusal(413, f"a body of more than {most:,} bytes: send less at a time")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > DROPPED:
            raise large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    size += len(part)
                    if size <= most:
                        parts.append(part)
                    ended = not message.get("more_body")
                    if size > most and (ended or size > DROPPED):
                        raise large
                    if ended:
                        return b"".join(parts)
        except TimeoutError:
            raise Refusal(408, f"the body took more than {self.limits.seconds} seconds to come") from None


def _name(host: str) -> str:
    """The host's name without its port."""
    return host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host


def _check(headers, body: bytes):
    """Refusal where a body is no JSON: a NaN, or brackets nested without end, is none."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Refusal(415, "expected a JSON body with Content-Type: application/json")
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as problem:
        raise Refusal(400, f"the body is no JSON: {str(problem)[:200]}") from None


async def refuse(send, refusal: Refusal):
    body = json.dumps(error(refusal)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="lmjax: any name, and the key as password"'))
    if refusal.wait:
        headers.append((b"retry-after", b"%d" % refusal.wait))
    if refusal.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
