"""WHO's CSV as one list of cells a record, streamed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import TextIO

from lapilli.apps.trials.readers.ictrp import KNOWN
from lapilli.apps.trials.readers.names import who_name

MAX_CELL = 16 << 20
_MARKS = ",;\t"

Cells = list[tuple[str, str]]


def read_rows(stream: TextIO) -> Iterator[tuple[Cells | None, str]]:
    """Each row's names and texts, and what was wrong with it ("" where nothing was); None where nothing was saved."""
    first = stream.readline()
    mark = max(_MARKS, key=lambda each: len(KNOWN & {who_name(cell) for cell in first.split(each)}))
    columns = next(csv.reader([first.lstrip("\ufeff")], delimiter=mark), [])
    lines = _Lines(stream)
    rows = csv.reader(lines, delimiter=mark)
    while True:
        # The limit is one for all of a process: it is ours only while a row is read.
        limit = csv.field_size_limit(MAX_CELL)
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield None, f"a row is damaged ({error})"
            continue
        finally:
            csv.field_size_limit(limit)
        if row is None:
            return
        if not any(cell.strip() for cell in row):
            continue
        cells = list(zip(columns, row, strict=False))
        told = ""
        if len(row) != len(columns):
            told = f"it has {len(row)} cells for {len(columns)} columns"
            if len(row) < len(columns) and lines.over:
                told = "the file ends in the middle of it"
        yield cells, told


class _Lines:
    """The lines of a stream, which say when they are over; a line of endless length comes in pieces."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.over = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_CELL)
        if not line:
            self.over = True
            raise StopIteration
        if not line.endswith(("\n", "\r")):
            self.over = True
        return line.replace("\0", "")
