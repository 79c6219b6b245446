"""One question in every dialect that the server speaks: its body, its words, its refusals, its stream."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
from live_server import no_leak
from PIL import Image

Body = dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """`ask(prompt, pictures, most, form)` is a body, `words(answer)` what was said in it."""

    path: str
    ask: Callable[[str, Sequence[str], int, Any], Body]
    words: Callable[[Any], str]
    sees: bool = True
    forms: bool = True

    def __str__(self) -> str:
        return self.path

    def body(self, prompt: str = "Hello", *pictures: str, most: int = 2, form: Any = None, **more: Any) -> Body:
        """A greedy question to `mini`; pictures are in base64."""
        return {**self.ask(prompt, pictures, most, form), "model": "mini", "stream": False, **more}

    def said(self, live: Any, *asked: str, **more: Any) -> str:
        """What the model says."""
        response = live.post(self.path, self.body(*asked, **more))
        assert response.status_code == 200, response.text
        return self.words(response.json())

    def status(self, live: Any, body: Body) -> int:
        """The status of a question, whole; a refusal must have its dialect's shape and tell no secret."""
        response = live.post(self.path, body)
        if response.status_code != 200:
            assert_shape(self.path, response)
        return int(response.status_code)

    def refusal(self, live: Any, body: Body, status: int = 400) -> str:
        """The words of a refusal, the same in a stream as whole."""
        told = []
        for stream in (False, True):
            response = live.post(self.path, {**body, "stream": stream})
            assert response.status_code == status, (self.path, response.status_code, response.text[:300])
            told.append(assert_shape(self.path, response))
        assert told[0] == told[1]
        return told[0]


def assert_shape(path: str, response: httpx2.Response) -> str:
    """The text of a refusal; fails unless it is JSON of the path's dialect that leaks nothing (O6, O8)."""
    assert 400 <= response.status_code < 600
    assert response.headers["content-type"].startswith("application/json"), response.headers
    assert no_leak(response.text), response.text
    found = response.json()
    if path.startswith("/v1/messages"):
        assert list(found) == ["type", "error", "request_id"], found
        text = found["error"]["message"]
    elif path.startswith("/v1/"):
        assert list(found) == ["error"], found
        assert list(found["error"]) == ["message", "type", "param", "code"], found
        text = found["error"]["message"]
    else:
        assert list(found) == ["error"], found
        text = found["error"]
    assert isinstance(text, str)
    assert text
    assert "\n" not in text
    return text


def url(picture: str) -> str:
    """A data: URL of a picture in base64, whatever it is in truth."""
    return picture if picture.startswith(("data:", "http")) else f"data:image/png;base64,{picture}"


def _options(most: int) -> Body:
    return {"temperature": 0, "num_predict": most}


def _schema(form: Any) -> Body:
    if form == "json":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": form}}


def _without(body: Mapping[str, Any]) -> Body:
    return {name: value for name, value in body.items() if value is not None}


def _chat_part(picture: str) -> Body:
    return {"type": "image_url", "image_url": {"url": url(picture)}}


def _block(picture: str) -> Body:
    if picture.startswith("http"):
        return {"type": "image", "source": {"type": "url", "url": picture}}
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}}


GENERATE = Dialect(
    "/api/generate",
    lambda prompt, pictures, most, form: _without(
        {"prompt": prompt, "images": [*pictures] or None, "options": _options(most), "format": form}
    ),
    lambda answer: str(answer["response"]),
)
CHAT = Dialect(
    "/api/chat",
    lambda prompt, pictures, most, form: _without(
        {
            "messages": [_without({"role": "user", "content": prompt, "images": [*pictures] or None})],
            "options": _options(most),
            "format": form,
        }
    ),
    lambda answer: str(answer["message"]["content"]),
)
OPENAI = Dialect(
    "/v1/chat/completions",
    lambda prompt, pictures, most, form: _without(
        {
            "messages": [
                {"role": "user", "content": [*map(_chat_part, pictures), {"type": "text", "text": prompt}]},
            ],
            "max_tokens": most,
            "temperature": 0,
            "response_format": None if form is None else _schema(form),
        }
    ),
    lambda answer: str(answer["choices"][0]["message"]["content"]),
)
RESPONSES = Dialect(
    "/v1/responses",
    lambda prompt, pictures, most, form: _without(
        {
            "input": [
                {
                    "role": "user",
                    "content": [
                        *({"type": "input_image", "image_url": url(picture)} for picture in pictures),
                        {"type": "input_text", "text": prompt},
                    ],
                }
            ],
            "max_output_tokens": most,
            "temperature": 0,
            "text": None if form is None else {"format": {**_schema(form), **_schema(form).get("json_schema", {})}},
        }
    ),
    lambda answer: "".join(
        part["text"] for item in answer["output"] if item["type"] == "message" for part in item["content"]
    ),
)
ANTHROPIC = Dialect(
    "/v1/messages",
    lambda prompt, pictures, most, form: _without(
        {
            "messages": [
                {"role": "user", "content": [*map(_block, pictures), {"type": "text", "text": prompt}]},
            ],
            "max_tokens": most,
            "temperature": 0,
            "output_config": None if form is None else {"format": {"type": "json_schema", "schema": form}},
        }
    ),
    lambda answer: "".join(block.get("text", "") for block in answer["content"]),
)
COMPLETIONS = Dialect(
    "/v1/completions",
    lambda prompt, pictures, most, form: {"prompt": prompt, "max_tokens": most, "temperature": 0},
    lambda answer: str(answer["choices"][0]["text"]),
    sees=False,
    forms=False,
)
SEEING = (GENERATE, CHAT, OPENAI, RESPONSES, ANTHROPIC)
ALL = (*SEEING, COMPLETIONS)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def drawn(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (40, 30), color: Any = 0, **more: Any) -> bytes:
    """A picture of one colour, as a file's bytes."""
    data = io.BytesIO()
    Image.new(mode, size, color).save(data, kind, **more)
    return data.getvalue()


def records(response: httpx2.Response) -> list[Any]:
    """The JSON objects of a stream, lines or events."""
    found = []
    for line in response.text.splitlines():
        text = line.removeprefix("data: ")
        if text.startswith("{"):
            found.append(json.loads(text))
    return found
