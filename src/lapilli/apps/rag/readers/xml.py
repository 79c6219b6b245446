"""XML as text: prose where words and elements are mixed, else a line for each value after its element's name.

A DTD is refused, so nothing expands and nothing is fetched; instructions (`xml-stylesheet`) and XInclude mean nothing
here. The parser is a stream: no tree is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from lapilli.apps.rag.readers.encodings import decode, known_encoding
from lapilli.apps.rag.readers.package import new_parser
from lapilli.apps.rag.readers.refusal import RefusedError
from lapilli.apps.rag.readers.text import Hints, Text, squeeze

MAX_DEPTH = 256
MAX_ATTRIBUTES = 1000
_DECLARED = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
# What expat reads by itself; all else is decoded first.
_NATIVE = ("utf-8", "utf-16", "utf-16-le", "utf-16-be")
_UNSAID = ("id", "class", "style", "href", "src", "lang", "space", "type", "schemaLocation", "version")


@dataclass(slots=True)
class _Element:
    """An element that is open: its words and what its children became, in order."""

    name: str
    attributes: list[tuple[str, str]]
    parts: list[Any] = field(default_factory=list)  # words as they came; children's own in lists of their own
    lines: list[str] = field(default_factory=list)  # what children became
    has_words: bool = False


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write the elements' text; each child of the root that has children of its own is marked: `Trial 3`."""
    _Reader(text).parse(data)


class _Reader:
    def __init__(self, text: Text) -> None:
        self.text = text
        self.open: list[_Element] = []
        self.counts: dict[str, int] = {}
        self.seen = 0  # characters, written or not yet

    def parse(self, data: bytes) -> None:
        declared = _DECLARED.match(data[:400])
        said = known_encoding(declared[1].decode("ascii")) if declared else None
        if declared and said is None:
            raise RefusedError(f"its encoding {declared[1].decode('ascii')!r} is none that is read: save it as UTF-8")
        if said and said not in _NATIVE:
            data, encoding = decode(data, said)[0].encode("utf-8", "replace"), "utf-8"
        else:
            encoding = None
        parser = new_parser(encoding)
        parser.StartElementHandler, parser.EndElementHandler = self._begin, self._end
        parser.CharacterDataHandler = self._words
        try:
            parser.Parse(data.lstrip(b" \t\r\n") if data[:1] in b" \t\r\n" else data, True)
        except expat.ExpatError as error:
            raise RefusedError(f"its XML is damaged at line {error.lineno}: {expat.ErrorString(error.code)}") from None

    def _begin(self, name: str, attributes: Mapping[str, str]) -> None:
        if len(self.open) >= MAX_DEPTH:
            raise RefusedError(f"its elements are nested deeper than the {MAX_DEPTH} levels that are read")
        if len(attributes) > MAX_ATTRIBUTES:
            raise RefusedError(f"an element has {len(attributes)} attributes, at most {MAX_ATTRIBUTES} are read")
        said = [
            (_local(key), value)
            for key, value in attributes.items()
            if value.strip() and not key.startswith(("xmlns", "xml:", "xsi:")) and _local(key) not in _UNSAID
        ]
        self.open.append(_Element(_local(name), said))

    def _words(self, words: str) -> None:
        element = self.open[-1]
        if words.isspace():
            if element.parts:
                element.parts.append(" ")
            return
        self.seen += len(words)
        self.text.check(self.seen - self.text.length)
        element.parts.append(words)
        element.has_words = True

    def _end(self, _: str) -> None:
        element = self.open.pop()
        depth = len(self.open)
        block = [f"{element.name} {name}: {squeeze(value)}" for name, value in element.attributes]
        if element.lines and not element.has_words:
            block += element.lines
        elif element.has_words:
            # A value; or prose, whose children's words already stand among its own.
            words = "".join(_flat(element.parts))
            element.parts = [words]
            block = [self._value(element, squeeze(words), mixed=bool(element.lines))]
        if depth == 0 or (depth == 1 and not self.open[0].has_words):
            self._put(element, block, depth)
            return
        self.open[-1].lines += block
        # Should words stand beside this element, it was a part of a sentence.
        self.open[-1].parts.append(element.parts)

    def _value(self, element: _Element, prose: str, *, mixed: bool) -> str:
        if element.name == "title" and not self.text.title:
            self.text.title = prose
        if mixed:
            return prose
        more = ", ".join(f"{name}: {squeeze(value)}" for name, value in element.attributes)
        return f"{element.name}: {prose}" + (f" ({more})" if more else "")

    def _put(self, element: _Element, block: list[str], depth: int) -> None:
        """Write what stands directly under the root, or the root's own."""
        if depth == 1 and len(block) > 1:
            number = self.counts[element.name] = self.counts.get(element.name, 0) + 1
            self.text.gap()
            self.text.mark(f"{element.name} {number}")
        for line in block:
            self.text.line(line)


def _flat(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        else:
            yield from _flat(part)


def _local(name: str) -> str:
    return name.rpartition(":")[2]
