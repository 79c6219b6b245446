"""Tables of characters: commas, semicolons, tabs or bars between the values (RFC 4180, and what people make of it)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from lapilli.apps.rag.readers.encodings import charset_of, decode
from lapilli.apps.rag.readers.refusal import RefusedError
from lapilli.apps.rag.readers.rows import Row, write_rows
from lapilli.apps.rag.readers.text import Hints, Text

_SEPARATORS = ",;\t|"
_LOOKED_AT = 64 << 10
_SAID = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # Excel's own first line


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write a block for each row."""
    content, text.meta["encoding"] = decode(data, charset_of(hints.content_type))
    csv.field_size_limit(1 << 30)
    said = _SAID.match(content)
    content = content[said.end() :] if said else content
    separator = said[1] if said else find_separator(content)
    text.meta["rows"] = write_rows(text, _rows(content, separator))


def find_separator(content: str) -> str:
    """The character that divides the most of the first rows into the same number of values, more than one."""
    head = content[:_LOOKED_AT]
    if len(content) > _LOOKED_AT and "\n" in head:
        head = head[: head.rindex("\n")]

    def score(separator: str) -> tuple[float, int]:
        try:
            widths = [len(row) for row in csv.reader(io.StringIO(head, newline=""), delimiter=separator) if row][:100]
        except csv.Error:
            return 0.0, 0
        usual = max(set(widths), key=widths.count, default=1)
        return (widths.count(usual) / len(widths) if usual > 1 else 0.0), usual

    return max(_SEPARATORS, key=score)


def _rows(content: str, separator: str) -> Iterator[tuple[int, Row]]:
    # csv's own count is of lines; people count rows as their spreadsheet shows them.
    reader = csv.reader(io.StringIO(content.replace("\x00", ""), newline=""), delimiter=separator)
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            yield number, [(column, value) for column, value in enumerate(row) if value.strip()]
    except csv.Error:
        raise RefusedError(f"row {number + 1} of it is no row of a table") from None
