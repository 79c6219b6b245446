"""Passages in one file of SQLite: words by its full-text index (FTS5, BM25), vectors compared one by one, exactly.

It needs nothing but Python. Writers take turns at the database's own lock; readers go on meanwhile (WAL).
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from lapilli.apps.rag.document import Document, Passage
from lapilli.apps.rag.rows import (
    Entry,
    Hit,
    Item,
    SourceEntry,
    Vectors,
    conditions,
    document_of,
    entry_of,
    owner_of,
    passage_json,
    passage_of,
    query_vector,
    ranked,
    write_in_groups,
)
from lapilli.apps.rag.terms import query_terms, terms
from lapilli.errors import InputError, LapilliError, NoRoomError, StoreError

_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.005
_PIECE = 4096  # vectors that are compared at a time
_NEAR = 1e-5  # what a product of float32 may be off by: closer than this, vectors are compared again, each by itself
_TABLES = """
CREATE TABLE settings (size INTEGER, embedder TEXT NOT NULL);
CREATE TABLE documents (owner TEXT PRIMARY KEY, source TEXT NOT NULL, state TEXT NOT NULL, head TEXT NOT NULL,
    text TEXT NOT NULL, picture BLOB, passages INTEGER NOT NULL, characters INTEGER NOT NULL, added REAL NOT NULL);
