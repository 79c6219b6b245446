"""The commands' side of Ollama's HTTP API: each call a function."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, BinaryIO

import httpx2

from lapilli.errors import BusyError, InputError, LapilliError, ModelNotFoundError
from lapilli.store.progress import Progress

MAX_LINE_BYTES = 256 << 20
"""The longest line of a stream that is read: an answer with a heat map in it stays far below."""
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A piece of an answer; the last one has the account: counts of tokens, durations in nanoseconds."""

    text: str = ""
    thinking: str = ""
    account: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A model that lies in the server's store; `digest` is hexadecimal, `size` in bytes."""

    name: str
    digest: str
    size: int
    modified: datetime | None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A model that is in memory; `vram` of its `size` bytes lie on an accelerator, `expires` None is never."""

    name: str
    digest: str
    size: int
    vram: int
    context: int
    expires: datetime | None


class Client:
    """Ollama's API as functions; what the server refuses is raised in its own words.

    Raises LapilliError from every function: ModelNotFoundError (404), InputError (400), BusyError (503).
    """

    def __init__(self, http: httpx2.Client, where: str, *, private: bool = False) -> None:
        self._http = http
        self._closing = contextlib.ExitStack()
        self.where = where
        self.private = private
        """Whether the server ends with this client."""

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection, and of the server where that is a private one."""
        self._http.close()
        self._closing.close()

    def at_end(self, call: Callable[[], object]) -> None:
        """Have something done after the connection is closed; the last given comes first."""
        self._closing.callback(call)

    # --- answers ---

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        options: Mapping[str, Any] | None = None,
        format: str | Mapping[str, Any] | None = None,
        think: bool | str | None = None,
        keep_alive: str | None = None,
        truncate: bool | None = None,
    ) -> Generator[Reply, None, None]:
        """Stream an answer to a conversation; closing the iterator stops it. Pictures go as `images`, see `picture`."""
        body = _given(
            model=model, messages=list(messages), options=options, format=format, think=think,
            keep_alive=_keep_alive(keep_alive), truncate=truncate,
        )  # fmt: skip
        ended = False
        for line in self._lines("POST", "/api/chat", body):
            said = line.get("message") or {}
            ended = bool(line.get("done"))
            yield Reply(
                text=said.get("content") or "",
                thinking=said.get("thinking") or "",
                account={k: v for k, v in line.items() if k != "message"} if ended else None,
            )
        if not ended:
            raise LapilliError("the server ended the answer before it was whole")

    def load(self, model: str, keep_alive: str | None = None) -> None:
        """Have a model brought into memory."""
        body = _given(model=model, keep_alive=_keep_alive(keep_alive))
        for _ in self._lines("POST", "/api/generate", body):
            pass

    def stop(self, model: str) -> None:
        """Have a model leave memory as soon as nobody asks it anything."""
        for _ in self._lines("POST", "/api/generate", {"model": model, "keep_alive": 0}):
            pass

    def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        truncate: bool | None = None,
        dimensions: int | None = None,
        keep_alive: str | None = None,
    ) -> list[list[float]]:
        """Vectors of length 1, one a text."""
        body = _given(
            model=model, input=list(texts), truncate=truncate, dimensions=dimensions,
            keep_alive=_keep_alive(keep_alive),
        )  # fmt: skip
        found: list[list[float]] = self._object("POST", "/api/embed", body)["embeddings"]
        return found

    # --- models ---

    def version(self) -> dict[str, Any]:
        """What the server says of itself: `version` of the API, and `lapilli` where it is this package."""
        return self._object("GET", "/api/version")

    def tags(self) -> list[Listed]:
        """The models in the server's store, as it orders them."""
        return [
            Listed(
                name=str(row.get("name", "")),
                digest=str(row.get("digest", "")),
                size=int(row.get("size") or 0),
                modified=_time(row.get("modified_at")),
                details=row.get("details") or {},
            )
            for row in self._object("GET", "/api/tags").get("models") or []
        ]

    def ps(self) -> list[Running]:
        """The models in memory."""
        return [
            Running(
                name=str(row.get("name", "")),
                digest=str(row.get("digest", "")),
                size=int(row.get("size") or 0),
                vram=int(row.get("size_vram") or 0),
                context=int(row.get("context_length") or 0),
                expires=_time(row.get("expires_at")),
            )
            for row in self._object("GET", "/api/ps").get("models") or []
        ]

    def show(self, model: str, *, verbose: bool = False) -> dict[str, Any]:
        """All that is known about a model: details, parameters, template, capabilities, and so on."""
        return self._object("POST", "/api/show", _given(model=model, verbose=verbose or None))

    def copy(self, source: str, target: str) -> None:
        """Give a model a second name."""
        self._call("POST", "/api/copy", {"source": source, "destination": target})

    def delete(self, model: str) -> None:
        """Take a model out of the store."""
        self._call("DELETE", "/api/delete", {"model": model})

    def pull(self, model: str, *, insecure: bool = False) -> Iterator[Progress]:
        """Fetch a model from a registry; closing the iterator stops, and keeps what was fetched."""
        return self._steps("/api/pull", _given(model=model, insecure=insecure or None))

    def push(self, model: str, *, insecure: bool = False) -> Iterator[Progress]:
        """Send a model to a registry; closing the iterator stops."""
        return self._steps("/api/push", _given(model=model, insecure=insecure or None))

    def create(self, model: str, request: Mapping[str, Any]) -> Iterator[Progress]:
        """Make a model out of another one or out of files that were uploaded before."""
        return self._steps("/api/create", {**request, "model": model})

    def has_blob(self, digest: str) -> bool:
        """Whether the store holds these bytes already."""
        with self._errors():
            answer = self._http.head(f"/api/blobs/{digest}")
        if answer.status_code == 404:
            return False
        if answer.status_code != 200:
            raise _refusal(answer.status_code, answer.content)
        return True

    def upload(self, digest: str, source: BinaryIO, watch: Callable[[int], None] = lambda _: None) -> None:
        """Bring a file into the store; `watch` hears how many more bytes have gone."""

        def pieces() -> Iterator[bytes]:
            while piece := source.read(_PIECE_BYTES):
                yield piece
                watch(len(piece))

        with self._errors():
            answer = self._http.post(f"/api/blobs/{digest}", content=pieces())
        if answer.status_code not in (200, 201):
            raise _refusal(answer.status_code, answer.content)

    # --- the wire ---

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        with self._errors():
            answer = self._http.request(method, path, json=body)
        if answer.status_code != 200:
            raise _refusal(answer.status_code, answer.content)
        return answer.content

    def _object(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return _parse(self._call(method, path, body))

    def _steps(self, path: str, body: Mapping[str, Any]) -> Iterator[Progress]:
        last = ""
        for line in self._lines("POST", path, body):
            last = str(line.get("status", ""))
            yield Progress(
                last, str(line.get("digest") or ""), int(line.get("total") or 0), int(line.get("completed") or 0)
            )
        if last != "success":
            raise LapilliError(f"the server stopped before it was done, after {last or 'nothing'!r}")

    def _lines(self, method: str, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The objects of a stream of lines; one that says `error` is raised."""
        with self._errors(), self._http.stream(method, path, json=body) as answer:
            if answer.status_code != 200:
                raise _refusal(answer.status_code, answer.read())
            kept = b""
            for data in answer.iter_bytes():
                *lines, kept = (kept + data).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _checked(line)
                if len(kept) > MAX_LINE_BYTES:
                    raise LapilliError(f"the server sent a line of more than {MAX_LINE_BYTES >> 20} MiB")
            if kept.strip():
                yield _checked(kept)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ConnectError as error:
            raise LapilliError(f"no server answers at {self.where}: start one with `lapilli serve`") from error
        except httpx2.TimeoutException as error:
            raise LapilliError(f"the server at {self.where} does not answer") from error
        except httpx2.HTTPError as error:
            raise LapilliError(f"the connection to {self.where} broke: {error or type(error).__name__}") from error


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _keep_alive(text: str | None) -> str | float | None:
    """A number of seconds as a number, as Ollama's servers want it; a duration such as 5m as it is."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        return float(text) if "." in text else int(text)
    return text


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise LapilliError(f"the server sent what is no JSON: {data[:80]!r}") from error
    if not isinstance(found, dict):
        raise LapilliError(f"the server sent {type(found).__name__}, an object was due: {data[:80]!r}")
    return found


def _checked(line: bytes) -> dict[str, Any]:
    found = _parse(line)
    if "error" in found:
        raise LapilliError(str(found["error"]))
    return found


def _refusal(status: int, body: bytes) -> LapilliError:
    try:
        found = json.loads(body)
        words = str(found["error"])
    except (ValueError, KeyError, TypeError):
        words = body[:200].decode("utf-8", "replace").strip()
    kinds: dict[int, type[LapilliError]] = {400: InputError, 404: ModelNotFoundError, 503: BusyError}
    return kinds.get(status, LapilliError)(words or f"the server answers {status}")


def _time(text: object) -> datetime | None:
    """A time as the server writes it; Go's nanoseconds are cut to what Python keeps."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        return None
