"""Spreadsheets: each row of each sheet, as its values were last computed."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from typing import Any

from lapilli.apps.rag.readers.package import DAMAGED, check_parts, open_package
from lapilli.apps.rag.readers.refusal import RefusedError, need
from lapilli.apps.rag.readers.rows import write_rows
from lapilli.apps.rag.readers.text import Hints, Text


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write a block for each row, marked `Sheet, row 7`."""
    openpyxl = need("openpyxl")
    with open_package(data) as archive:
        check_parts(archive)
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        text.title = str(book.properties.title or "")
        rows = 0
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # what a file says of them is often wrong
            text.gap()
            rows += write_rows(text, _rows(sheet), place=f"{sheet.title}, ")
    except (RefusedError, MemoryError):
        raise
    except Exception:
        raise RefusedError(DAMAGED) from None
    text.meta |= {"rows": rows, "sheets": len(book.worksheets)}


def _rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        yield number, [_shown(value) for value in row]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
