"""Who is let in: hosts, origins, keys, sizes; looked at before anything is read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from serving import Raw, serving
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lapilli.errors import BusyError
from lapilli.faces.server.bodies import read_json
from lapilli.faces.server.guard import Guard, GuardOptions

LIMIT = 100_000


class Server:
    """A server of which only the guard is real; it notes what reached it."""

    def __init__(self, **options: Any) -> None:
        self.reached: list[str] = []
        self.seen: list[int] = []
        self.full = False

        async def any_path(request: Request) -> Response:
            self.reached.append(request.url.path)
            return JSONResponse(await read_json(request) if request.method == "POST" else {})

        async def broken(request: Request) -> Response:
            raise ZeroDivisionError("/etc/secret/place 0xdeadbeef01")

        @contextmanager
        def admit() -> Iterator[None]:
            if self.full:
                raise BusyError("server busy, please try again.  maximum pending requests exceeded")
            yield

        self.app = Starlette(
            routes=[
                Route("/broken", broken),
                Route("/{path:path}", any_path, methods=["GET", "POST", "DELETE"]),
            ],
            middleware=[
                Middleware(
                    Guard,
                    options=GuardOptions(body_bytes=LIMIT, admit=admit, **options),
                    seen=lambda scope, status, seconds: self.seen.append(status),
                )
            ],
        )


@pytest.fixture(scope="module")
def plain() -> Iterator[tuple[Server, str]]:
    server = Server()
    with serving(server.app) as url:
        yield server, url


@pytest.fixture(scope="module")
def keyed() -> Iterator[tuple[Server, str]]:
    server = Server(
        api_keys=("right-key",),
        allowed_hosts=("llava.example", "*.tunnel.example"),
        origins=("https://*.page.example",),
    )
    with serving(server.app) as url:
        yield server, url


def ask(url: str, *lines: str, method: str = "GET", path: str = "/api/tags", body: bytes = b"") -> tuple[int, Any]:
    status, _, found = told(url, *lines, method=method, path=path, body=body)
    return status, found


def told(
    url: str, *lines: str, method: str = "GET", path: str = "/api/tags", body: bytes = b"", host: bool = True
) -> tuple[int, dict[str, str], Any]:
    head = [f"{method} {path} HTTP/1.1", *lines]
    if not any(line.lower().startswith("host:") for line in lines) and host:
        head.append("Host: 127.0.0.1")
    if body:
        head.append(f"Content-Length: {len(body)}")
    with Raw(url) as raw:
        raw.send("\r\n".join([*head, "", ""]).encode("latin-1") + body)
        status, headers = raw.head()
        length = int(headers.get("content-length", 0))
        while len(raw.kept) < length:
            raw.kept += raw.socket.recv(65536)
        return status, headers, json.loads(raw.kept) if raw.kept else None


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.0.0.1:11434", "[::1]", "[::1]:80", "LOCALHOST:1", "a.localhost",
             "127.9.9.9", "localhost."]
)  # fmt: skip
def test_this_machine_s_names_are_served(plain: tuple[Server, str], host: str) -> None:
    assert ask(plain[1], f"Host: {host}")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost", "xlocalhost:11434",
             "192.168.1.4", "10.0.0.1", "0.0.0.0", "[fe80::1]", "127.0.0.1.nip.io", "thing.local"]
)  # fmt: skip
def test_other_hosts_are_not(plain: tuple[Server, str], host: str) -> None:
    server, url = plain
    server.reached.clear()
    status, body = ask(url, f"Host: {host}", method="POST", path="/api/pull", body=b"{}")
    assert status == 403
    assert list(body) == ["error"]
    assert server.reached == []


@pytest.mark.parametrize("host", ["a b", "ex@mple", "x/y", "localhost:99999999", "[::1", "..", "-", ""])
def test_what_is_no_host_is_refused(plain: tuple[Server, str], host: str) -> None:
    assert ask(plain[1], f"Host: {host}")[0] == 400


def test_a_host_is_needed_and_only_one(plain: tuple[Server, str]) -> None:
    assert told(plain[1], host=False)[0] == 400
    assert ask(plain[1], "Host: localhost", "Host: localhost")[0] == 400
    assert ask(plain[1], "Host: localhost", "Host: evil.example")[0] == 400


def test_this_is_no_proxy(plain: tuple[Server, str]) -> None:
    assert ask(plain[1], path="http://evil.example/api/tags")[0] == 403
    assert ask(plain[1], path="http://127.0.0.1/api/tags")[0] == 403


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_what_a_proxy_passed_on_is_not_from_this_machine(
    plain: tuple[Server, str], keyed: tuple[Server, str], name: str
) -> None:
    assert ask(plain[1], f"{name}: evil.example")[0] == 403
    assert ask(keyed[1], f"{name}: 10.1.1.1")[0] == 401
    assert ask(keyed[1], f"{name}: 10.1.1.1", "Authorization: Bearer right-key")[0] == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil", "file://", "file:///home/x.html",
               "http://127.0.0.1.evil.example", "chrome-extension://abc", "http://user@localhost", "http://localhost/x",
               "javascript:alert(1)", "https://", "http://[", ""]
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_pages_of_strangers_are_refused(plain: tuple[Server, str], origin: str, method: str) -> None:
    server, url = plain
    server.reached.clear()
    status, headers, body = told(
        url, f"Origin: {origin}", "Content-Type: text/plain", method=method, path="/api/delete"
    )
    assert status == 403
    assert "access-control-allow-origin" not in headers
    assert list(body) == ["error"]
    assert server.reached == []


@pytest.mark.parametrize(
    "origin", ["http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "http://0.0.0.0:1", "http://[::1]:5",
               "app://obsidian.md", "tauri://localhost", "vscode-webview://abc", "vscode-file://vscode-app"]
)  # fmt: skip
def test_pages_of_this_machine_are_served(plain: tuple[Server, str], origin: str) -> None:
    status, headers, _ = told(plain[1], f"Origin: {origin}")
    assert status == 200
    assert headers["access-control-allow-origin"] == origin
    assert "Origin" in headers["vary"]


def test_origins_can_be_named_with_stars(keyed: tuple[Server, str]) -> None:
    assert ask(keyed[1], "Origin: https://a.page.example")[0] == 200
    assert ask(keyed[1], "Origin: https://a.page.example.evil")[0] == 403


def test_a_page_of_this_server_s_own_is_served(keyed: tuple[Server, str]) -> None:
    lines = ("Host: llava.example", "Origin: https://llava.example", "Authorization: Bearer right-key")
    assert ask(keyed[1], *lines)[0] == 200
    assert ask(keyed[1], lines[0], "Origin: https://other.example", lines[2])[0] == 403


def test_a_preflight_names_what_may_be_sent(plain: tuple[Server, str]) -> None:
    status, headers, body = told(
        plain[1], "Origin: http://localhost:3000", "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: content-type, authorization, x-stainless-os, x-evil",
        "Access-Control-Request-Private-Network: true", method="OPTIONS", path="/api/chat",
    )  # fmt: skip
    assert status == 204
    assert body is None
    assert headers["access-control-allow-headers"] == "content-type, authorization, x-stainless-os"
    assert "DELETE" in headers["access-control-allow-methods"]
    assert headers["access-control-allow-private-network"] == "true"


def test_options_without_a_page_is_answered(plain: tuple[Server, str]) -> None:
    assert ask(plain[1], method="OPTIONS")[0] == 204


@pytest.mark.parametrize("host", ["llava.example", "LLAVA.example:443", "x.tunnel.example", "192.168.1.4", "box.local"])
def test_other_hosts_need_a_key(keyed: tuple[Server, str], host: str) -> None:
    server, url = keyed
    server.reached.clear()
    line = f"Host: {host}"
    for wrong in ((), ("Authorization: Bearer wrong",), ("Authorization: right-key",), ("Authorization: Bearer",)):
        status, headers, body = told(url, line, *wrong)
        assert status == 401
        assert headers["www-authenticate"] == "Bearer"
        assert "right-key" not in str(body)
    assert server.reached == []
    assert ask(url, line, "Authorization: Bearer right-key")[0] == 200
    assert ask(url, line, "X-API-Key: right-key")[0] == 200


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/healthz", "/readyz"])
def test_the_page_and_the_supervisor_need_none(keyed: tuple[Server, str], path: str) -> None:
    assert ask(keyed[1], "Host: llava.example", path=path)[0] == 200
    assert ask(keyed[1], "Host: evil.example", path=path)[0] == 403


def test_this_machine_needs_no_key_and_any_is_taken(keyed: tuple[Server, str]) -> None:
    assert ask(keyed[1])[0] == 200
    assert ask(keyed[1], "Authorization: Bearer whatever")[0] == 200


def test_a_body_past_the_cap_is_refused_by_its_length_alone(plain: tuple[Server, str]) -> None:
    server, url = plain
    server.reached.clear()
    with Raw(url) as raw:
        raw.send(f"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LIMIT + 1}\r\n\r\n".encode())
        status, headers = raw.head()
    assert status == 413
    assert headers["connection"] == "close"
    assert server.reached == []


def test_a_body_past_the_cap_is_refused_while_it_streams(plain: tuple[Server, str]) -> None:
    with Raw(plain[1]) as raw:
        raw.send(b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):  # ten times the cap, all of it sent before the answer is looked at
            raw.send(b"6400\r\n" + b"[" * 0x6400 + b"\r\n")
        status, body = raw.answer()
        assert status == 413
        assert str(LIMIT) in body["error"]
        assert raw.rest() == b""


def test_a_body_at_the_cap_is_taken(plain: tuple[Server, str]) -> None:
    body = json.dumps({"a": "x" * (LIMIT - 9)}).encode()
    assert len(body) == LIMIT
    assert ask(plain[1], method="POST", body=body)[0] == 200


def test_bodies_are_bounded_all_together(plain: tuple[Server, str]) -> None:
    head = f"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LIMIT}\r\n\r\n".encode()
    held = [Raw(plain[1]).send(head + b"[" * (LIMIT - 1)) for _ in range(8)]
    time.sleep(0.2)
    with Raw(plain[1]) as raw:
        status, body = raw.send(head + b"[" * (LIMIT - 1)).answer()
    assert status == 503
    assert "too many large requests" in body["error"]
    for raw in held:
        raw.close()
    time.sleep(0.2)
    assert ask(plain[1], method="POST", body=json.dumps({"a": "x" * (LIMIT - 9)}).encode())[0] == 200


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 2", "Transfer-Encoding: chunked"),
        ("Content-Length: 2", "Content-Length: 3"),
        ("Content-Length: two",),
        ("Content-Length: -1",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Bad Header: x",),
        (" Folded: x",),
    ],
)
def test_a_body_whose_length_is_in_doubt_is_refused(plain: tuple[Server, str], lines: tuple[str, ...]) -> None:
    status, headers, body = told(plain[1], *lines, method="POST")
    assert status == 400
    assert headers["connection"] == "close"
    assert list(body) == ["error"]


@pytest.mark.parametrize(
    "lines", [("X: " + "a" * 40_000,), tuple(f"X-{i}: a" for i in range(120)), ("X: " + "a" * 1_000_000,)]
)
def test_large_heads_are_refused(plain: tuple[Server, str], lines: tuple[str, ...]) -> None:
    status, _, body = told(plain[1], *lines)
    assert status == 431
    assert list(body) == ["error"]


def test_a_full_server_says_so_before_a_body_is_read(plain: tuple[Server, str]) -> None:
    server, url = plain
    server.full = True
    try:
        with Raw(url) as raw:
            raw.send(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n")
            status, headers = raw.head()
        assert status == 503
        assert headers["retry-after"] == "1"
        assert ask(url)[0] == 200
    finally:
        server.full = False


def test_what_nobody_foresaw_tells_nothing(plain: tuple[Server, str], caplog: pytest.LogCaptureFixture) -> None:
    status, body = ask(plain[1], path="/broken")
    assert status == 500
    assert list(body) == ["error"]
    for text in (str(body), caplog.text):
        assert "0xdead" not in text
        assert "/etc/secret" not in text
        assert "Traceback" not in text
    assert "ZeroDivisionError at test_guard.py" in caplog.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_each_dialect_is_refused_in_its_own_shape(plain: tuple[Server, str], path: str) -> None:
    status, body = ask(plain[1], "Host: evil.example", path=path)
    assert status == 403
    assert "message" in body["error"]


def test_every_response_carries_what_keeps_browsers_careful(plain: tuple[Server, str]) -> None:
    for host in ("localhost", "evil.example"):
        _, headers, _ = told(plain[1], f"Host: {host}")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers
