"""The built-in model: it looks at pictures that are found, and quotes passages, which it cannot read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from parrot_backend import WordEmbedder

from lapilli.apps.backend.call import Backend
from lapilli.apps.backend.opening import open_backend
from lapilli.apps.rag.answering import NOT_FOUND
from lapilli.apps.rag.app import App
from lapilli.errors import InputError

from .conftest import LIGHTS

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture(scope="module")
def mini() -> Backend:
    return open_backend("mini")


class Counting:
    """A backend that counts what it is asked."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.asked = backend, 0

    def __getattr__(self, name: str) -> Any:
        self.asked += name in ("ask", "stream")
        return getattr(self.backend, name)


@pytest.fixture
def app(tmp_path: Path, mini: Backend) -> App:
    backend: Any = Counting(mini)
    config = {"llm": {"config": {"quote": True}}, "vectordb": {"provider": "sqlite"}}
    return App(config, folder=tmp_path / "documents", backend=backend, embedder=WordEmbedder())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name in ("shapes.png", "stars.png"):
        shutil.copy(EXAMPLES / name, folder)
    (folder / "lights.md").write_text(LIGHTS)
    return folder


def test_a_picture_is_described_found_by_words_and_shown_again(app: App, folder: Path) -> None:
    app.add(folder)
    kinds = {entry.title: entry.kind for entry in app.sources()}
    assert sorted(kinds.values()) == ["markdown", "picture", "picture"]
    shapes = app.document(str(folder / "shapes.png"))
    assert "circle" in shapes.text
    assert shapes.picture == (folder / "shapes.png").read_bytes()
    answer = app.ask("What colour is the circle?")
    assert "red" in answer.text.lower()
    [citation] = answer.citations
    assert (citation.source, citation.picture) == (str(folder / "shapes.png"), shapes.digest)
    assert shapes.text[citation.start : citation.end] == citation.text
    # The question goes to the model with the picture, not with its description.
    assert "circle and" not in answer.prompt
    assert "<a picture>" in answer.prompt
    stream = app.stream("What colour is the circle?")
    assert "".join(stream) == stream.text == answer.text


def test_a_picture_that_is_there_is_not_looked_at_again(app: App, folder: Path) -> None:
    app.add(folder)
    seen: Any = app.backend
    assert seen.asked == 2
    app.add(folder)
    shutil.copy(folder / "shapes.png", folder / "again.png")
    added = app.add_all([folder])
    assert seen.asked == 2
    assert added.added == (str(folder / "again.png"),)
    assert app.document(added.added[0]).text == app.document(str(folder / "shapes.png")).text


def test_a_passage_is_quoted_word_for_word_and_no_model_is_asked(app: App, folder: Path) -> None:
    app.add(folder / "lights.md")
    answer = app.ask("Who built the lighthouse on Crow Island?")
    assert answer.text == "The lighthouse on Crow Island was built in 1871 by Anna Berg. [1]"
    [citation] = answer.citations
    assert f"{citation.text} [1]" == answer.text
    assert LIGHTS[citation.start : citation.end] == citation.text
    assert app.query("Who painted the ceiling of the station?") == NOT_FOUND
    counting: Any = app.backend
    assert counting.asked == 0


def test_a_model_that_cannot_see_adds_no_picture(app: App, folder: Path) -> None:
    blind: Any = app.backend
    blind.sees = False
    added = app.add_all([folder])
    assert added.added == (str(folder / "lights.md"),)
    assert len(added.failed) == 2
    assert "takes no pictures" in added.failed[0][1]
    with pytest.raises(InputError, match="takes no pictures"):
        app.add(folder / "stars.png")


def test_pictures_go_with_passages_to_a_model_that_reads(tmp_path: Path, mini: Backend, folder: Path) -> None:
    """Not quoting: the whole prompt, its passages and the pictures among them, and it fits."""
    config = {"vectordb": {"provider": "sqlite"}, "llm": {"config": {"max_tokens": 4, "number_documents": 5}}}
    app = App(config, folder=tmp_path / "documents", backend=mini, embedder=WordEmbedder())
    app.add(folder)
    answer = app.ask("Is the circle built of blue or red?")
    assert answer.prompt.count("<a picture>") >= 1
    assert "[1] " in answer.prompt
    assert answer.prompt_tokens is not None
    assert answer.prompt_tokens > 64
