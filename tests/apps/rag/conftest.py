"""A few made documents, and Apps over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parrot_backend import ParrotBackend, WordEmbedder

from lapilli.apps.backend.call import Call
from lapilli.apps.rag.app import App

LIGHTS = (
    "# Lights of the coast\n\nThe lighthouse on Crow Island was built in 1871 by Anna Berg. It is 32 metres high.\n\n"
    "The light at Fennel Point burns green. It was built by the fishermen of Sallow in 1902."
)
GARDEN = "Apples are picked in September.\n\nThe beds are watered twice a week, before sunrise."
OFFICE = "The harbour office opens at eight in the morning and closes at five."

Make = Callable[..., App]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files to add."""
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "lights.md").write_text(LIGHTS)
    (folder / "garden.txt").write_text(GARDEN)
    (folder / "office.txt").write_text(OFFICE)
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """An App whose model says what a function of the call says; in SQLite, with vectors of words."""

    def make(says: Callable[[Call], str] = lambda call: "Anna Berg built it [1].", **given: Any) -> App:
        config = {"vectordb": {"provider": "sqlite"}} | given.pop("config", {})
        given.setdefault("embedder", WordEmbedder())
        return App(config, folder=tmp_path / "documents", backend=ParrotBackend(says), **given)

    return make


def asked_of(app: App) -> str:
    """The last words that the model of an App was asked."""
    backend = app.backend
    assert isinstance(backend, ParrotBackend)
    return backend.calls[-1].messages[-1].text
