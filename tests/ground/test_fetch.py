"""The guarded door: nothing private is connected to, whatever a URL looks like, and nothing runs long or grows big."""

from __future__ import annotations

import gzip
import http.server
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpcore2
import pytest

from lapilli.errors import FetchError
from lapilli.ground import door
from lapilli.ground.door import Network, is_public
from lapilli.ground.fetch import FetchLimits, fetch
from lapilli.ground.urls import Url

PUBLIC = "93.184.215.14"


@dataclass
class Sinks:
    """Listeners on every kind of loopback address at one port; nobody may come."""

    port: int = 0
    hits: list[str] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)


@pytest.fixture(scope="module")
def sinks() -> Iterator[Sinks]:
    found = Sinks()
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            listener.bind((address, found.port))
        except OSError:
            listener.close()
            continue  # a machine without IPv6
        found.port = listener.getsockname()[1]
        listener.listen()
        found.sockets.append(listener)
        threading.Thread(target=_count, args=(listener, address, found.hits), daemon=True).start()
    yield found
    for listener in found.sockets:
        listener.close()


def _count(listener: socket.socket, address: str, hits: list[str]) -> None:
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        hits.append(address)
        caller.close()


@pytest.fixture(autouse=True)
def nobody_came(sinks: Sinks) -> Iterator[None]:
    sinks.hits.clear()
    yield
    assert sinks.hits == []


Handler = Callable[[http.server.BaseHTTPRequestHandler], None]


