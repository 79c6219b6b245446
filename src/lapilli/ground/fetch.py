"""From a URL to bytes: the one guarded way for what strangers name, pictures first of all.

fetched = fetch("https://example.org/cat.png")
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from lapilli.errors import FetchError
from lapilli.ground.door import REDIRECTS, Answer, Door, Network, Patience
from lapilli.ground.urls import Url


@dataclass(frozen=True)
class FetchLimits:
    """The most bytes of a body (unpacked), the most seconds for everything, and the most redirects followed."""

    bytes: int = 20 << 20
    seconds: float = 10.0
    redirects: int = 3


@dataclass(frozen=True)
class Fetched:
    """What was fetched, what its server calls it, and where it was in the end."""

    data: bytes
    content_type: str
    url: str


def fetch(
    url: str,
    *,
    limits: FetchLimits | None = None,
    allow_private: bool = False,
    network: Network | None = None,
) -> Fetched:
    """Get what is at an http or https URL; each hop is vetted like the first, and no private address is connected to.

    A name is resolved once a connection, and what was vetted is connected to. `allow_private` lets private ones in.
    Raises FetchError, whose `status` is 400 (no such URL, too many bytes or redirects), 403 (a host that may not be),
    504 (out of time) or 502 (other trouble).
    """
    limits = limits or FetchLimits()
    at = Url.parse(url)
    patience = Patience(connect=limits.seconds, read=limits.seconds, total=limits.seconds)
    with Door(may_be_private=lambda host, port: allow_private, patience=patience, network=network) as door:
        for _ in range(limits.redirects + 1):
            with door.request("GET", at) as answer:
                if answer.status in REDIRECTS and "location" in answer.headers:
                    at = at.follow(answer.headers["location"])
                    continue
                if answer.status != 200:
                    raise FetchError(f"{at.host} answered with status {answer.status}", 502)
                return Fetched(_unpacked(answer, limits.bytes), answer.headers.get("content-type", ""), str(at))
    raise FetchError(f"more than {limits.redirects} redirects", 400)


def _unpacked(answer: Answer, limit: int) -> bytes:
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return answer.read(limit)
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise FetchError(f"the answer is packed as {coding[:20]!r}, which was not asked for", 502)
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    got = bytearray()
    try:
        for chunk in answer.chunks():
            got += unpack.decompress(chunk, limit + 1 - len(got))
            if len(got) > limit:
                raise FetchError(f"the answer has more than the {limit} bytes that are read", 400)
    except zlib.error:
        raise FetchError("the answer is packed, and damaged", 502) from None
    if not unpack.eof:
        raise FetchError("the answer is packed, and breaks off", 502)
    return bytes(got)
