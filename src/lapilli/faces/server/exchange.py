"""One request and its response on the wire: counted while it comes, dressed while it goes."""

from __future__ import annotations

import asyncio
import time

from starlette.types import Message, Receive, Scope, Send

from lapilli.errors import BusyError
from lapilli.faces.server.problems import HttpError

LINGER_SECONDS = 1.0
LINGER_BYTES = 16 << 20
GRACE_SECONDS = 30.0
SLOWEST_BYTES = 32 << 10

PLAIN_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


class Held:
    """Bytes of bodies that are in memory now, of all requests together; `most` is where a further one is too much."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0


class Exchange:
    """What passes between a client and the application.

    A body past `cap` bytes, or slower than 32 KiB a second after its first half minute, ends in HttpError (413, 408);
    one that makes all bodies together too many, in BusyError. Without a cap the body is streamed, and not counted.
    Where the response is ready before the body was read, the rest of it is swallowed for a moment, so that the client
    sees the response and not a broken pipe; then the connection is closed.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, cap: int | None, held: Held) -> None:
        self.scope = scope
        self.status = 0
        self._receive = receive
        self._send = send
        self._cap = cap
        self._held = held
        self._taken = 0
        self._started = time.monotonic()
        told = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
        self._body_over = told in ({}, {b"content-length": b"0"})

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        size = len(message.get("body", b""))
        self._taken += size
        self._body_over = not message.get("more_body", False)
        if self._cap is not None:
            self._held.bytes += size
            slow = time.monotonic() - self._started - GRACE_SECONDS - self._taken / SLOWEST_BYTES
            if slow > 0 and not self._body_over:
                raise HttpError(408, f"the body came too slowly: {self._taken} bytes so far")
            if self._taken > self._cap:
                raise HttpError(413, f"the body is larger than {self._cap} bytes: at most that many are taken")
            if self._held.bytes > self._held.most:
                raise BusyError("server busy, please try again: too many large requests at once")
        return message

    def over(self) -> None:
        """The request has ended, and its body is gone."""
        if self._cap is not None:
            self._held.bytes -= self._taken

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._send({**message, "headers": self._dressed(list(message.get("headers", [])))})
        elif self._body_over or message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._swallow()
            await self._send({"type": "http.response.body", "body": b""})

    def _dressed(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        there = {name.lower() for name, _ in headers}
        headers += [(name, value) for name, value in PLAIN_HEADERS if name not in there]
        origin = self.scope.get("lapilli.origin")
        if origin is not None:
            headers += [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]
        if not self._body_over and b"connection" not in there:
            headers.append((b"connection", b"close"))
        return headers

    async def _swallow(self) -> None:
        """Read on for a moment, for nobody."""
        taken = 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while taken < LINGER_BYTES:
                    message = await self._receive()
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        break
                    taken += len(message.get("body", b""))
        except TimeoutError:
            pass
