"""Documents, passages and vectors made of a few words, the same on every run; and a process that adds many of them."""

from __future__ import annotations

import hashlib
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lapilli.apps.rag.document import Document, Passage
from lapilli.apps.rag.store import PassageStore, open_store

SIZE = 16
_WORDS = [
    "amber", "basalt", "cinder", "dune", "ember", "fjord", "glacier", "harbour", "island", "juniper", "kelp", "lagoon",
    "meadow", "nebula", "orchard", "pumice",
]  # fmt: skip

Item = tuple[Document, list[Passage], np.ndarray]


def vector_of(text: str, size: int = SIZE) -> np.ndarray:
    """The words of a text, hashed into a few values."""
    vector_D = np.zeros(size, np.float32)
    for word in re.findall(r"\w+", text.lower()):
        vector_D[int(hashlib.sha256(word.encode()).hexdigest(), 16) % size] += 1
    return vector_D


def document_of(source: str, text: str, **meta: str | int | float | bool) -> Document:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Document(source, "text", Path(source).name, text, digest, meta, ((0, "page 1"),))


def passages_of(document: Document) -> list[Passage]:
    """A passage for each line."""
    found = []
    for match in re.finditer(r"[^\n]+", document.text):
        key = f"{document.source}\0{match.start()}\0{match.end()}\0{match[0]}"
        id = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        found.append(Passage(id, document.source, match.start(), match.end(), match[0], "page 1", "", document.meta))
    return found


def item_of(source: str, text: str, **meta: str | int | float | bool) -> Item:
    document = document_of(source, text, **meta)
    passages = passages_of(document)
    vectors = [vector_of(passage.text) for passage in passages]
    return document, passages, np.array(vectors, np.float32).reshape(len(vectors), SIZE)


def drawn_items(first: int, count: int, *, edition: str = "first") -> Iterator[Item]:
    """Documents of one to four lines that their numbers decide."""
    for number in range(first, first + count):
        generator = np.random.default_rng([number, len(edition)])
        lines = [" ".join(generator.choice(_WORDS, 8)) for _ in range(generator.integers(1, 5))]
        text = "\n".join([f"{edition} edition of number {number}", *lines])
        yield item_of(f"/made/{number:05}.txt", text, number=number, even=number % 2 == 0)


def contents(store: PassageStore) -> list[tuple[object, ...]]:
    """All sources and passages that a store holds, without the times; a source's passages are as many as it says."""
    passages: dict[str, list[tuple[object, ...]]] = {}
    for hit in store.by_words("edition " + " ".join(_WORDS), 1_000_000, None):
        passage = hit.passage
        row = (passage.start, passage.id, passage.text, passage.label, tuple(passage.meta.items()))
        passages.setdefault(passage.source, []).append(row)
    found = []
    for entry in store.sources():
        rows = sorted(passages.get(entry.source, []))
        assert len({row[1] for row in rows}) == len(rows) == entry.passages, entry
        found.append((entry.source, entry.digest, entry.passages, entry.characters, tuple(rows)))
    return found


def open_made(folder: Path, kind: str) -> PassageStore:
    return open_store(folder, kind=kind, vector_size=SIZE, embedder="words")  # type: ignore[arg-type]


def batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while group := list(itertools.islice(items, size)):
        yield group


if __name__ == "__main__":
    folder, kind, first, count, edition, group_size = sys.argv[1:]
    store = open_made(Path(folder), kind)
    items = drawn_items(int(first), int(count), edition=edition)
    print("open", flush=True)
    sys.stdin.readline()
    done = sum(store.put_all(group) for group in batched(items, int(group_size)))
    store.optimize()
    print(done, flush=True)
