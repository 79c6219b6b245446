"""What tests of OpenAI's and Anthropic's dialects share: events of a stream, refusals, answers that are made up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpx2
import pytest

from lapilli.wire.question import Question, Said

HELLO = [{"role": "user", "content": "Hello, who are you?"}]
TOOL_WORDS = {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": TOOL_WORDS}


def ask(live: Any, path: str, **body: Any) -> Any:
    """The JSON of a whole answer of `mini`, greedy unless told otherwise."""
    response = live.post(path, {"model": "mini", "temperature": 0, **body})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/json")
    return response.json()


def events(response: httpx2.Response) -> list[tuple[str, Any]]:
    """The names and the data of a stream's events; each is framed as the specification has it."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    found = []
    for block in response.text[:-2].split("\n\n"):
        lines = block.split("\n")
        name = lines.pop(0).removeprefix("event: ") if lines[0].startswith("event: ") else ""
        assert len(lines) == 1
        assert lines[0].startswith("data: ")
        text = lines[0].removeprefix("data: ")
        found.append((name, text if text == "[DONE]" else json.loads(text)))
    return found


def stream(live: Any, path: str, **body: Any) -> list[tuple[str, Any]]:
    """The events of a streamed answer of `mini`."""
    return events(live.post(path, {"model": "mini", "temperature": 0, "stream": True, **body}))


def refused(live: Any, path: str, status: int, body: Any = None, **more: Any) -> tuple[str, str]:
    """Kind and words of a refusal, which must have its dialect's shape."""
    response = live.post(path, body, **more)
    assert response.status_code == status, response.text
    found = response.json()
    if path.startswith("/v1/messages"):
        assert list(found) == ["type", "error", "request_id"]
        assert found["type"] == "error"
        assert found["request_id"].startswith("req_")
        assert list(found["error"]) == ["type", "message"]
    else:
        assert list(found) == ["error"]
        assert list(found["error"]) == ["message", "type", "param", "code"]
        assert found["error"]["param"] is found["error"]["code"] is None
    return found["error"]["type"], found["error"]["message"]


Saying = Callable[..., list[Question]]


def saying(monkeypatch: pytest.MonkeyPatch) -> Saying:
    """A function that has the server's model say what is made up, then raise; it returns the list of what is asked."""
    from lapilli.faces.server import asking

    def say(parts: Iterable[Said], error: Exception | None = None) -> list[Question]:
        asked: list[Question] = []

        async def answer(question: Question, residents: Any) -> AsyncIterator[Said]:
            asked.append(question)
            for part in parts:
                yield part
            if error is not None:
                raise error

        monkeypatch.setattr(asking.answering, "answer", answer)
        return asked

    return say
