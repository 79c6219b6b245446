"""A server on a free port of this machine, in a thread, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from lapilli.faces.server.listener import listen


@contextlib.contextmanager
def serving(app: Any, **settings: Any) -> Iterator[str]:
    """Serve an ASGI application; yields its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    server = uvicorn.Server(listen(app, **{"drain_seconds": 2, **settings}))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the server did not start")
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


class Raw:
    """A connection on which any bytes can be sent."""

    def __init__(self, url: str, timeout: float = 10) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.kept = b""

    def send(self, data: bytes) -> Raw:
        self.socket.sendall(data)
        return self

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        found = self.kept
        self.kept = b""
        with contextlib.suppress(ConnectionError):
            while piece := self.socket.recv(65536):
                found += piece
        return found

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next response."""
        while b"\r\n\r\n" not in self.kept:
            piece = self.socket.recv(65536)
            if not piece:
                raise EOFError(self.kept)
            self.kept += piece
        head, self.kept = self.kept.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}

    def answer(self) -> tuple[int, Any]:
        """Status and JSON body of a response with a length."""
        status, headers = self.head()
        length = int(headers["content-length"])
        while len(self.kept) < length:
            self.kept += self.socket.recv(65536)
        body, self.kept = self.kept[:length], self.kept[length:]
        return status, json.loads(body) if body else None

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
