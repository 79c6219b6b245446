"""The addresses that a sitemap lists (sitemaps.org), or an index of sitemaps."""

from __future__ import annotations

import re
from xml.parsers import expat

from lapilli.apps.rag.readers.package import new_parser
from lapilli.apps.rag.readers.refusal import RefusedError


def list_addresses(data: bytes, most: int) -> tuple[list[str], list[str]]:
    """The pages, and the further sitemaps. Raises RefusedError for what is no sitemap, or lists more than `most`."""
    found: dict[str, list[str]] = {"url": [], "sitemap": []}
    inside: list[str] = []
    words: list[str] = []

    def begin(name: str, _: object) -> None:
        inside.append(name.rpartition(":")[2])
        words.clear()

    def end(_: str) -> None:
        name, around = inside.pop(), inside[-1] if inside else ""
        if name == "loc" and around in found:
            address = "".join(words).strip()
            if address:
                found[around].append(address)
            if len(found[around]) > most:
                raise RefusedError(f"this sitemap lists more than the {most} addresses that are read")
        words.clear()

    parser = new_parser()
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = words.append
    try:
        parser.Parse(re.sub(rb"\A\s+", b"", data), True)
    except expat.ExpatError:
        raise RefusedError("this is no sitemap: its XML is damaged") from None
    return found["url"], found["sitemap"]