CREATE TABLE passages (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, source TEXT NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, text TEXT NOT NULL, rest TEXT NOT NULL);
CREATE INDEX passages_of ON passages (owner);
CREATE TABLE tags (tag TEXT NOT NULL, passage INTEGER NOT NULL, PRIMARY KEY (tag, passage)) WITHOUT ROWID;
CREATE INDEX tags_of ON tags (passage);
CREATE TABLE vectors (passage INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (terms, tokenize = 'ascii');
"""
_PASSAGE = 'p.id, p.source, p.start, p."end", p.text, p.rest'


class SqliteStore:
    """A collection in `<folder>/<collection>.sqlite`."""

    def __init__(self, folder: Path, collection: str, vector_size: int | None, embedder: str) -> None:
        self._path = Path(folder) / f"{collection}.sqlite"
        self._wanted = None if vector_size is None else Vectors(vector_size, embedder)
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        weakref.finalize(self, _close_all, self._idle)
        with self._read() as database:
            self._check(database)

    @property
    def size(self) -> int | None:
        """How many values a vector has; None where no vectors are kept."""
        if self._wanted is not None:
            return self._wanted.size
        with self._read() as database:
            kept = _settings(database)
        return None if kept is None else kept.size

    def put(self, document: Document, passages: Sequence[Passage], vectors_ND: np.ndarray | None) -> bool:
        """Write a document in the place of what its source was before; False where it is there just so."""
        return self.put_all([(document, passages, vectors_ND)]) == 1

    def put_all(self, items: Iterable[Item]) -> int:
        """Write many, a group at a time, each source whole; how many were not there just so."""
        size = self.size
        return write_in_groups(items, lambda item: Entry.of(*item, size), self._write_entries)

    def remove(self, source: str) -> bool:
        """Remove a source; False where it is not there."""
        if not self._path.exists():
            return False
        with self._write() as database:
            return _delete(database, owner_of(source))

    def clear(self) -> None:
        """Remove all sources; vectors of another size may come then."""
        if not self._path.exists():
            return
        with self._write() as database:
            for table in ("settings", "documents", "passages", "tags", "vectors", "words"):
                database.execute(f"DELETE FROM {table}")
        self.optimize()

    def sources(self) -> list[SourceEntry]:
        """What is there, by name."""
        with self._read() as database:
            if database is None:
                return []
            rows = database.execute(
                "SELECT source, head, passages, characters, added FROM documents ORDER BY source"
            ).fetchall()
        return [entry_of(*row) for row in rows]

    def document(self, source: str) -> Document:
        """A source with its text and picture; raises InputError where it is not there."""
        with self._read() as database:
            row = (
                None
                if database is None
                else database.execute(
                    "SELECT source, text, head, picture FROM documents WHERE owner = ?", (owner_of(source),)
                ).fetchone()
            )
        if row is None:
            raise InputError(f"{source[:200]}: is not among the documents")
        return document_of(*row)

    def by_words(self, query: str, count: int, where: Mapping[str, Any] | None) -> list[Hit]:
        """The passages with the query's words, by BM25; equal scores in the order of their ids."""
        wanted = conditions(where)
        # Terms are letters, marks and digits: in quotes, nothing of them is an operator.
        sought = " OR ".join(f'"{term}"' for term in query_terms(query))
        with self._read() as database:
            if database is None or not sought:
                return []
            condition, values = _condition("p.number", wanted)
            rows = database.execute(
                f"SELECT -bm25(words), {_PASSAGE} FROM words JOIN passages p ON p.number = words.rowid "
                f"WHERE words MATCH ? AND {condition} ORDER BY bm25(words), p.id LIMIT ?",
                (sought, *values, count),
            ).fetchall()
        return ranked(((row[0], passage_of(*row[1:])) for row in rows), count, words=True)

    def by_vector(self, vector_D: np.ndarray, count: int, where: Mapping[str, Any] | None) -> list[Hit]:
        """The passages whose vectors are nearest, by the cosine."""
        wanted = conditions(where)
        with self._read() as database:
            kept = _settings(database)
            if database is None or kept is None:
                return []
            if kept.size is None:
                raise InputError("the collection keeps no vectors: it was begun without an embedder")
            sought_D = query_vector(vector_D, kept.size)
            best = _nearest(database, sought_D, count, _condition("passage", wanted))
            found = []
            for number, score in best:
                row = database.execute(f"SELECT {_PASSAGE} FROM passages p WHERE number = ?", (number,)).fetchone()
                found.append((score, passage_of(*row)))
        return ranked(found, count, words=False)

    def optimize(self) -> None:
        """Merge the index's parts, and give room that removed documents took back to the disk."""
        if not self._path.exists():
            return
        with self._write() as database:
            database.execute("INSERT INTO words (words) VALUES ('optimize')")
        with self._connected() as database, contextlib.suppress(sqlite3.OperationalError):
            # Where others read, their pages cannot be moved: then the next one does it.
            free, pages = (
                database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count")
            )
            if free * 4 > pages:
                database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        _close_all(self._idle)

    def _write_entries(self, entries: Sequence[Entry]) -> int:
        with self._write() as database:
            kept = self._check(database)
            if kept is None:
                wanted = self._wanted or Vectors(None, "")
                database.execute("DELETE FROM settings")
                database.execute("INSERT INTO settings VALUES (?, ?)", (wanted.size, wanted.embedder))
            return sum([_replace(database, entry) for entry in entries])

    def _check(self, database: sqlite3.Connection | None) -> Vectors | None:
        """What the collection keeps, None while it is empty. Raises InputError where that is not what is wanted."""
        kept = _settings(database)
        if kept is not None and self._wanted is not None:
            kept.check(self._wanted, f"the collection {self._path.stem}")
        return kept

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection | None]:
        """One state of the database for as long as the block takes, None where there is none yet."""
        if not self._path.exists():
            yield None
            return
        with self._connected() as database:
            database.execute("BEGIN")
            try:
                there = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'words'").fetchone()
                yield database if there else None
            finally:
                database.rollback()

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """A transaction, all or nothing, with the tables made if need be."""
        with self._connected() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'words'").fetchone() is None:
                    for statement in filter(str.strip, _TABLES.split(";")):
                        database.execute(statement)
                yield database
                database.commit()
            finally:
                database.rollback()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile; what SQLite says becomes our errors."""
        database: sqlite3.Connection | None = None
        try:
            try:
                database = self._idle.get_nowait()
            except Empty:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                database = sqlite3.connect(
                    self._path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
                )
                _share(database)
            yield database
            self._idle.put(database)
            database = None
        except (sqlite3.Error, OSError) as error:
            kind = NoRoomError if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL" else StoreError
            raise kind(f"{self._path}: {error}") from error
        except LapilliError:
            if database is not None:
                self._idle.put(database)
                database = None
            raise
        finally:
            if database is not None:
                database.close()


def _share(database: sqlite3.Connection) -> None:
    """Have readers go on while one writes (WAL). For this change alone SQLite does not wait its turn by itself."""
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > until:
                raise
            time.sleep(_POLL_SECONDS)


def _settings(database: sqlite3.Connection | None) -> Vectors | None:
    """What the collection keeps, None while it has no documents."""
    if database is None or database.execute("SELECT 1 FROM documents LIMIT 1").fetchone() is None:
        return None
    return Vectors(*database.execute("SELECT size, embedder FROM settings").fetchone())


def _replace(database: sqlite3.Connection, entry: Entry) -> bool:
    row = database.execute("SELECT state FROM documents WHERE owner = ?", (entry.owner,)).fetchone()
    if row is not None:
        if row[0] == entry.state:
            return False
        _delete(database, entry.owner)
    document = entry.document
    database.execute(
        "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (entry.owner, document.source, entry.state, entry.head, document.text, document.picture, len(entry.passages),
         len(document.text), time.time()),
    )  # fmt: skip
    for place, passage in enumerate(entry.passages):
        number = database.execute(
            'INSERT INTO passages (id, owner, source, start, "end", text, rest) VALUES (?, ?, ?, ?, ?, ?, ?)',
            (passage.id, entry.owner, passage.source, passage.start, passage.end, passage.text, passage_json(passage)),
        ).lastrowid
        database.execute("INSERT INTO words (rowid, terms) VALUES (?, ?)", (number, " ".join(terms(passage.text))))
        database.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(tag, number) for tag in entry.tags(passage)])
        if entry.vectors_ND is not None:
            vector = entry.vectors_ND[place].astype("<f4").tobytes()
            database.execute("INSERT INTO vectors VALUES (?, ?)", (number, vector))
    return True


def _delete(database: sqlite3.Connection, owner: str) -> bool:
    for table, column in (("words", "rowid"), ("tags", "passage"), ("vectors", "passage")):
        of = "SELECT number FROM passages WHERE owner = ?"
        database.execute(f"DELETE FROM {table} WHERE {column} IN ({of})", (owner,))
    database.execute("DELETE FROM passages WHERE owner = ?", (owner,))
    return database.execute("DELETE FROM documents WHERE owner = ?", (owner,)).rowcount > 0


def _condition(column: str, wanted: list[list[str]]) -> tuple[str, list[str]]:
    """The tags that a passage must have as SQL with places for values, and the values."""
    parts = [
        f"{column} IN (SELECT passage FROM tags WHERE tag IN ({', '.join('?' * len(any_of))}))" for any_of in wanted
    ]
    return " AND ".join(["TRUE", *parts]), [tag for any_of in wanted for tag in any_of]


def _nearest(
    database: sqlite3.Connection, sought_D: np.ndarray, count: int, condition: tuple[str, list[str]]
) -> list[tuple[int, float]]:
    """The numbers of the nearest passages with their cosines, all that tie with the last one among them."""
    sql, values = condition
    cursor = database.execute(f"SELECT passage, vector FROM vectors WHERE {sql}", values)
    best: list[tuple[int, float, bytes]] = []
    least = -np.inf
    while rows := cursor.fetchmany(_PIECE):
        vectors_ND = np.frombuffer(b"".join(vector for _, vector in rows), "<f4").reshape(len(rows), -1)
        cosines_N = vectors_ND @ sought_D
        for place in np.flatnonzero(cosines_N >= least - _NEAR):
            best.append((rows[place][0], float(cosines_N[place]), rows[place][1]))
        best.sort(key=lambda found: -found[1])
        if len(best) >= count:
            least = best[count - 1][1]
            best = [found for found in best if found[1] >= least - _NEAR]
    # Each by itself: equal vectors have equal cosines, wherever they lie.
    wide_D = sought_D.astype(np.float64)
    return [(number, float((np.frombuffer(vector, "<f4") * wide_D).sum())) for number, _, vector in best]


def _close_all(idle: SimpleQueue[sqlite3.Connection]) -> None:
    with contextlib.suppress(Empty):
        while True:
            idle.get_nowait().close()
