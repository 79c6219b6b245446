"""Passages in a table of LanceDB: words by its full-text index, vectors exactly, and by an index when there are many.

A document is a row and its passages are rows of the same table, so that one commit replaces it whole. Writers take
turns: a commit of LanceDB's may be tried again on top of another's, and would then write a new source twice.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
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
from lapilli.errors import BusyError, InputError, LapilliError, NoRoomError, StoreError
from lapilli.ground.claim import Claim

_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.01
_SPARE = 32  # rows more than were asked for, to see which tie with the last
_TIE = 1e-5
# Versions that nobody reads any more: no query takes as long.
_KEPT_VERSIONS = timedelta(minutes=10)
_SMALL_PARTS = 32
_PASSAGE = ["id", "source", "start", "end", "text", "rest"]


class LanceStore:
    """A collection in `<folder>/<collection>.lance`; above `many` vectors they are found by an index (IVF-PQ)."""

    def __init__(
        self, folder: Path, collection: str, vector_size: int | None, embedder: str, *, many: int = 100_000
    ) -> None:
        self._folder, self._collection, self._many = Path(folder), collection, many
        self._wanted = None if vector_size is None else Vectors(vector_size, embedder)
        self._threads = threading.RLock()
        self._table: Any = None
        self._lancedb = _lancedb()
        with self._told():
            self._check(self._opened())

    @property
    def size(self) -> int | None:
        """How many values a vector has; None where no vectors are kept."""
        if self._wanted is not None:
            return self._wanted.size
        with self._told():
            kept = _settings(self._opened())
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
        owner = owner_of(source)
        with self._told(), self._turn():
            table = self._opened()
            if table is None or not _states(table, [owner]):
                return False
            table.delete(f"owner = '{owner}'")
            return True

    def clear(self) -> None:
        """Remove all sources; vectors of another size may come then."""
        with self._told(), self._turn():
            if self._opened() is not None:
                self._begin(Vectors(None, ""))

    def sources(self) -> list[SourceEntry]:
        """What is there, by name."""
        columns = ["source", "rest", "start", "end", "added"]
        with self._told():
            table = self._opened()
            rows = [] if table is None else _rows(table.search().where("row = 'document'").select(columns))
        found = [entry_of(*(row[name] for name in columns)) for row in rows]
        return sorted(found, key=lambda entry: entry.source)

    def document(self, source: str) -> Document:
        """A source with its text and picture; raises InputError where it is not there."""
        columns = ["source", "text", "rest", "picture"]
        with self._told():
            table = self._opened()
            condition = f"owner = '{owner_of(source)}' AND row = 'document'"
            rows = [] if table is None else _rows(table.search().where(condition).select(columns))
        if not rows:
            raise InputError(f"{source[:200]}: is not among the documents")
        return document_of(*(rows[0][name] for name in columns))

    def by_words(self, query: str, count: int, where: Mapping[str, Any] | None) -> list[Hit]:
        """The passages with the query's words, by BM25; equal scores in the order of their ids."""
        condition = _condition(where)
        sought = query_terms(query)
        with self._told():
            table = self._opened()
            if table is None or not sought:
                return []
            match = self._lancedb.query.MatchQuery(" ".join(sought), "words")

            def best(limit: int) -> list[tuple[float, Passage]]:
                found = table.search(match, query_type="fts").where(condition).limit(limit)
                return [(row["_score"], _passage(row)) for row in _rows(found.select([*_PASSAGE, "_score"]))]

            return ranked(_with_ties(best, count), count, words=True)

    def by_vector(self, vector_D: np.ndarray, count: int, where: Mapping[str, Any] | None) -> list[Hit]:
        """The passages whose vectors are nearest, by the cosine."""
        condition = _condition(where)
        with self._told():
            table = self._opened()
            kept = _settings(table)
            if table is None or kept is None:
                return []
            if kept.size is None:
                raise InputError("the collection keeps no vectors: it was begun without an embedder")
            sought_D = query_vector(vector_D, kept.size)

            def best(limit: int) -> list[tuple[float, Passage]]:
                found = table.search(sought_D, vector_column_name="vector").distance_type("dot").where(condition)
                found = found.nprobes(64).refine_factor(4).limit(limit)
                return [(1 - row["_distance"], _passage(row)) for row in _rows(found.select([*_PASSAGE, "_distance"]))]

            return ranked(_with_ties(best, count), count, words=False)

    def optimize(self) -> None:
        """Bring what was written bit by bit together, so that it is found faster and takes less room."""
        with self._told(), self._turn():
            table = self._opened()
            if table is not None:
                self._tidy(table)

    def _write_entries(self, entries: Sequence[Entry]) -> int:
        with self._told(), self._turn():
            table = self._opened()
            if self._check(table) is None:
                table = self._begin(self._wanted or Vectors(None, ""))
            states = _states(table, [entry.owner for entry in entries])
            fresh = [entry for entry in entries if states.get(entry.owner) != entry.state]
            if not fresh:
                return 0
            rows = _table_of(fresh, table.schema)
            replaced = [entry.owner for entry in fresh if entry.owner in states]
            if replaced:
                merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.when_not_matched_by_source_delete(f"owner IN ({_quoted(replaced)})").execute(
                    rows, on_bad_vectors="null"
                )
            else:
                table.add(rows, on_bad_vectors="null")
            parts = table.stats()["fragment_stats"]["num_fragments"]
            # Bringing together writes everything anew: the more there is, the more parts are borne.
            if parts > _SMALL_PARTS + table.count_rows() // 1000:
                self._tidy(table)
            return len(fresh)

    def _tidy(self, table: Any) -> None:
        table.optimize(cleanup_older_than=_KEPT_VERSIONS)
        kept = _settings(table)
        if kept is None or kept.size is None or (rows := table.count_rows("vector IS NOT NULL")) <= self._many:
            return
        indexed = [index.name for index in table.list_indices() if index.columns == ["vector"]]
        if indexed and table.index_stats(indexed[0]).num_indexed_rows * 5 > rows * 4:
            return
        from lancedb.index import IvfPq

        pieces = max(size for size in (1, 2, 4, 8) if kept.size % size == 0)
        config = IvfPq(distance_type="dot", num_partitions=int(math.sqrt(rows)), num_sub_vectors=kept.size // pieces)
        table.create_index("vector", config=config, replace=True)

    def _opened(self) -> Any:
        """The table as it is now, None where there is none yet."""
        with self._threads:
            if self._table is None and (self._folder / f"{self._collection}.lance" / "_versions").is_dir():
                try:
                    self._table = self._database().open_table(self._collection)
                except ValueError as error:  # begun, and killed before its first version
                    if "not found" not in str(error):
                        raise
            if self._table is not None:
                self._table.checkout_latest()
            return self._table

    def _begin(self, vectors: Vectors) -> Any:
        """An empty table for vectors of that kind, in the place of the one that is there."""
        import pyarrow as pa
        from lancedb.index import FTS

        schema = _schema(pa, vectors)
        mode = "create" if self._table is None else "overwrite"
        with self._threads:
            self._table = self._database().create_table(self._collection, schema=schema, mode=mode)
        config = FTS(
            base_tokenizer="whitespace", stem=False, remove_stop_words=False, ascii_folding=False, lower_case=False,
            max_token_length=None,
        )  # fmt: skip
        self._table.create_index("words", config=config)
        return self._table

    def _database(self) -> Any:
        return self._lancedb.connect(self._folder)

    def _check(self, table: Any) -> Vectors | None:
        """What the collection keeps, None while it is empty. Raises InputError where that is not what is wanted."""
        kept = _settings(table)
        if kept is not None and self._wanted is not None:
            kept.check(self._wanted, f"the collection {self._collection}")
        return kept

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the collection's place for writing; it is free again when this process ends, however it ends."""
        until = time.monotonic() + _WAIT_SECONDS
        with self._threads:
            while (claim := Claim.take(self._folder / f"{self._collection}.lock")) is None:
                if time.monotonic() > until:
                    raise BusyError(f"{self._folder}: another process has been writing for {_WAIT_SECONDS:g} s")
                time.sleep(_POLL_SECONDS)
            try:
                yield
            finally:
                claim.release()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What LanceDB and the disk say becomes our errors."""
        try:
            yield
        except LapilliError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            said = " ".join(str(error).split())[:300]
            kind = NoRoomError if "No space left" in said or "os error 28" in said else StoreError
            raise kind(f"{self._folder}: the collection {self._collection} cannot be used: {said}") from error


def _lancedb() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import lancedb
    except ImportError:
        raise InputError("LanceDB is not installed: pip install 'lapilli[rag]', or take the kind sqlite") from None
    return lancedb


def _schema(pa: Any, vectors: Vectors) -> Any:
    """One kind of row for both: a document's `start` and `end` are how many passages and characters it has."""
    columns = {
        "id": pa.string(), "row": pa.string(), "owner": pa.string(), "source": pa.string(), "start": pa.int64(),
        "end": pa.int64(), "text": pa.string(), "rest": pa.string(), "words": pa.string(),
        "tags": pa.list_(pa.string()), "state": pa.string(), "added": pa.float64(), "picture": pa.binary(),
    }  # fmt: skip
    if vectors.size is not None:
        columns["vector"] = pa.list_(pa.float32(), vectors.size)
    return pa.schema(columns, metadata={"embedder": vectors.embedder})


def _settings(table: Any) -> Vectors | None:
    """What the collection keeps, None while it has no documents."""
    if table is None or table.count_rows() == 0:
        return None
    schema = table.schema
    size = schema.field("vector").type.list_size if "vector" in schema.names else None
    return Vectors(size, (schema.metadata or {}).get(b"embedder", b"").decode())


def _states(table: Any, owners: Sequence[str]) -> dict[str, str]:
    """The states of those sources that are there."""
    condition = f"row = 'document' AND owner IN ({_quoted(owners)})"
    return {row["owner"]: row["state"] for row in _rows(table.search().where(condition).select(["owner", "state"]))}


def _table_of(entries: Sequence[Entry], schema: Any) -> Any:
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for entry in entries:
        document = entry.document
        rows.append({
            "id": entry.owner, "row": "document", "owner": entry.owner, "source": document.source,
            "start": len(entry.passages), "end": len(document.text), "text": document.text, "rest": entry.head,
            "state": entry.state, "added": time.time(), "picture": document.picture,
        })  # fmt: skip
        for place, passage in enumerate(entry.passages):
            rows.append({
                "id": passage.id, "row": "passage", "owner": entry.owner, "source": passage.source,
                "start": passage.start, "end": passage.end, "text": passage.text, "rest": passage_json(passage),
                "words": " ".join(terms(passage.text)), "tags": entry.tags(passage),
                "vector": None if entry.vectors_ND is None else entry.vectors_ND[place],
            })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema)


def _quoted(owners: Sequence[str]) -> str:
    """Keys of sources for a condition: hexadecimal digits, every one."""
    return ", ".join(f"'{owner}'" for owner in owners)


def _condition(where: Mapping[str, Any] | None) -> str:
    """Tags as SQL: hexadecimal digits, whatever was asked for."""
    parts = [
        "(" + " OR ".join(["FALSE", *(f"array_has(tags, '{tag}')" for tag in any_of)]) + ")"
        for any_of in conditions(where)
    ]
    return " AND ".join(["row = 'passage'", *parts])


def _with_ties(best: Callable[[int], list[tuple[float, Passage]]], count: int) -> list[tuple[float, Passage]]:
    """The best, with all that tie with the last of them: which of them are given is not left to chance."""
    limit = count + _SPARE
    while True:
        found = best(limit)
        if len(found) < limit or found[-1][0] < found[count - 1][0] - _TIE:
            return found
        limit *= 4


def _rows(query: Any) -> list[dict[str, Any]]:
    return query.to_arrow().to_pylist()  # type: ignore[no-any-return]


def _passage(row: Mapping[str, Any]) -> Passage:
    return passage_of(*(row[name] for name in _PASSAGE))
