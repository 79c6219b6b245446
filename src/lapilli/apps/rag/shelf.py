"""Documents, and what they are kept and read with: everything of an App but its questions."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lapilli.apps.rag.config import AppConfig, ChunkerPart, part_of
from lapilli.apps.rag.document import Document, Value
from lapilli.apps.rag.history import History
from lapilli.apps.rag.shapes import means, source_id
from lapilli.errors import InputError

if TYPE_CHECKING:
    from lapilli.apps.backend.call import Backend
    from lapilli.apps.embedders import Embedder
    from lapilli.apps.rag.adding import Added, Step, Unread
    from lapilli.apps.rag.sources import Source
    from lapilli.apps.rag.store import PassageStore, SourceEntry

_LOG = logging.getLogger("lapilli.rag")
_UNTOLD: Any = object()


class Shelf:
    """Documents with their store, their embedder and the model that describes pictures; see `App`."""

    def __init__(
        self,
        config: AppConfig | Mapping[str, Any] | None = None,
        *,
        folder: str | Path | None = None,
        backend: Backend | None = None,
        embedder: Embedder | None = _UNTOLD,
        store: PassageStore | None = None,
    ) -> None:
        self.config = config if isinstance(config, AppConfig) else AppConfig.of(config or {})
        self.notes = self.config.notes
        for note in self.notes:
            _LOG.warning("%s", note)
        self._folder = None if folder is None else Path(folder)
        self._collection = self.config.collection
        self._backend, self._embedder, self._store = backend, embedder, store
        self._given_store, self._given_backend = store is not None, backend is not None
        self._given_embedder = embedder is not _UNTOLD
        self._lock = threading.RLock()

    @property
    def folder(self) -> Path:
        """Where documents and sessions lie."""
        if self._folder is not None:
            return self._folder
        if self.config.vectordb.config.dir is not None:
            return Path(self.config.vectordb.config.dir).expanduser()
        from lapilli.ground.settings import Settings

        return Settings().documents

    @property
    def backend(self) -> Backend:
        """The model that answers, opened when first asked for."""
        with self._lock:
            if self._backend is None:
                from lapilli.apps.rag.opening import open_model

                self._backend = open_model(self.config.llm.opening)
            return self._backend

    @property
    def embedder(self) -> Embedder | None:
        """What makes vectors, opened when first asked for; None is full text alone.

        Where nobody said which, it is the one that the collection was begun with.
        """
        with self._lock:
            if self._embedder is _UNTOLD:
                from lapilli.apps.rag.opening import open_vectors, remember, remembered

                told = self.config.vectors or remembered(self.folder, self._collection)
                if told is None and self._shelf.size is None and self._shelf.sources():
                    self._embedder = None  # begun without vectors, whatever could make them now
                else:
                    self._embedder = open_vectors(told)
                if self.config.vectors is not None:
                    remember(self.folder, self._collection, self.config.vectors)
            return self._embedder

    @property
    def store(self) -> PassageStore:
        """Where passages are, opened when first asked for."""
        with self._lock:
            if self._store is None:
                self._store = self._shelf if self.embedder is None else self._open(self.embedder)
            return self._store

    @property
    def _shelf(self) -> PassageStore:
        """The same, for what needs no vectors."""
        if self._store is not None:
            return self._store
        return self._open(None)

    def _open(self, embedder: Embedder | None) -> PassageStore:
        from lapilli.apps.rag.store import open_store

        return open_store(
            self.folder,
            kind=self.config.vectordb.kind,
            collection=self._collection,
            vector_size=None if embedder is None else embedder.size,
            embedder="" if embedder is None else embedder.digest,
        )

    @property
    def history(self) -> History:
        """What was said in sessions."""
        return History(self.folder / "_sessions.sqlite", self._collection)  # no collection's name begins so

    def close(self) -> None:
        """Give the model's memory back; the App opens it again when it is asked for."""
        with self._lock:
            if self._backend is not None:
                self._backend.close()
                self._backend = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self,
        source: Any,
        data_type: str | None = None,
        metadata: Mapping[str, Value] | None = None,
        config: Any = None,
        dry_run: bool = False,
        loader: None = None,
        chunker: ChunkerPart | Mapping[str, Any] | None = None,
    ) -> Any:
        """Add a path, a folder, a URL or a text, and return its id; the same content again changes nothing.

        `data_type` is a kind of document, in embedchain's words or ours. `dry_run` returns the passages that it would
        become, as embedchain does. Raises InputError where nothing of it could be read.
        """
        if loader is not None:
            raise InputError("loader: documents are read here by what they are; give the text itself instead")
        chosen = chunker if chunker is not None else getattr(config, "chunker", None)
        if dry_run:
            return self._passages_of(source, data_type, chosen)
        added = self.add_all([source], kind=data_type, metadata=metadata, chunker=chosen)
        done = [*added.added, *added.unchanged]
        if not done:
            raise InputError(added.failed[0][1] if added.failed else f"{str(source)[:200]}: holds no document")
        for name, problem in added.failed:
            _LOG.warning("%s was not added: %s", name, problem)
        return source_id(done[0]) if len(done) == 1 else source_id(os.path.abspath(os.path.expanduser(source)))

    def add_all(
        self,
        sources: Iterable[Any],
        *,
        kind: str | None = None,
        metadata: Mapping[str, Value] | None = None,
        chunker: ChunkerPart | Mapping[str, Any] | None = None,
        tell: Callable[[Step], None] = lambda step: None,
        note: Callable[[str], None] = _LOG.info,
        roots: Sequence[Path] | None = None,
    ) -> Added:
        """Add many sources, and tell of each what became of it; one that cannot be read does not end the rest.

        `note` hears what is left out of folders: hidden files, links that lead out of them. With `roots` nothing is
        read that does not lie in these: for those who ask from elsewhere.
        """
        from lapilli.apps.rag.adding import find_all

        return self._added(list(find_all(sources, kind, note, roots)), chunker, metadata, tell)

    def add_file(self, name: str, data: bytes, *, metadata: Mapping[str, Value] | None = None) -> Added:
        """Add a file that somebody sent, under that name. Raises InputError for a name that cannot be kept."""
        from lapilli.apps.rag.sources import Source

        return self._added([Source.of_bytes(name, data)], None, metadata, lambda step: None)

    def _added(
        self,
        sources: Sequence[Source | Unread],
        chunker: ChunkerPart | Mapping[str, Any] | None,
        metadata: Mapping[str, Value] | None,
        tell: Callable[[Step], None],
    ) -> Added:
        from lapilli.apps.rag.adding import add_documents

        return add_documents(
            self.store,
            sources,
            embedder=self.embedder,
            describe=self._describe,
            cutting=part_of(ChunkerPart, chunker, self.config.chunker),
            metadata=dict(metadata or {}),
            anew=chunker is not None,
            tell=tell,
        )

    def sources(self) -> list[SourceEntry]:
        """What was added."""
        return self._shelf.sources()

    def document(self, source: str) -> Document:
        """A source with its text, and its picture where it is one. Raises InputError where it is not there."""
        return self._shelf.document(source)

    def get_data_sources(self) -> list[dict[str, Any]]:
        """What was added, as embedchain lists it, with more."""
        return [
            {
                "data_type": entry.kind, "data_value": entry.source, "metadata": {}, "id": source_id(entry.source),
                "title": entry.title, "passages": entry.passages, "characters": entry.characters,
            }
            for entry in self.sources()
        ]  # fmt: skip

    def delete(self, source_id: str | Path) -> bool:
        """Remove a source, by its id or as it was named; a folder, with all that lies in it. False where none is."""
        found = [entry.source for entry in self.sources() if means(str(source_id), entry.source)]
        removed = [self._shelf.remove(source) for source in found]
        return any(removed)

    def reset(self) -> None:
        """Remove all documents of the collection, and its sessions."""
        self._shelf.clear()
        self.history.clear()

    def set_collection_name(self, name: str) -> None:
        """Go on with another collection of the same folder."""
        if self._given_store:
            raise InputError("set_collection_name: this App was given its store; open another one")
        with self._lock:
            self._collection, self._store = name, None
            if not self._given_embedder:
                self._embedder = _UNTOLD

    def _describe(self, picture: bytes) -> str:
        """What the model sees in a picture."""
        from lapilli.apps.rag.asking import describe

        return describe(self.backend, picture)

    def _passages_of(self, source: Any, kind: str | None, chunker: Any) -> dict[str, Any]:
        from lapilli.apps.rag.adding import cut
        from lapilli.apps.rag.sources import find_sources, read_document

        cutting = part_of(ChunkerPart, chunker, self.config.chunker)
        documents = [read_document(each, describe=self._describe) for each in find_sources(source, kind=kind)]
        found = [passage for document in documents for passage in cut(document, cutting)]
        return {
            "chunks": [passage.text for passage in found],
            "metadata": [{"url": passage.source, "start": passage.start, "end": passage.end} for passage in found],
            "count": len(found),
        }
