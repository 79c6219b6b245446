"""URLs, read once and strictly: what is vetted is what is connected to, for there is no second reading."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from dataclasses import dataclass

from lapilli.errors import FetchError, InputError
from lapilli.ground.variables import PORT

PORTS = {"http": 80, "https": 443}
_LONGEST = 8192
_URL = re.compile(
    r"""
    (?P<scheme>[a-z][a-z0-9+.-]*)://
    (?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)
    (?: :(?P<port>[0-9]{0,5}))?
    (?P<target>[/?][^\#]*)?
    (?: \#.*)?
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE | re.ASCII)
_UNFIT = re.compile(r"[\x00-\x20\x7f\\]")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.ASCII)


@dataclass(frozen=True)
class Url:
    """An http or https URL in parts: `host` in lower case (IPv6 without brackets), `target` from the path on."""

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Read a URL; nothing is repaired.

        Raises FetchError: status 403 for a host in disguise (a name and password before it, odd spellings of an
        address, letters that only look like a host's), 400 for whatever else is no http or https URL.
        """
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise FetchError(f"a URL has at most {_LONGEST} characters", 400)
        scheme = _SCHEME.match(text)
        if scheme is None or scheme[1].lower() not in PORTS:
            raise FetchError("only URLs that begin with http:// or https:// are fetched", 400)
        if _UNFIT.search(text):
            raise FetchError("a URL holds no blanks, control characters or backslashes", 400)
        authority = re.split(r"[/?#]", text[scheme.end() :].removeprefix("//"), maxsplit=1)[0]
        if "@" in authority:
            raise FetchError("a URL with a name or password before its host is not fetched", 403)
        if not authority.isascii() or "%" in authority:
            raise FetchError("a URL's host is written in plain letters (xn--… for others)", 403)
        match = _URL.fullmatch(text)
        port = int(match["port"] or PORTS[scheme[1].lower()]) if match else 0
        if match is None or not 0 < port < 1 << 16:
            raise FetchError("this URL has no host and port that could be connected to", 400)
        target = urllib.parse.quote(match["target"] or "/", safe="/?&=+%$,;:@!*'()~._-[]|{}^`\"<>")
        return cls(
            scheme[1].lower(), _host(match["host"].lower()), port, target if target.startswith("/") else "/" + target
        )

    def follow(self, location: str) -> Url:
        """The URL that a redirect from this one leads to. Raises FetchError as `parse`, and where it gives up https."""
        following = self.join(location)
        if self.scheme == "https" and following.scheme == "http":
            raise FetchError("a redirect from https to http is not followed", 403)
        return following

    def join(self, location: str) -> Url:
        """The URL that a reference on this one means. Raises FetchError as `parse`."""
        if _SCHEME.match(location):
            return Url.parse(location)
        if location.startswith("//"):
            return Url.parse(f"{self.scheme}:{location}")
        if not location.startswith("/"):
            folder = self.target.partition("?")[0].rpartition("/")[0]
            location = f"{self.target.partition('?')[0]}{location}" if location[:1] == "?" else f"{folder}/{location}"
        return Url.parse(f"{self.origin}{location}")

    @property
    def authority(self) -> str:
        """Host and port as a `Host` header has them: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: who a credential belongs to."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.target


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address, written out: 127.0.0.1, ::1 or ::ffff:127.0.0.1, bare or in brackets."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_this_machine(host: str) -> bool:
    """Whether a host is a loopback address, or a name that means one: localhost, and all below it (RFC 6761)."""
    return is_loopback(host) or f".{host.lower().rstrip('.')}".endswith(".localhost")


def server_url(host: str, what: str = "LAPILLI_HOST") -> tuple[str, bool]:
    """Where a client finds the server that listens at `host`, and whether that is this machine.

    Ollama's rules: a name alone has port 11434, one with `http://` 80, with `https://` 443; a server that listens
    everywhere is found here. Raises InputError that says what named the host.
    """
    scheme, mark, rest = host.strip().rpartition("://")
    if rest.count(":") > 1 and not rest.startswith("["):
        rest = f"[{rest}]"
    try:
        parts = urllib.parse.urlsplit(f"{scheme or 'http'}://{rest}")
        port = parts.port
    except ValueError as error:
        raise InputError(f"{what} is {host[:200]!r}, which is no host with a port: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise InputError(f"{what} is {host[:200]!r}: a server is found over http or https, not {parts.scheme}")
    if port is None:
        port = PORT if not mark else 443 if parts.scheme == "https" else 80
    name = parts.hostname or "127.0.0.1"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    shown = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{shown}:{port}{parts.path.rstrip('/')}", is_this_machine(name)


def _host(host: str) -> str:
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise FetchError("this URL has no host and port that could be connected to", 400) from None
    bare = host.removesuffix(".")
    if not bare or ".." in host or host.startswith("."):
        raise FetchError("this URL has no host and port that could be connected to", 400)
    # Resolvers take 0x7f.1 and 2130706433 for 127.0.0.1; people write addresses in four decimal numbers.
    if _NUMBER.fullmatch(bare.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(bare))
        except ValueError:
            raise FetchError("an address is written as four decimal numbers", 403) from None
    return bare
