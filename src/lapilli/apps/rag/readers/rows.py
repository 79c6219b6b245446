"""Rows of a table as text: `column: value` lines where the first row names the columns, else the values on one line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from lapilli.apps.rag.readers.text import Text, squeeze

Row = list[tuple[int, str]]
"""The values of a row that are there, each with the number of its column from 0."""

_NUMBER = re.compile(r"[-+(]?[$€£¥]?\d[\d.,: /-]*[%)]?")
_YEAR = re.compile(r"(?:19|20)\d\d")
_MOST_LOOKED_AT = 50


def write_rows(text: Text, rows: Iterable[tuple[int, Row]], *, place: str = "") -> int:
    """Write numbered rows, each marked `row 7` (after `place`); those without a value are passed over.

    Returns how many were written.
    """
    filled = ((number, row) for number, row in rows if row)
    first = list(itertools.islice(filled, _MOST_LOOKED_AT))
    columns = names_of([row for _, row in first])
    count = 0
    for number, row in itertools.chain(first[1:] if columns else first, filled):
        if columns:
            text.gap()
        text.mark(f"{place}row {number}")
        _write_row(text, row, columns)
        count += 1
    if columns and not count:
        text.line(" | ".join(columns.values()))
    return count


def names_of(rows: Sequence[Row]) -> dict[int, str] | None:
    """The names of the columns, where the first of some rows has them: short words, nearly all of them different.

    Numbers are no names, but for years that follow one another.
    """
    names = {column: squeeze(name) for column, name in rows[0]} if rows else {}
    years = [int(name) for name in names.values() if _YEAR.fullmatch(name)]
    words = [name for name in names.values() if not _NUMBER.fullmatch(name)]
    if len(years) < 2 or years != sorted(set(years)):
        years = []
    if len(names) < 2 or not words or len(words) + len(years) < len(names):
        return None
    if len(set(names.values())) * 3 < len(names) * 2 or any(len(name) > 100 for name in names.values()):
        return None
    if len(rows) > 1 and len(names) * 2 < len(rows[1]):
        return None
    return names


def _write_row(text: Text, row: Row, columns: dict[int, str] | None) -> None:
    if columns is None:
        text.line(" | ".join(squeeze(value) for _, value in row))
        return
    text.line("\n".join(f"{columns.get(column) or f'column {column + 1}'}: {value.strip()}" for column, value in row))
