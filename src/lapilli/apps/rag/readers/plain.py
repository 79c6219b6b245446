"""Plain text: decoded, and otherwise as it is."""

from __future__ import annotations

from lapilli.apps.rag.readers.encodings import charset_of, decode
from lapilli.apps.rag.readers.text import Hints, Text


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write the whole text."""
    content, text.meta["encoding"] = decode(data, charset_of(hints.content_type))
    text.write(content)
