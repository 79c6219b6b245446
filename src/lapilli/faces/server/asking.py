"""What every dialect does with a question: show its pictures, ask it, count what it took."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from lapilli.errors import ModelNotFoundError
from lapilli.faces import answering
from lapilli.faces.server.bodies import INLINE_BYTES, read_json
from lapilli.faces.server.streams import Stream, closing, whole
from lapilli.ground.fetch import fetch
from lapilli.ground.settings import Settings
from lapilli.wire.question import Account, Question, Said, Texts, join
from lapilli.wire.shown import Shown
from lapilli.wire.sse import MEDIA_TYPE

Asked = TypeVar("Asked")
FETCHES_AT_ONCE = 4


async def said(request: Request, question: Question) -> AsyncGenerator[Said, None]:
    """What the model says, its account in a last piece of its own, and counted."""
    state = request.app.state
    with named(question.model, "model '{}' not found"):
        async with closing(answering.answer(question, state.residents)) as told:
            async for part in told:
                if part.account is not None:
                    state.metrics.answered(part.account)
                yield part


async def whole_answer(parts: AsyncIterator[Said]) -> Said:
    """All that is said, as one piece."""
    async with closing(parts) as told:
        return join([part async for part in told])


def events(
    said: AsyncIterator[Said],
    told: Callable[[Said], Iterable[bytes]],
    *,
    error: Callable[[str], bytes],
    last: bytes = b"",
) -> Stream:
    """What is said as server-sent events, each piece as `told` writes it; a stream that ends well ends with `last`."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        async with closing(said) as parts:
            async for part in parts:
                for piece in told(part):
                    yield piece
        if last:
            yield last

    return Stream(pieces(), error=error, media_type=MEDIA_TYPE)


async def vectors(request: Request, asked: Texts) -> tuple[list[list[float]], Account]:
    """The vectors of texts, and what they took."""
    state = request.app.state
    with named(asked.model, 'model "{}" not found, try pulling it first'):
        found, account = await answering.embed(
            asked.model,
            asked.texts,
            state.residents,
            truncate=bool(asked.truncate),
            dimensions=asked.dimensions,
            keep_alive=asked.keep_alive,
            options=asked.options,
        )
    state.metrics.answered(account)
    return [list(vector) for vector in found], account


async def read(
    request: Request, reader: Callable[[Mapping[str, Any], Shown], Asked]
) -> tuple[Mapping[str, Any], Shown, Asked]:
    """The body, its pictures, and what a dialect makes of it, in a thread where it is large. Raises InputError."""
    settings: Settings = request.app.state.settings
    shown = Shown(by_url=settings.fetch and not settings.offline)
    body = await read_json(request)
    if len(await request.body()) > INLINE_BYTES:
        return body, shown, await asyncio.to_thread(reader, body, shown)
    return body, shown, reader(body, shown)


async def see(request: Request, question: Question, shown: Shown) -> Question:
    """The question with its pictures, those by URL fetched. Raises FetchError, ClientGoneError."""
    fetched = await whole(request, _fetch_all(shown.urls)) if shown.urls else {}
    return dataclasses.replace(question, pictures=shown.pictures(fetched))


async def _fetch_all(urls: Mapping[int, str]) -> dict[int, bytes]:
    # Threads of its own: slow servers of strangers must not hold those that everybody needs.
    threads = ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="lapilli-fetch")
    loop = asyncio.get_running_loop()
    once = list(dict.fromkeys(urls.values()))
    try:
        found = await asyncio.gather(*(loop.run_in_executor(threads, fetch, url) for url in once))
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    data = {url: each.data for url, each in zip(once, found, strict=True)}
    return {number: data[url] for number, url in urls.items()}


@contextlib.contextmanager
def named(model: str, text: str) -> Iterator[None]:
    """Say that a model is not here in the words that clients look for."""
    try:
        yield
    except ModelNotFoundError:
        raise ModelNotFoundError(text.format(model[:200])) from None
