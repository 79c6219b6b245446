"""Which model answers: a server's, the one of the settings, or one that is opened here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from parrot_backend import WordEmbedder
from parrot_server import ParrotServer, serving

from lapilli.apps.rag import opening
from lapilli.apps.rag.app import App
from lapilli.apps.rag.config import AppConfig, EmbedderPart
from lapilli.apps.rag.opening import open_model, open_vectors, remember, remembered
from lapilli.errors import InputError, LapilliError, ModelNotFoundError


@pytest.fixture(scope="module")
def parrot() -> Iterator[ParrotServer]:
    with serving(ParrotServer()) as up:
        yield up


@pytest.fixture
def server(parrot: ParrotServer) -> ParrotServer:
    return parrot.reset()


def model_of(**config: object) -> AppConfig:
    return AppConfig.of({"llm": {"provider": "ollama", "config": config}})


def test_a_server_s_model_is_asked_there(server: ParrotServer, tmp_path: Path) -> None:
    config = model_of(model="parrot", base_url=server.url, max_tokens=64)
    with App(config, folder=tmp_path, embedder=WordEmbedder()) as app:
        app.add("The ferry leaves at noon.")
        answer = app.stream("When does the ferry leave?").cited
    assert "Question: When does the ferry leave?" in answer.text  # it repeats what it is asked
    [body] = server.bodies("/api/chat")
    assert body["model"].startswith("parrot")
    assert body["options"]["num_predict"] <= 64
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert not server.bodies("/api/pull")


def test_the_server_of_the_settings(server: ParrotServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    monkeypatch.delenv("LAPILLI_HOST", raising=False)
    with open_model(model_of(model="parrot").llm.opening) as backend:
        assert backend.name.startswith("parrot")
    # A model that it does not have, and that is here, is opened here.
    with open_model(model_of(model="mini").llm.opening) as backend:
        assert backend.name == "mini"
        assert backend.sees
    with pytest.raises(ModelNotFoundError, match="nor is the model here"):
        open_model(model_of(model="nobody").llm.opening)


def test_a_server_that_was_named_and_is_not_up_is_an_error() -> None:
    with pytest.raises(LapilliError) as refused:
        open_model(model_of(model="mini", base_url="http://127.0.0.1:1").llm.opening)
    assert "127.0.0.1:1" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_model_that_is_nowhere_is_said_when_it_is_needed(tmp_path: Path) -> None:
    app = App({"llm": {"config": {"model": "no-such-model"}}}, folder=tmp_path, embedder=WordEmbedder())
    app.add("The ferry leaves at noon.")
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        app.ask("When does the ferry leave?")


def test_vectors_of_another_size_than_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapilli.apps.embedders.open_embedder", lambda spec: WordEmbedder(64), raising=False)
    told = AppConfig.of({"embedder": {"provider": "huggingface", "config": {"model": "x", "vector_dimension": 384}}})
    with pytest.raises(InputError, match="vector_dimension is 384, the vectors of words have 64"):
        open_vectors(told.vectors)
    assert open_vectors(AppConfig.of({"embedder": {"provider": "none"}}).vectors) is None


def test_the_embedder_of_a_collection_is_remembered_without_its_key(tmp_path: Path) -> None:
    assert remembered(tmp_path, "documents") is None
    part = EmbedderPart.model_validate(
        {"provider": "openai", "config": {"model": "m", "base_url": "http://127.0.0.1:1", "api_key": "hush-hush"}}
    )
    remember(tmp_path / "deep", "documents", part)
    remember(tmp_path / "deep", "others", EmbedderPart(provider="none"))
    found = remembered(tmp_path / "deep", "documents")
    assert found is not None
    assert (found.model, found.url, found.config.api_key) == ("m", "http://127.0.0.1:1", None)
    assert "hush" not in "".join(path.read_text() for path in (tmp_path / "deep").iterdir())
    (tmp_path / "deep" / "_embedders.json").write_text("[")
    with pytest.raises(InputError, match=r"_embedders\.json: cannot be read"):
        remembered(tmp_path / "deep", "documents")


def test_who_opens_a_collection_again_gets_its_embedder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[EmbedderPart | None] = []

    def vectors(part: EmbedderPart | None) -> WordEmbedder:
        opened.append(part)
        return WordEmbedder()

    monkeypatch.setattr(opening, "open_vectors", vectors)
    told = {"embedder": {"provider": "huggingface", "config": {"model": "./bge"}}}
    App(told, folder=tmp_path).add("The ferry leaves at noon.")
    again = App(folder=tmp_path)
    assert again.search("ferry")
    assert len(opened) == 2
    assert opened[0] == opened[1]
