"""Both stores keep the same promises: whole documents, literal conditions, one order of hits."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import passages as made
import pytest
from passages import SIZE, contents, drawn_items, item_of, open_made, vector_of

from lapilli.apps.rag.document import Document
from lapilli.apps.rag.store import PassageStore, open_store
from lapilli.errors import InputError, StoreError

KINDS = ["lance", "sqlite"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> PassageStore:
    return open_made(tmp_path, kind)


def texts(hits: list) -> list[str]:
    return [hit.passage.text for hit in hits]


def test_what_was_put_is_there(store: PassageStore) -> None:
    picture = Document("/made/sun.png", "picture", "sun.png", "A red circle.", "d1", {"width": 72}, (), b"\x89PNG\x00")
    assert store.put(*item_of("/made/a.txt", "The lighthouse stands.\nGulls nest here.", year=1890, open=True))
    assert store.put(picture, made.passages_of(picture), vector_of("A red circle.")[None])
    assert [(e.source, e.kind, e.passages, e.characters) for e in store.sources()] == [
        ("/made/a.txt", "text", 2, 39),
        ("/made/sun.png", "picture", 1, 13),
    ]
    assert abs(store.sources()[0].added - time.time()) < 60
    assert store.document("/made/sun.png") == picture
    document = store.document("/made/a.txt")
    assert document == item_of("/made/a.txt", "The lighthouse stands.\nGulls nest here.", year=1890, open=True)[0]
    (hit,) = store.by_words("where do GULLS live?", 5, None)
    passage = hit.passage
    assert passage == made.passages_of(document)[1]
    assert document.text[passage.start : passage.end] == passage.text
    assert (hit.words_rank, hit.vector_rank) == (1, None)
    assert hit.score > 0
    (near, *_) = store.by_vector(vector_of("red circle a"), 5, None)
    assert near.passage.source == "/made/sun.png"
    assert near.score == pytest.approx(1.0)
    assert (near.words_rank, near.vector_rank) == (None, 1)


def test_nothing_is_written_before_the_first_document(store: PassageStore, tmp_path: Path) -> None:
    assert store.sources() == []
    assert store.by_words("anything", 5, None) == []
    assert store.by_vector(vector_of("anything"), 5, None) == []
    assert not store.remove("/made/a.txt")
    store.clear()
    store.optimize()
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_the_same_again_changes_nothing(store: PassageStore) -> None:
    item = item_of("/made/a.txt", "one line\nanother line")
    assert store.put(*item)
    first = store.sources()
    assert not store.put(*item)
    assert store.put_all([item, item]) == 0
    assert store.sources() == first


def test_a_changed_source_replaces_the_old_one(store: PassageStore) -> None:
    store.put_all(drawn_items(0, 5))
    store.put(*item_of("/made/a.txt", "the old lighthouse\nwith gulls"))
    assert store.put(*item_of("/made/a.txt", "the new windmill"))
    assert texts(store.by_words("lighthouse gulls windmill", 9, None)) == ["the new windmill"]
    assert (
        store.by_vector(vector_of("the old lighthouse"), 9, {"source": "/made/a.txt"})[0].passage.text[:7] == "the new"
    )
    assert len(store.sources()) == 6
    # Cut in another way, it is written anew as well.
    document, passages, vectors = item_of("/made/a.txt", "the new windmill")
    short = dataclasses.replace(passages[0], id="0" * 32, end=7, text="the new")
    assert store.put(document, [short], vectors)
    assert texts(store.by_words("windmill new", 9, None)) == ["the new"]


def test_of_one_source_twice_the_last_counts(store: PassageStore) -> None:
    assert store.put_all([item_of("/a", "first words"), item_of("/b", "other words"), item_of("/a", "last words")]) == 2
    assert sorted(texts(store.by_words("words", 9, None))) == ["last words", "other words"]


def test_removed_is_gone_and_cleared_is_empty(store: PassageStore, kind: str, tmp_path: Path) -> None:
    store.put_all(drawn_items(0, 20))
    assert store.remove("/made/00003.txt")
    assert not store.remove("/made/00003.txt")
    assert "/made/00003.txt" not in {hit.passage.source for hit in store.by_words("number edition", 200, None)}
    with pytest.raises(InputError, match="is not among the documents"):
        store.document("/made/00003.txt")
    reader = open_made(tmp_path, kind)
    assert len(reader.sources()) == 19
    store.clear()
    for each in (store, reader):
        assert each.sources() == []
        assert each.by_words("edition", 9, None) == []
        assert each.by_vector(vector_of("edition"), 9, None) == []
    store.put_all(drawn_items(0, 3))
    assert len(reader.by_words("edition", 9, None)) == 3


def test_what_came_before_an_error_is_kept(store: PassageStore) -> None:
    def broken() -> Iterator[made.Item]:
        yield from drawn_items(0, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put_all(broken())
    assert len(store.sources()) == 3


def test_a_document_may_have_no_passages(store: PassageStore) -> None:
    document = made.document_of("/made/empty.txt", "")
    assert store.put(document, [], None)
    assert store.sources()[0].passages == 0
    assert store.document("/made/empty.txt") == document
    assert store.by_vector(vector_of("a"), 3, None) == []


def test_conditions(store: PassageStore) -> None:
    store.put(*item_of("/a", "red boat", year=1890, open=True, size=1.5, name="1"))
    store.put(*item_of("/b", "red barn", year=1891, open=False, size=2.0, name="x"))

    def found(**where: object) -> list[str]:
        by_words = store.by_words("red", 9, where)
        by_vector = store.by_vector(vector_of("red"), 9, where)
        assert sorted(texts(by_words)) == sorted(texts(by_vector))
        return sorted(hit.passage.source for hit in by_words)

    assert found() == ["/a", "/b"]
    assert found(year=1890) == ["/a"]
    assert found(year=1890.0) == ["/a"]
    assert found(year="1890") == []
    assert found(open=True) == ["/a"]
    assert found(open=1) == []
    assert found(name=1) == []
    assert found(size=2) == ["/b"]
    assert found(year=1890, open=False) == []
    assert found(year=[1890, 1891, 7], open=False) == ["/b"]
    assert found(year=[]) == []
    assert found(source="/b") == ["/b"]
    assert found(kind="text", title="a") == ["/a"]
    assert found(label="page 1") == ["/a", "/b"]
    assert found(nothing="there") == []
    for where in ({"year": None}, {"year": {"$gt": 3}}, {1: 2}, {"year": float("nan")}, ["year"]):
        with pytest.raises(InputError, match=r"metadata|where"):
            store.by_words("red", 9, where)  # type: ignore[arg-type]


def test_words_of_any_script_are_found(store: PassageStore) -> None:
    lines = {
        "de": "Die Übergröße kostet", "zh": "我们今天去北京的图书馆看书", "ja": "カタカナとひらがなを書く",
        "ko": "안녕하세요 세계", "ru": "Съешь ещё этих булок", "hi": "नमस्ते दुनिया", "th": "สวัสดีชาวโลก",
        "fr": "un café crème",
    }  # fmt: skip
    store.put_all(item_of(f"/{name}", text) for name, text in lines.items())
    asked = {
        "ubergrosse": "de", "ÜBERGRÖSSE": "de", "图书馆": "zh", "京": "zh", "ひらがな": "ja", "ｶﾀｶﾅ": "ja",
        "세계": "ko", "ЕЩЁ": "ru", "दुनिया": "hi", "ชาวโลก": "th", "cafe": "fr", "CAFÉ": "fr", "cafe\u0301": "fr",
    }  # fmt: skip
    for query, name in asked.items():
        hits = store.by_words(query, 5, None)
        assert [hit.passage.source for hit in hits] == [f"/{name}"], query
    assert store.by_words("दुनियाएँ", 5, None) == []
    assert store.by_words("書館", 5, None) == []
    for nothing in ("", "  ", "?!", "\u200b", "\0"):
        assert store.by_words(nothing, 5, None) == []


def test_a_query_of_thousands_of_words(store: PassageStore) -> None:
    store.put_all(drawn_items(0, 5))
    query = " ".join(f"word{number}" for number in range(3000))
    assert len(store.by_words(f"{query} edition", 5, None)) == 5


def test_the_rarer_word_weighs_more(store: PassageStore) -> None:
    store.put_all(drawn_items(0, 30))
    store.put(*item_of("/made/rare.txt", "first edition of the lighthouse keeper"))
    assert store.by_words("edition of a lighthouse", 3, None)[0].passage.source == "/made/rare.txt"
    store.optimize()
    assert store.by_words("edition of a lighthouse", 3, None)[0].passage.source == "/made/rare.txt"


def test_equal_scores_are_in_the_order_of_ids_whatever_the_count(store: PassageStore) -> None:
    store.put_all(item_of(f"/made/{number}", "the same words everywhere") for number in range(120))
    store.put_all(item_of(f"/made/{number}", "quite another line there") for number in range(120, 140))
    for find, asked in ((store.by_words, "same words"), (store.by_vector, vector_of("the same words everywhere"))):
        every = [hit.passage.id for hit in find(asked, 120, None)]
        assert every == sorted(every)
        assert len(every) == 120
        assert [hit.passage.id for hit in find(asked, 7, None)] == every[:7]


def test_the_order_does_not_depend_on_how_it_was_written(kind: str, tmp_path: Path) -> None:
    items = list(drawn_items(0, 60))
    once, bit_by_bit = open_made(tmp_path / "once", kind), open_made(tmp_path / "bits", kind)
    once.put_all(items)
    for item in reversed(items):
        bit_by_bit.put(*item)
    for each in (once, bit_by_bit):
        each.optimize()
    assert contents(once) == contents(bit_by_bit)
    for asked in ("amber glacier", "number 7", "pumice"):
        first, second = (
            [(hit.passage.id, round(hit.score, 4)) for hit in each.by_vector(vector_of(asked), 20, None)]
            for each in (once, bit_by_bit)
        )
        assert first == second


def test_both_stores_find_the_same_by_vectors(tmp_path: Path) -> None:
    stores = [open_made(tmp_path / kind, kind) for kind in KINDS]
    for each in stores:
        each.put_all(drawn_items(0, 200))
    for asked in ("amber glacier", "number 7 orchard", "pumice"):
        first, second = ([h.passage.id for h in each.by_vector(vector_of(asked), 10, None)] for each in stores)
        assert first == second


# --- what does not belong together ---------------------------------------------------------------------------------


def test_vectors_of_another_size_are_refused_with_both_numbers(kind: str, tmp_path: Path) -> None:
    store = open_made(tmp_path, kind)
    document, passages, vectors = item_of("/a", "one line\nand two")
    for wrong, told in ((vectors[:, :8], "2 x 8"), (vectors[:1], "1 x 16"), (None, "no vectors")):
        with pytest.raises(InputError, match=told):
            store.put(document, passages, wrong)
    with pytest.raises(InputError, match="no numbers"):
        store.put(document, passages, vectors * np.nan)
    assert store.sources() == []
    store.put(document, passages, vectors)
    with pytest.raises(InputError, match=r"8 values .* 16"):
        store.by_vector(np.ones(8), 3, None)
    with pytest.raises(InputError, match=r"keeps vectors of 16 values, the embedder makes vectors of 384 values"):
        open_store(tmp_path, kind=None, vector_size=384, embedder="words")
    with pytest.raises(InputError, match=r"'words'.*'other'"):
        open_store(tmp_path, kind=None, vector_size=SIZE, embedder="other")


def test_without_an_embedder_a_collection_is_still_read(kind: str, tmp_path: Path) -> None:
    open_made(tmp_path, kind).put(*item_of("/a", "a red boat"))
    store = open_store(tmp_path, vector_size=None, embedder="")
    assert type(store) is type(open_made(tmp_path, kind))
    assert store.size == SIZE
    assert texts(store.by_words("boat", 3, None)) == ["a red boat"]
    with pytest.raises(InputError, match="no vectors were given, the store keeps vectors of 16"):
        store.put(*item_of("/b", "a barn")[:2], None)
    store.clear()
    assert store.size is None
    assert store.put(*item_of("/b", "a barn")[:2], None)
    with pytest.raises(InputError, match="keeps no vectors"):
        store.by_vector(vector_of("barn"), 3, None)
    with pytest.raises(InputError, match=r"keeps no vectors, the embedder makes vectors of 16"):
        open_made(tmp_path, kind)
    store.clear()
    wide = open_store(tmp_path, kind=kind, vector_size=4, embedder="wide")  # type: ignore[arg-type]
    assert wide.put(*item_of("/b", "a barn")[:2], np.ones((1, 4)))
    assert store.size == 4


def test_another_embedder_that_came_first_is_seen_at_the_first_document(kind: str, tmp_path: Path) -> None:
    late = open_store(tmp_path, kind=kind, vector_size=8, embedder="late")  # type: ignore[arg-type]
    open_made(tmp_path, kind).put(*item_of("/a", "a red boat"))
    with pytest.raises(InputError, match=r"16 values.* 8 values"):
        late.put(*item_of("/b", "a barn")[:2], np.ones((1, 8)))


def test_passages_that_are_no_pieces_of_the_text_are_refused(store: PassageStore) -> None:
    document, passages, vectors = item_of("/a", "one line\nand two")
    for wrong in (
        [dataclasses.replace(passages[0], end=5)],
        [dataclasses.replace(passages[0], source="/b")],
        [passages[0], passages[0]],
    ):
        with pytest.raises(InputError, match="/a"):
            store.put(document, wrong, vectors[: len(wrong)])
    with pytest.raises(InputError, match="UTF-8"):
        store.put(*item_of("/a", "one \ud800"))
    assert store.sources() == []


def test_names_of_collections_are_checked(kind: str, tmp_path: Path) -> None:
    for name in ("", "..", "a/b", "a.b", "x" * 65, "ä", "-a", "a\n", "a b", None):
        with pytest.raises(InputError, match="a collection's name"):
            open_store(tmp_path, kind=kind, collection=name, vector_size=4, embedder="")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lance or sqlite"):
        open_store(tmp_path, kind="chroma", vector_size=4, embedder="")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 1"):
        open_store(tmp_path, kind=kind, vector_size=0, embedder="")  # type: ignore[arg-type]


def test_collections_of_one_folder_are_apart(kind: str, tmp_path: Path) -> None:
    first, second = (
        open_store(tmp_path, kind=kind, collection=name, vector_size=SIZE, embedder="words")  # type: ignore[arg-type]
        for name in ("one", "two")
    )
    first.put(*item_of("/a", "a red boat"))
    assert second.sources() == []
    second.put_all(drawn_items(0, 2))
    assert len(first.sources()) == 1


def test_without_lancedb_it_is_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_made(tmp_path / "lance", "lance").put(*item_of("/a", "a red boat"))
    monkeypatch.setitem(sys.modules, "lancedb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    store = open_store(tmp_path / "new", vector_size=SIZE, embedder="words")
    store.put(*item_of("/a", "a red boat"))
    assert (tmp_path / "new" / "documents.sqlite").is_file()
    with pytest.raises(InputError, match=r"pip install 'lapilli\[rag\]'"):
        open_store(tmp_path / "lance", vector_size=SIZE, embedder="words")


def test_damaged_files_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "documents.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match=r"documents\.sqlite: file is not a database"):
        open_made(tmp_path, "sqlite")
    open_made(tmp_path, "lance").put(*item_of("/a", "a red boat"))
    for path in (tmp_path / "documents.lance" / "_versions").glob("*.manifest"):
        path.write_bytes(b"none")
    with pytest.raises(StoreError, match="the collection documents cannot be used"):
        open_made(tmp_path, "lance").sources()


# --- many at once, and killed --------------------------------------------------------------------------------------


class Adding:
    """A process that adds documents once it is told to."""

    def __init__(self, folder: Path, kind: str, first: int, count: int, edition: str, group: int) -> None:
        arguments = [str(folder), kind, str(first), str(count), edition, str(group)]
        self._process = subprocess.Popen(
            [sys.executable, made.__file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def opened(self) -> Adding:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "open\n"
        return self

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def written(self) -> int:
        """How many it wrote, when it is done."""
        said, _ = self._process.communicate(timeout=1200)
        assert self._process.returncode == 0
        return int(said)


def test_threads_at_once_lose_nothing(store: PassageStore) -> None:
    threads = [
        threading.Thread(target=lambda first: [store.put(*item) for item in drawn_items(first, 8)], args=(first,))
        for first in (0, 4, 8)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert all(hit.passage.text for hit in store.by_words("edition", 9, None))
    for thread in threads:
        thread.join()
    assert [row[0] for row in contents(store)] == [f"/made/{number:05}.txt" for number in range(16)]


def test_all_may_begin_a_collection_at_once(kind: str, tmp_path: Path) -> None:
    for number in range(10 if kind == "sqlite" else 1):
        folder = tmp_path / str(number)
        barrier = threading.Barrier(6)

        def begin(first: int, folder: Path = folder, barrier: threading.Barrier = barrier) -> None:
            store = open_made(folder, kind)
            barrier.wait()
            for item in drawn_items(first, 2):
                store.put(*item)

        threads = [threading.Thread(target=begin, args=(first,)) for first in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(contents(open_made(folder, kind))) == 7


def test_processes_at_once_lose_nothing(kind: str, tmp_path: Path) -> None:
    workers = [Adding(tmp_path, kind, 0, count, "first", 1) for count in (25, 35)]
    for worker in [worker.opened() for worker in workers]:
        worker.begin()
    assert sum(worker.written() for worker in workers) == 35  # those of both were written by one of them
    clean = open_made(tmp_path / "clean", kind)
    clean.put_all(drawn_items(0, 35))
    assert contents(open_made(tmp_path, kind)) == contents(clean)


def killed_run(folder: Path, kind: str, count: int, group: int, kills: list[float]) -> None:
    """Add and be killed after so many seconds, again and again, and at last be let finish; always a source is whole."""
    for number, seconds in enumerate(kills):
        # Each begins where nobody was yet, so that it is killed while it writes and not while it passes over.
        first = number * count // len(kills)
        worker = Adding(folder, kind, first, count - first, "second", group)
        worker.opened().begin()
        time.sleep(seconds)
        worker.kill()
        for _, _, _, _, passages in contents(open_made(folder, kind)):
            editions = {text.split()[0] for _, _, text, *_ in passages if "edition of" in text}  # type: ignore[attr-defined]
            assert len(editions) == 1, passages
    worker = Adding(folder, kind, 0, count, "second", group)
    worker.opened().begin()
    worker.written()


def test_a_reader_sees_a_document_whole_while_it_is_replaced(store: PassageStore, kind: str, tmp_path: Path) -> None:
    editions = [item_of("/made/a.txt", f"{word} edition\n" * lines) for word, lines in (("old", 3), ("new", 5))]
    store.put(*editions[0])
    done = threading.Event()

    def replace() -> None:
        for number in range(12):
            store.put(*editions[(number + 1) % 2])
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    reader = open_made(tmp_path, kind)
    seen = set()
    while not done.is_set() or len(seen) < 1:
        found = texts(reader.by_words("edition", 9, None))
        near = texts(reader.by_vector(vector_of("edition"), 9, None))
        assert found in (["old edition"] * 3, ["new edition"] * 5)
        assert near in (["old edition"] * 3, ["new edition"] * 5)
        seen.add(found[0])
    writer.join()


def test_what_was_begun_and_killed_needs_no_hand(tmp_path: Path, kind: str) -> None:
    """The states that a kill leaves: a folder without a version, an empty table or file, a place held by the dead."""
    for name in ("one", "two"):
        folder = tmp_path / name
        if name == "one" and kind == "lance":
            (folder / "documents.lance" / "data").mkdir(parents=True)
        elif name == "one":
            folder.mkdir()
            (folder / "documents.sqlite").touch()
        else:
            first = open_made(folder, kind)
            first.put(*item_of("/a", "a red boat"))
            first.remove("/a")
            if kind == "lance":
                lancedb = pytest.importorskip("lancedb")
                lancedb.connect(folder).open_table("documents").drop_index("words_idx")
                script = f"""
