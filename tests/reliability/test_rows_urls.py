"""T55 to T62 through the dialects that take a picture by its address: off unless switched on, and guarded then."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from asked import ANTHROPIC, GENERATE, OPENAI, RESPONSES, Dialect, assert_shape
from serving import serving

BY_URL = pytest.mark.parametrize("dialect", [OPENAI, RESPONSES, ANTHROPIC], ids=str)


class Sink:
    """A server that must never be found."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.hits = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                self.listener.accept()[0].close()
            except OSError:
                return
            self.hits += 1


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    found = Sink()
    yield found
    found.listener.close()


class Fetching:
    """A server that fetches pictures; no model of it is ever loaded."""

    def __init__(self, url: str) -> None:
        self.http = httpx2.Client(base_url=url, timeout=30)

    def post(self, path: str, body: Any) -> httpx2.Response:
        return self.http.post(path, json=body)


@pytest.fixture(scope="module")
def fetching(home: Path) -> Iterator[Fetching]:
    from lapilli.faces.residents import Residents
    from lapilli.faces.server.app import build_app
    from lapilli.ground.settings import Settings
    from lapilli.store.library import Library

    settings = Settings(models=home / "models", ollama_models=None, drain=1, fetch=True)
    library = Library(settings.models)
    with serving(build_app(library, Residents(library, settings), settings)) as url:
        found = Fetching(url)
        yield found
        found.http.close()


@BY_URL
def test_t55_addresses_are_not_fetched_unless_switched_on(live: Any, sink: Sink, dialect: Dialect) -> None:
    for url in (f"http://127.0.0.1:{sink.port}/a.png", "https://example.org/a.png"):
        assert "URL" in dialect.refusal(live, dialect.body("Hello", url))
    assert sink.hits == 0


def test_t55_ollama_s_calls_take_none(live: Any, sink: Sink) -> None:
    GENERATE.refusal(live, GENERATE.body("Hello", f"http://127.0.0.1:{sink.port}/a.png"))
    assert sink.hits == 0


def addresses(port: int) -> list[str]:
    hosts = (
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "0x7f000001",
        "0",
        "0.0.0.0",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "127.0.0.1.",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[::127.0.0.1]",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "a@127.0.0.1",
        "example.org@127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "[fe80::1]",
        "[fc00::1]",
        "255.255.255.255",
    )
    return [f"http://{host}:{port}/a.png" for host in hosts]


def parsed_twice(port: int) -> list[str]:
    return [
        f"http://example.org\\@127.0.0.1:{port}/",
        f"http://127.0.0.1:{port}\\@example.org/",
        f"http:///127.0.0.1:{port}/",
        f"http:127.0.0.1:{port}/",
        f"http://\t127.0.0.1:{port}/",
        f"http://127.0.0.1\n:{port}/",
        f"http://127.0.0.1:{port}#@e.org/",
        f"http://[::1:{port}/",
        "http://",
        "http:// ",
        "https://:80/",
        f"http://127.0.0.1%00.example.org:{port}/",
        f"http://%31%32%37.0.0.1:{port}/",
        f"http://127.0.0.1:{port}@example.org:99999/",
    ]


@BY_URL
def test_t55_t56_t57_private_addresses_in_any_spelling(fetching: Fetching, sink: Sink, dialect: Dialect) -> None:
    for url in (*addresses(sink.port), *parsed_twice(sink.port)):
        response = fetching.post(dialect.path, dialect.body("Hello", url))
        assert response.status_code in (400, 403), (url, response.text)
        assert_shape(dialect.path, response)
    assert sink.hits == 0


@BY_URL
def test_t60_t62_other_schemes(fetching: Fetching, live: Any, dialect: Dialect) -> None:
    for server in (fetching, live):
        for url in (
            "file:///etc/passwd",
            "ftp://127.0.0.1/a",
            "gopher://127.0.0.1:1/_x",
            "data:text/html,<b>",
            "\\\\evil\\a.png",
            "//example.org/a.png",
            "/etc/passwd",
            "jar:http://a!/b",
            "HTTPS",
            "http",
            "javascript:1",
            "",
        ):
            body = dialect.body("Hello", url)
            if dialect is ANTHROPIC:
                body["messages"][0]["content"][0]["source"] = {"type": "url", "url": url}
            elif not url.startswith("data:"):
                part = {"type": "image_url" if dialect is OPENAI else "input_image", "image_url": url}
                body["messages" if dialect is OPENAI else "input"][0]["content"][0] = part
            response = server.post(dialect.path, body)
            assert response.status_code == 400, (url, response.text)
            assert_shape(dialect.path, response)


def test_t61_an_address_that_is_too_long(fetching: Fetching) -> None:
    response = fetching.post(OPENAI.path, OPENAI.body("Hello", "https://example.org/" + "a" * 10_000))
    assert response.status_code == 400
    assert len(assert_shape(OPENAI.path, response)) < 300
