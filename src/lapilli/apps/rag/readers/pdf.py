"""PDF: the text of each page, every page a mark."""

from __future__ import annotations

import io
import logging
import re

from lapilli.apps.rag.readers.refusal import RefusedError, need
from lapilli.apps.rag.readers.text import Hints, Text

MAX_PAGES = 10_000
# A word that was divided at the end of a line; what follows in capitals or digits was a hyphen's before.
_DIVIDED = re.compile(r"(?<=[^\W\d_])[-\u2010]\n(?=[a-zà-öø-ÿ])")
_ENDS = re.compile(r"[ \t]+\n")
_EMPTY = re.compile(r"\n{3,}")
_DAMAGED = "the PDF is damaged: print it into a new PDF"


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write the pages' text; a PDF without any (pictures of pages) is refused."""
    pypdf = need("pypdf")
    logging.disable(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        locked = reader.is_encrypted and not reader.decrypt("")
    except (RecursionError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "DependencyError":
            locked = True
        else:
            raise RefusedError(_DAMAGED) from None
    if locked:
        raise RefusedError("it is protected by a password: save it without one")
    try:
        count = len(reader.pages)
        title = str((reader.metadata or {}).get("/Title") or "")
    except RecursionError:
        raise RefusedError("the PDF's pages are nested in one another: print it into a new PDF") from None
    except MemoryError:
        raise
    except Exception:
        raise RefusedError(_DAMAGED) from None
    if count > MAX_PAGES:
        raise RefusedError(f"it has {count} pages, at most {MAX_PAGES} are read: divide it")
    text.title = title
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
        if unread:
            raise RefusedError(f"{_DAMAGED}; none of its {count} pages can be read")
        raise RefusedError(f"its {count} pages hold no text, only pictures of it: add them as pictures (PNG or JPEG)")


def _page_text(reader: object, number: int) -> str | None:
    """The text of a page; None where the page is damaged."""
    try:
        found = str(reader.pages[number].extract_text())  # type: ignore[attr-defined]
    except MemoryError:
        raise
    except Exception:
        return None
    found = _ENDS.sub("\n", found.replace("\r\n", "\n").replace("\r", "\n"))
    return _EMPTY.sub("\n\n", _DIVIDED.sub("", found)).strip("\n")
