"""Rows on their way out: JSON lines, one Parquet file, or CSV that a spreadsheet opens without running any of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import BinaryIO, Literal, TypeAlias, get_args

from lapilli.apps.jobs.columns import Columns, canonical, write_parquet
from lapilli.apps.jobs.work import Row
from lapilli.errors import InputError

Format: TypeAlias = Literal["jsonl", "parquet", "csv"]
FORMATS: tuple[str, ...] = get_args(Format)

# What makes a cell a formula (owasp.org/www-community/attacks/CSV_Injection), also in the wide forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_MARK = "\ufeff"  # without it Excel takes UTF-8 for the machine's own code page


def export(rows: Iterable[Row], columns: Columns, format: str, out: BinaryIO) -> int:
    """Write rows in one format, to a file that is open for writing; how many there were.

    The same rows are the same bytes. Raises InputError for a format that is none.
    """
    if format not in FORMATS:
        raise InputError(f"format {format[:40]!r} is not known: use {', '.join(FORMATS)}")
    counted = _Counted(rows)
    if format == "jsonl":
        for row in counted:
            out.write(to_line(row, columns).encode("utf-8", "backslashreplace"))
    elif format == "csv":
        write_csv(counted, columns, out)
    else:
        write_parquet(counted, columns, out)
    return counted.count


def to_line(row: Row, columns: Columns) -> str:
    """A row as a line of JSON, its columns in order."""
    return json.dumps({name: row.get(name) for name in columns}, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_csv(rows: Iterable[Row], columns: Columns, out: BinaryIO) -> None:
    """Rows as CSV (RFC 4180) in UTF-8 with its mark; what a spreadsheet would run has an apostrophe before it."""
    text = io.TextIOWrapper(out, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    try:
        text.write(_MARK)
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow([_harmless(name) for name in columns])
        for row in rows:
            writer.writerow([_cell(row.get(name), kind) for name, kind in columns.items()])
    finally:
        text.detach()


def _cell(value: object, kind: str) -> str:
    if value is None:
        return ""
    if kind == "json":
        return _harmless(canonical(value))
    if kind == "text":
        return _harmless(str(value))
    return {True: "true", False: "false"}[bool(value)] if kind == "bool" else str(value)


def _harmless(text: str) -> str:
    # A blank before it does not stop every spreadsheet.
    return f"'{text}" if text.startswith(_FORMULA) or text.lstrip(" ").startswith(_FORMULA) else text


class _Counted:
    """Rows, and how many have passed."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self.count = 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> Row:
        row = next(self._rows)
        self.count += 1
        return row
