"""Anthropic's call: `/v1/messages`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lapilli.faces.server import asking
from lapilli.faces.server.problems import body_of
from lapilli.faces.server.streams import Json, whole
from lapilli.wire import anthropic, fields
from lapilli.wire.sse import event


def routes() -> list[Route]:
    """The routes of this file."""
    return [Route("/v1/messages", messages, methods=["POST"])]


async def messages(request: Request) -> Response:
    """`POST /v1/messages`."""
    body, shown, question = await asking.read(request, anthropic.read_messages)
    streamed = fields.flag(body, "stream")
    question = await asking.see(request, question, shown)
    said = asking.said(request, question)
    if not streamed:
        return Json(anthropic.message_body(question, await whole(request, asking.whole_answer(said))))
    stream = anthropic.MessageStream(question)

    return asking.events(
        said,
        lambda part: (event(data, name) for name, data in stream.events(part)),
        error=lambda text: event(body_of(request.url.path, 500, text), "error"),
    )
