"""`lapilli rag`: documents added, listed, asked and removed from the shell."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from lapilli.apps.rag import adding
from lapilli.faces.cli import main

BUILT = "Who built the lighthouse on Crow Island?"
LIGHTS = "The lighthouse on Crow Island was built in 1871 by Anna Berg. It is 32 metres high."


@pytest.fixture(autouse=True)
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of this user's is touched; gives the folder where documents lie."""
    monkeypatch.setenv("LAPILLI_DOCUMENTS", str(tmp_path / "documents"))
    monkeypatch.setenv("LAPILLI_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "documents"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "lights.md").write_text(LIGHTS)
    (folder / "garden.txt").write_text("Apples are picked in September.")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """What is printed, and said beside it."""
    assert main(["rag", *map(str, arguments)]) == code, capsys.readouterr()
    found = capsys.readouterr()
    return found.out, found.err


def add(capsys: pytest.CaptureFixture[str], *arguments: str | Path, **more: Any) -> tuple[str, str]:
    return run(capsys, "add", "--embedder", "none", *arguments, **more)


def test_added_asked_listed_and_removed(capsys: pytest.CaptureFixture[str], notes: Path, documents: Path) -> None:
    assert add(capsys, notes) == ("2 added; 114 characters\n", "")
    assert add(capsys, notes) == ("2 unchanged\n", "")
    out, err = run(capsys, "ask", BUILT)
    first, blank, place, text = out.splitlines()
    assert first == "The lighthouse on Crow Island was built in 1871 by Anna Berg. [1]"
    assert blank == ""
    assert place == f"[1] {notes / 'lights.md'}, characters 0 to 61"
    assert text.strip() == "The lighthouse on Crow Island was built in 1871 by Anna Berg."
    assert err == ""
    listed, _ = run(capsys, "ls")
    assert listed.splitlines()[0].split() == ["SOURCE", "KIND", "PASSAGES", "CHARACTERS"]
    assert [line.split()[1:] for line in listed.splitlines()[1:]] == [["text", "1", "31"], ["markdown", "1", "83"]]
    assert run(capsys, "rm", notes / "lights.md") == ("", "")
    out, err = run(capsys, "ask", BUILT)
    assert out == "Not in your documents.\n"
    assert (documents / "documents.lance").exists() or (documents / "documents.sqlite").exists()


def test_in_json(capsys: pytest.CaptureFixture[str], notes: Path) -> None:
    added = json.loads(add(capsys, "--json", notes, notes / "none.txt")[0])
    assert added["added"] == [str(notes / "garden.txt"), str(notes / "lights.md")]
    assert added["failed"][0][0] == str(notes / "none.txt")
    answer = json.loads(run(capsys, "ask", "--json", BUILT)[0])
    assert answer["found"]
    [citation] = answer["citations"]
    assert LIGHTS[citation["start"] : citation["end"]] == citation["text"]
    assert answer["hits"][0]["source"] == str(notes / "lights.md")
    [found] = json.loads(run(capsys, "search", "--json", "--count", "1", "apples")[0])
    assert found["text"] == "Apples are picked in September."
    assert {entry["kind"] for entry in json.loads(run(capsys, "ls", "--json")[0])} == {"text", "markdown"}


def test_search_shows_where(capsys: pytest.CaptureFixture[str], notes: Path) -> None:
    add(capsys, notes)
    out, _ = run(capsys, "search", "apples")
    assert f"{notes / 'garden.txt'}, characters 0 to 31" in out
    assert "Apples are picked in September." in out
    assert run(capsys, "search", "submarines") == ("", "lapilli: note: nothing was found\n")


def test_what_cannot_be_read_is_said_and_the_rest_is_added(capsys: pytest.CaptureFixture[str], notes: Path) -> None:
    (notes / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing")
    out, err = add(capsys, notes)
    assert out.startswith("2 added, 1 failed")
    assert f"{notes / 'broken.pdf'}: not added: " in err
    out, err = add(capsys, notes / "broken.pdf", code=1)
    assert out == "1 failed\n"
    out, err = add(capsys, notes / "typo", code=1)
    assert "No such file" in err or "no such file" in err
    assert [line.split()[1] for line in run(capsys, "ls")[0].splitlines()[1:]] == ["text", "markdown"]


def test_stopped_it_goes_on_from_there(
    capsys: pytest.CaptureFixture[str], notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = adding.read_document

    def stopped(source: Any, **more: Any) -> Any:
        if source.name.endswith("lights.md"):
            raise KeyboardInterrupt
        return read(source, **more)

    monkeypatch.setattr(adding, "read_document", stopped)
    _, err = add(capsys, notes, code=130)
    assert "stopped; what was written stays, and the same command goes on from there: lapilli rag add" in err
    monkeypatch.undo()
    monkeypatch.setenv("LAPILLI_DOCUMENTS", str(notes.parent / "documents"))
    assert add(capsys, notes)[0] == "1 added, 1 unchanged; 83 characters\n"


def test_a_conversation_from_a_pipe(
    capsys: pytest.CaptureFixture[str], notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(capsys, notes)
    lines = f"{BUILT}\n\nWhy?\nHow high is it?\n/clear\nWhen are apples picked?\n/bye\nnever asked\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    out, _ = run(capsys, "chat", "--session", "s")
    assert out.count("Anna Berg. [1]") == 2
    assert "Not in your documents." not in out  # "Why?" is about what was asked before
    assert "32 metres high" in out
    assert "Apples are picked in September. [1]" in out
    assert "never" not in out


def test_removing_what_is_not_there_names_the_nearest(capsys: pytest.CaptureFixture[str], notes: Path) -> None:
    add(capsys, notes)
    _, err = run(capsys, "rm", notes / "light.md", code=2)
    assert f"did you mean '{notes / 'lights.md'}'?" in err
    assert run(capsys, "rm", notes) == ("", "")
    assert len(run(capsys, "ls")[0].splitlines()) == 1


def test_a_configuration_in_a_file(capsys: pytest.CaptureFixture[str], notes: Path, tmp_path: Path) -> None:
    config = tmp_path / "app.json"
    config.write_text(
        json.dumps(
            {
                "vectordb": {"provider": "sqlite", "config": {"dir": str(tmp_path / "other"), "collection_name": "c"}},
                "embedder": {"provider": "none"},
                "chunker": {"chunk_size": 50, "chunk_overlap": 0},
            }
        )
    )
    assert run(capsys, "add", "--config", config, notes)[0] == "2 added; 114 characters\n"
    assert (tmp_path / "other" / "c.sqlite").exists()
    [entry] = [e for e in json.loads(run(capsys, "ls", "--json", "--config", config)[0]) if e["kind"] == "markdown"]
    assert entry["passages"] > 1
    config.write_text('{"lm": {}}')
    assert "did you mean 'llm'?" in run(capsys, "ls", "--config", config, code=2)[1]


def test_a_url_needs_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--url needs --model" in run(capsys, "ask", "--url", "http://127.0.0.1:1", "x", code=2)[1]