import os
from pathlib import Path
from lapilli.ground.claim import Claim
assert Claim.take(Path({str(folder / "documents.lock")!r}))
os.kill(os.getpid(), 9)
"""
                assert subprocess.run([sys.executable, "-c", script]).returncode == -9
        store = open_made(folder, kind)
        assert store.sources() == []
        assert store.put(*item_of("/b", "a barn"))
        assert texts(store.by_words("barn", 3, None)) == ["a barn"]


def test_above_many_vectors_an_index_finds_them(tmp_path: Path) -> None:
    from lapilli.apps.rag.lance import LanceStore

    exact = LanceStore(tmp_path, "documents", SIZE, "words")
    exact.put_all(drawn_items(0, 300))
    asked = [vector_of(f"number {number} amber pumice") for number in range(20)]
    expected = [exact.by_vector(each, 5, None) for each in asked]
    indexed = LanceStore(tmp_path, "documents", SIZE, "words", many=500)
    indexed.optimize()
    assert any(index.columns == ["vector"] for index in indexed._opened().list_indices())
    found = [indexed.by_vector(each, 5, None) for each in asked]
    same = sum(len({h.passage.id for h in a} & {h.passage.id for h in b}) for a, b in zip(expected, found, strict=True))
    assert same >= 80, same
    assert {hit.passage.source for hit in indexed.by_vector(asked[0], 5, {"number": 7})} == {"/made/00007.txt"}
    # What came after the index was made is found as well.
    indexed.put(*item_of("/late", "an altogether late addition"))
    assert indexed.by_vector(vector_of("an altogether late addition"), 1, None)[0].passage.source == "/late"


def test_killed_at_any_moment_a_source_is_old_or_new(kind: str, tmp_path: Path) -> None:
    store = open_made(tmp_path, kind)
    store.put_all(drawn_items(0, 100))
    killed_run(tmp_path, kind, 300, 10, [0.03, 0.2, 0.4] if kind == "lance" else [0.01, 0.05, 0.1])
    clean = open_made(tmp_path / "clean", kind)
    clean.put_all(drawn_items(0, 300, edition="second"))
    assert contents(store) == contents(clean)


@pytest.mark.soak
def test_10_000_documents_under_20_kills(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(20)
    killed_run(tmp_path, kind, 10_000, 100, [float(random.uniform(0, 1)) for _ in range(20)])
    clean = open_made(tmp_path / "clean", kind)
    clean.put_all(drawn_items(0, 10_000, edition="second"))
    assert contents(open_made(tmp_path, kind)) == contents(clean)
