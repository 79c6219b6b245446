"""Connections that dawdle are closed, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from serving import Raw, serving
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lapilli.errors import InputError
from lapilli.faces.server.bodies import read_json
from lapilli.faces.server.guard import Guard, GuardOptions
from lapilli.faces.server.listener import PatientProtocol
from lapilli.faces.server.streams import lines, whole

SHORT = 0.3


class Hasty(PatientProtocol):
    head_seconds = SHORT
    body_seconds = SHORT
    stall_seconds = SHORT


class Server:
    """Streams for ever, or is busy for ever; notes how each answer ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.sent = 0
        self.statuses: list[int] = []
        self.app = Starlette(
            routes=[
                Route("/quick", self.quick, methods=["GET", "POST"]),
                Route("/stream", self.stream),
                Route("/think", self.think),
                Route("/fail", self.fail),
            ],
            middleware=[
                Middleware(Guard, options=GuardOptions(), seen=lambda scope, status, _: self.statuses.append(status))
            ],
        )

    async def quick(self, request: Request) -> Response:
        return JSONResponse(await read_json(request) if request.method == "POST" else {})

    async def stream(self, request: Request) -> Response:
        size, pause = (float(request.query_params.get(name, 0)) for name in ("size", "pause"))

        async def objects() -> AsyncGenerator[dict[str, Any], None]:
            try:
                while True:
                    self.sent += 1
                    yield {"text": "x" * int(size)}
                    await asyncio.sleep(pause)
            finally:
                self.ends.append("stream")

        return lines(objects())

    async def think(self, request: Request) -> Response:
        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                self.ends.append("think")

        await whole(request, work())
        return JSONResponse({})

    async def fail(self, request: Request) -> Response:
        async def objects() -> AsyncGenerator[dict[str, Any], None]:
            if request.query_params["after"] == "0":
                raise InputError("refused")
            yield {"text": "a"}
            raise InputError("refused later, at /some/where/file.txt")

        return lines(objects())

    def await_end(self, what: str, seconds: float = 2) -> None:
        deadline = time.monotonic() + seconds
        while what not in self.ends:
            assert time.monotonic() < deadline, f"{what} went on"
            time.sleep(0.005)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def hasty(server: Server) -> Iterator[str]:
    with serving(server.app, http=Hasty) as url:
        yield url


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def quick(url: str) -> float:
    started = time.monotonic()
    with Raw(url) as raw:
        assert raw.send(get("/quick")).answer() == (200, {})
    return time.monotonic() - started


def test_pieces_do_not_wait_for_each_other_s_acknowledgement(server: Server) -> None:
    delays: list[int] = []

    class Looked(PatientProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            taken = transport.get_extra_info("socket")
            delays.append(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with serving(server.app, http=Looked) as url:
        quick(url)
    assert delays == [1]


@pytest.mark.parametrize("begin", [b"", b"GET /qu", b"GET /quick HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_a_head_that_does_not_come_is_waited_for_no_longer(hasty: str, begin: bytes) -> None:
    started = time.monotonic()
    with Raw(hasty) as raw:
        raw.send(begin)
        status, body = raw.answer()
        assert status == 408
        assert "head" in body["error"]
        assert raw.rest() == b""
    assert SHORT * 0.8 < time.monotonic() - started < 2


def test_a_head_that_trickles_has_no_more_time(hasty: str) -> None:
    started = time.monotonic()
    with Raw(hasty) as raw:
        try:
            for byte in get("/quick")[:-1]:
                raw.send(bytes([byte]))
                time.sleep(0.05)
        except ConnectionError:
            pass
    assert time.monotonic() - started < 2


def test_the_second_head_of_a_connection_is_timed_too(hasty: str) -> None:
    with Raw(hasty) as raw:
        assert raw.send(get("/quick")).answer() == (200, {})
        time.sleep(SHORT * 1.5)  # at rest between requests is no offence
        assert raw.send(get("/quick")).answer() == (200, {})
        raw.send(b"GET /")
        assert raw.answer()[0] == 408


def test_a_body_that_rests_is_waited_for_no_longer(hasty: str, server: Server) -> None:
    with Raw(hasty) as raw:
        raw.send(b'POST /quick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"a":')
        status, body = raw.answer()
        assert status == 408
        assert "body" in body["error"]
    assert quick(hasty) < 1


def test_a_body_that_keeps_coming_is_taken(hasty: str) -> None:
    body = json.dumps({"text": "x" * 20}).encode()
    with Raw(hasty) as raw:
        raw.send(f"POST /quick HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 4):
            raw.send(body[at : at + 4])
            time.sleep(SHORT / 4)  # longer in all than a body may rest
        assert raw.answer()[0] == 200


def test_a_hundred_that_dawdle_hold_up_nobody(hasty: str) -> None:
    slow = [Raw(hasty).send(b"POST /quick HTTP/1.1\r\nX: ") for _ in range(100)]
    assert quick(hasty) < 1
    for raw in slow:
        assert raw.answer()[0] == 408
        raw.close()


def test_a_reader_that_stops_is_cut_off_and_costs_no_memory(hasty: str, server: Server) -> None:
    with Raw(hasty) as raw:
        raw.send(get("/stream?size=4096"))
        server.await_end("stream", 3)
        assert server.sent * 4096 < 8 << 20  # what waits here, in the kernel, and at the reader's own end
    assert server.statuses[-1] == 499
    assert quick(hasty) < 1


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_client_that_leaves_ends_a_stream(hasty: str, server: Server, leave: str) -> None:
    raw = Raw(hasty)
    raw.send(get("/stream?size=10&pause=0.01")).head()
    if leave == "reset":
        import socket
        import struct

        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()
    server.await_end("stream")
    time.sleep(0.05)
    assert server.statuses == [499]


def test_a_client_that_leaves_ends_work_that_has_told_nothing_yet(hasty: str, server: Server) -> None:
    raw = Raw(hasty)
    raw.send(get("/think"))
    time.sleep(0.1)
    raw.close()
    server.await_end("think")
    time.sleep(0.05)
    assert server.statuses == [499]


def test_what_fails_before_the_first_line_has_a_status(hasty: str) -> None:
    with Raw(hasty) as raw:
        assert raw.send(get("/fail?after=0")).answer() == (400, {"error": "refused"})


def test_what_fails_later_is_the_last_line(hasty: str) -> None:
    with Raw(hasty) as raw:
        status, headers = raw.send(get("/fail?after=1").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).head()
        assert status == 200
        assert headers["content-type"] == "application/x-ndjson"
        body = raw.rest()
    found = [json.loads(line) for line in body.split(b"\r\n") if line.startswith(b"{")]
    assert found == [{"text": "a"}, {"error": "refused later, at file.txt"}]
    assert body.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET  /\r\n\r\n",
             b"\0" * 100, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)  # fmt: skip
def test_what_is_no_http_is_refused_in_json(hasty: str, data: bytes) -> None:
    with Raw(hasty) as raw:
        status, body = raw.send(data + b"\r\n\r\n").answer()
    assert status in (400, 408)
    assert list(body) == ["error"]


def test_a_stopping_server_ends_its_streams_with_a_word(server: Server) -> None:
    with serving(server.app, drain_seconds=1) as url:
        raw = Raw(url)
        raw.send(get("/stream?size=1&pause=0.02")).head()
    body = raw.rest()
    raw.close()
    assert json.loads(body.strip().split(b"\r\n")[-2]) == {"error": "the server is shutting down"}
    assert body.endswith(b"0\r\n\r\n")
