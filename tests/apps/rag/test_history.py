"""Sessions: kept in a file, by collection, whoever writes at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lapilli.apps.rag.history import History
from lapilli.errors import StoreError


def test_a_session_is_what_was_said_in_it_in_order(tmp_path: Path) -> None:
    history = History(tmp_path / "deep" / "history.sqlite", "documents")
    assert history.last("a", 5) == []
    assert history.clear() == 0
    for number in range(4):
        history.add("a", f"q{number}", f"a{number}", {"n": number})
    history.add("b; DROP TABLE turns", "'", '"')
    assert [(entry.question, entry.answer, entry.extra) for entry in history.last("a", 2)] == [
        ("q2", "a2", {"n": 2}),
        ("q3", "a3", {"n": 3}),
    ]
    again = History(tmp_path / "deep" / "history.sqlite", "documents")
    assert [entry.session for entry in again.last(None, None)] == ["a"] * 4 + ["b; DROP TABLE turns"]
    assert History(tmp_path / "deep" / "history.sqlite", "others").last("a", None) == []
    assert again.clear("a") == 4
    assert [entry.question for entry in history.last(None, None)] == ["'"]
    assert history.clear() == 1


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    def write(name: str) -> None:
        for number in range(10):
            History(tmp_path / "history.sqlite", "documents").add(name, str(number), "")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = History(tmp_path / "history.sqlite", "documents")
    for name in "abcd":
        assert [entry.question for entry in history.last(name, None)] == [str(number) for number in range(10)]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"history\.sqlite: the history cannot be used"):
        History(path, "documents").last("a", 1)
