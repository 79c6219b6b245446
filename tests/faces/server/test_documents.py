"""Documents over HTTP: added as bytes, asked about, cited to the character; no path of this machine is read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from lapilli.ground.settings import Settings

LIGHT = "# Crow Island\n\nThe lighthouse of Crow Island was built in 1871 by Mira Holt.\n\nIts keeper has two goats.\n"


@pytest.fixture
def live(live: Any, tmp_path: Path) -> Iterator[Any]:
    """The server, its documents in a folder of this test's own."""
    state = live.app.state
    settings: Settings = state.settings
    state.settings = settings.model_copy(update={"documents": tmp_path / "documents"})
    yield live
    state.settings = settings


def added(live: Any, name: str, data: bytes) -> dict[str, Any]:
    response = live.http.post("/api/documents", params={"name": name}, content=data)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_file_is_added_asked_about_shown_and_removed(live: Any) -> None:
    assert live.get("/api/documents").json() == {"documents": []}
    assert added(live, "light.md", LIGHT.encode())["added"] == ["light.md"]
    assert added(live, "light.md", LIGHT.encode())["unchanged"] == ["light.md"]
    [entry] = live.get("/api/documents").json()["documents"]
    assert (entry["source"], entry["kind"], entry["characters"]) == ("light.md", "markdown", len(LIGHT.strip()))

    question = {"question": "Who built the lighthouse of Crow Island?"}
    response = live.post("/api/documents/ask", question)
    said = [json.loads(line) for line in response.text.splitlines()]
    assert said[-1]["done"]
    assert "".join(piece["text"] for piece in said[:-1]) == said[-1]["text"]
    assert "Mira Holt" in said[-1]["text"]
    [citation] = said[-1]["citations"]
    shown = live.get("/api/documents/text", params={"source": citation["source"]}).json()
    assert shown["text"][citation["start"] : citation["end"]] == citation["text"]
    assert "Mira Holt" in citation["text"]
    assert live.post("/api/documents/ask", {**question, "stream": False}).json()["text"] == said[-1]["text"]

    unknown = live.post("/api/documents/ask", {"question": "Which bank rules Peru?", "stream": False}).json()
    assert (unknown["found"], unknown["citations"]) == (False, [])
    [passage] = live.post("/api/documents/search", {"query": "goats"}).json()["passages"]
    assert "goats" in passage["text"]

    assert live.http.delete("/api/documents", params={"source": "light.md"}).status_code == 200
    assert live.http.delete("/api/documents", params={"source": "light.md"}).status_code == 404
    assert live.get("/api/documents/text", params={"source": "light.md"}).status_code == 404


def test_a_picture_is_described_found_and_looked_at(live: Any) -> None:
    picture = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(picture).ellipse((34, 34, 94, 94), fill="red")
    file = io.BytesIO()
    picture.save(file, "PNG")
    assert added(live, "drawn.png", file.getvalue())["added"] == ["drawn.png"]
    shown = live.get("/api/documents/text", params={"source": "drawn.png"}).json()
    assert shown["picture"]
    assert shown["text"]
    back = live.get("/api/documents/picture", params={"source": "drawn.png"})
    assert back.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(back.content)).size == (128, 128)
    asked = {"question": f"What is in the picture of {shown['text']}", "stream": False}
    answer = live.post("/api/documents/ask", asked).json()
    assert [citation["picture"] != "" for citation in answer["citations"]] == [True]


def test_texts_by_json_and_addresses_only_where_they_are_fetched(live: Any) -> None:
    assert live.post("/api/documents", {"text": "The ferry leaves at noon."}).json()["added"] == [
        "The ferry leaves at noon..txt"
    ]
    assert live.post("/api/documents", {"text": "It is late.", "name": "ferry"}).json()["added"] == ["ferry"]
    live.refused("/api/documents", 403, {"url": "http://127.0.0.1:1/x"})


@pytest.mark.parametrize(
    "body",
    [{}, {"text": ""}, {"text": "a", "url": "http://a.example"}, {"text": 5}, {"path": "/etc/passwd"}],
    ids=str,
)
def test_what_is_no_document_is_refused(live: Any, body: dict[str, Any]) -> None:
    live.refused("/api/documents", 400, body)


def test_no_path_of_this_machine_is_read(live: Any, tmp_path: Path) -> None:
    """T86: what looks like a path is a text, or a name, and nothing more."""
    secret = tmp_path / "secret.txt"
    secret.write_text("canary-91")
    for name in (str(secret), "../../secret.txt", f"file://{secret}"):
        live.post("/api/documents", {"text": name})
        added(live, name, b"nothing of it")
    live.refused("/api/documents", 403, {"url": f"file://{secret}"})
    everything = [entry["source"] for entry in live.get("/api/documents").json()["documents"]]
    texts = [live.get("/api/documents/text", params={"source": source}).json()["text"] for source in everything]
    assert not any("canary-91" in text for text in texts)
    assert live.get("/api/documents/text", params={"source": "/etc/passwd"}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/api/documents/ask", {"question": " "}, "question"),
        ("/api/documents/ask", {"question": "a", "count": 0}, "count"),
        ("/api/documents/search", {"query": "a", "count": 101}, "count"),
        ("/api/documents/search", {}, "query"),
    ],
)
def test_odd_questions_are_refused(live: Any, path: str, body: dict[str, Any], word: str) -> None:
    assert word in live.refused(path, 400, body)


def test_a_model_that_is_not_there_is_not_found(live: Any) -> None:
    live.refused("/api/documents/ask", 404, {"question": "a", "model": "nobody"})
