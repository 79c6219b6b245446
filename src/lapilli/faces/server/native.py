"""Ollama's calls that make a model compute: generate, chat, embed, embeddings."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lapilli.faces.server import asking
from lapilli.faces.server.bodies import read_json
from lapilli.faces.server.streams import Json, closing, lines, whole
from lapilli.wire import ollama
from lapilli.wire.question import Question, Said


def routes() -> list[Route]:
    """The routes of this file."""
    return [
        Route("/api/generate", generate, methods=["POST"]),
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/embed", embed, methods=["POST"]),
        Route("/api/embeddings", embeddings, methods=["POST"]),
    ]


async def generate(request: Request) -> Response:
    """`POST /api/generate`."""
    body = await read_json(request)
    question = ollama.read_generate(body)

    async def pieces() -> AsyncGenerator[Mapping[str, Any], None]:
        async with closing(asking.said(request, question)) as said:
            async for part in split(said):
                yield ollama.generate_piece(question.model, part, raw=question.raw)

    if ollama.wants_stream(body) and not _is_short(question):
        return lines(pieces())
    answer = await whole(request, asking.whole_answer(asking.said(request, question)))
    if question.render_only and answer.account is not None:
        return Json(ollama.rendered_piece(question.model, answer.account))
    return Json(ollama.generate_piece(question.model, answer, raw=question.raw))


async def chat(request: Request) -> Response:
    """`POST /api/chat`."""
    body = await read_json(request)
    question = ollama.read_chat(body)

    async def pieces() -> AsyncGenerator[Mapping[str, Any], None]:
        calls = 0
        async with closing(asking.said(request, question)) as said:
            async for part in split(said):
                yield ollama.chat_piece(question.model, part, calls)
                calls += len(part.tool_calls)

    if ollama.wants_stream(body) and not _is_short(question):
        return lines(pieces())
    answer = await whole(request, asking.whole_answer(asking.said(request, question)))
    if question.render_only and answer.account is not None:
        return Json(ollama.rendered_piece(question.model, answer.account))
    return Json(ollama.chat_piece(question.model, answer))


async def embed(request: Request) -> Response:
    """`POST /api/embed`."""
    asked = ollama.read_embed(await read_json(request))
    vectors, account = await whole(request, asking.vectors(request, asked))
    return Json(ollama.embed_body(asked.model, vectors, account))


async def embeddings(request: Request) -> Response:
    """`POST /api/embeddings`."""
    asked = ollama.read_embeddings(await read_json(request))
    vectors, _ = await whole(request, asking.vectors(request, asked))
    return Json({"embedding": list(vectors[0]) if vectors else []})


async def split(said: AsyncIterator[Said]) -> AsyncGenerator[Said, None]:
    """The same, with the account in a piece of its own: the last piece of a stream says nothing else."""
    async for part in said:
        if part.account is not None and (part.text or part.thinking or part.tool_calls):
            yield Said(text=part.text, thinking=part.thinking, tool_calls=part.tool_calls, logprobs=part.logprobs)
            part = Said(account=part.account)
        yield part


def _is_short(question: Question) -> bool:
    """Whether the answer is one object in any case: a model to load or unload, a prompt to show."""
    return question.render_only or not (question.turns or question.prompt)
