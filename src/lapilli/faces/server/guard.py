"""Who may ask, from where, and how much they may send: looked at before anything else, and before a body is read.

Hosts against DNS rebinding, origins against pages of strangers, keys for whoever is not on this machine, then sizes.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from lapilli.faces.server.exchange import Exchange, Held
from lapilli.faces.server.problems import HttpError, Problems
from lapilli.ground.urls import is_loopback, is_this_machine

# What takes a place: everything that makes a model compute.
COUNTED = frozenset(
    f"/{path}"
    for path in (
        *("api/generate", "api/chat", "api/embed", "api/embeddings"),
        *("api/documents", "api/documents/search", "api/documents/ask"),
        *("v1/chat/completions", "v1/completions", "v1/embeddings", "v1/responses", "v1/messages"),
    )
)
# What shows nothing of anybody's, so that a browser and a supervisor can look without a key.
OPEN = frozenset(("/", "/healthz", "/readyz", "/favicon.ico"))
BODIES_AT_ONCE = 8  # of the largest size
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-server", b"x-real-ip")
APP_SCHEMES = frozenset(("app", "tauri", "vscode-webview", "vscode-file"))
METHODS = "GET, POST, DELETE, HEAD, OPTIONS"
HEADERS = frozenset(
    (
        *("accept", "authorization", "content-type", "user-agent", "x-requested-with", "x-api-key", "openai-beta"),
        *("anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access"),
    )
)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?)\.?(:[0-9]{1,5})?")


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """What is let in. `origins` are patterns in which `*` stands for anything; `admit` counts a request in and out."""

    api_keys: Collection[str] = ()
    allowed_hosts: Collection[str] = ()
    origins: Collection[str] = ()
    body_bytes: int = 64 << 20
    header_bytes: int = 32 << 10
    header_count: int = 100
    admit: Callable[[], AbstractContextManager[object]] | None = None


class Guard:
    """ASGI: the outermost part of the server."""

    def __init__(self, app: ASGIApp, options: GuardOptions, seen: Callable[[Scope, int, float], None]) -> None:
        self.app = app
        self.options = options
        self.seen = seen
        self.inner = Problems(self._checked)
        self.held = Held(BODIES_AT_ONCE * options.body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        cap = None if scope["path"].startswith("/api/blobs/") else self.options.body_bytes
        exchange = Exchange(scope, receive, send, cap, self.held)
        try:
            await self.inner(scope, exchange.receive, exchange.send)
        finally:
            exchange.over()
            self.seen(scope, scope.get("lapilli.status") or exchange.status, time.monotonic() - started)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        options = self.options
        check_head(scope, options)
        origin = check_origin(scope, options)
        local = check_host(scope, options)
        if origin is not None:
            scope["lapilli.origin"] = origin
        if scope["method"] == "OPTIONS":
            await _preflight(scope, send)
            return
        if not local and scope["path"] not in OPEN and not scope["path"].startswith("/static/"):
            check_key(scope, options.api_keys)
        if options.admit is not None and scope["method"] == "POST" and scope["path"] in COUNTED:
            with options.admit():
                await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def check_head(scope: Scope, options: GuardOptions) -> None:
    """Refuse heads that are too large, and bodies whose length is told twice or is past the cap."""
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers) + len(scope.get("raw_path") or b"")
    if size > options.header_bytes or len(headers) > options.header_count:
        raise HttpError(
            431,
            f"{len(headers)} headers, {size} bytes: at most {options.header_count}, {options.header_bytes} are taken",
            {"Connection": "close"},
        )
    lengths, encoded = _all(headers, b"content-length"), _all(headers, b"transfer-encoding")
    if len(lengths) > 1 or (lengths and encoded):
        raise HttpError(400, "the length of the body is told twice", {"Connection": "close"})
    if lengths and not scope["path"].startswith("/api/blobs/") and int(lengths[0]) > options.body_bytes:
        raise HttpError(413, f"a body of {int(lengths[0])} bytes: at most {options.body_bytes} are taken")


def check_host(scope: Scope, options: GuardOptions) -> bool:
    """True where the request comes from this machine and says so; raises HttpError for a host that is not ours."""
    hosts = _all(scope["headers"], b"host")
    if len(hosts) != 1:
        raise HttpError(400, f"{len(hosts)} Host headers: one is needed")
    if not scope["path"].startswith("/"):
        raise HttpError(403, "a request for another server: this is no proxy")
    host = _host_of(hosts[0].decode("latin-1"))
    if host is None:
        raise HttpError(400, "the Host header is no host")
    near = is_this_machine(host)
    passed_on = any(_all(scope["headers"], name) for name in FORWARDED)
    client = scope.get("client")
    if near and not passed_on and (client is None or is_loopback(client[0])):
        return True
    if not (near or _is_ours(host, options.allowed_hosts)):
        raise HttpError(403, "this host is not served: name it in LAPILLI_ALLOWED_HOSTS, with LAPILLI_API_KEYS set")
    if not options.api_keys:
        raise HttpError(403, "only this machine is served: set LAPILLI_API_KEYS to serve others")
    return False


def check_origin(scope: Scope, options: GuardOptions) -> str | None:
    """The page's origin, None where no page asks; raises HttpError 403 for a page that may not."""
    origins = _all(scope["headers"], b"origin")
    if not origins:
        return None
    origin = origins[0].decode("latin-1")
    if len(origins) == 1 and _may_ask(origin, scope, options.origins):
        return origin
    raise HttpError(403, "this origin is not served: name it in LAPILLI_ORIGINS")


