"""Answers on their way out: piece by piece or whole, and given up as soon as the client is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from lapilli.errors import BusyError
from lapilli.faces.server.problems import ClientGoneError, report, status_of, text_of

T = TypeVar("T")
NDJSON = "application/x-ndjson"


class Json(JSONResponse):
    """A JSON body with the content type that Ollama's clients are used to."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:
        return dumps(content)


class Stream(Response):
    """A body that is made while it is sent, a piece at a time, each at once on its way.

    The first piece is awaited before the status is sent, so whatever fails before it is raised, and becomes a proper
    response. What fails later is told by `error(text)`, the last piece. When the client leaves, `pieces` is closed.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        error: Callable[[str], bytes],
        media_type: str = NDJSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        del self.headers["content-length"]
        self.pieces = pieces
        self.error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def run() -> None:
            nonlocal begun
            async with closing(self.pieces) as pieces:
                async for piece in pieces:
                    if not begun:
                        begun = True
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            if not begun:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b""})

        try:
            await unless_gone(receive, run())
        except ClientGoneError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            failure: BaseException = error
            if isinstance(failure, asyncio.CancelledError):
                _go_on()  # the server is going down: say so, then end in order
                failure = BusyError("the server is shutting down")
            if not begun:
                raise failure from None
            if status_of(failure) == 500:
                report(failure, scope["path"])
            await send({"type": "http.response.body", "body": self.error(text_of(failure)), "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def lines(objects: AsyncIterator[Mapping[str, Any]]) -> Stream:
    """Newline-delimited JSON, the framing of Ollama's streams."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        async with closing(objects) as each:
            async for item in each:
                yield dumps(item) + b"\n"

    return Stream(pieces(), error=lambda text: dumps({"error": text}) + b"\n")


async def whole(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled if the client leaves first (ClientGoneError)."""
    try:
        return await unless_gone(request.receive, work)
    except asyncio.CancelledError:
        _go_on()
        raise BusyError("the server is shutting down") from None


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """Await `work` with an eye on the client; raises ClientGoneError, with `work` over, when it has left.

    The body must have been read: what `receive` yields from now on can only be the end.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError("the client left before its answer was made")
        return task.result()
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


@contextlib.asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close an async generator at the end, whatever the end is."""
    try:
        yield items
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _go_on() -> None:
    """Take back a cancellation that is dealt with in order."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
