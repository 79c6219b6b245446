"""HTTP to a server of models: JSON out, JSON or lines of it back, every failure one of our errors."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from lapilli.errors import BusyError, InputError, LapilliError, ModelNotFoundError
from lapilli.ground.urls import server_url

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 600.0
_TRIES = 6  # of a request that the server has no room for now
_LONGEST_WAIT = 30.0
_MAX_LINE = 64 << 20


class NoSuchPathError(LapilliError):
    """The server knows no such path: it speaks another dialect, or an older one."""


class Connection:
    """A server at a URL. Raises LapilliError: ModelNotFoundError (404), InputError (400), BusyError (429, 503)."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url, here = server_url(url, "the server's URL")
        # A proxy is for the world outside; what is on this machine is reached directly.
        self._http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS, pool=None),
            limits=httpx2.Limits(max_connections=None),
            trust_env=not here,
        )

    def get(self, path: str) -> dict[str, Any]:
        """The object that a path answers with."""
        return self._object("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The object that a request is answered with; asked again a few times where the server is full."""
        for left in reversed(range(_TRIES)):
            try:
                return self._object("POST", path, body)
            except _FullError as error:
                if not left:
                    raise BusyError(str(error)) from None
                time.sleep(min(error.wait or 0.5 * 2 ** (_TRIES - 1 - left), _LONGEST_WAIT))
        raise AssertionError("the last try returns or raises")

    def lines(self, path: str, body: Mapping[str, Any]) -> Iterator[str]:
        """The lines of a streamed answer, less empty ones; leaving early ends it."""
        with self._errors(), self._http.stream("POST", path, json=body) as answer:
            if answer.status_code != 200:
                raise _refusal(answer.status_code, answer.read(), 0.0)
            kept = b""
            for data in answer.iter_bytes():
                *lines, kept = (kept + data).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines if line.strip())
                if len(kept) > _MAX_LINE:
                    raise LapilliError(f"the server sent a line of more than {_MAX_LINE >> 20} MiB")
            if kept.strip():
                yield kept.decode("utf-8", "replace")

    def close(self) -> None:
        """Let go of the server."""
        self._http.close()

    def _object(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        with self._errors():
            answer = self._http.request(method, path, json=body)
        if answer.status_code != 200:
            raise _refusal(answer.status_code, answer.content, _wait(answer.headers.get("retry-after")))
        return parse(answer.content)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise LapilliError(
                f"no server answers at {self.url}: start one there (`lapilli serve`), or give another URL"
            ) from error
        except httpx2.TimeoutException as error:
            raise LapilliError(f"the server at {self.url} did not answer within {_ANSWER_SECONDS:g} s") from error
        except httpx2.HTTPError as error:
            raise LapilliError(f"the connection to {self.url} broke: {error or type(error).__name__}") from error


def parse(data: bytes | str) -> dict[str, Any]:
    """The object in a body or a line; an `error` in it is raised. Raises LapilliError for what is no object."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise LapilliError(f"the server sent what is no JSON: {data[:80]!r}") from None
    if not isinstance(found, dict):
        raise LapilliError(f"the server sent {type(found).__name__}, an object was due: {data[:80]!r}")
    if found.get("error"):
        raise LapilliError(_words(found) or "the server says that something went wrong, and not what")
    return found


class _FullError(LapilliError):
    """No room now; `wait` are the seconds after which the server wants to be asked again, 0 where it does not say."""

    def __init__(self, words: str, wait: float) -> None:
        super().__init__(words)
        self.wait = wait


def _refusal(status: int, body: bytes, wait: float) -> LapilliError:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    words = _words(found) if isinstance(found, dict) else ""
    if status in (404, 405, 501) and not words:
        return NoSuchPathError(f"the server answers {status}")
    if status in (429, 503):
        return _FullError(words or f"the server has no room (status {status})", wait)
    words = words or body[:200].decode("utf-8", "replace").strip() or f"the server answers {status}"
    kinds: dict[int, type[LapilliError]] = {400: InputError, 404: ModelNotFoundError, 422: InputError}
    return kinds.get(status, LapilliError)(" ".join(words.split())[:500])


def _words(found: Mapping[str, Any]) -> str:
    """What an error says, in the shape of Ollama (a text) or OpenAI (an object with a message)."""
    error = found.get("error")
    if isinstance(error, Mapping):
        error = error.get("message")
    return error if isinstance(error, str) else ""


def _wait(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0
