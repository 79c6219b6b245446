"""What a person can set: by variables of the environment, Ollama's where ours are not given, or in config.toml.

settings = Settings()               # LAPILLI_HOST, else OLLAMA_HOST, else `host` in config.toml, else the default
settings = Settings(num_parallel=1) # what is given here wins over all of them
"""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from lapilli.errors import InputError
from lapilli.ground.urls import is_this_machine
from lapilli.ground.variables import (
    PORT,
    Variable,
    bytes_of,
    choice,
    count,
    is_flag,
    read_context,
    read_flag,
    read_folder,
    read_host,
    read_hosts,
    read_keys,
    read_level,
    read_names,
    read_text,
    seconds_of,
)


def data_folder() -> Path:
    """Where this user's programs keep their data."""
    return _user_folder("XDG_DATA_HOME", ".local/share", "LOCALAPPDATA") / "lapilli"


def config_file() -> Path:
    """The file of settings: the one that LAPILLI_CONFIG names, else config.toml in the user's folder for that."""
    named = os.environ.get("LAPILLI_CONFIG", "").strip()
    if named:
        return Path(named).expanduser()
    return _user_folder("XDG_CONFIG_HOME", ".config", "APPDATA") / "lapilli" / "config.toml"


def _user_folder(variable: str, below_home: str, windows: str) -> Path:
    named = os.environ.get(variable) or (os.environ.get(windows) if sys.platform == "win32" else None)
    # The specification of these variables has relative ones ignored.
    return Path(named) if named and os.path.isabs(named) else Path.home() / below_home


