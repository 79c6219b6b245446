"""From a name, and maybe a server, to a backend."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from lapilli.apps.backend.call import Backend
from lapilli.errors import InputError, LapilliError, ModelNotFoundError

if TYPE_CHECKING:
    from lapilli.apps.backend.connection import Connection
    from lapilli.store.package import Package

Dialect = Literal["ollama", "openai"]
NAMED = "server"
"""The `url` that stands for the server which the settings name (LAPILLI_HOST, OLLAMA_HOST)."""


def open_backend(
    model: str | Path = "mini",
    *,
    url: str | None = None,
    dialect: Dialect | None = None,
    key: str | None = None,
    quantize: str | None = None,
    device: str = "auto",
    pull: bool = False,
) -> Backend:
    """Whoever answers: a model in this process, or with `url` one on a server.

    open_backend("mini")
    open_backend("./llava-1.5-7b-hf", quantize="int4")
    open_backend("llava", url="http://127.0.0.1:11434")
    open_backend("gpt-4o", url="https://api.openai.com/v1", key=key)
    open_backend("llava", url="server")                       # the one that LAPILLI_HOST or OLLAMA_HOST names

    `dialect` is found out where it is not said. `quantize` and `device` are those of `lapilli.load`, and of no effect
    on a server. Nothing is fetched, unless `pull` has a server of Ollama's fetch what it lacks.
    Raises LapilliError where no server answers, ModelNotFoundError with the names that are there, what `lapilli.load`
    raises, InputError for a URL or dialect that is none.
    """
    if url is None:
        if dialect is not None or key is not None or pull:
            raise InputError("dialect, key and pull are for servers: give the server's url as well")
        return _local(model, quantize, device)
    if quantize is not None:
        raise InputError(f"quantize={quantize!r} is for models in this process; a server loads its own")
    if dialect not in (None, "ollama", "openai"):
        raise InputError(f"dialect {dialect!r} is not known: use ollama or openai")
    if url == NAMED:
        url, key = _named(key)
    return _served(str(model), url, dialect, key, pull)


def identify(
    model: str | Path = "mini",
    *,
    url: str | None = None,
    dialect: Dialect | None = None,
    key: str | None = None,
    quantize: str | None = None,
) -> str:
    """The digest that the backend would have, without loading a model. Raises what `open_backend` raises."""
    if url is not None:
        with open_backend(model, url=url, dialect=dialect, key=key, quantize=quantize) as backend:
            return backend.digest
    from lapilli.store.reference import default_library

    return _digest(default_library().find(str(model), paths=True), quantize)


def _local(model: str | Path, quantize: str | None, device: str) -> Backend:
    from lapilli.apps.backend.local import LocalBackend
    from lapilli.engine.local import load
    from lapilli.store.reference import default_library

    loaded = load(model, quantize, device)
    package = default_library().find(str(model), paths=True)
    return LocalBackend(loaded, str(model), _digest(package, quantize))


def _digest(package: Package, quantize: str | None) -> str:
    """The weights' identity: the package's own where that says it all."""
    from lapilli.store.sources import package_at

    beside = [path for path in (package.projector, *package.adapters) if path is not None and not package.blobs]
    found = [package_at(path, path.name) for path in beside]
    parts = [other.digest for other in found if other is not None] + ([quantize] if quantize else [])
    if not parts:
        return package.digest
    return hashlib.sha256("\0".join([package.digest, *parts]).encode()).hexdigest()


def _named(key: str | None) -> tuple[str, str | None]:
    from lapilli.ground.settings import Settings

    settings = Settings()
    return settings.host, key or settings.client_key or None


def _served(model: str, url: str, dialect: Dialect | None, key: str | None, pull: bool) -> Backend:
    from lapilli.apps.backend.connection import Connection

    spoken = dialect or _spoken(url, key)
    if spoken == "openai" and pull:
        raise InputError("a server of OpenAI's kind pulls nothing: leave pull out")
    if spoken == "openai" and not urlsplit(url if "://" in url else f"http://{url}").path.strip("/"):
        url = f"{url.rstrip('/')}/v1"
    connection = Connection(url, key)
    return _closing(connection, _openers(pull)[spoken], model)


def _openers(pull: bool) -> dict[Dialect, Callable[[Connection, str], Backend]]:
    from lapilli.apps.backend.ollama import OllamaBackend
    from lapilli.apps.backend.openai import OpenAIBackend

    return {
        "ollama": lambda connection, model: OllamaBackend(connection, model, pull=pull),
        "openai": OpenAIBackend,
    }


def _closing(connection: Connection, opener: Callable[[Connection, str], Backend], model: str) -> Backend:
    try:
        return opener(connection, model)
    except BaseException:
        connection.close()
        raise


def _spoken(url: str, key: str | None) -> Dialect:
    """The dialect of a server: by its path, or by what it answers to."""
    from lapilli.apps.backend.connection import Connection, NoSuchPathError

    if url.rstrip("/").endswith("/v1"):
        return "openai"
    connection = Connection(url, key)
    probes: tuple[tuple[Dialect, str], ...] = (("ollama", "/api/tags"), ("openai", "/v1/models"))
    try:
        for dialect, path in probes:
            try:
                connection.get(path)
                return dialect
            except (NoSuchPathError, ModelNotFoundError, InputError):
                continue
    finally:
        connection.close()
    raise LapilliError(f"what answers at {url} is no server of Ollama's or OpenAI's kind: say which with `dialect`")
