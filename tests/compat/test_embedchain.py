"""embedchain's names: old code runs with its import line changed."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
from parrot_backend import ParrotBackend, WordEmbedder

import lapilli
from lapilli.apps.rag.app import Stream
from lapilli.compat.embedchain import (
    AddConfig,
    App,
    AppConfig,
    BaseEmbedderConfig,
    BaseLlmConfig,
    CacheConfig,
    ChromaDB,
    ChunkerConfig,
    HuggingFaceEmbedder,
    MemoryConfig,
    OllamaLlm,
    Pipeline,
    QueryConfig,
)
from lapilli.errors import InputError

FERRY = "The ferry to Crow Island leaves at noon from the old pier."
ASKED = "When does the ferry leave?"


@pytest.fixture
def app(tmp_path: Path) -> App:
    app = App(
        config_data={"vectordb": {"provider": "sqlite"}},
        folder=tmp_path, embedder=WordEmbedder(), backend=ParrotBackend(lambda call: "It leaves at noon [1]."),
    )  # fmt: skip
    app.add(FERRY)
    return app


def test_it_is_lapilli_s_app(app: App) -> None:
    assert Pipeline is App
    assert issubclass(App, lapilli.App)
    assert app.query(ASKED) == "It leaves at noon [1]."
    assert app.ask(ASKED).citations[0].text == FERRY


def test_an_app_of_parts() -> None:
    app = App(
        id="harbour",
        config=AppConfig(name="b", log_level="DEBUG", collect_metrics=False),
        llm=OllamaLlm(config=BaseLlmConfig(model="llama3", temperature=1, base_url="http://127.0.0.1:1", stream=True)),
        embedding_model=HuggingFaceEmbedder(BaseEmbedderConfig(model="BAAI/bge-small-en-v1.5", vector_dimension=384)),
        db=ChromaDB({"collection_name": "c"}),
        chunker=ChunkerConfig(chunk_size=500, chunk_overlap=0, length_function=len),
        cache_config=CacheConfig(),
        memory_config=MemoryConfig(top_k=3),
    )
    assert app.config.llm.opening.model == "llama3"
    assert app.config.llm.opening.url == "http://127.0.0.1:1"
    assert app.config.llm.config.stream
    assert app.config.vectors is not None
    assert app.config.vectors.config.vector_dimension == 384
    assert app.config.collection == "c"
    assert app.config.chunker.chunk_size == 500
    assert app.config.app.config.id == "harbour"
    assert {note.partition(":")[0] for note in app.notes} >= {"cache", "memory", "vectordb chroma"}


def test_from_config_takes_what_it_took(tmp_path: Path) -> None:
    app = App.from_config(config={"app": {"config": {"collection_name": "old"}}, "vectordb": {"config": {"dir": "db"}}})
    assert isinstance(app, App)
    assert (app.config.collection, str(app.folder)) == ("old", "db")


def test_add_with_its_configuration(app: App) -> None:
    app.add("One. " * 100, config=AddConfig(chunker=ChunkerConfig(chunk_size=100, chunk_overlap=0)))
    assert max(entry.passages for entry in app.sources()) >= 5


def test_a_query_with_its_configuration(app: App) -> None:
    told = QueryConfig(template=string.Template("From $context say $query"), number_documents=1, temperature=0.5)
    assert app.query(ASKED, told) == "It leaves at noon [1]."
    assert isinstance(app.backend, ParrotBackend)
    call = app.backend.calls[-1]
    assert call.messages[-1].text.endswith(f"say {ASKED}")
    assert call.temperature == 0.5
    _, contexts = app.query(ASKED, config=told, citations=True)
    assert contexts[0][0] == FERRY


class Handler:
    """A callback as LangChain has them."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_llm_new_token(self, token: str) -> None:
        self.heard.append(token)


def test_a_stream_is_an_iterator_that_prints_as_its_text(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    answer = app.query(ASKED, BaseLlmConfig(stream=True))
    assert isinstance(answer, Stream)
    assert capsys.readouterr().out == ""
    print(answer)
    assert capsys.readouterr().out == "It leaves at noon [1].\n"


@pytest.mark.parametrize("method", ["query", "chat"])
def test_callbacks_hear_the_pieces_and_the_text_comes_back(app: App, method: str) -> None:
    handler, heard = Handler(), []
    told = BaseLlmConfig(stream=True, callbacks=[handler, heard.append])
    assert getattr(app, method)(ASKED, told) == "It leaves at noon [1]."
    assert len(heard) > 1
    assert "".join(heard) == "".join(handler.heard) == "It leaves at noon [1]."


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: BaseLlmConfig(temprature=1), "BaseLlmConfig: no key is called 'temprature' here: did you mean"),
        (lambda: BaseLlmConfig(temperature="hot"), "BaseLlmConfig: temperature: "),
        (lambda: ChunkerConfig(chunk_size=10, chunk_overlap=100), "ChunkerConfig: chunk_size: "),
        (lambda: ChunkerConfig(length_function="os.system"), "passages are measured in characters"),
        (lambda: App(auto_deploy=True), "embedchain's platform is gone"),
        (lambda: App(config_data={"lm": {}}), "did you mean 'llm'?"),
        (lambda: App(llm=OllamaLlm()), "say as config.model which model of 'ollama' is meant"),
        (lambda: App().evaluate(["x"]), "nothing is sent away"),
    ],
)
def test_what_is_refused_is_one_line(make: Any, told: str) -> None:
    with pytest.raises(InputError) as refused:
        make()
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
