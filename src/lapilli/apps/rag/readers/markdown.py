"""Markdown, which is read as it is written: headings become marks, and the front matter gives a title and no more."""

from __future__ import annotations

import re

from lapilli.apps.rag.readers.encodings import charset_of, decode
from lapilli.apps.rag.readers.text import Hints, Text, clean

_FRONT = re.compile(r"---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|$)", re.DOTALL)
_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*)")
_CLOSING = re.compile(r"[ \t]#+[ \t]*$")


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write the source; the front matter is never interpreted, its line `title:` is looked at."""
    content, text.meta["encoding"] = decode(data, charset_of(hints.content_type))
    content = clean(content)
    front = _FRONT.match(content)
    if front:
        title = _TITLE.search(front[1])
        text.title = title[1].strip().strip("'\"") if title else ""
    at, fence = 0, ""
    before = ""
    for line in content.splitlines(keepends=True):
        found = _FENCE.match(line)
        if found and not fence:
            fence = found[1]
        elif found and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        elif not fence and (front is None or at >= front.end()):
            heading = _HEADING.match(line)
            under = line.strip()
            if heading:
                _mark(text, _CLOSING.sub("", heading[1]), at)
            elif before.strip() and len(under) > 2 and under in ("=" * len(under), "-" * len(under)):
                _mark(text, before, at - len(before))
        before = line
        at += len(line)
    text.write(content)


def _mark(text: Text, heading: str, at: int) -> None:
    text.mark(heading.strip("*_` \t\n"), at)
    text.title = text.title or heading.strip()
