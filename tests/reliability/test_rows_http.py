"""T05, T16, T17, T38, T75 to T80: heads, bodies and clients that misbehave, byte by byte."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import re
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from asked import ALL, ANTHROPIC, GENERATE, OPENAI, Dialect, assert_shape
from serving import Raw

pytestmark = pytest.mark.usefixtures("oracles")
BODY = b'{"model": "mini", "stream": false}'


def exchange(live: Any, head: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what is answered to these bytes."""
    with Raw(live.url, timeout=30) as raw:
        with contextlib.suppress(ConnectionError):
            raw.send(head.encode("latin-1") + body)
        status, headers = raw.head()
        assert headers.get("transfer-encoding") is None
        return status, headers, raw.rest() if headers.get("connection") == "close" else raw.kept


def post(path: str, *lines: str, length: int | None = len(BODY)) -> str:
    told = () if length is None else (f"Content-Length: {length}",)
    return "\r\n".join([f"POST {path} HTTP/1.1", *lines, *told, "Connection: close", "", ""])


# --- where from (T16, T17) ---

HOSTS = (
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.example:11434",
    "localhost@evil.example",
    "evil.example#localhost",
    "evil.example/localhost",
    "127.0.0.1:80@evil.example",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "localhost evil.example",
    "evil.example\tlocalhost",
    "localhost,evil.example",
    "[::1",
    "[::1].evil.example",
    "::1",
    "[::ffff:8.8.8.8]",
    "localhost:99999999",
    "localhost:-1",
    "localhost:",
    "localhost..",
    ".localhost",
    "",
    "-",
    "*",
    "xn--localhst-9db",
    "l\xf6calhost",
    "local\xadhost",
    "0.0.0.0.nip.io",
    "rebind.localhost.evil",
    "evil\\localhost",
)


@pytest.mark.parametrize("path", ["/api/delete", "/v1/chat/completions", "/"])
def test_t16_other_hosts_in_any_spelling(live: Any, path: str) -> None:
    for host in HOSTS:
        status, headers, body = exchange(live, post(path, f"Host: {host}"), BODY)
        assert status in (400, 403), host
        assert headers["content-type"].startswith("application/json")
        assert "error" in json.loads(body)
    assert "mini:latest" in {model["name"] for model in live.get("/api/tags").json()["models"]}


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Host: localhost", "Host: evil.example"),
        ("Host: localhost", "Host: localhost"),
        ("Host: localhost", "X-Forwarded-Host: evil.example"),
        ("Host: localhost", "X-Forwarded-For: 127.0.0.1"),
        ("Host: localhost", "Forwarded: host=localhost;for=127.0.0.1"),
        ("Host: localhost", "x-REAL-ip: ::1"),
    ],
)
def test_t16_hosts_that_are_none_or_two_or_passed_on(live: Any, lines: tuple[str, ...]) -> None:
    assert exchange(live, post("/api/show", *lines), BODY)[0] in (400, 403)


TARGETS = (
    "http://evil.example/api/tags",
    "http://localhost/api/tags",
    "//localhost/api/tags",
    "localhost:80",
    "*",
    "/\\evil",
    "/api/../api/tags",
    "/api//tags",
    "/API/TAGS",
)


def test_t16_targets_that_are_no_path_of_ours(live: Any) -> None:
    for target in TARGETS:
        with Raw(live.url) as raw:
            raw.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            status, body = raw.answer()
        assert status in (400, 403, 404), target
        assert list(body) == ["error"]


ORIGINS = (
    "https://evil.example",
    "null",
    "file://",
    "file:///home/x.html",
    "http://localhost.evil.example",
    "http://localhost@evil",
    "http://evil@localhost",
    "http://127.0.0.1.nip.io",
    "http://[::1].evil",
    "http://2130706433",
    "http://0x7f.1",
    "http://",
    "http://localhost:99999999",
    "http://localhost/",
    "http://localhost?x",
    "http://localhost#x",
    "https://localhost\\.evil",
    "HTTP://EVIL.EXAMPLE",
    "ws://localhost",
    "data:text/html",
    "blob:http://localhost/x",
    "chrome-extension://x",
    "",
    "http://localhost http://evil.example",
    "http://localhost, http://evil.example",
    "http://l\xf6calhost",
    "javascript:1",
)


