"""Rows of a table as text: `column: value` lines where the first row names the columns, else the values on one line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from lapilli.apps.rag.readers.text import Text, squeeze

_NUMBER = re.compile(r"[-+(]?[$€£¥]?\d[\d.,: /-]*[%)]?")
_MOST_LOOKED_AT = 50


def write_rows(text: Text, rows: Iterable[tuple[int, Sequence[str]]], *, place: str = "") -> int:
    """Write numbered rows, each marked `row 7` (after `place`); those without a value are passed over.

    Returns how many were written.
    """
    filled = ((number, values) for number, values in rows if any(value.strip() for value in values))
    first = list(itertools.islice(filled, _MOST_LOOKED_AT))
    columns = names_of([values for _, values in first])
    count = 0
    for number, values in itertools.chain(first[1:] if columns else first, filled):
        text.gap() if columns else text.end_line()
        text.mark(f"{place}row {number}")
        _write_row(text, values, columns)
        count += 1
    if columns and not count:
        text.line(" | ".join(columns))
    return count


def names_of(rows: Sequence[Sequence[str]]) -> list[str] | None:
    """The names of the columns, where the first of some rows has them: words, all different, in two columns or more."""
    if len(rows) < 1 or len(rows[0]) < 2:
        return None
    names = [squeeze(name)[:200] for name in rows[0]]
    named = [name for name in names if name]
    if len(named) < 2 or len(set(named)) < len(named) or any(_NUMBER.fullmatch(name) for name in named):
        return None
    if any(len(name) > 100 for name in named) or (len(rows) > 1 and len(named) * 2 < _width(rows[1])):
        return None
    return [name or f"column {number}" for number, name in enumerate(names, 1)]


def _write_row(text: Text, values: Sequence[str], columns: list[str] | None) -> None:
    if columns is None:
        text.line(" | ".join(squeeze(value) for value in values if value.strip()))
        return
    for place, value in enumerate(values):
        if value.strip():
            name = columns[place] if place < len(columns) else f"column {place + 1}"
            text.line(f"{name}: {value.strip()}")


def _width(row: Sequence[str]) -> int:
    return sum(bool(value.strip()) for value in row)
