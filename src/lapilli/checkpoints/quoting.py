"""A stranger's words in our errors: short, and on one line."""

from __future__ import annotations

from pathlib import Path

LONGEST = 80


def quoted(value: object) -> str:
    """A value out of a file: strings in quotes with odd characters escaped, anything cut at 80 characters."""
    text = str(value)
    cut = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    return repr(cut) if isinstance(value, str) else cut


def file_name(path: str | Path) -> str:
    """The last part of a path, which says enough to whoever gave it."""
    name = Path(path).name or str(path)
    return name if name.isprintable() else repr(name)