def test_t17_pages_of_strangers_in_any_spelling(live: Any) -> None:
    for origin in ORIGINS:
        for kind in ("text/plain", "application/json"):
            lines = ("Host: localhost", f"Origin: {origin}", f"Content-Type: {kind}")
            status, headers, _ = exchange(live, post("/api/generate", *lines), BODY)
            assert status in (400, 403), origin
            assert "access-control-allow-origin" not in headers
    lines = ("Host: localhost", "Origin: http://localhost", "Origin: https://evil.example")
    assert exchange(live, post("/api/generate", *lines), BODY)[0] in (400, 403)
    for method in ("OPTIONS", "GET", "DELETE"):
        head = f"{method} /api/delete HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n"
        status, headers, _ = exchange(live, head)
        assert status == 403
        assert not [name for name in headers if name.startswith("access-control")]


# --- what it tells of this machine (T05, T38) ---


def test_t05_a_path_that_is_here_costs_what_one_that_is_not_does(live: Any) -> None:
    """The same words, and no more than 5 ms apart in the middle of many pairs."""
    apart: dict[str, list[float]] = {"/etc/passwd": [], "/nope/nope": []}
    words = set()
    for turn in range(40):
        for path in sorted(apart, reverse=turn % 2 == 0):
            began = time.perf_counter()
            response = live.post("/api/create", {"model": "x", "from": path, "stream": False})
            apart[path].append(time.perf_counter() - began)
            words.add((response.status_code, response.text))
    assert words == {(400, '{"error":"invalid model name"}')}
    here, nowhere = (statistics.median(times) for times in apart.values())
    assert abs(here - nowhere) < 0.005
    for field in ("files", "adapters"):
        for path in apart:
            for named in ({"a.gguf": path}, {path: f"sha256:{'0' * 64}"}, {"a.gguf": f"sha256:{path}"}):
                response = live.post("/api/create", {"model": "x", field: named, "stream": False})
                assert response.status_code in (400, 404)
                assert path not in assert_shape("/api/create", response)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="/proc tells who listens on Linux alone")
def test_t38_only_the_api_listens(live: Any) -> None:
    live.post(GENERATE.path, {"model": "mini"})
    [resident] = [each for each in live.app.state.residents.running() if each.package.name.startswith("mini")]
    child = resident.process.pid
    own = {link.readlink().name for link in _fds(child) if str(link.readlink()).startswith("socket:")}
    assert not own, "a model's process talks over pipes"
    kinds = {str(link.readlink()).split(":")[0] for link in _fds(child)}
    assert "pipe" in kinds


def _fds(process: int) -> list[Path]:
    return [link for link in Path(f"/proc/{process}/fd").iterdir() if link.is_symlink() and _target(link)]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


# --- how it is said (T75, T77, T78) ---


def test_t75_forms_are_not_read(live: Any) -> None:
    bodies = (
        b"--x\r\n" + b"-" * 1_000_000 + b"\r\n--x--",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"a" * 1_000_000,
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 20_000,
        b"a=b&" * 200_000,
    )
    for path in ("/api/generate", "/v1/chat/completions", "/v1/messages", "/api/create"):
        for kind in ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
            for body in bodies:
                began = time.process_time()
                response = live.http.post(path, content=body, headers={"content-type": kind})
                assert response.status_code == 400
                assert_shape(path, response)
                assert time.process_time() - began < 2


