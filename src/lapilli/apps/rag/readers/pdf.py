"""PDF: the text of each page, every page a mark."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

from lapilli.apps.rag.readers.refusal import RefusedError, need
from lapilli.apps.rag.readers.text import Hints, Text

MAX_PAGES = 10_000
# A word that was divided at the end of a line; what follows in capitals or digits was a hyphen's before.
_DIVIDED = re.compile(r"(?<=[^\W\d_])[-\u2010]\n(?=[a-zà-öø-ÿ])")
_ENDS = re.compile(r"[ \t]+\n")
_EMPTY = re.compile(r"\n{3,}")
_OBJECT = re.compile(rb"(?<!\d)(\d{1,7}) 0 obj\b")
_CATALOG = re.compile(rb"/Type\s*/Catalog\b")
_MOST_OBJECTS = 200_000
_DAMAGED = "the PDF is damaged: print it into a new PDF"


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write the pages' text; a PDF without any (pictures of pages) is refused."""
    need("pypdf")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL + 1)
    opened = _open(data)
    if opened is None:
        # A download that was cut off, or edited by hand: its objects are there, only the table of them is not.
        opened = _open(_mended(data))
        text.meta["mended"] = True
    if opened is None:
        raise RefusedError(_DAMAGED)
    reader, count = opened
    text.title = _title(reader)
    text.meta["pages"] = count
    unread = 0
    for number in range(count):
        page = _page_text(reader, number)
        unread += page is None
        if page:
            text.gap()
            text.mark(f"page {number + 1}")
            text.write(page)
    if unread:
        text.meta["pages_unread"] = unread
    if not text.length:
        if unread or not count:
            raise RefusedError(f"{_DAMAGED}; none of its {count} pages can be read")
        raise RefusedError(f"its {count} pages hold no text, only pictures of it: add them as pictures (PNG or JPEG)")


def _open(data: bytes) -> tuple[Any, int] | None:
    """A reader of the file, and how many pages it has; None where it is damaged."""
    import pypdf

    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        locked = reader.is_encrypted and not reader.decrypt("")
        if not locked:
            pages: Any = reader.root_object["/Pages"]
            told = int(pages.get("/Count", 0))
            count = told if told > MAX_PAGES else len(reader.pages)
    except MemoryError:
        raise
    except Exception as error:
        said = type(error).__name__
        if said == "LimitReachedError":
            raise RefusedError("the PDF is past the limits that protect its reader: print it into a new PDF") from None
        locked = said == "DependencyError"  # a library for ciphers would be needed
        if not locked:
            return None
    if locked:
        raise RefusedError("it is protected by a password: save it without one")
    if count > MAX_PAGES:
        raise RefusedError(f"it has {count} pages, at most {MAX_PAGES} are read: divide it")
    return reader, count


def _mended(data: bytes) -> bytes:
    """The same file with a new table of its objects at the end. Raises RefusedError where it names no catalog."""
    places = {int(found[1]): found.start(1) for found in _OBJECT.finditer(data)}
    root = [number for number, at in places.items() if _CATALOG.search(data, at, at + 400)]
    if not root or len(places) > _MOST_OBJECTS or b"/Encrypt" in data:
        raise RefusedError(_DAMAGED)
    table = b"".join(b"%d 1\n%010d 00000 n \n" % (number, at) for number, at in sorted(places.items()))
    size = max(places) + 1
    return b"%s\nxref\n0 1\n0000000000 65535 f \n%strailer << /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        data, table, size, root[-1], len(data) + 1,
    )  # fmt: skip


def _title(reader: Any) -> str:
    try:
        return str((reader.metadata or {}).get("/Title") or "")
    except MemoryError:
        raise
    except Exception:
        return ""


def _page_text(reader: Any, number: int) -> str | None:
    """The text of a page; None where the page is damaged."""
    try:
        found = str(reader.pages[number].extract_text())
    except MemoryError:
        raise
    except Exception:
        return None
    found = _ENDS.sub("\n", found.replace("\r\n", "\n").replace("\r", "\n"))
    return _EMPTY.sub("\n\n", _DIVIDED.sub("", found)).strip("\n")
