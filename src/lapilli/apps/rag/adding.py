"""From sources to a store: read, cut into passages, made into vectors, written a group at a time.

A group is written whole or not at all, and what is there already in the same bytes is passed over: adding that was
interrupted goes on where it was when it is done again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lapilli.apps.embedders import Embedder
from lapilli.apps.rag.config import ChunkerPart
from lapilli.apps.rag.document import Document, Passage, Value
from lapilli.apps.rag.passages import split
from lapilli.apps.rag.sources import Source, find_sources, read_document
from lapilli.apps.rag.store import PassageStore
from lapilli.errors import FetchError, InputError, LapilliError

Outcome = Literal["added", "unchanged", "failed"]
_TOGETHER = 64  # passages that vectors are made of at once


@dataclass(frozen=True, kw_only=True)
class Step:
    """What became of one source, and how far all of it is."""

    source: str
    outcome: Outcome
    done: int
    total: int
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Added:
    """What adding did: sources by what became of them, failed ones with the reason; characters added."""

    added: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    characters: int = 0


@dataclass(frozen=True)
class Unread:
    """What a person named and nothing came of, with the reason."""

    name: str
    problem: str


def find_all(
    sources: Iterable[Any],
    kind: str | None,
    note: Callable[[str], None] = lambda said: None,
    roots: Sequence[Path] | None = None,
) -> Iterator[Source | Unread]:
    """The sources that these paths, folders, URLs and texts stand for; `kind` in embedchain's words or ours.

    `note` hears what is left out of folders; with `roots` only what lies in these is read.
    """
    for what in sources:
        try:
            yield from find_sources(what, kind=kind, tell=note, roots=roots)
        except (InputError, FetchError) as error:
            yield Unread(str(what)[:200], str(error))


def add_documents(
    store: PassageStore,
    sources: Sequence[Source | Unread],
    *,
    embedder: Embedder | None,
    describe: Callable[[bytes], str],
    cutting: ChunkerPart,
    metadata: Mapping[str, Value],
    anew: bool,
    tell: Callable[[Step], None],
) -> Added:
    """Add each source that is not there already in the same bytes; one that cannot be read does not end the rest.

    With `anew`, those that are there are cut again.
    """
    entries = store.sources()
    known = {} if anew else {entry.source: entry.digest for entry in entries}
    pictures = {entry.digest: entry.source for entry in entries if entry.kind == "picture"}
    added: list[Document] = []
    unchanged: list[str] = []
    failed: list[tuple[str, str]] = []

    def seen(picture: bytes) -> str:
        """What is in a picture; looking is dear, so one that is there already is not looked at again."""
        there = pictures.get(hashlib.sha256(picture).hexdigest())
        return describe(picture) if there is None else store.document(there).text

    def read() -> Iterator[Document]:
        for done, source in enumerate(sources, 1):
            outcome: Outcome = "added"
            problem = ""
            try:
                if isinstance(source, Unread):
                    raise InputError(source.problem)
                document = read_document(source, describe=seen)
            except LapilliError as error:
                outcome, problem = "failed", str(error)
                failed.append((source.name, problem))
            else:
                if known.get(document.source) == document.digest:
                    outcome = "unchanged"
                    unchanged.append(document.source)
                else:
                    known[document.source] = document.digest
                    yield dataclasses.replace(document, meta={**document.meta, **metadata})
            tell(Step(source=source.name, outcome=outcome, done=done, total=len(sources), problem=problem))

    def items() -> Iterator[tuple[Document, list[Passage], np.ndarray | None]]:
        for group in _groups((document, cut(document, cutting)) for document in read()):
            yield from _with_vectors(group, embedder)
            added.extend(document for document, _ in group)

    store.put_all(items())
    if added:
        store.optimize()
    return Added(
        added=tuple(document.source for document in added),
        unchanged=tuple(unchanged),
        failed=tuple(failed),
        characters=sum(len(document.text) for document in added),
    )


def cut(document: Document, cutting: ChunkerPart) -> list[Passage]:
    """The passages of a document."""
    return split(document, size=cutting.chunk_size, overlap=cutting.overlap, least=cutting.min_chunk_size)


Cut = tuple[Document, list[Passage]]


def _groups(documents: Iterable[Cut]) -> Iterator[list[Cut]]:
    """Documents with passages enough, together, to make vectors of at once; those before Ctrl-C, too."""
    group: list[Cut] = []
    try:
        for document in documents:
            group.append(document)
            if sum(len(passages) for _, passages in group) >= _TOGETHER:
                yield group
                group = []
    except KeyboardInterrupt:
        if group:
            yield group
        raise
    if group:
        yield group


def _with_vectors(
    group: Sequence[Cut], embedder: Embedder | None
) -> Iterator[tuple[Document, list[Passage], np.ndarray | None]]:
    texts = [passage.text for _, passages in group for passage in passages]
    vectors_ND = embedder.embed(texts) if embedder is not None and texts else None
    begin = 0
    for document, passages in group:
        end = begin + len(passages)
        yield document, passages, None if vectors_ND is None else vectors_ND[begin:end]
        begin = end