def test_t76_ranges_without_number_on_any_route(live: Any) -> None:
    for path in ("/static/index.html", "/static/main.js", "/", "/api/tags", "/metrics"):
        for ranges in ("0-0," * 500, "0-," * 300, "-1", "9999999999-", "a-b", "5-1", ",", "0-18446744073709551616"):
            began = time.process_time()
            response = live.get(path, headers={"range": f"bytes={ranges}", "accept": "text/html"})
            assert response.status_code in (200, 206, 400, 416), (path, ranges[:20])
            assert len(response.content) < 4 << 20
            assert time.process_time() - began < 1


SMUGGLED = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
FRAMING = (
    b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    b"Content-Length: +4\r\n\r\nabcd",
    b"Content-Length: 0x4\r\n\r\nabcd",
    b"Content-Length : 4\r\n\r\nabcd",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n2\r\nabXX0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    b"X: a\rContent-Length: 4\r\n\r\nabcd",
    b"X: a\x00\r\n\r\n",
    b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
    b"X: a\r\n" * 10_000 + b"\r\n",
)


def test_t77_what_two_readers_could_read_in_two_ways_is_refused(live: Any) -> None:
    for lines in FRAMING:
        told = answers(live, b"POST /api/show HTTP/1.1\r\nHost: localhost\r\n" + lines + SMUGGLED)
        assert re.findall(rb"HTTP/1.1 (\d+)", told) in ([b"400"], [b"431"], []), (lines[:60], told[:300])
        assert b'"version"' not in told, "the request behind it was never looked at"


NO_REQUESTS = (
    b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n X: folded\r\n\r\n",
    b"GET /api/tags HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
    b"GET /api/\x00tags HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/tags\r\n\r\n",
    b"\r\n" * 50_000,
    b"\x00" * 100_000,
)


