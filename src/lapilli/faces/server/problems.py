"""What went wrong, as a status and a body: one table for every dialect."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import traceback
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapilli import errors
from lapilli.errors import LapilliError

log = logging.getLogger("lapilli.server")

RETRY_SECONDS = 1
CLIENT_GONE = 499

# The most particular class first: a class stands before those it is derived from.
STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.BusyError, 503),
    (errors.ModelNotFoundError, 404),
    (errors.EngineGoneError, 500),
    (errors.RegistryError, 502),
    (errors.NoRoomError, 507),
    (errors.StoreError, 500),
    (errors.TemplateError, 400),
    (errors.FetchError, 400),
    (errors.CheckpointError, 500),
    (errors.InputError, 400),
)


class ClientGoneError(LapilliError):
    """The client left before its answer was made: nobody is there to be told."""


class HttpError(LapilliError):
    """A refusal that HTTP itself has a status for: 401, 403, 404, 405, 408, 413, 415, 431, 501."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = dict(headers or {})


def problem(error: BaseException, path: str) -> Response:
    """The response that tells of `error`, in the shape of the dialect that `path` belongs to."""
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
    if status == 503:
        headers["Retry-After"] = str(getattr(error, "retry_seconds", RETRY_SECONDS))
    return JSONResponse(body_of(path, status, text_of(error)), status, headers)


def status_of(error: BaseException) -> int:
    """The HTTP status of an error; what nobody foresaw is 500."""
    if isinstance(error, HttpError):
        return error.status
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, ClientGoneError):
        return CLIENT_GONE
    own = getattr(error, "status", None)
    if isinstance(error, LapilliError) and isinstance(own, int) and 400 <= own < 600:
        return own  # a StoreError that knows it is out of room, a RegistryError that knows what the other side said
    for kind, status in STATUS:
        if isinstance(error, kind):
            return status
    return 503 if isinstance(error, asyncio.TimeoutError | asyncio.CancelledError) else 500


def text_of(error: BaseException) -> str:
    """What may be told of an error: the text of ours, and of any other nothing but that there was one."""
    if isinstance(error, HTTPException):
        return {404: "404 page not found", 405: "405 method not allowed"}.get(error.status_code, error.detail)
    if isinstance(error, LapilliError):
        return clean(str(error)) or "the request failed"
    if isinstance(error, asyncio.CancelledError):
        return "the server is shutting down"
    return "internal server error: the server's log names its place"


def body_of(path: str, status: int, text: str) -> dict[str, Any]:
    """An error's body: `{"error": text}`, or what OpenAI's and Anthropic's clients take apart."""
    if path.startswith("/v1/messages"):
        told = {"type": _anthropic_kind(status), "message": text}
        return {"type": "error", "error": told, "request_id": f"req_{secrets.token_hex(12)}"}
    if path.startswith("/v1/"):
        kind = "not_found_error" if status == 404 else "api_error" if status >= 500 else "invalid_request_error"
        return {"error": {"message": text, "type": kind, "param": None, "code": None}}
    return {"error": text}


def _anthropic_kind(status: int) -> str:
    """Anthropic's word for a status."""
    known = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large"}
    if status in known:
        return known[status]
    return "overloaded_error" if status == 503 else "api_error" if status >= 500 else "invalid_request_error"


_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\"]+/)+")
_LINE_ENDS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


def clean(text: str) -> str:
    """One line without folders of this machine and without addresses in memory."""
    return _ADDRESS.sub("0x…", _FOLDERS.sub("", _LINE_ENDS.sub(" ", text.strip())))


def report(error: BaseException, path: str) -> None:
    """Write an error that nobody foresaw to the log: what and where, in one line; the whole of it at DEBUG."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
    log.error("%s: %s at %s: %s", path[:200], type(error).__name__, where, clean(str(error))[:500])
    log.debug("the whole of it", exc_info=error)


class Problems:
    """ASGI: whatever is raised further in becomes a response, if none has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def told(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, told)
        except ClientGoneError:
            scope["lapilli.status"] = CLIENT_GONE
        except Exception as error:
            if status_of(error) == 500:
                report(error, scope["path"])
            if begun:
                return  # the server closes a connection whose response never ended
            await problem(error, scope["path"])(scope, receive, send)
