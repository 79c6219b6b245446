"""`/api/documents`: what was added, adding and removing, and questions answered from it with citations.

Files come as bytes or as text, addresses through the guarded door where that is switched on; paths of this machine are
nobody's to name here.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import time
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lapilli.errors import InputError
from lapilli.faces.resident_backend import ResidentBackend
from lapilli.faces.server.bodies import read_body, read_json
from lapilli.faces.server.problems import HttpError
from lapilli.faces.server.streams import Json, lines, whole
from lapilli.ground.settings import Settings
from lapilli.inputs.images import open_image
from lapilli.wire import fields

if TYPE_CHECKING:
    from lapilli.apps.rag.adding import Added
    from lapilli.apps.rag.app import App
    from lapilli.apps.rag.cited import Stream
    from lapilli.apps.rag.rows import Hit

MOST_CHARACTERS = 1 << 20  # of a document's text in one response
MOST_PASSAGES = 100
MODEL = "mini"


def routes() -> list[Route]:
    """The routes of this file."""
    return [
        Route("/api/documents", listed, methods=["GET"]),
        Route("/api/documents", add, methods=["POST"]),
        Route("/api/documents", remove, methods=["DELETE"]),
        Route("/api/documents/text", text, methods=["GET"]),
        Route("/api/documents/picture", picture, methods=["GET"]),
        Route("/api/documents/search", search, methods=["POST"]),
        Route("/api/documents/ask", ask, methods=["POST"]),
    ]


async def listed(request: Request) -> Response:
    """`GET /api/documents`."""
    app = await _app(request, MODEL)
    entries = await asyncio.to_thread(app.sources)
    names = ("source", "kind", "title", "passages", "characters", "added")
    return Json({"documents": [{name: getattr(entry, name) for name in names} for entry in entries]})


async def add(request: Request) -> Response:
    """`POST /api/documents`: a file as the body, named by `?name=`; or JSON with `text` or `url`."""
    app = await _app(request, request.query_params.get("model") or MODEL)
    name = request.query_params.get("name")
    if name is not None:
        data = await read_body(request)
        added = await whole(request, asyncio.to_thread(app.add_file, name, data))
    else:
        added = await whole(request, asyncio.to_thread(_add_said, app, await read_json(request), _settings(request)))
    if added.failed and not (added.added or added.unchanged):
        raise InputError(added.failed[0][1])
    return Json(_told(added))


async def remove(request: Request) -> Response:
    """`DELETE /api/documents?source=`."""
    source = _source(request)
    app = await _app(request, MODEL)
    if not await asyncio.to_thread(lambda: app.store.remove(source)):
        raise HttpError(404, f"no document {source[:200]!r}")
    return Json({"removed": source})


async def text(request: Request) -> Response:
    """`GET /api/documents/text?source=&start=`: the text that citations count in, a mebicharacter at most."""
    document = await _document(request)
    start = request.query_params.get("start", "0")
    if not start.isascii() or not start.isdigit() or len(start) > 12:
        raise InputError(f"start is {start[:40]!r}: a whole number is needed")
    begin = int(start)
    piece = document.text[begin : begin + MOST_CHARACTERS]
    return Json(
        {
            "source": document.source,
            "kind": document.kind,
            "title": document.title,
            "start": begin,
            "characters": len(document.text),
            "text": piece,
            "marks": [list(mark) for mark in document.marks if begin <= mark[0] <= begin + len(piece)],
            "picture": document.picture is not None,
        }
    )


async def picture(request: Request) -> Response:
    """`GET /api/documents/picture?source=`: the picture itself, as PNG."""
    document = await _document(request)
    if document.picture is None:
        raise HttpError(404, f"{document.source[:200]!r} is no picture")
    return Response(await asyncio.to_thread(_png, document.picture), media_type="image/png")


async def search(request: Request) -> Response:
    """`POST /api/documents/search`."""
    body = await read_json(request)
    query, count = _words(body, "query"), _count(body)
    app = await _app(request, MODEL)
    hits = await whole(request, asyncio.to_thread(app.find, query, count or 5))
    return Json({"passages": [_passage(hit) for hit in hits]})


async def ask(request: Request) -> Response:
    """`POST /api/documents/ask`: the answer in pieces, then with its citations; all at once with `stream` false."""
    body = await read_json(request)
    question, count = _words(body, "question"), _count(body)
    model = fields.text(body, "model") or MODEL
    app = await _app(request, model)
    if not fields.flag(body, "stream", default=True):
        answer = await whole(request, asyncio.to_thread(app.ask, question, count=count))
        return Json(_answer(model, answer))

    async def pieces() -> AsyncGenerator[Mapping[str, Any], None]:
        stream = await asyncio.to_thread(app.stream, question, count=count)
        try:
            while (piece := await asyncio.to_thread(next, stream, None)) is not None:
                yield {"text": piece, "done": False}
            yield _answer(model, stream.cited)
        finally:
            await asyncio.to_thread(_give_up, stream)

    return lines(pieces())


def _answer(model: str, answer: Any) -> dict[str, Any]:
    return {
        "model": model,
        "text": answer.text,
        "found": answer.found,
        "citations": [dataclasses.asdict(citation) for citation in answer.citations],
        "notes": list(answer.notes),
        "done": True,
    }


def _give_up(stream: Stream) -> None:
    """End a stream, once the thread that waits for its next piece has it."""
    for _ in range(600):
        with contextlib.suppress(ValueError):  # another thread is in it
            stream.close()
            return
        time.sleep(0.05)


def _add_said(app: App, body: Mapping[str, Any], settings: Settings) -> Added:
    words, url = fields.text(body, "text"), fields.text(body, "url")
    if bool(words) == bool(url):
        raise InputError("give a file as the body with ?name=, or JSON with one of text and url")
    if url:
        if settings.offline or not settings.fetch:
            raise HttpError(403, "addresses are not fetched here: set LAPILLI_FETCH")
        return app.add_all([url], roots=())
    return app.add_file(fields.text(body, "name") or _named(words), words.encode())


def _named(words: str) -> str:
    """A text without a name is called by its first words."""
    return f"{' '.join(words.split())[:60].strip()}.txt"


def _told(added: Added) -> dict[str, Any]:
    return {
        "added": list(added.added),
        "unchanged": list(added.unchanged),
        "failed": [{"source": source, "error": problem} for source, problem in added.failed],
        "characters": added.characters,
    }


def _passage(hit: Hit) -> dict[str, Any]:
    passage = hit.passage
    told = {name: getattr(passage, name) for name in ("source", "start", "end", "text", "label", "picture")}
    return {**told, "score": hit.score}


async def _app(request: Request, model: str) -> App:
    """The documents as this model answers from them; the model is asked in the server's own places."""
    from lapilli.apps.rag.app import App

    settings, residents = _settings(request), request.app.state.residents
    package = await residents.find(model)
    quotes = package.name.removesuffix(":latest") == MODEL  # mini cannot read passages
    config = {"llm": {"config": {"model": package.name, "quote": quotes}}}
    backend = ResidentBackend(package, residents, asyncio.get_running_loop())
    return App(config, folder=settings.documents, backend=backend)


async def _document(request: Request) -> Any:
    source = _source(request)
    app = await _app(request, MODEL)
    try:
        return await asyncio.to_thread(app.document, source)
    except InputError:
        raise HttpError(404, f"no document {source[:200]!r}") from None


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _source(request: Request) -> str:
    source = request.query_params.get("source", "")
    if not source:
        raise InputError("which document? name it with ?source=")
    return source


def _words(body: Mapping[str, Any], name: str) -> str:
    words = fields.text(body, name)
    if not words or not words.strip():
        raise InputError(f"{name} is empty")
    return words


def _count(body: Mapping[str, Any]) -> int | None:
    count = fields.integer(body, "count")
    if count is not None and not 1 <= count <= MOST_PASSAGES:
        raise InputError(f"count is {count}: 1 is the least, {MOST_PASSAGES} are the most")
    return count


def _png(data: bytes) -> bytes:
    file = io.BytesIO()
    open_image(data).save(file, "PNG")
    return file.getvalue()
