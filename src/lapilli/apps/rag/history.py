"""What was asked and answered, by session, in a file of SQLite beside the documents."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapilli.errors import StoreError

_WAIT_SECONDS = 30.0
_TABLE = (
    "CREATE TABLE IF NOT EXISTS turns (number INTEGER PRIMARY KEY, collection TEXT NOT NULL, session TEXT NOT NULL, "
    "question TEXT NOT NULL, answer TEXT NOT NULL, extra TEXT NOT NULL, at REAL NOT NULL)"
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One question with its answer; `at` is seconds since 1970, `extra` JSON values that go with it."""

    session: str
    question: str
    answer: str
    at: float
    extra: Mapping[str, Any] = field(default_factory=dict)


class History:
    """The sessions of one collection; safe to be used by many threads and processes at once."""

    def __init__(self, path: Path, collection: str) -> None:
        self._path = path
        self._collection = collection

    def add(self, session: str, question: str, answer: str, extra: Mapping[str, Any] | None = None) -> None:
        """Keep a turn. Raises StoreError."""
        row = (self._collection, session, question, answer, json.dumps(dict(extra or {})), time.time())
        with self._open() as database:
            database.execute(
                "INSERT INTO turns (collection, session, question, answer, extra, at) VALUES (?, ?, ?, ?, ?, ?)", row
            )

    def last(self, session: str | None, count: int | None) -> list[Entry]:
        """The last turns, oldest first: of one session or of all, so many or all of them. Raises StoreError."""
        if not self._path.exists():
            return []
        with self._open() as database:
            rows = database.execute(
                "SELECT session, question, answer, at, extra FROM turns WHERE collection = ? AND (? IS NULL OR session "
                "= ?) ORDER BY number DESC LIMIT ?",
                (self._collection, session, session, -1 if count is None else count),
            ).fetchall()
        return [
            Entry(session=name, question=question, answer=answer, at=at, extra=json.loads(extra))
            for name, question, answer, at, extra in reversed(rows)
        ]

    def clear(self, session: str | None = None) -> int:
        """Forget a session, or all; returns how many turns there were. Raises StoreError."""
        if not self._path.exists():
            return 0
        with self._open() as database:
            return database.execute(
                "DELETE FROM turns WHERE collection = ? AND (? IS NULL OR session = ?)",
                (self._collection, session, session),
            ).rowcount

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of this thread's own, one transaction long."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=_WAIT_SECONDS)
            try:
                with database:
                    database.execute(_TABLE)
                    yield database
            finally:
                database.close()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: the history cannot be used: {error}") from error
