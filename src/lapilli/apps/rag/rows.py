"""What a store of passages is given and gives: entries to be written, hits, and the conditions of a search.

What a stranger wrote (names of sources, metadata, what is asked for) never becomes a part of a condition in SQL: it is
compared by its sha256.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lapilli.apps.rag.document import Document, Passage
from lapilli.errors import InputError

Item = tuple[Document, Sequence[Passage], np.ndarray | None]
"""A document, its passages, and their vectors (N, D) where the store keeps vectors."""

_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_OWN = ("source", "kind", "title", "digest", "label")
# One write is one version of a table, so many documents share one; but a kill costs what was not written yet.
_GROUP_DOCUMENTS, _GROUP_CHARACTERS, _GROUP_SECONDS = 256, 8_000_000, 10.0


@dataclass(frozen=True)
class Hit:
    """A passage that was found, with its score (larger is better) and its place, from 1, in either ranking."""

    passage: Passage
    score: float
    words_rank: int | None = None
    vector_rank: int | None = None


@dataclass(frozen=True)
class SourceEntry:
    """A source as a list shows it; `added` is seconds since 1970."""

    source: str
    kind: str
    title: str
    digest: str
    passages: int
    characters: int
    added: float


@dataclass(frozen=True)
class Vectors:
    """What the vectors of a collection are: how many values each, None for none, and of which embedder."""

    size: int | None
    embedder: str

    def check(self, wanted: Vectors, where: str) -> None:
        """Raise InputError where these, which are kept, are not those that are wanted."""
        way_out = "take another collection, or remove all documents and add them again"
        if self.size != wanted.size:
            raise InputError(f"{where} keeps {_told(self.size)}, the embedder makes {_told(wanted.size)}: {way_out}")
        if self.embedder != wanted.embedder:
            raise InputError(
                f"{where} keeps vectors of the embedder {self.embedder[:80]!r}, "
                f"this one is {wanted.embedder[:80]!r}: {way_out}"
            )


@dataclass(frozen=True)
class Entry:
    """One source to be written. `state` changes with its bytes and with how it was cut; vectors are of unit length."""

    owner: str
    state: str
    document: Document
    passages: tuple[Passage, ...]
    vectors_ND: np.ndarray | None

    @classmethod
    def of(
        cls, document: Document, passages: Sequence[Passage], vectors_ND: np.ndarray | None, size: int | None
    ) -> Entry:
        """Check and prepare; raises InputError for what does not belong together, with both numbers."""
        kept = tuple({passage.id: passage for passage in passages}.values())
        if len(kept) != len(passages):
            raise InputError(f"{document.source}: {len(passages)} passages have {len(kept)} ids; each needs its own")
        for passage in kept:
            if passage.source != document.source or document.text[passage.start : passage.end] != passage.text:
                raise InputError(f"{document.source}: passage {passage.start}-{passage.end} is no piece of its text")
        for text in (document.source, document.title, document.text):
            if not _is_text(text):
                raise InputError(f"{document.source!a}: its name or text cannot be written in UTF-8")
        units_ND = _units(document.source, len(kept), vectors_ND, size)
        marked = json.dumps([document.digest, document.kind, [passage.id for passage in kept]])
        return cls(owner_of(document.source), hashlib.sha256(marked.encode()).hexdigest(), document, kept, units_ND)

    @property
    def head(self) -> str:
        """What is kept of the document beside its text and picture, as JSON."""
        document = self.document
        return json.dumps([document.kind, document.title, document.digest, dict(document.meta), document.marks])

    def tags(self, passage: Passage) -> list[str]:
        """What a passage can be asked for by: a tag for each of its values and of its document's."""
        document = self.document
        own = (document.source, document.kind, document.title, document.digest, passage.label)
        values = {**document.meta, **passage.meta, **dict(zip(_OWN, own, strict=True))}
        return [_tag(key, value) for key, value in values.items()]


def passage_json(passage: Passage) -> str:
    """What is kept of a passage beside its place and text."""
    return json.dumps([passage.label, passage.picture, dict(passage.meta)])


def passage_of(id: str, source: str, start: int, end: int, text: str, rest: str) -> Passage:
    """The passage again."""
    label, picture, meta = json.loads(rest)
    return Passage(id, source, start, end, text, label, picture, meta)


def document_of(source: str, text: str, head: str, picture: bytes | None) -> Document:
    """The document again."""
    kind, title, digest, meta, marks = json.loads(head)
    return Document(source, kind, title, text, digest, meta, tuple((start, label) for start, label in marks), picture)


