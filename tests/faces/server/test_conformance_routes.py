"""Ollama's API: which paths there are, and what every one of them does alike (contract, table 1.1)."""

from __future__ import annotations

import re
from typing import Any

import pytest
from serving import Raw

POSTS = (
    "/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/show", "/api/create", "/api/copy", "/api/pull",
    "/api/push",
)  # fmt: skip
GETS = ("/", "/api/version", "/api/status", "/api/tags", "/api/ps", "/healthz", "/readyz", "/metrics")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_root_says_that_it_runs(live: Any, method: str) -> None:
    response = live.http.request(method, "/")
    assert response.status_code == 200
    assert response.text == ("Ollama is running" if method == "GET" else "")
    assert response.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/api/version", "/api/tags"])
def test_what_clients_try_first(live: Any, path: str, method: str) -> None:
    assert live.http.request(method, path).status_code == 200


def test_a_browser_gets_the_page(live: Any) -> None:
    response = live.get("/", headers={"accept": "text/html,application/xhtml+xml"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'; img-src 'self' data: blob:" in policy
    assert "unsafe" not in policy
    parts = re.findall(r'(?:src|href)="(/?static/[^"#]+)', response.text)
    assert parts
    for part in parts:
        found = live.get(f"/{part.lstrip('/')}")
        assert found.status_code == 200, part
        assert found.headers["content-security-policy"] == policy


def test_the_version_is_three_numbers(live: Any) -> None:
    found = live.get("/api/version").json()
    assert [number.isdigit() for number in found["version"].split(".")] == [True] * 3
    assert tuple(map(int, found["version"].split("."))) >= (0, 6, 4)  # the least that known clients ask for
    assert found["lapilli"]


def test_there_is_no_cloud(live: Any) -> None:
    assert live.get("/api/status").json() == {"cloud": {"disabled": True, "source": "config"}}


@pytest.mark.parametrize("path", GETS)
def test_what_can_be_looked_at(live: Any, path: str) -> None:
    assert live.get(path).status_code == 200


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
def test_a_wrong_method_is_405(live: Any, path: str, method: str) -> None:
    assert "405" in live.refused(path, 405, method=method)


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/api/version", "/", "/api/delete"])
def test_a_wrong_post_is_405(live: Any, path: str) -> None:
    response = live.post(path, {})
    assert response.status_code == 405
    assert ("DELETE" if path == "/api/delete" else "GET") in response.headers["allow"]


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/tags/", "/api/generate/x", "/nothing", "/v1"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_404(live: Any, path: str, method: str) -> None:
    assert live.refused(path, 404, method=method) == "404 page not found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/me"), ("POST", "/api/signout"), ("DELETE", "/api/user/keys/abc"),
        ("POST", "/api/experimental/web_search"), ("POST", "/api/experimental/web_fetch"),
        ("GET", "/api/experimental/model-recommendations"),
    ],
)  # fmt: skip
def test_accounts_and_clouds_are_501(live: Any, method: str, path: str) -> None:
    assert "not part of this server" in live.refused(path, 501, method=method)


@pytest.mark.parametrize("path", POSTS)
def test_an_empty_body(live: Any, path: str) -> None:
    assert live.refused(path, 400, content=b"") == "missing request body"


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"null", b"\xff", b'{"model": NaN}', b'{"model":"a","model":"b"}', b"[" * 5000]
)
def test_a_body_that_is_no_json_object(live: Any, path: str, body: bytes) -> None:
    live.refused(path, 400, content=body)


def test_delete_takes_a_body(live: Any) -> None:
    assert live.refused("/api/delete", 400, method="DELETE", content=b"") == "missing request body"
    assert live.refused("/api/delete", 400, method="DELETE", content=b"{") != "missing request body"


def test_any_content_type_is_taken(live: Any) -> None:
    body = b'{"model": "mini", "prompt": "Hello", "stream": false, "options": {"num_predict": 1}}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = live.http.post("/api/generate", content=body, headers={"content-type": kind} if kind else {})
        assert response.status_code == 200


def test_a_compressed_body_is_415(live: Any) -> None:
    live.refused("/api/show", 415, content=b"\x1f\x8b", headers={"content-encoding": "gzip"})


def test_a_host_that_is_not_ours_is_403(live: Any) -> None:
    live.refused("/api/tags", 403, method="GET", headers={"host": "evil.example"})


def test_a_page_that_is_not_ours_is_403(live: Any) -> None:
    live.refused("/api/tags", 403, method="GET", headers={"origin": "https://evil.example"})
    response = live.get("/api/tags", headers={"origin": "http://localhost:3000"})
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_options_is_204(live: Any) -> None:
    response = live.http.options(
        "/api/chat", headers={"origin": "http://localhost", "access-control-request-method": "POST"}
    )
    assert response.status_code == 204
    assert response.content == b""


def test_metrics_count_by_route_and_never_by_what_strangers_ask(live: Any) -> None:
    live.get("/api/surprise-path")
    text = live.get("/metrics").text
    assert 'lapilli_requests_total{method="GET",route="/api/version",status="200"}' in text
    assert 'route="other",status="404"' in text
    assert "surprise-path" not in text


def test_pipelined_requests_are_answered_in_turn(live: Any) -> None:
    with Raw(live.url) as raw:
        raw.send(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        assert [raw.answer()[0] for _ in range(3)] == [200, 200, 200]