class Site:
    """A server that the test's own network knows as public.example; `asked` are the paths asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, Handler] = {}
        self.asked: list[tuple[str, str]] = []
        self.connected: list[tuple[str, int]] = []
        self.names: dict[str, list[list[str]]] = {"public.example": [[PUBLIC]]}
        site = self

        class Pages(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.headers["Host"], self.path))
                site.pages[self.path](self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Pages)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def network(self) -> Network:
        return Network(self._resolve, self._connect)

    def _resolve(self, host: str, port: int, seconds: float) -> list[str]:
        if host not in self.names:
            raise FetchError(f"{host} is not known here", 502)
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _connect(self, address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
        self.connected.append((address, port))
        if address == PUBLIC:
            address, port = "127.0.0.1", self.server.server_address[1]
        return door.connect(address, port, seconds)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def says(body: bytes, status: int = 200, **headers: str) -> Handler:
    def handler(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return handler


def refused(
    url: str, *, status: tuple[int, ...] = (403,), network: Network | None = None, **limits: float
) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetch(url, limits=FetchLimits(**limits), network=network)  # type: ignore[arg-type]
    assert caught.value.status in status, (url, caught.value.status, str(caught.value))
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_is_public_is_fetched(site: Site) -> None:
    site.pages["/cat.png?size=1"] = says(b"meow", Content_Type="image/png")
    fetched = fetch("http://public.example:8080/cat.png?size=1#head", network=site.network)
    assert (fetched.data, fetched.content_type) == (b"meow", "image/png")
    assert fetched.url == "http://public.example:8080/cat.png?size=1"
    assert site.asked == [("public.example:8080", "/cat.png?size=1")]
    assert site.connected == [(PUBLIC, 8080)]


# T55
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.2", "127.1", "127.0.0.1.", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "0.0.0.0", "0", "255.255.255.255",
        "224.0.0.1", "198.18.0.1", "192.0.2.1", "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]",
        "[ff02::1]", "2130706433", "017700000001", "0177.0.0.1", "0x7f.1", "0x7f000001", "127.0.0.0x1", "127.0.1",
        "a@127.0.0.1", "a:b@127.0.0.1", "public.example@127.0.0.1", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1",
        "%31%32%37.0.0.1", "localhost", "LOCALHOST", "localhost.",
    ],
)  # fmt: skip
def test_private_addresses_are_refused(host: str, sinks: Sinks) -> None:
    refused(f"http://{host}:{sinks.port}/", status=(403,))


# T57
@pytest.mark.parametrize(
    "host",
    [
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::10.0.0.1]",
        "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:0a00:0001::1]", "[2001:0:7f00:1::]", "[::ffff:0:127.0.0.1]",
        "[2001:db8::1]", "[0:0:0:0:0:ffff:127.0.0.1]",
    ],
)  # fmt: skip
def test_addresses_that_carry_another_are_refused(host: str, sinks: Sinks) -> None:
    refused(f"http://{host}:{sinks.port}/", status=(403,))


def test_public_addresses_are_public() -> None:
    for address in (
        PUBLIC,
        "8.8.8.8",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "172.32.0.1",
        "100.128.0.1",
    ):
        assert is_public(address), address


def test_a_name_of_which_one_address_is_private_is_refused(site: Site, sinks: Sinks) -> None:
    for addresses in (["127.0.0.1"], [PUBLIC, "127.0.0.1"], [PUBLIC, "::1"], ["::ffff:127.0.0.1"], ["fe80::1%eth0"]):
        site.names["public.example"] = [addresses]
        refused(f"http://public.example:{sinks.port}/", network=site.network)
    assert site.connected == []


def test_private_addresses_are_fetched_when_allowed(site: Site) -> None:
    site.pages["/"] = says(b"local")
    assert fetch(f"http://127.0.0.1:{site.server.server_address[1]}", allow_private=True).data == b"local"


# T56
@pytest.mark.parametrize(
    "url",
    [
        "http://public.example\\@127.0.0.1:{port}/", "http://public.example\\.127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@public.example/", "http://public.example\t@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\n/", " http://127.0.0.1:{port}/", "http://127.0.0.1:{port} /", "http://\x00127.0.0.1/",
        "//127.0.0.1:{port}/", "http:///127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:127.0.0.1:{port}",
        "http:////127.0.0.1:{port}/", "http://", "http://:{port}/", "http://public.example:99999/",
        "http://public.example:0/", "http://public.example:-1/", "http://[::1/", "http://::1/", "http://[::1%25lo]/",
        "http://public..example/", "http://.public.example/", "http://[127.0.0.1]:{port}/", "", "http",
        "http://public.example:80:{port}/", "http://" + "a" * 10_000, "http://a\u202eb.example/",
        "http://public.example#@127.0.0.1:{port}/\\", "http://public.example;@127.0.0.1:{port}/",
    ],
)  # fmt: skip
def test_what_two_readers_could_read_in_two_ways_is_refused(url: str, site: Site, sinks: Sinks) -> None:
    refused(url.replace("{port}", str(sinks.port)), status=(400, 403), network=site.network)
    assert site.connected == []


@pytest.mark.parametrize("url", ["http://public.example?@127.0.0.1:1/", "http://public.example#@127.0.0.1:1/"])
def test_the_vetted_host_is_the_one_connected_to(url: str, site: Site) -> None:
    site.pages["/?@127.0.0.1:1/"] = site.pages["/"] = says(b"right")
    assert fetch(url, network=site.network).data == b"right"
    assert site.connected == [(PUBLIC, 80)]
    assert site.asked[0][0] == "public.example"


# T58
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:{port}/", "http://[::1]:{port}/", "//127.0.0.1:{port}/", "http://0x7f.1:{port}/"]
)
def test_each_redirect_is_vetted(status: int, location: str, site: Site, sinks: Sinks) -> None:
    site.pages["/"] = says(b"", status, Location=location.replace("{port}", str(sinks.port)))
    refused("http://public.example/", network=site.network)
    assert len(site.connected) == 1


def test_redirects_are_followed_three_times(site: Site) -> None:
    for hop, where in enumerate(["/1", "2?a=b", "http://public.example:81/3", "/4"]):
        site.pages[f"/{hop}" if hop != 2 else "/2?a=b"] = says(b"", 302, Location=where)
    site.pages["/3"] = says(b"here")
    assert fetch("http://public.example/0", network=site.network).data == b"here"
    site.pages["/3"] = says(b"", 302, Location="/4")
    assert "more than 3 redirects" in str(refused("http://public.example/0", status=(400,), network=site.network))
    assert len(site.asked) == 8


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/", "data:text/html,x", "javascript:1"])
def test_redirects_to_other_schemes_are_refused(location: str, site: Site) -> None:
    site.pages["/"] = says(b"", 302, Location=location)
    refused("http://public.example/", status=(400,), network=site.network)


def test_a_page_that_only_says_it_moved_is_not_followed(site: Site, sinks: Sinks) -> None:
    page = f'<meta http-equiv="refresh" content="0;url=http://127.0.0.1:{sinks.port}/">'.encode()
    site.pages["/"] = says(page, Refresh=f"0; url=http://127.0.0.1:{sinks.port}/")
    assert fetch("http://public.example/", network=site.network).data == page


# T59
def test_a_name_that_changes_its_address_is_vetted_each_time(site: Site, sinks: Sinks) -> None:
    site.names["public.example"] = [[PUBLIC], ["127.0.0.1"]]
    site.pages["/"] = says(b"public")
    assert fetch(f"http://public.example:{sinks.port}/", network=site.network).data == b"public"
    refused(f"http://public.example:{sinks.port}/", network=site.network)
    assert site.connected == [(PUBLIC, sinks.port)]


# T60
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "FILE:///etc/passwd", "ftp://public.example/", "gopher://public.example/",
        "data:text/html,x", "\\\\server\\share", "//server/share", "unix:///run/docker.sock", "jar:http://x!/",
        "http+unix://x/", "/etc/passwd", "C:\\x",
    ],
)  # fmt: skip
def test_other_schemes_are_refused(url: str, site: Site) -> None:
    refused(url, status=(400,), network=site.network)
    assert site.connected == []


# T61
def drips(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b".")
        request.wfile.flush()
        time.sleep(0.05)


def drips_headers(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for count in range(100):
        request.wfile.write(f"X-{count}: .\r\n".encode())
        time.sleep(0.05)


def is_silent(request: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(2)


@pytest.mark.parametrize(
    ("scheme", "handler"), [("http", drips), ("http", drips_headers), ("http", is_silent), ("https", is_silent)]
)
def test_everything_ends_at_the_deadline(scheme: str, handler: Handler, site: Site) -> None:
    site.pages["/"] = handler
    begun = time.monotonic()
    refused(f"{scheme}://public.example/", status=(504, 502), network=site.network, seconds=0.4)
    assert time.monotonic() - begun < 1.5


def test_a_resolver_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door.socket, "getaddrinfo", lambda *_, **__: time.sleep(1))
    begun = time.monotonic()
    refused("http://public.example/", status=(504,), seconds=0.2)
    assert time.monotonic() - begun < 0.9


def endless(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b"x" * 65536)


def test_no_more_than_the_cap_is_read(site: Site) -> None:
    site.pages["/"] = endless
    refused("http://public.example/", status=(400,), network=site.network, bytes=1 << 20)
    site.pages["/"] = says(b"x", Content_Length=str(10 << 30))
    assert str(10 << 30) in str(refused("http://public.example/", status=(400,), network=site.network))
    site.pages["/"] = says(b"x" * 1000)
    assert len(fetch("http://public.example/", limits=FetchLimits(bytes=1000), network=site.network).data) == 1000
    refused("http://public.example/", status=(400,), network=site.network, bytes=999)


def test_a_packed_body_counts_unpacked(site: Site) -> None:
    small = gzip.compress(b"x" * 1000)
    site.pages["/"] = says(small, Content_Encoding="gzip")
    assert fetch("http://public.example/", network=site.network).data == b"x" * 1000
    bomb = gzip.compress(gzip.compress(bytes(64 << 20)))
    site.pages["/"] = says(gzip.decompress(bomb), Content_Encoding="gzip")
    tracemalloc.start()
    refused("http://public.example/", status=(400,), network=site.network, bytes=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    for body, coding in ((small[:-9], "gzip"), (b"no gzip", "gzip"), (bomb, "gzip, gzip"), (small, "br")):
        site.pages["/"] = says(body, Content_Encoding=coding)
        refused("http://public.example/", status=(502,), network=site.network)


def test_a_body_cut_short_is_an_error(site: Site) -> None:
    site.pages["/"] = says(b"half", Content_Length="8")
    assert "connection failed" in str(refused("http://public.example/", status=(502,), network=site.network))


def test_other_statuses_are_errors(site: Site) -> None:
    for status in (204, 206, 304, 404, 500):
        site.pages["/"] = says(b"", status)
        refused("http://public.example/", status=(502,), network=site.network)


def test_a_url_is_read_as_it_is_written() -> None:
    url = Url.parse("HTTPS://Public.Example:443/a%20b/ü?q=1&r=%2F#x")
    assert (url.scheme, url.host, url.port, url.target) == ("https", "public.example", 443, "/a%20b/%C3%BC?q=1&r=%2F")
    assert str(url) == "https://public.example/a%20b/%C3%BC?q=1&r=%2F"
    assert str(url.join("../c")) == "https://public.example/a%20b/../c"
    assert str(url.join("?z")) == "https://public.example/a%20b/%C3%BC?z"
    assert str(Url.parse("http://[2606:4700:0::1]:80?x")) == "http://[2606:4700::1]/?x"


def test_no_redirect_gives_up_https() -> None:
    safe = Url.parse("https://public.example/a")
    assert str(safe.follow("/b")) == "https://public.example/b"
    assert str(Url.parse("http://public.example/").follow("https://public.example/")) == "https://public.example/"
    with pytest.raises(FetchError, match="from https to http") as caught:
        safe.follow("http://public.example/b")
    assert caught.value.status == 403
