"""What an App is made of, as embedchain's configuration says it: a dictionary, YAML or JSON.

config = AppConfig.of({"llm": {"provider": "ollama", "config": {"model": "llama3", "stream": True}}})
config = AppConfig.read(Path("config.yaml"))

The tree is embedchain's (https://docs.embedchain.ai/api-reference/advanced/configuration). A key that it has not is
refused with the nearest one; what it has and nothing here needs is taken and named in `notes`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lapilli.apps.rag.config_text import read_config_text
from lapilli.apps.rag.providers import EMBEDDERS, MODELS, STORES, Opening, check_provider, opening
from lapilli.errors import InputError


def told(error: ValidationError, what: str) -> str:
    """What is wrong first, in one line, and where."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{what}{': ' + where if where else ''}: {first['msg']}"


def _refusal(message: str) -> PydanticCustomError:
    # The message is data to pydantic's formatting: braces in it are not to be looked up.
    return PydanticCustomError("refused", "{message}", {"message": message})


def _check(known: Mapping[str, str], what: str, provider: str, url: str | None) -> None:
    try:
        check_provider(known, what, provider, url)
    except InputError as error:
        raise _refusal(str(error)) from None


class Part(BaseModel):
    """A part of the tree: frozen, exact about types (an int may stand for a float), and nothing else may be in it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(),
        hide_input_in_errors=True,
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        for key in value:
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(cls.model_fields))}"
                raise _refusal(f"no key is called {str(key)[:60]!r} here: {hint}")
        return dict(value)


class NamePart(Part):
    """`app.config`: what the application is called, and the collection of its documents."""

    id: str | None = None
    name: str | None = None
    log_level: str | None = None
    collect_metrics: bool | None = None
    collection_name: str | None = None


class AppPart(Part):
    config: NamePart = NamePart()


class LlmOptions(Part):
    """`llm.config`: which model answers, and how."""

    model: str | None = None
    model_name: str | None = None
    number_documents: int = Field(default=3, ge=1, le=100)
    temperature: float = Field(default=0.0, ge=0, le=100)
    max_tokens: int = Field(default=1000, ge=1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stream: bool = False
    online: bool = False
    token_usage: bool = False
    template: str | None = None
    prompt: str | None = None
    system_prompt: str | None = None
    where: dict[str, Any] | None = None
    query_type: str | None = None
    api_key: str | None = Field(default=None, repr=False)
    base_url: str | None = None
    endpoint: str | None = None
    local: bool | None = None
    deployment_name: str | None = None
    api_version: str | None = None
    model_kwargs: dict[str, Any] | None = None
    default_headers: dict[str, str] | None = None
    http_client_proxies: str | dict[str, str] | None = None
    http_async_client_proxies: str | dict[str, str] | None = None
    seed: int | None = None
    quantize: Literal["int8", "int4"] | None = None
    device: str = "auto"
    quote: bool | None = None

    @field_validator("online")
    @classmethod
    def _offline(cls, value: bool) -> bool:
        if value:
            raise _refusal("nothing is searched on the web here: add the pages that matter with `add`")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> LlmOptions:
        for first, second in (("model", "model_name"), ("template", "prompt")):
            if getattr(self, first) is not None and getattr(self, second) is not None:
                raise _refusal(f"{first} and {second} say the same thing: give one of them")
        text = self.instructions
        if text is not None and ("$query" not in text or "$context" not in text):
            raise _refusal(f"the {'prompt' if self.prompt else 'template'} needs $context and $query in it")
        return self

    @property
    def instructions(self) -> str | None:
        """The prompt that somebody wrote, with `$context`, `$query` and perhaps `$history` in it."""
        return self.prompt if self.prompt is not None else self.template


class LlmPart(Part):
    """`llm`: the provider of the model that answers."""

    provider: str = "lapilli"
    config: LlmOptions = LlmOptions()

    @model_validator(mode="after")
    def _there(self) -> LlmPart:
        _check(MODELS, "llm", self.provider, self.config.base_url or self.config.endpoint)
        if self.provider != "lapilli" and not (self.config.model or self.config.model_name):
            raise _refusal(f"say as config.model which model of {self.provider!r} is meant")
        return self

    @property
    def opening(self) -> Opening:
        """How the model is opened."""
        told = self.config
        return opening(
            self.provider, told.model or told.model_name, told.base_url or told.endpoint, told.api_key,
            told.quantize, told.device,
        )  # fmt: skip

    @property
    def quotes(self) -> bool:
        """Whether the model cannot read a passage, so that sentences are quoted: mini was taught pictures alone."""
        quote = self.config.quote
        return self.opening.model.removesuffix(":latest") == "mini" if quote is None else quote


class EmbedderOptions(Part):
    """`embedder.config`: which model makes vectors of texts."""

    model: str | None = None
    model_name: str | None = None
    deployment_name: str | None = None
    api_key: str | None = Field(default=None, repr=False)
    api_base: str | None = None
    base_url: str | None = None
    endpoint: str | None = None
    title: str | None = None
    task_type: str | None = None
    vector_dimension: int | None = Field(default=None, ge=1)
    model_kwargs: dict[str, Any] | None = None
    http_client_proxies: str | dict[str, str] | None = None
    http_async_client_proxies: str | dict[str, str] | None = None


class EmbedderPart(Part):
    """`embedder`: the provider of vectors; `none` is full text alone."""

    provider: str = "lapilli"
    config: EmbedderOptions = EmbedderOptions()

    @model_validator(mode="after")
    def _there(self) -> EmbedderPart:
        _check(EMBEDDERS, "embedder", self.provider, self.url)
        return self

    @property
    def url(self) -> str | None:
        return self.config.base_url or self.config.api_base or self.config.endpoint

    @property
    def model(self) -> str | None:
        return self.config.model or self.config.model_name or self.config.deployment_name


class StoreOptions(Part):
    """`vectordb.config`: where documents lie."""

    dir: str | None = None
    collection_name: str | None = None
    allow_reset: bool | None = None
    batch_size: int | None = Field(default=None, ge=1)


class StorePart(Part):
    """`vectordb`: the kind of store; none given takes what is installed."""

    provider: str | None = None
    config: StoreOptions = StoreOptions()

    @field_validator("provider")
    @classmethod
    def _there(cls, value: str | None) -> str | None:
        if value is not None:
            _check(STORES, "vectordb", value, None)
        return value

    @property
    def kind(self) -> Literal["lance", "sqlite"] | None:
        """The kind of store as `open_store` calls it."""
        return {"lancedb": "lance", "sqlite": "sqlite"}.get(self.provider or "")  # type: ignore[return-value]


class ChunkerPart(Part):
    """`chunker`: how documents are cut into passages, in characters."""

    chunk_size: int = Field(default=1000, ge=20, le=100_000)
    chunk_overlap: int = Field(default=100, ge=0)
    min_chunk_size: int = Field(default=0, ge=0)
    length_function: str | None = None

    @field_validator("length_function")
    @classmethod
    def _characters(cls, value: str | None) -> str | None:
        # embedchain imports whatever is named here; characters are the only measure that needs no code.
        if value not in (None, "len"):
            raise _refusal("passages are measured in characters: leave it out, or write 'len'")
        return value

    @model_validator(mode="after")
    def _shorter(self) -> ChunkerPart:
        if "chunk_overlap" in self.model_fields_set and self.chunk_overlap >= self.chunk_size:
            raise _refusal(f"chunk_overlap {self.chunk_overlap} must be smaller than chunk_size {self.chunk_size}")
        return self

    @property
    def overlap(self) -> int:
        """Characters that two passages share: a tenth at most where nobody said."""
        return self.chunk_overlap if "chunk_overlap" in self.model_fields_set else min(100, self.chunk_size // 10)


class SimilarityPart(Part):
    strategy: str | None = None
    max_distance: float | None = None
    positive: bool | None = None


class CacheOptions(Part):
    similarity_threshold: float | None = None
    auto_flush: int | None = None


class CachePart(Part):
    """`cache`: taken, and nothing comes of it: an answer is always asked for anew."""

    similarity_evaluation: SimilarityPart = SimilarityPart()
    config: CacheOptions = CacheOptions()


class MemoryPart(Part):
    """`memory`: taken, and nothing comes of it: a session's last turns are what a conversation remembers."""

    top_k: int | None = None