def entry_of(source: str, head: str, passages: int, characters: int, added: float) -> SourceEntry:
    """The line of a list."""
    kind, title, digest, _, _ = json.loads(head)
    return SourceEntry(source, kind, title, digest, passages, characters, added)


def owner_of(source: str) -> str:
    """The key of a source: 32 hexadecimal digits."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def check_collection(name: str) -> str:
    """The name of a collection, or InputError."""
    if not isinstance(name, str) or not _COLLECTION.fullmatch(name):
        raise InputError(f"{ascii(name)[:80]}: a collection's name is 1 to 64 letters, digits, _ and -")
    return name


def conditions(where: Mapping[str, Any] | None) -> list[list[str]]:
    """Tags that a passage must have: of each list, any one. A list of values means any of them.

    Values are compared as what they are: 1 is 1.0 and neither "1" nor true. Raises InputError for other kinds.
    """
    if where is not None and not isinstance(where, Mapping):
        raise InputError(f"where: a mapping of keys to values is needed, not a {type(where).__name__}")
    wanted: list[list[str]] = []
    for key, value in (where or {}).items():
        many = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        wanted.append(sorted({_tag(key, each) for each in many}))
    return wanted


def query_vector(vector_D: np.ndarray, size: int) -> np.ndarray:
    """The vector of a query as float32 of unit length; raises InputError where its size is not the store's."""
    found_D = np.asarray(vector_D, np.float32).reshape(-1)
    if found_D.size != size:
        raise InputError(f"a vector of {found_D.size} values was asked for, the store keeps vectors of {size}")
    if not np.isfinite(found_D).all():
        raise InputError("the vector that was asked for holds values that are no numbers")
    return _unit_rows(found_D[None]).reshape(-1)


def ranked(found: Iterable[tuple[float, Passage]], count: int, *, words: bool) -> list[Hit]:
    """The best as hits, equal scores in the order of their ids."""
    best = sorted(found, key=lambda pair: (-pair[0], pair[1].id))[:count]
    return [
        Hit(passage, score, words_rank=rank if words else None, vector_rank=None if words else rank)
        for rank, (score, passage) in enumerate(best, 1)
    ]


def write_in_groups(
    items: Iterable[Item], prepare: Callable[[Item], Entry], write: Callable[[Sequence[Entry]], int]
) -> int:
    """Write entries a group at a time, of one source the last; returns the sum of what `write` returns.

    Where the items end in an exception, what came before it is written first: making it may have been dear.
    """
    written = 0
    group: dict[str, Entry] = {}
    begun = time.monotonic()
    characters = 0
    try:
        for item in items:
            entry = prepare(item)
            group.pop(entry.owner, None)
            group[entry.owner] = entry
            characters += len(entry.document.text) + len(entry.document.picture or b"")
            late = time.monotonic() - begun > _GROUP_SECONDS
            if late or len(group) >= _GROUP_DOCUMENTS or characters >= _GROUP_CHARACTERS:
                full, group = list(group.values()), {}
                written += write(full)
                begun, characters = time.monotonic(), 0
    finally:
        if group:
            written += write(list(group.values()))
    return written


def _tag(key: object, value: object) -> str:
    if not isinstance(key, str):
        raise InputError(f"metadata: a key is text, not a {type(key).__name__}")
    if not isinstance(value, str | int | float | bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"metadata {key[:60]!r}: text, a number or a truth value is needed, not {str(value)[:60]!r}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return hashlib.sha256(json.dumps([key, value]).encode()).hexdigest()[:32]


def _units(of: str, count: int, vectors_ND: np.ndarray | None, size: int | None) -> np.ndarray | None:
    """The vectors (N, D) of unit length, zero ones as they are."""
    if count == 0 or (vectors_ND is None and size is None):
        return None
    if vectors_ND is None:
        raise InputError(f"{of}: no vectors were given, the store keeps vectors of {size} values")
    found_ND = np.asarray(vectors_ND, np.float32)
    if found_ND.ndim != 2 or size is None or found_ND.shape != (count, size):
        shape = " x ".join(map(str, found_ND.shape))
        raise InputError(f"{of}: {shape} vectors were given, the store needs {count} x {size or 0}")
    if not np.isfinite(found_ND).all():
        raise InputError(f"{of}: its vectors hold values that are no numbers")
    return _unit_rows(found_ND)


def _unit_rows(found_ND: np.ndarray) -> np.ndarray:
    length_N1 = np.linalg.norm(found_ND.astype(np.float64), axis=1, keepdims=True)
    units_ND: np.ndarray = (found_ND / np.where(length_N1 == 0, 1, length_N1)).astype(np.float32)
    return units_ND


def _told(size: int | None) -> str:
    return "no vectors" if size is None else f"vectors of {size} values"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
