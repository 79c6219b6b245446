"""embedchain's tree: what is taken, what is refused and in which words, and that nothing in it is ever run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lapilli.apps.rag.config import AppConfig
from lapilli.errors import InputError

ARTICLE: dict[str, Any] = {
    "llm": {
        "provider": "ollama",
        "config": {"model": "llama3", "temperature": 0.5, "top_p": 1, "stream": True},
    },
    "embedder": {"provider": "huggingface", "config": {"model": "BAAI/bge-small-en-v1.5"}},
}
# Every key of embedchain's schema, with a value that its own validation takes.
WHOLE: dict[str, Any] = {
    "app": {"config": {"id": "a", "name": "b", "log_level": "INFO", "collect_metrics": True, "collection_name": "c"}},
    "llm": {
        "provider": "ollama",
        "config": {
            "model": "llama3", "number_documents": 5, "temperature": 1, "max_tokens": 100, "top_p": 1,
            "stream": False, "online": False, "token_usage": True, "prompt": "$context $query $history",
            "system_prompt": "Be brief.", "deployment_name": "d", "where": {"year": 2024}, "query_type": "Text",
            "api_key": "secret-key", "base_url": "http://127.0.0.1:1", "model_kwargs": {}, "local": True,
            "default_headers": {}, "api_version": "1", "http_client_proxies": "p", "http_async_client_proxies": {},
        },
    },
    "embedder": {
        "provider": "ollama",
        "config": {
            "model": "m", "deployment_name": "d", "api_key": "secret-key", "api_base": "http://127.0.0.1:1",
            "title": "t", "task_type": "t", "vector_dimension": 384, "base_url": "http://127.0.0.1:1",
            "endpoint": "http://127.0.0.1:1", "model_kwargs": {}, "http_client_proxies": "p",
            "http_async_client_proxies": "p",
        },
    },
    "vectordb": {"provider": "chroma", "config": {"collection_name": "c", "dir": "db", "allow_reset": True}},
    "chunker": {"chunk_size": 500, "chunk_overlap": 50, "length_function": "len", "min_chunk_size": 10},
    "cache": {
        "similarity_evaluation": {"strategy": "distance", "max_distance": 1.0, "positive": True},
        "config": {"similarity_threshold": 0.8, "auto_flush": 50},
    },
    "memory": {"top_k": 10},
}  # fmt: skip


def test_the_article_s_configuration_is_taken_as_it_is() -> None:
    config = AppConfig.of(ARTICLE)
    opening = config.llm.opening
    assert (opening.model, opening.url, opening.dialect) == ("llama3", "server", "ollama")
    assert config.llm.config.stream
    assert config.llm.config.top_p == 1.0
    assert config.vectors is not None
    assert config.vectors.model == "BAAI/bge-small-en-v1.5"
    assert config.notes == ()


def test_ollama_is_the_server_of_the_settings_unless_said() -> None:
    opening = AppConfig.of(ARTICLE).llm.opening
    assert (opening.url, opening.or_here) == ("server", True)
    told = AppConfig.of({"llm": {"provider": "ollama", "config": {"model": "m", "base_url": "http://h:1"}}})
    assert (told.llm.opening.url, told.llm.opening.or_here) == ("http://h:1", False)


def test_every_key_of_embedchain_is_taken_and_what_does_nothing_is_named() -> None:
    config = AppConfig.of(WHOLE)
    named = "\n".join(config.notes)
    for key in (
        "cache",
        "memory",
        "collect_metrics",
        "log_level",
        "query_type",
        "proxies",
        "chroma",
        "deployment_name",
    ):
        assert key in named
    assert "secret-key" not in repr(config)
    assert config.collection == "c"
    assert config.chunker.overlap == 50
    assert config.llm.config.instructions == "$context $query $history"


def test_nothing_said_is_mini_and_whatever_makes_vectors_here(tmp_path: Path) -> None:
    config = AppConfig.of({})
    assert (config.llm.opening.model, config.llm.opening.url) == ("mini", None)
    assert config.vectors is None
    assert config.vectordb.kind is None


def test_both_names_of_the_embedder() -> None:
    part = {"provider": "huggingface", "config": {"model": "x"}}
    assert AppConfig.of({"embedding_model": part}).vectors == AppConfig.of({"embedder": part}).vectors
    with pytest.raises(InputError, match="embedder and embedding_model say the same thing"):
        AppConfig.of({"embedding_model": part, "embedder": part})


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"lm": {}}, "configuration: no key is called 'lm' here: did you mean 'llm'?"),
        ({"llm": {"config": {"temprature": 1}}}, "configuration: llm.config: no key is called 'temprature' here: did "
         "you mean 'temperature'?"),
        ({"embedder": {"config": {"modell": "x"}}}, "did you mean 'model'?"),
        ({"vectordb": {"config": {"host": "h"}}}, "vectordb.config: no key is called 'host'"),
        ({"chunker": {"chunksize": 1}}, "did you mean 'chunk_size'?"),
        ({"cache": {"config": {"similarity_treshold": 1}}}, "did you mean 'similarity_threshold'?"),
        ({"llm": {"config": {"temperature": "1"}}}, "llm.config.temperature: "),
        ({"llm": {"config": {"temperature": True}}}, "llm.config.temperature: "),
        ({"llm": {"config": {"number_documents": 0}}}, "llm.config.number_documents: "),
        ({"llm": {"config": {"temperature": float("nan")}}}, "llm.config.temperature: "),
        ({"llm": {"config": {"stream": 1}}}, "llm.config.stream: "),
        ({"llm": {"config": {"online": True}}}, "llm.config.online: nothing is searched on the web here"),
        ({"llm": {"config": {"prompt": "Hello {query}"}}}, "the prompt needs $context and $query in it"),
        ({"llm": {"provider": "cohere"}}, "no llm provider is called 'cohere' here: there are lapilli, huggingface"),
        ({"llm": {"provider": "olama"}}, "did you mean 'ollama'?"),
        ({"llm": {"provider": "openai", "config": {"model": "m"}}}, "'openai' needs base_url"),
        ({"llm": {"provider": "groq", "config": {"model": "m"}}}, "'groq' needs base_url"),
        ({"llm": {"provider": "ollama"}}, "say as config.model which model of 'ollama' is meant"),
        ({"embedder": {"provider": "openai"}}, "'openai' needs base_url"),
        ({"embedder": {"provider": "vertexai"}}, "no embedder provider is called 'vertexai'"),
        ({"vectordb": {"provider": "pinecone"}}, "there are lancedb, sqlite, chroma"),
        ({"chunker": {"chunk_size": 50, "chunk_overlap": 50}}, "chunk_overlap 50 must be smaller than chunk_size 50"),
        ({"llm": "ollama"}, "configuration: llm: "),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(config: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError) as refused:
        AppConfig.of(config)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        AppConfig.of({}).llm.provider = "openai"  # type: ignore[misc]


def test_an_openai_server_stands_for_others() -> None:
    for provider in ("openai", "vllm", "together", "groq", "nvidia", "mistralai"):
        told = {"model": "m", "base_url": "http://127.0.0.1:8000/v1", "api_key": "k"}
        opening = AppConfig.of({"llm": {"provider": provider, "config": told}}).llm.opening
        assert (opening.url, opening.dialect, opening.key) == ("http://127.0.0.1:8000/v1", "openai", "k")


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_a_file_says_the_same_as_a_dictionary(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"config{suffix}"
    path.write_text(json.dumps(ARTICLE))  # JSON is YAML, too
    assert AppConfig.read(path) == AppConfig.of(ARTICLE)


def test_yaml_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("llm:\n  provider: ollama  # a server\n  config:\n    model: llama3\n    temperature: 0\n")
    assert AppConfig.read(path).llm.config.temperature == 0.0


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.txt", "", "a configuration is a file of YAML or JSON, not .txt"),
        ("a.yaml", "- 1\n", "this is a list"),
        ("a.yaml", "a: [", "line 1: this YAML cannot be read as data"),
        ("a.yaml", "a: 2024-13-45\n", "this YAML cannot be read as data"),
        ("a.json", "{", "this is no JSON"),
        ("a.json", '{"lm": 1}', "did you mean 'llm'?"),
        ("a.json", "[" * 50_000, "this JSON is nested too deep"),
        ("a.yaml", "x: " + "y" * (300 << 10), "more than 64 KiB"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        AppConfig.read(path)
    assert told in str(refused.value)
    assert str(refused.value).startswith(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        AppConfig.read(tmp_path / "none.yaml")