def check_key(scope: Scope, keys: Iterable[str]) -> None:
    """Raise HttpError 401 unless the request bears one of the keys; the time it takes does not tell which."""
    given = [value[7:] for value in _all(scope["headers"], b"authorization") if value[:7].lower() == b"bearer "]
    given += _all(scope["headers"], b"x-api-key")
    right = False
    for key in keys:
        for bearer in given:
            right |= hmac.compare_digest(bearer.strip(), key.encode())
    if not right:
        raise HttpError(401, "unauthorized: a key is needed (Authorization: Bearer …)", {"WWW-Authenticate": "Bearer"})


def _is_ours(host: str, allowed: Iterable[str]) -> bool:
    """Whether a host that is not loopback may mean this server: an address, this machine's name, or an allowed one."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        return True
    if host == socket.gethostname().lower() or host.endswith((".local", ".internal")):
        return True
    names = [_host_of(name) or name.lower() for name in allowed]
    return any(host == name or (name.startswith("*.") and host.endswith(name[1:])) for name in names)


def _may_ask(origin: str, scope: Scope, patterns: Iterable[str]) -> bool:
    if any(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), origin) for pattern in patterns):
        return True
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return False
    if parts.scheme in APP_SCHEMES:
        return True
    host = _host_of(parts.netloc)  # urlsplit takes http://[::1].evil for ::1
    if host is None or parts.scheme not in ("http", "https"):
        return False
    if host in ("localhost", "0.0.0.0") or is_loopback(host):
        return True
    served = [value.decode("latin-1").lower() for value in _all(scope["headers"], b"host")]
    return served == [f"{host}:{port}" if port else host]


async def _preflight(scope: Scope, send: Send) -> None:
    """Answer OPTIONS: what a page of an allowed origin may send."""
    headers = [(b"allow", METHODS.encode())]
    if "lapilli.origin" in scope:
        asked = b",".join(_all(scope["headers"], b"access-control-request-headers")).decode("latin-1").lower()
        names = [name.strip() for name in asked.split(",")]
        allowed = [name for name in names if name in HEADERS or name.startswith("x-stainless-")]
        headers += [
            (b"access-control-allow-methods", METHODS.encode()),
            (b"access-control-allow-headers", ", ".join(allowed).encode("latin-1")),
            (b"access-control-max-age", b"43200"),
        ]
        if _all(scope["headers"], b"access-control-request-private-network"):
            headers.append((b"access-control-allow-private-network", b"true"))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _host_of(text: str) -> str | None:
    """The host of a Host header, without its port; None for what is no host."""
    found = _HOST.fullmatch(text.strip().lower())
    return found[1] if found else None


def _all(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]