class AppConfig(Part):
    """The whole tree; see `AppConfig.of` and `AppConfig.read`."""

    app: AppPart = AppPart()
    llm: LlmPart = LlmPart()
    embedder: EmbedderPart | None = None
    embedding_model: EmbedderPart | None = None
    vectordb: StorePart = StorePart()
    chunker: ChunkerPart = ChunkerPart()
    cache: CachePart | None = None
    memory: MemoryPart | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> AppConfig:
        """The configuration that a dictionary says; raises InputError that names the key."""
        if not isinstance(config, Mapping):
            raise InputError(f"the configuration must be a dictionary, it is {type(config).__name__}")
        try:
            return cls.model_validate(dict(config))
        except ValidationError as error:
            raise InputError(told(error, "configuration")) from None
        except RecursionError:
            raise InputError("configuration: it is nested too deep") from None

    @classmethod
    def read(cls, path: Path) -> AppConfig:
        """The configuration in a file of YAML or JSON; nothing in it is ever run. Raises InputError."""
        try:
            return cls.of(read_config_text(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @model_validator(mode="after")
    def _one_embedder(self) -> AppConfig:
        if self.embedder is not None and self.embedding_model is not None:
            raise _refusal("embedder and embedding_model say the same thing: give one of them")
        return self

    @property
    def vectors(self) -> EmbedderPart | None:
        """Who makes vectors; None is whatever is best here, never something remote."""
        return self.embedder or self.embedding_model

    @property
    def collection(self) -> str:
        """The name of the collection that documents go to."""
        return self.vectordb.config.collection_name or self.app.config.collection_name or "documents"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was said and changes nothing here, each in a line."""
        name, llm, store = self.app.config, self.llm.config, self.vectordb
        told = [
            (self.cache is not None, "cache: every answer is asked for anew, none is kept"),
            (self.memory is not None, "memory: a session's last turns are what a conversation remembers"),
            (name.collect_metrics, "app.config.collect_metrics: nothing is ever reported to anybody"),
            (name.log_level, "app.config.log_level: set the level of the logger 'lapilli'"),
            (llm.query_type, "llm.config.query_type: pictures that are found are always shown to a model that sees"),
            (llm.model_kwargs, "llm.config.model_kwargs: not passed on; there are quantize and device"),
            (llm.default_headers, "llm.config.default_headers: not sent; the key goes as api_key"),
            (llm.http_client_proxies or llm.http_async_client_proxies, "llm.config: proxies are not used"),
            (llm.deployment_name or llm.api_version, "llm.config: deployment_name and api_version are Azure's alone"),
            (store.provider == "chroma", "vectordb chroma: documents lie in a store of ours, LanceDB's or SQLite's"),
            (store.config.batch_size, "vectordb.config.batch_size: documents are written a group at a time"),
            (store.config.allow_reset is False, "vectordb.config.allow_reset: reset() is always allowed"),
        ]
        return tuple(line for said, line in told if said)


PartT = TypeVar("PartT", bound=Part)


def part_of(kind: type[PartT], given: Any, default: PartT) -> PartT:
    """A part of the configuration as it was given: itself, or a mapping."""
    if given is None:
        return default
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise InputError(f"a {kind.__name__} or a dictionary is needed, not a {type(given).__name__}")
    whole = AppConfig.of({"llm": {"config": given}} if kind is LlmOptions else {"chunker": given})
    found = whole.llm.config if kind is LlmOptions else whole.chunker
    assert isinstance(found, kind)
    return found
