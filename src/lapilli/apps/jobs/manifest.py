"""Which parts of a job are done: one SQLite file, with a line for each part that is whole on disk."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from lapilli.errors import InputError

_SECONDS = 30.0


@dataclass(frozen=True)
class Part:
    """A part that is done: what it was made of, and what it is."""

    number: int
    items: int
    rows: int
    failed: int
    items_digest: str
    digest: str
    size: int


_NAMES = ", ".join(field.name for field in fields(Part))
_TABLES = """
CREATE TABLE IF NOT EXISTS parts (
    number INTEGER PRIMARY KEY, items INTEGER NOT NULL, rows INTEGER NOT NULL, failed INTEGER NOT NULL,
    items_digest TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""


class Manifest:
    """The file, open. There is one writer at a time, who owns the job; readers may come at any moment.

    It keeps SQLite's rollback journal: one commit a part is too few for a write-ahead log to gain anything, and a
    finished job can then be read from a disk that cannot be written to.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._path = path
        try:
            mode = "rwc" if writable else "ro"
            self._file = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_SECONDS, isolation_level=None
            )
            if writable:
                self._file.execute("PRAGMA synchronous = EXTRA")
                self._file.executescript(_TABLES)
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def parts(self) -> dict[int, Part]:
        """All parts that are done, by number."""
        try:
            found = self._file.execute(f"SELECT {_NAMES} FROM parts ORDER BY number").fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from None
        return {row[0]: Part(*row) for row in found}

    def add(self, part: Part) -> None:
        """Write down that a part is done; on disk when this returns."""
        marks = ", ".join("?" for _ in fields(Part))
        try:
            self._file.execute(f"INSERT OR REPLACE INTO parts ({_NAMES}) VALUES ({marks})", astuple(part))
        except sqlite3.Error as error:
            raise self._broken(error) from None

    @property
    def total(self) -> int | None:
        """How many items there are in all; None until a run has read them to their end."""
        try:
            found = self._file.execute("SELECT value FROM facts WHERE name = 'items'").fetchone()
        except sqlite3.Error as error:
            raise self._broken(error) from None
        return None if found is None else int(found[0])

    def end_at(self, items: int) -> None:
        """Write down how many items there are in all."""
        with contextlib.suppress(sqlite3.Error):  # a note for people; no row depends on it
            self._file.execute("INSERT OR REPLACE INTO facts VALUES ('items', ?)", (items,))

    def close(self) -> None:
        self._file.close()

    def _broken(self, error: sqlite3.Error) -> InputError:
        return InputError(f"{self._path}: cannot be read as a job's list of parts: {error}")
