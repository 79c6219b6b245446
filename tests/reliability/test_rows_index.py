"""T87: what is asked of an index of documents is compared, and never becomes a part of a query's text."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from passages import drawn_items, item_of, open_made, vector_of

from lapilli.apps.rag.store import PassageStore, open_store
from lapilli.errors import InputError

INJECTED = [
    "' OR '1'='1",
    "x' OR 1=1 --",
    "'; DROP TABLE documents; --",
    '"; DELETE FROM passages; --',
    "x') OR true OR array_has(tags, 'x",
    "/made/00001.txt' OR row = 'document",
    "\\' OR true --",
    "%",
    "_",
    "*",
    "\0",
    "$.number",
    "1) UNION SELECT source, head, 1, 1, 1 FROM documents --",
    "{'$ne': ''}",
    "x" * 100_000,
]
OPERATORS = [
    "NEAR(lighthouse keeper, 2)",
    "lighthouse NOT keeper",
    "light*",
    '"lighthouse" ^keeper',
    "terms : lighthouse",
    "{terms words} : lighthouse",
    "-lighthouse +keeper",
    "(((lighthouse",
    '""" OR lighthouse',
    "lighthouse AND",
    "'; DROP TABLE words; -- lighthouse",
    "lighthouse~2 keeper^9",
    "text:[a TO z] lighthouse",
]


@pytest.fixture(params=["lance", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> PassageStore:
    made = open_made(tmp_path / "documents", kind)
    made.put_all(drawn_items(0, 5))
    made.put(*item_of("/made/keeper.txt", "the keeper of the lighthouse\nnear gulls"))
    return made


def bytes_in(folder: Path) -> dict[str, str]:
    """Every file's hash; what SQLite shares between processes while it reads is none of the database."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_t87_conditions_are_compared_letter_by_letter(store: PassageStore, tmp_path: Path) -> None:
    before = bytes_in(tmp_path)
    for text in INJECTED:
        for where in ({text: text}, {"number": text}, {"source": text}, {"label": ["x", text]}, {text: True}):
            assert store.by_words("edition lighthouse", 9, where) == [], where
            assert store.by_vector(vector_of("edition lighthouse"), 9, where) == [], where
    assert bytes_in(tmp_path) == before


def test_t87_conditions_that_are_no_values_are_refused(store: PassageStore, tmp_path: Path) -> None:
    before = bytes_in(tmp_path)
    for where in ({"number": {"$ne": 1}}, {"number": None}, {1: 1}, {"number": b"1"}, "1 = 1", [("number", 1)]):
        with pytest.raises(InputError, match=r"^(metadata|where)") as refusal:
            store.by_words("edition", 9, where)  # type: ignore[arg-type]
        assert "\n" not in str(refusal.value)
    assert bytes_in(tmp_path) == before


def test_t87_operators_of_full_text_are_words(store: PassageStore, tmp_path: Path) -> None:
    before = bytes_in(tmp_path)
    for query in OPERATORS:
        found = [hit.passage.text for hit in store.by_words(query, 9, None)]
        # `light*` is the word light, which nobody wrote; the others have the word lighthouse, which one passage has.
        assert ("the keeper of the lighthouse" in found) == (query != "light*"), query
    for query in INJECTED:
        assert len(store.by_words(query, 9, None)) <= 9
    assert bytes_in(tmp_path) == before


def test_t87_names_that_are_code_are_names(store: PassageStore) -> None:
    before = [(entry, store.document(entry.source)) for entry in store.sources()]
    for text in INJECTED:
        assert not store.remove(text)
        with pytest.raises(InputError, match="is not among the documents"):
            store.document(text)
        store.put(*item_of(text, f"edition of a name\n{text}", **{text: text}))
        assert store.document(text).meta == {text: text}
        hits = store.by_words("edition of a name", 9, {text: text, "source": text})
        assert {hit.passage.source for hit in hits} == {text}
        assert store.remove(text)
    assert [(entry, store.document(entry.source)) for entry in store.sources()] == before


def test_t87_collections_have_plain_names(store: PassageStore, kind: str, tmp_path: Path) -> None:
    before = bytes_in(tmp_path)
    for name in (
        *INJECTED,
        "../documents",
        "/tmp/documents",
        "documents.lance",
        "a\nb",
        ".",
        "a;b",
        "a'b",
        'a"b',
        "ａ",
    ):
        with pytest.raises(InputError, match="a collection's name"):
            open_store(tmp_path, kind=kind, collection=name, vector_size=None, embedder="")  # type: ignore[arg-type]
    assert bytes_in(tmp_path) == before
