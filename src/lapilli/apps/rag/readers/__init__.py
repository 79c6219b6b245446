"""From a file's bytes to its text: one module a kind, all of them run in a child that can be killed.

Each module has `read(data, text, hints)`, which writes what it finds to a `Text`. Only `read_bytes` is called from
outside, and only through `lapilli.ground.child`.
"""

from __future__ import annotations

import gc
import importlib
from typing import Any

from lapilli.apps.rag.readers.refusal import RefusedError
from lapilli.apps.rag.readers.sniffing import sniff
from lapilli.apps.rag.readers.text import Hints, Text

_READERS = {
    "text": "plain",
    "markdown": "markdown",
    "html": "html",
    "pdf": "pdf",
    "docx": "docx",
    "csv": "csv",
    "json": "json",
    "xml": "xml",
    "xlsx": "xlsx",
}


def read_bytes(payload: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Read a document: `{"kind", "title", "text", "marks", "meta"}`, or `{"refused"}` with one line that says why."""
    gc.disable()  # a reader makes no circles, and looking for them among a million values takes long
    try:
        kind = sniff(data, payload["kind"], payload["name"], payload["content_type"])
        text = Text(payload["most"])
        hints = Hints(name=payload["name"], content_type=payload["content_type"])
        importlib.import_module(f"lapilli.apps.rag.readers.{_READERS[kind]}").read(data, text, hints)
        return {"kind": kind} | text.finish()
    except RefusedError as refused:
        return {"refused": str(refused)}
    finally:
        gc.enable()


def read_sitemap(most: int, data: bytes) -> dict[str, Any]:
    """The addresses that a sitemap lists: `{"pages", "sitemaps"}`, or `{"refused"}`."""
    from lapilli.apps.rag.readers.sitemap import list_addresses

    try:
        pages, sitemaps = list_addresses(data, most)
        return {"pages": pages, "sitemaps": sitemaps}
    except RefusedError as refused:
        return {"refused": str(refused)}