def test_t77_what_is_no_request_of_ours(live: Any) -> None:
    for data in NO_REQUESTS:
        told = answers(live, data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        assert re.match(rb"HTTP/1.1 (400|403|404|405|431) ", told), (data[:60], told[:200])
        assert b'{"error"' in told


def answers(live: Any, data: bytes) -> bytes:
    """All that is said to these bytes until the server closes the connection, which it must."""
    with Raw(live.url, timeout=5) as raw:
        with contextlib.suppress(ConnectionError):
            raw.send(data)
        return raw.rest()


def test_t77_an_upgrade_is_not_made(live: Any) -> None:
    lines = ("Host: localhost", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    with Raw(live.url) as raw:
        raw.send(
            ("\r\n".join(["GET / HTTP/1.1", *lines, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""])).encode()
        )
        assert raw.head()[0] in (200, 400, 403, 426)


def odd_bodies() -> list[bytes]:
    text = json.dumps({"model": "mini", "prompt": "Hello", "messages": [{"role": "user", "content": "a"}]})
    good = text.encode()
    inner = text[:-1]
    return [
        b"",
        b" ",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"{",
        good + b"x",
        good + good,
        good[:-5],
        b"\xef\xbb\xbf" + good,
        text.encode("utf-16"),
        text.encode("utf-32"),
        gzip.compress(good),
        b"\x00" * 1000,
        b"\xff" * 1000,
        b"[" * 5_000_000,
        b'{"a":' * 1_000_000,
        f'{inner}, "seed": {"9" * 1_000_000}}}'.encode(),
        f'{inner}, "model": "other"}}'.encode(),
        f'{inner}, "temperature": NaN}}'.encode(),
        f'{inner}, "temperature": -Infinity}}'.encode(),
        f'{inner}, "temperature": 1e999}}'.encode(),
        f'{inner}, "user": "\\ud800"}}'.encode(),
        f'{inner}, "\\udc00": 1}}'.encode(),
        inner.encode() + b', "user": "\xff"}',
        f'{inner}, "temperature": 00}}'.encode(),
        f"{inner},}}".encode(),
        b"'" + good + b"'",
        f'{inner}, "user": "\x01"}}'.encode(),
        f'{inner}, "user": "{"x" * 10}'.encode(),
    ]


@pytest.mark.parametrize(
    "dialect", [*ALL, "/api/embed", "/v1/embeddings", "/api/show", "/api/create", "/api/pull"], ids=str
)
def test_t78_bodies_that_are_odd(live: Any, dialect: Dialect | str) -> None:
    path = dialect if isinstance(dialect, str) else dialect.path
    for body in odd_bodies():
        response = live.http.post(path, content=body)
        assert response.status_code == 400, body[:60]
        assert_shape(path, response)


def test_t78_a_packed_body_is_not_unpacked(live: Any) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    for coding in ("gzip", "deflate", "br", "gzip, gzip", "zstd"):
        response = live.http.post(GENERATE.path, content=bomb, headers={"content-encoding": coding})
        assert response.status_code == 415
        assert_shape(GENERATE.path, response)


@pytest.mark.parametrize("path", [GENERATE.path, OPENAI.path, ANTHROPIC.path, "/api/create"])
def test_t78_a_body_without_end_is_cut_off_at_the_cap(live: Any, path: str) -> None:
    cap, before = live.app.state.settings.max_body, live.memory()
    assert exchange(live, post(path, "Host: localhost", length=1 << 30))[0] == 413
    assert exchange(live, post(path, "Host: localhost", length=1 << 70))[0] in (400, 413)
    if path != GENERATE.path:
        return
    sent = 0
    with Raw(live.url, timeout=30) as raw:
        raw.send(post(path, "Host: localhost", "Transfer-Encoding: chunked", length=None).encode())
        piece = b"100000\r\n" + b"[" * (1 << 20) + b"\r\n"
        try:
            while sent < 4 * cap:
                raw.send(piece)
                sent += 1 << 20
        except OSError:
            pass
        assert raw.head()[0] == 413
    assert live.memory() - before < 2 * cap + (64 << 20)


def test_t78_what_is_made_of_noise(live: Any) -> None:
    """Honest bodies with bytes changed by chance, seed 78: refused or answered, never a fault of ours."""
    draw = random.Random(78)
    for dialect in ALL:
        good = json.dumps(dialect.body("Hi", most=1)).encode()
        for _ in range(12):
            damaged = bytearray(good)
            for _ in range(draw.randint(1, 4)):
                place = draw.randrange(len(damaged))
                damaged[place : place + draw.randint(0, 3)] = draw.choice(
                    [b"", b'"', b"}", b"1", b"\xf0", b"null", b"-", b"[]"]
                )
            response = live.http.post(dialect.path, content=bytes(damaged))
            assert response.status_code in (200, 400, 404), damaged


# --- who dawdles (T79, T80; the deadlines themselves are tests of the listener) ---


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_t79_those_who_dawdle_hold_up_nobody(live: Any, count: int) -> None:
    heads = (
        b"",
        b"POST /api/gen",
        b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n",
        b'POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{"model"',
    )
    slow = [Raw(live.url).send(heads[number % len(heads)]) for number in range(count)]
    try:
        for _ in range(3):
            assert live.get("/api/version").status_code == 200
            GENERATE.said(live, "Hello")
    finally:
        for raw in slow:
            raw.close()
    assert live.is_idle(5)


@pytest.mark.parametrize("dialect", [GENERATE, OPENAI, ANTHROPIC], ids=str)
def test_t80_a_reader_that_stops_costs_little_and_frees_its_place(live: Any, dialect: Dialect) -> None:
    body = json.dumps({**dialect.body("Write a long list.", most=400), "stream": True}).encode()
    before = live.memory()
    slow = [
        Raw(live.url).send(post(dialect.path, "Host: localhost", length=len(body)).encode() + body) for _ in range(4)
    ]
    try:
        assert GENERATE.said(live, "Hello")
    finally:
        for raw in slow:
            raw.close()
    assert live.is_idle(5)
    assert live.memory() - before < 32 << 20
