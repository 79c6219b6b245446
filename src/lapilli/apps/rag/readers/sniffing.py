"""Which kind a document is: its bytes decide where they can, then its name, then what its server says."""

from __future__ import annotations

import re

from lapilli.apps.rag.kinds import suffix_kind
from lapilli.apps.rag.readers.refusal import RefusedError

_PDF = re.compile(rb"%PDF-\d")
_HTML = re.compile(rb"\s*(?:<!--.{0,2000}?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE | re.DOTALL)
_XML = re.compile(rb"\s*<\?xml[\s?]")
_PROVEN = ("pdf", "docx", "xlsx", "picture")
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SERVED = {
    "text/html": "html", "application/xhtml+xml": "html", "text/markdown": "markdown", "text/csv": "csv",
    "application/json": "json", "application/xml": "xml", "text/xml": "xml", "text/tab-separated-values": "csv",
    "application/x-ndjson": "json", "application/jsonl": "json",
}  # fmt: skip
# What is no document that is read, by its first bytes, with the way out.
_OTHERS = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file, or one with a password: save it as .docx or .xlsx"),
    (b"{\\rtf", "an RTF file: save it as .docx"),
    (b"\x1f\x8b", "packed (gzip): unpack it first"),
    (b"BZh", "packed (bzip2): unpack it first"),
    (b"\xfd7zXZ\x00", "packed (xz): unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "an archive (7z): unpack it first"),
    (b"Rar!", "an archive (RAR): unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed (zstd): unpack it first"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\x00", "a database"),
    (b"GGUF", "a model: `lapilli create` takes those"),
    (b"II*\x00", "a TIFF picture: save it as PNG or JPEG"),
    (b"MM\x00*", "a TIFF picture: save it as PNG or JPEG"),
)
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")


def is_picture(data: bytes) -> bool:
    """Whether the first bytes are those of a picture that is read."""
    return data.startswith(_PICTURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or _is_bmp(data)


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file can be those of a text."""
    if head.startswith(_WIDE_MARKS):
        return True
    if b"\x00" in head:
        half = len(head) // 2
        return half > 1 and any(head[side::2].count(0) > half * 0.4 for side in (0, 1)) and b"\x00\x00" not in head
    return sum(byte < 9 or 13 < byte < 27 for byte in head) * 50 <= len(head)


def sniff(data: bytes, kind: str | None, name: str, content_type: str) -> str:
    """The kind of a document; what somebody said it is counts, unless the bytes show that it cannot be.

    Raises RefusedError for what is of no kind that is read.
    """
    if not data.strip(b"\x00 \t\r\n\xef\xbb\xbf"):
        raise RefusedError(f"it is empty: {len(data)} bytes, none of them text")
    shown = _shown(data)
    if kind and kind != "web":
        return _agreed(kind, shown)
    if shown:
        return shown
    if not is_text(data[:8192]):
        raise RefusedError("its bytes are those of no document that is read here: save it as text, PDF or .docx")
    named = suffix_kind(name)
    served = _SERVED.get(content_type.partition(";")[0].strip().casefold())
    head = data[:4096].removeprefix(b"\xef\xbb\xbf")
    looks = "html" if _HTML.match(head) else "xml" if _XML.match(head) else None
    if named in _PROVEN:
        if looks is None:
            raise RefusedError(f"its name says {named}, and its bytes are not those of one: is it whole?")
        named = None
    if served and (named is None or content_type.startswith(("text/html", "application/xhtml"))):
        return served
    if named in ("xml", None) and looks == "html":
        return "html"
    if named == "html" and looks == "xml" and not re.search(rb"<html[\s>]", head, re.IGNORECASE):
        return "xml"
    return named or looks or ("html" if kind == "web" else "text")


def _shown(data: bytes) -> str | None:
    """The kind that the first bytes prove; None for texts."""
    # Junk may stand before a PDF; a text may speak of one.
    if _PDF.match(data[:64].lstrip()) or (_PDF.search(data[:1024]) and b"startxref" in data[-1024:]):
        return "pdf"
    if is_picture(data):
        return "picture"
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        from lapilli.apps.rag.readers.package import package_kind

        return package_kind(data)
    for start, what in _OTHERS:
        if data.startswith(start):
            raise RefusedError(f"it is {what}")
    return None


def _agreed(kind: str, shown: str | None) -> str:
    if shown and shown != kind:
        raise RefusedError(f"it was said to be {kind} and is {shown}: say {shown!r}, or nothing")
    if kind in _PROVEN and shown is None:
        raise RefusedError(f"it was said to be {kind}, and its bytes are not those of one")
    return kind


def _is_bmp(data: bytes) -> bool:
    # Texts may begin with these letters: the size of the header must be one that there is.
    return data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