def _ollama_folder() -> Path | None:
    """Where Ollama keeps models unless told otherwise: the user's, else the system service's."""
    places = (Path.home() / ".ollama/models", Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama/models"))
    for place in places:
        try:
            if (place / "manifests").is_dir():
                return place
        except OSError:
            continue
    return None


class Settings(BaseSettings):
    """Every setting; raises InputError that names a variable (or key), its value, and what is allowed."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    host: Annotated[
        str,
        Variable(
            "Where the server listens, and where commands find it.",
            "host, host:port or a URL",
            read_host,
            "OLLAMA_HOST",
        ),
    ] = f"127.0.0.1:{PORT}"
    models: Annotated[
        Path,
        Variable(
            "The folder of our own models.", "a folder", read_folder, shown="`lapilli/models` in the user's data folder"
        ),
    ] = Field(default_factory=lambda: data_folder() / "models")
    documents: Annotated[
        Path,
        Variable(
            "The folder of documents that questions are answered from.",
            "a folder",
            read_folder,
            shown="`lapilli/documents` in the user's data folder",
        ),
    ] = Field(default_factory=lambda: data_folder() / "documents")
    ollama_models: Annotated[
        Path | None,
        Variable(
            "Ollama's folder of models: read where it lies, never written.",
            "a folder, or none",
            lambda value: None if str(value).lower() == "none" else read_folder(value),
            "OLLAMA_MODELS",
            "Ollama's own place, if it is there",
        ),
    ] = Field(default_factory=_ollama_folder)
    keep_alive: Annotated[
        float,
        Variable(
            "How long an idle model stays loaded; 0 is not at all, negative for ever.",
            "a duration such as 5m, or seconds",
            seconds_of(forever=True),
            "OLLAMA_KEEP_ALIVE",
            "5m",
        ),
    ] = 300.0
    load_timeout: Annotated[
        float,
        Variable("How long loading may take.", "above 0", seconds_of(zero=False), "OLLAMA_LOAD_TIMEOUT", "5m"),
    ] = 300.0
    num_parallel: Annotated[
        int, Variable("Answers that one model writes at once.", "1 to 256", count(1, 256), "OLLAMA_NUM_PARALLEL")
    ] = 8
    max_loaded_models: Annotated[
        int,
        Variable(
            "Models in memory at once; 0 is as many as fit.", "0 to 1000", count(0, 1000), "OLLAMA_MAX_LOADED_MODELS"
        ),
    ] = 0
    max_queue: Annotated[
        int,
        Variable(
            "Requests that may wait beside those being answered; more get 503.",
            "0 to 100000",
            count(0, 100_000),
            "OLLAMA_MAX_QUEUE",
        ),
    ] = 512
    context_length: Annotated[
        int,
        Variable(
            "The longest context of any request; 0 is the model's own.",
            "0, or 4 and more",
            read_context,
            "OLLAMA_CONTEXT_LENGTH",
        ),
    ] = 0
    origins: Annotated[
        tuple[str, ...],
        Variable(
            "Pages that may ask, besides this machine's; `*` stands for anything.",
            "origins with commas between",
            read_names,
            "OLLAMA_ORIGINS",
        ),
    ] = ()
    api_keys: Annotated[
        tuple[str, ...],
        Variable(
            "Keys, one of which whoever is not on this machine must send.",
            "keys of 8 or more characters without blanks, commas between",
            read_keys,
            secret=True,
        ),
    ] = Field(default=(), repr=False)
    api_key: Annotated[
        str,
        Variable(
            "The key that commands send to the server.",
            "a key",
            read_text,
            "OLLAMA_API_KEY",
            "the first of LAPILLI_API_KEYS",
            secret=True,
        ),
    ] = Field(default="", repr=False)
    allowed_hosts: Annotated[
        tuple[str, ...],
        Variable(
            "Host names that are served besides loopback; needs keys.",
            "names with commas between, `*.` for any below",
            read_hosts,
        ),
    ] = ()
    allowed_registries: Annotated[
        tuple[str, ...],
        Variable(
            "Registries that models may be pulled from and pushed to; empty is any public one.",
            "hosts with commas between",
            read_hosts,
        ),
    ] = ()
    offline: Annotated[bool, Variable("Never reach out: no pull, push or picture by URL.", "1 or 0", read_flag)] = False
    fetch: Annotated[bool, Variable("Fetch pictures that requests name by URL.", "1 or 0", read_flag)] = False
    max_body: Annotated[
        int, Variable("The largest body of a request.", "1KiB and more", bytes_of(1024), shown="64MiB")
    ] = 64 << 20
    drain: Annotated[
        float,
        Variable(
            "How long answers may go on after the server was told to stop.", "a duration", seconds_of(), shown="30s"
        ),
    ] = 30.0
    max_seconds: Annotated[
        float,
        Variable("How long one answer may be written.", "above 0", seconds_of(zero=False), shown="10m"),
    ] = 600.0
    max_memory: Annotated[
        int, Variable("Memory for models in all; 0 is what is free.", "0, or an amount such as 8GiB", bytes_of())
    ] = 0
    cache_memory: Annotated[
        int,
        Variable("The most memory for one model's keys and values.", "1MiB and more", bytes_of(1 << 20), shown="2GiB"),
    ] = 2 << 30
    feature_memory: Annotated[
        int, Variable("Memory for the features of one model's pictures.", "0, or an amount", bytes_of(), shown="256MiB")
    ] = 256 << 20
    features: Annotated[
        Path | None,
        Variable("A folder that keeps features of pictures over restarts.", "a folder", read_folder, shown="none"),
    ] = None
    quantize: Annotated[
        str | None,
        Variable(
            "How checkpoints of plain floats are rounded on loading.",
            "int8, int4 or none",
            choice("int8", "int4", "none"),
            shown="none",
        ),
    ] = None
    device: Annotated[str, Variable("What computes.", "auto, cpu or cuda", choice("auto", "cpu", "cuda"))] = "auto"
    noprune: Annotated[
        bool, Variable("Keep files that no model needs when the server starts.", "1 or 0", read_flag, "OLLAMA_NOPRUNE")
    ] = False
    nohistory: Annotated[
        bool, Variable("Write no history of what is typed.", "1 or 0", read_flag, "OLLAMA_NOHISTORY")
    ] = False
    max_transfer_streams: Annotated[
        int, Variable("Connections of one pull or push.", "1 to 64", count(1, 64), "OLLAMA_MAX_TRANSFER_STREAMS")
    ] = 4
    debug: Annotated[
        bool, Variable("Say more in the log, and show tracebacks.", "1 or 0", read_level, "OLLAMA_DEBUG")
    ] = False

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"the setting {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls), _ConfigFile(settings_cls)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen at."""
        parts = urlsplit(self.host if "://" in self.host else f"http://{self.host}")
        return parts.hostname or "", PORT if parts.port is None else parts.port

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside this machine can reach what listens there."""
        return is_this_machine(self.address[0])

    @property
    def other_models(self) -> tuple[Path, ...]:
        """Folders of models that are only read."""
        return () if self.ollama_models is None else (self.ollama_models,)

    @property
    def client_key(self) -> str:
        """The key that commands send; empty where there is none."""
        return self.api_key or (self.api_keys[0] if self.api_keys else "")


class _Source(PydanticBaseSettingsSource):
    """Where values come from, by setting; pydantic looks at their types afterwards."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise AssertionError("all fields are read at once")

    def __call__(self) -> dict[str, Any]:
        return dict(self.read())

    def read(self) -> Iterator[tuple[str, Any]]:
        raise AssertionError("a source reads")


class _Environment(_Source):
    def read(self) -> Iterator[tuple[str, Any]]:
        for name, variable in variables():
            for spelt in (f"LAPILLI_{name.upper()}", variable.fallback):
                # Ollama takes off blanks and quotes, and an empty variable is none.
                text = os.environ.get(spelt, "").strip().strip("\"'") if spelt else ""
                if not text:
                    continue
                if spelt == variable.fallback and variable.read in (read_flag, read_level) and not is_flag(text):
                    yield name, True  # whatever Ollama cannot read counts as yes there
                else:
                    yield name, _read(variable, text, spelt)
                break


class _ConfigFile(_Source):
    def read(self) -> Iterator[tuple[str, Any]]:
        path = config_file()
        known = dict(variables())
        for name, value in _toml(path).items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
                raise InputError(f"{path}: no setting is called {name!r}: {hint}")
            yield name, _read(known[name], value, f"{path}: {name}")


def variables() -> Iterator[tuple[str, Variable]]:
    """Each setting's name, and how it is read."""
    for name, field in Settings.model_fields.items():
        yield name, next(item for item in field.metadata if isinstance(item, Variable))


def table() -> str:
    """The settings as a table in Markdown."""
    rows = ["| Variable | Else | In config.toml | Default | What it does | Allowed |", "|---|---|---|---|---|---|"]
    for name, variable in variables():
        field = Settings.model_fields[name]
        default = variable.shown or f"`{_spelt(field.default)}`"
        fallback = f"`{variable.fallback}`" if variable.fallback else ""
        rows.append(
            f"| `LAPILLI_{name.upper()}` | {fallback} | `{name}` | {default} | {variable.does} | {variable.allowed} |"
        )
    return "\n".join(rows) + "\n"


def _spelt(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return " " if value in ((), "", None) else str(value)


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if os.environ.get("LAPILLI_CONFIG", "").strip():
            raise InputError(f"LAPILLI_CONFIG names {path}, and no such file is there") from None
        return {}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: this is no TOML: {error}") from None


def _read(variable: Variable, value: Any, where: str) -> Any:
    try:
        return variable.read(value)
    except ValueError as error:
        said = "a secret" if variable.secret else repr(value)[:200]
        why = f" ({error})" if str(error) and isinstance(error, InputError) else ""
        raise InputError(f"{where} is {said}, allowed is: {variable.allowed}{why}") from None
