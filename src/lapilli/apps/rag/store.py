"""Where passages are kept and found: one protocol, two stores, chosen by what is there and what is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from lapilli.apps.rag.document import Document, Passage
from lapilli.apps.rag.rows import Hit as Hit
from lapilli.apps.rag.rows import Item, check_collection
from lapilli.apps.rag.rows import SourceEntry as SourceEntry
from lapilli.apps.rag.search import search as search
from lapilli.errors import InputError

Kind = Literal["lance", "sqlite"]


class PassageStore(Protocol):
    """Documents with their passages; safe to be used by many threads and processes at once.

    What is written is there whole or not at all, whenever its writer is killed, and readers never see half of it.
    Methods raise StoreError where the disk or the files fail, InputError for what cannot be kept or asked for.
    """

    @property
    def size(self) -> int | None:
        """How many values a vector has; None where no vectors are kept."""

    def put(self, document: Document, passages: Sequence[Passage], vectors_ND: np.ndarray | None) -> bool:
        """Write a document in the place of what its source was before; False where it is there just so."""

    def put_all(self, items: Iterable[Item]) -> int:
        """Write many, a group at a time, each source whole; how many were not there just so."""

    def remove(self, source: str) -> bool:
        """Remove a source; False where it is not there."""

    def clear(self) -> None:
        """Remove all sources; vectors of another size may come then."""

    def sources(self) -> list[SourceEntry]:
        """What is there, by name."""

    def document(self, source: str) -> Document:
        """A source with its text and picture; raises InputError where it is not there."""

    def by_words(self, query: str, count: int, where: Mapping[str, Any] | None) -> list[Hit]:
        """The passages with the query's words, by BM25; equal scores in the order of their ids.

        The query is words and nothing else. `where` holds what a passage's or its document's values must be, or lists
        of what they may be: of metadata, and `source`, `kind`, `title`, `digest`, `label`.
        """

    def by_vector(self, vector_D: np.ndarray, count: int, where: Mapping[str, Any] | None) -> list[Hit]:
        """The passages whose vectors are nearest, by the cosine."""

    def optimize(self) -> None:
        """Bring what was written bit by bit together, so that it is found faster and takes less room."""


def open_store(
    folder: Path, *, kind: Kind | None = None, collection: str = "documents", vector_size: int | None, embedder: str
) -> PassageStore:
    """The store of a collection in a folder, which nothing is written to before the first document.

    Without a kind it is the one that is there already, else LanceDB's where that is installed, else SQLite's.
    `embedder` is the digest of what makes vectors of `vector_size` values; another one than the collection was begun
    with is refused. Without a size, a collection of any can be opened, to be searched by words, listed and emptied.
    Raises InputError, StoreError.
    """
    check_collection(collection)
    if vector_size is not None and vector_size < 1:
        raise InputError(f"vectors of {vector_size} values were asked for, at least 1 is needed")
    chosen = kind or _there(folder, collection) or ("lance" if importlib.util.find_spec("lancedb") else "sqlite")
    if chosen == "lance":
        from lapilli.apps.rag.lance import LanceStore

        return LanceStore(folder, collection, vector_size, embedder)
    if chosen == "sqlite":
        from lapilli.apps.rag.sqlite import SqliteStore

        return SqliteStore(folder, collection, vector_size, embedder)
    raise InputError(f"a store is of the kind lance or sqlite, not {str(kind)[:40]!r}")


def _there(folder: Path, collection: str) -> Kind | None:
    if (folder / f"{collection}.lance").exists():
        return "lance"
    return "sqlite" if (folder / f"{collection}.sqlite").exists() else None
