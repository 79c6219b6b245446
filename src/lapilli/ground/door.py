"""The one door to other machines: every address is vetted, and the address that was vetted is connected to.

with Door() as door, door.request("GET", Url.parse("https://example.org/")) as answer:
    data = answer.read(1 << 20)
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpcore2
import httpx2

from lapilli.errors import FetchError
from lapilli.ground.urls import Url

REDIRECTS = (301, 302, 303, 307, 308)
"""Statuses that send the asker elsewhere."""

# What no name on the public network leads to: IANA's special-purpose registries, and Azure's host agent.
_PRIVATE_4 = [
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_PRIVATE_6 = [
    # Among them Teredo and 6to4, which carry an IPv4 address that nobody would look at.
    ipaddress.IPv6Network(block)
    for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public network; one that carries an IPv4 address counts as that."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in _NAT64:
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        else:
            return found in _PUBLIC_6 and not any(found in block for block in _PRIVATE_6)
    return not any(found in block for block in _PRIVATE_4)


def resolve(host: str, port: int, seconds: float) -> list[str]:
    """The IP addresses of a host, as the system knows them."""
    answer: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except Exception as error:
            answer.put(error)

    # The system's resolver cannot be told to give up; a thread can be left to itself.
    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise FetchError(f"{host} could not be resolved in {seconds:.0f} s", 504) from None
    if isinstance(found, Exception) or not found:
        raise FetchError(f"there is no address for {host}: is its name right, and is there a network?", 502)
    return found


def connect(address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
    """A connection to an IP address."""
    return httpcore2.SyncBackend().connect_tcp(address, port, timeout=seconds)


@dataclass(frozen=True)
class Network:
    """How names are resolved and addresses connected to."""

    resolve: Callable[[str, int, float], Sequence[str]] = resolve
    connect: Callable[[str, int, float], httpcore2.NetworkStream] = connect


@dataclass(frozen=True)
class Patience:
    """Seconds: to connect, between two pieces of an answer, and for everything together."""

    connect: float = 10.0
    read: float = 30.0
    total: float | None = None


def nobody(host: str, port: int) -> bool:
    """No private host may be connected to."""
    return False


@dataclass
class Answer:
    """What a server says: status, headers by lower-case name, and a body that is read as it comes."""

    status: int
    headers: Mapping[str, str]
    _stream: Iterable[bytes] = field(repr=False)
    _close: Callable[[], None] = field(repr=False)

    def chunks(self) -> Iterator[bytes]:
        """The body's bytes as sent, nothing unpacked. Raises FetchError where it breaks off."""
        with _told():
            yield from self._stream

    def read(self, limit: int) -> bytes:
        """The whole body. Raises FetchError (400) as soon as it is past `limit` bytes."""
        told = self.length
        if told is not None and told > limit:
            raise FetchError(f"the answer has {told} bytes, at most {limit} are read", 400)
        got = bytearray()
        for chunk in self.chunks():
            got += chunk
            if len(got) > limit:
                raise FetchError(f"the answer has more than the {limit} bytes that are read", 400)
        return bytes(got)

    @property
    def length(self) -> int | None:
        """Bytes of the body by its header; None where there is none, or no number."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

    def close(self) -> None:
        """Read no more of it."""
        self._close()


class Door:
    """Requests to other machines; follows no redirect, keeps no cookie, knows no proxy. Safe with many threads.

    A host with a private address is connected to only where `may_be_private(host, port)` says so.
    """

    def __init__(
        self,
        *,
        may_be_private: Callable[[str, int], bool] = nobody,
        patience: Patience | None = None,
        network: Network | None = None,
        connections: int = 8,
    ) -> None:
        self._patience = patience or Patience()
        self._backend = _Backend(may_be_private, network or Network(), self._patience)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=_tls(), max_connections=connections, keepalive_expiry=5.0, network_backend=self._backend
        )

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        self._backend.hang_up()
        self._pool.close()

    def hang_up(self) -> None:
        """Break off everything under way, from another thread: requests raise FetchError, new ones too."""
        self._backend.hang_up()

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
    ) -> Iterator[Answer]:
        """Ask once; what is left of the body when the block ends is not read.

        Raises FetchError: status 403 for a private address, 504 where time ran out, 502 for other trouble on the way.
        """
        told = {"Host": url.authority, "Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "lapilli"}
        told |= headers or {}
        if isinstance(content, bytes):
            told["Content-Length"] = str(len(content))
        elif content is None and method in ("POST", "PUT", "PATCH"):
            told["Content-Length"] = "0"
        limits = {
            "connect": self._patience.connect,
            "read": self._patience.read,
            "write": self._patience.read,
            "pool": self._patience.read,
        }
        with _told():
            parts = httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
            request = httpcore2.Request(
                method, parts, headers=list(told.items()), content=content, extensions={"timeout": limits}
            )
            response = self._pool.handle_request(request)
        found: dict[str, str] = {}
        for name, value in response.headers:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            found[key] = f"{found[key]}, {text}" if key in found else text
        try:
            yield Answer(response.status, found, response.iter_stream(), response.close)
        finally:
            with contextlib.suppress(Exception):
                response.close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Trouble on the way, in our words."""
    try:
        yield
    except (httpcore2.TimeoutException, TimeoutError):
        raise FetchError("the other side took too long", 504) from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError, OSError) as error:
        words = " ".join(str(error).split())[:200]
        raise FetchError(f"the connection failed: {words or type(error).__name__}", 502) from None


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, may_be_private: Callable[[str, int], bool], network: Network, patience: Patience) -> None:
        self._may_be_private = may_be_private
        self._network = network
        self._deadline = None if patience.total is None else time.monotonic() + patience.total
        self._open: weakref.WeakSet[_Stream] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._hung_up = False

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        seconds = self.left(timeout)
        ends = time.monotonic() + seconds
        addresses = self._vetted(host, port, seconds)
        for place, address in enumerate(addresses):
            share = max(ends - time.monotonic(), 0.1) / (len(addresses) - place)
            try:
                return self.keep(_Stream(self._network.connect(address, port, share), self))
            except (httpcore2.NetworkError, httpcore2.TimeoutException, OSError):
                if place == len(addresses) - 1:
                    raise
        raise AssertionError("no address")

    def _vetted(self, host: str, port: int, seconds: float) -> Sequence[str]:
        try:
            addresses: Sequence[str] = [str(ipaddress.ip_address(host))]
        except ValueError:
            addresses = self._network.resolve(host, port, seconds)
        if not addresses:
            raise FetchError(f"there is no address for {host}: is its name right, and is there a network?", 502)
        if not all(is_public(address) for address in addresses) and not self._may_be_private(host, port):
            raise FetchError(f"{host} is a private address and may not be connected to", 403)
        return addresses

    def keep(self, stream: _Stream) -> _Stream:
        with self._lock:
            if not self._hung_up:
                self._open.add(stream)
                return stream
        stream.close()
        raise FetchError("broken off", 499)

    def hang_up(self) -> None:
        with self._lock:
            self._hung_up = True
            streams = list(self._open)
        for stream in streams:
            stream.shut_down()

    def left(self, timeout: float | None) -> float:
        """Seconds that one step may take."""
        if self._hung_up:
            raise FetchError("broken off", 499)
        seconds = 3600.0 if timeout is None else timeout
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
            if seconds <= 0:
                raise httpcore2.ReadTimeout("out of time")
        return seconds


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream, backend: _Backend) -> None:
        self._inner = inner
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._backend.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._backend.left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, self._backend.left(timeout))
        return self._backend.keep(_Stream(inner, self._backend))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def shut_down(self) -> None:
        """Wake whoever waits on it."""
        with contextlib.suppress(Exception):
            self.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


_TLS: list[ssl.SSLContext] = []


def _tls() -> ssl.SSLContext:
    # Reading the certificates takes 20 ms.
    if not _TLS:
        _TLS.append(httpx2.create_ssl_context())
    return _TLS[0]
