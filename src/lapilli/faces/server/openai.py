"""OpenAI's calls: chats, completions, vectors, models and responses."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lapilli.errors import InputError, ModelNotFoundError
from lapilli.faces.server import asking
from lapilli.faces.server.bodies import read_json
from lapilli.faces.server.problems import HttpError, body_of
from lapilli.faces.server.streams import Json, whole
from lapilli.store.library import Library
from lapilli.store.naming import ModelName
from lapilli.store.package import Package
from lapilli.wire import fields
from lapilli.wire.openai import chat, completions
from lapilli.wire.openai.common import wants_usage
from lapilli.wire.openai.events import ResponseStream, response_body
from lapilli.wire.openai.responses import read_response
from lapilli.wire.question import Question, Said
from lapilli.wire.sse import DONE, event


def routes() -> list[Route]:
    """The routes of this file."""
    return [
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", text_completions, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{model:path}", model, methods=["GET"]),
        Route("/v1/audio/{rest:path}", audio, methods=["POST"]),
    ]


async def chat_completions(request: Request) -> Response:
    """`POST /v1/chat/completions`."""
    body, shown, question = await asking.read(request, chat.read_chat)
    stream = chat.ChatStream(question, usage=wants_usage(body)) if fields.flag(body, "stream") else None
    question = await asking.see(request, question, shown)
    said = asking.said(request, question)
    if stream is not None:
        return _chunked(request, said, stream.chunks)
    return Json(chat.chat_body(question, await whole(request, asking.whole_answer(said))))


async def text_completions(request: Request) -> Response:
    """`POST /v1/completions`."""
    body = await read_json(request)
    question = completions.read_completion(body)
    said = asking.said(request, question)
    if fields.flag(body, "stream"):
        stream = completions.CompletionStream(question, usage=wants_usage(body))
        return _chunked(request, said, stream.chunks)
    return Json(completions.completion_body(question, await whole(request, asking.whole_answer(said))))


async def embeddings(request: Request) -> Response:
    """`POST /v1/embeddings`."""
    asked, encoding = completions.read_embedding(await read_json(request))
    vectors, account = await whole(request, asking.vectors(request, asked))
    return Json(completions.embedding_body(asked.model, vectors, account, encoding))


async def responses(request: Request) -> Response:
    """`POST /v1/responses`."""
    body, shown, asked = await asking.read(request, read_response)
    streamed = fields.flag(body, "stream")
    question: Question = await asking.see(request, asked.question, shown)
    said = asking.said(request, question)
    if not streamed:
        return Json(response_body(asked, await whole(request, asking.whole_answer(said))))
    stream = ResponseStream(dataclasses.replace(asked, question=question))

    def failed(text: str) -> bytes:
        name, data = stream.failed(text)
        return event(data, name)

    return asking.events(said, lambda part: (event(data, name) for name, data in stream.events(part)), error=failed)


async def models(request: Request) -> Response:
    """`GET /v1/models`."""
    library: Library = request.app.state.library
    found = await asyncio.to_thread(library.packages)
    found = sorted(found, key=lambda package: package.modified, reverse=True)
    return Json({"object": "list", "data": [_model(package) for package in found]})


async def model(request: Request) -> Response:
    """`GET /v1/models/<model>`."""
    name = request.path_params["model"]
    library: Library = request.app.state.library
    try:
        return Json(_model(await asyncio.to_thread(library.find, name)))
    except ModelNotFoundError:
        raise ModelNotFoundError(f"model '{name[:200]}' not found") from None


async def audio(request: Request) -> Response:
    """`/v1/audio/…`: models here see and read; they do not hear."""
    raise HttpError(501, "audio is not part of this server: its models read text and see pictures")


def _model(package: Package) -> dict[str, Any]:
    try:
        namespace = ModelName.parse(package.name).namespace
    except InputError:
        namespace = "library"
    return completions.model_body(package.name, namespace, package.modified)


def _chunked(
    request: Request, said: AsyncIterator[Said], chunks: Callable[[Said], Iterable[dict[str, Any]]]
) -> Response:
    """Chunks as server-sent events; a stream that ends well ends with [DONE]."""
    return asking.events(
        said,
        lambda part: map(event, chunks(part)),
        error=lambda text: event(body_of(request.url.path, 500, text)),
        last=DONE,
    )
