"""Connections: uvicorn's HTTP/1.1, with the patience of a server that strangers can reach.

uvicorn waits for ever for the rest of a head or of a body, and for a client that does not read. Here each wait ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from typing import Any, ClassVar

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_BYTES = 32 << 10
SEND_BUFFER_BYTES = 256 << 10


class PatientProtocol(H11Protocol):
    """One connection. A head has 10 s to come, a body may rest for 30 s, a reader for 60 s; then it is closed.

    While a client does not read, what is made for it waits in at most 64 KiB here and 512 KiB in the kernel.
    """

    head_seconds: ClassVar[float] = 10
    body_seconds: ClassVar[float] = 30
    stall_seconds: ClassVar[float] = 60

    _timer: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _awaits: str = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family != getattr(socket, "AF_UNIX", None):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            # asyncio does so only for sockets that name their protocol; else the last piece waits 40 ms for an ACK.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await("head", self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await("", 0)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def _look(self) -> None:
        """See what the client owes, and give it time for that."""
        if self.transport.is_closing():
            self._await("", 0)
        elif self.conn.their_state is h11.SEND_BODY:
            self._await("", 0)  # each piece of a body starts its time anew
            self._await("body", self.body_seconds)
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._await("head", self.head_seconds)  # a head that has begun keeps the time it began with
        else:
            self._await("", 0)

    def _await(self, what: str, seconds: float) -> None:
        if what == self._awaits:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._awaits = what
        self._timer = self.loop.call_later(seconds, self._give_up) if what else None

    def _give_up(self) -> None:
        """The head or the body did not come: say so if that is still possible, and close."""
        what, self._awaits, self._timer = self._awaits, "", None
        if self.transport.is_closing():
            return
        if what == "body" and self.flow.read_paused:
            self._await("body", self.body_seconds)  # it is we who do not read
        elif self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(408, f"the {what} of the request did not come in time")
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(self.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self.flow is not None:
            super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP/1.1, in the one shape that errors have here."""
        error = sys.exc_info()[1]
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        text = "the head of the request is too large" if hint == 431 else "this is no HTTP/1.1 request"
        self._refuse(431 if hint == 431 else 400, text)

    def _refuse(self, status: int, text: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": text}).encode()
            headers = [
                ("content-type", "application/json; charset=utf-8"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self._await("", 0)
        self.transport.close()


class Quiet(logging.Filter):
    """Keeps tracebacks and what strangers sent out of the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return record.msg != "Invalid HTTP request received."


def listen(app: Starlette, *, drain_seconds: float = 30, **settings: Any) -> uvicorn.Config:
    """How uvicorn serves `app`: give `host` and `port`, or `fd`; more of uvicorn's settings win over these."""
    chosen: dict[str, Any] = {
        "http": PatientProtocol,
        "ws": "none",
        "loop": "asyncio",  # also where another is installed, so that a server behaves alike everywhere
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": max(0, round(drain_seconds)),
        "h11_max_incomplete_event_size": HEAD_BYTES,
    }
    logger = logging.getLogger("uvicorn.error")
    if not any(isinstance(there, Quiet) for there in logger.filters):
        logger.addFilter(Quiet())
    return uvicorn.Config(app, **{**chosen, **settings})
