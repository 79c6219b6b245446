"""embedchain's names: write `from lapilli.compat.embedchain import App` where `from embedchain import App` stood.

    app = App.from_config(config={"llm": {"provider": "ollama", "config": {"model": "llama3", "stream": True}}})
    app.add("https://example.org/page.html")
    print(app.query("What is this about?"))

What differs is told in docs/rag.md: with `stream` an answer is an iterator that prints as its text, nothing is printed
by itself, and nothing is ever sent to a server that was not named.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from lapilli.apps.rag import app as ours
from lapilli.apps.rag.app import Stream
from lapilli.apps.rag.config import AppConfig as Tree
from lapilli.apps.rag.config import (
    CachePart,
    ChunkerPart,
    EmbedderOptions,
    LlmOptions,
    MemoryPart,
    NamePart,
    Part,
    told,
)
from lapilli.errors import InputError


class _Old(Part):
    """A configuration object of old code; raises InputError as a dictionary would."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(told(error, type(self).__name__)) from None


class AppConfig(_Old, NamePart):
    """What an App is called."""


class BaseLlmConfig(_Old, LlmOptions):
    """How a question is answered. `template` and `prompt` may be a `string.Template`; `callbacks` hear each piece."""

    callbacks: Sequence[Any] | None = Field(default=None, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return {key: item.template if isinstance(item, string.Template) else item for key, item in dict(value).items()}


QueryConfig = ChatConfig = BaseLlmConfig


class BaseEmbedderConfig(_Old, EmbedderOptions):
    """Which model makes vectors."""


class ChunkerConfig(_Old, ChunkerPart):
    """How documents are cut."""

    @field_validator("length_function", mode="before")
    @classmethod
    def _len(cls, value: Any) -> Any:
        return "len" if value is len else value


class AddConfig(_Old):
    """How one source is added."""

    chunker: ChunkerPart | None = None
    loader: None = None


class CacheConfig(_Old, CachePart):
    """Taken; nothing comes of it."""


class MemoryConfig(_Old, MemoryPart):
    """Taken; nothing comes of it."""


class _Provided:
    """A model of some provider, as old code makes it: `OllamaLlm(config=BaseLlmConfig(model="llama3"))`."""

    provider = ""

    def __init__(self, config: Part | Mapping[str, Any] | None = None) -> None:
        values = config.model_dump(exclude_unset=True) if isinstance(config, Part) else dict(config or {})
        self.tree: dict[str, Any] = {"provider": self.provider, "config": values}


class OllamaLlm(_Provided):
    provider = "ollama"


class OpenAILlm(_Provided):
    provider = "openai"


class HuggingFaceLlm(_Provided):
    provider = "huggingface"


class VLLM(_Provided):
    provider = "vllm"


class OllamaEmbedder(_Provided):
    provider = "ollama"


class OpenAIEmbedder(_Provided):
    provider = "openai"


class HuggingFaceEmbedder(_Provided):
    provider = "huggingface"


class ChromaDB(_Provided):
    provider = "chroma"


class LanceDB(_Provided):
    provider = "lancedb"


class App(ours.App):
    """lapilli's App, made as embedchain's is."""

    def __init__(
        self,
        id: str | None = None,
        name: str | None = None,
        config: NamePart | Tree | None = None,
        db: _Provided | None = None,
        embedding_model: _Provided | None = None,
        llm: _Provided | None = None,
        config_data: Mapping[str, Any] | None = None,
        auto_deploy: bool = False,
        chunker: ChunkerPart | Mapping[str, Any] | None = None,
        cache_config: CachePart | None = None,
        memory_config: MemoryPart | None = None,
        log_level: Any = None,
        **given: Any,
    ) -> None:
        if auto_deploy:
            self.deploy()
        if isinstance(config, Tree):
            super().__init__(config, **given)
            return
        names = {"id": id, "name": name} | (config.model_dump(exclude_unset=True) if config is not None else {})
        tree: dict[str, Any] = {**dict(config_data or {})}
        tree.setdefault("app", {"config": {key: value for key, value in names.items() if value is not None}})
        for key, part in (("llm", llm), ("embedder", embedding_model), ("vectordb", db)):
            if part is not None:
                tree[key] = part.tree
        for key, old in (("chunker", chunker), ("cache", cache_config), ("memory", memory_config)):
            if old is not None:
                tree[key] = old.model_dump(exclude_unset=True) if isinstance(old, Part) else dict(old)
        super().__init__(tree, **given)

    def query(self, input_query: str, config: Any = None, *given: Any, **named: Any) -> Any:
        """`lapilli.App.query`; with `callbacks` in the configuration each hears the pieces, and the text comes back."""
        return _heard(super().query(input_query, _plain(config), *given, **named), config)

    def chat(self, input_query: str, config: Any = None, *given: Any, **named: Any) -> Any:
        """`lapilli.App.chat`, with `callbacks` as in `query`."""
        return _heard(super().chat(input_query, _plain(config), *given, **named), config)

    def deploy(self) -> None:
        """Raises InputError: embedchain's platform is gone."""
        raise InputError("deploy: embedchain's platform is gone; `lapilli serve` serves documents and models")

    def evaluate(self, questions: Any, metrics: Any = None, num_workers: int = 4) -> None:
        """Raises InputError: embedchain asks OpenAI to judge, and nothing is sent there."""
        raise InputError(
            "evaluate: embedchain has OpenAI's models judge its answers, here nothing is sent away; "
            "`ask(...)` says of each answer whether it was found and which passages bear it out"
        )


Pipeline = App


def _plain(config: Any) -> Any:
    """The options without the callbacks, which are ours to call."""
    if isinstance(config, BaseLlmConfig):
        return {key: getattr(config, key) for key in config.model_fields_set - {"callbacks"}}
    return config


def _heard(reply: Any, config: Any) -> Any:
    callbacks = getattr(config, "callbacks", None)
    if not callbacks or not isinstance(reply, Stream):
        return reply
    for piece in reply:
        for callback in callbacks:
            (callback.on_llm_new_token if hasattr(callback, "on_llm_new_token") else callback)(piece)
    return reply.text
