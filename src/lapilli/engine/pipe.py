"""What goes through the pipes between a model's process and the one that asks it: a JSON head and raw bytes, framed.

A frame is two lengths (four bytes each, big-endian), a head (a JSON object), and a body. Both lengths are held against
their limits before anything is allocated. Nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapilli import errors
from lapilli.engine.ask import Ask, Embedded, Finished, LoadOrder, ModelFacts, News, TokenNews
from lapilli.errors import InputError, LapilliError
from lapilli.inputs.templates import TemplateText

HEAD_LIMIT = 128 << 20
BODY_LIMIT = 1 << 30
_LENGTHS = 8


class PipeError(LapilliError):
    """The other end said something that is no frame."""


@dataclass(frozen=True)
class Frame:
    """What one end tells the other: `head` has at least `kind`, and `number` where it belongs to a request."""

    head: Mapping[str, Any]
    body: bytes = b""

    @property
    def kind(self) -> str:
        return str(self.head.get("kind"))

    @property
    def number(self) -> int:
        number = self.head.get("number", 0)
        return number if isinstance(number, int) else 0

    def packed(self) -> bytes:
        """The frame as it goes through the pipe. Raises InputError for what is no JSON, or past the limits."""
        try:
            # Half a surrogate pair may pass: it is refused where text is read, not here.
            head = json.dumps(self.head, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"a request must be plain values: {str(error)[:200]}") from None
        for name, size, limit in (("words", len(head), HEAD_LIMIT), ("pictures", len(self.body), BODY_LIMIT)):
            if size > limit:
                raise InputError(f"the {name} of a request are {size} bytes, {limit} are the most")
        return b"".join((len(head).to_bytes(4, "big"), len(self.body).to_bytes(4, "big"), head, self.body))


async def receive(stream: asyncio.StreamReader) -> Frame:
    """The next frame. Raises PipeError, and asyncio.IncompleteReadError at the end."""
    head, body = _lengths(await stream.readexactly(_LENGTHS))
    return Frame(_object(await stream.readexactly(head)), await stream.readexactly(body))


def receive_blocking(file: io.FileIO) -> Frame | None:
    """The next frame, None at the end. Raises PipeError."""
    lengths = _exactly(file, _LENGTHS)
    if lengths is None:
        return None
    head, body = _lengths(lengths)
    parts = _exactly(file, head), _exactly(file, body)
    if parts[0] is None or parts[1] is None:
        return None
    return Frame(_object(parts[0]), bytes(parts[1]))


def _exactly(file: io.FileIO, count: int) -> bytearray | None:
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        size = file.readinto(view[got:])
        if not size:
            return None
        got += size
    return data


def _lengths(data: bytes | bytearray) -> tuple[int, int]:
    head, body = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:], "big")
    if head > HEAD_LIMIT or body > BODY_LIMIT:
        raise PipeError(f"a frame of {head} and {body} bytes, {HEAD_LIMIT} and {BODY_LIMIT} are the most")
    return head, body


def _object(data: bytes | bytearray) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise PipeError(f"a frame's head is no JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise PipeError(f"a frame's head is an object, not {type(value).__name__}")
    return value


# --- what is said, as frames and back ---


def order_frame(order: LoadOrder) -> Frame:
    head = {**_fields(order), "template": order.template and _fields(order.template), "engine": _plain(order.engine)}
    return Frame({"kind": "load", "order": _plain(head)})


def read_order(frame: Frame) -> LoadOrder:
    values = dict(frame.head["order"])
    values["path"] = Path(values["path"])
    values["projector"] = values["projector"] and Path(values["projector"])
    values["template"] = values["template"] and TemplateText(**values["template"])
    return LoadOrder(**values)


def facts_frame(facts: ModelFacts) -> Frame:
    return Frame({"kind": "ready", "facts": _fields(facts)})


def read_facts(frame: Frame) -> ModelFacts:
    return ModelFacts(**frame.head["facts"])


def ask_frame(number: int, ask: Ask) -> Frame:
    head = {
        **_fields(ask),
        "pictures": [len(picture) for picture in ask.pictures],
        "template": ask.template and _fields(ask.template),
        "messages": [dict(message) for message in ask.messages],
        "tools": [dict(tool) for tool in ask.tools],
        "sampling": dict(ask.sampling),
    }
    return Frame({"kind": "ask", "number": number, "ask": _plain(head)}, b"".join(ask.pictures))


def read_ask(frame: Frame) -> Ask:
    values, body, at = dict(frame.head["ask"]), memoryview(frame.body), 0
    pictures = []
    for size in values["pictures"]:
        pictures.append(bytes(body[at : at + size]))
        at += size
    values |= {name: tuple(values[name]) for name in ("messages", "before", "tools", "keep")}
    values["pictures"] = tuple(pictures)
    values["template"] = values["template"] and TemplateText(**values["template"])
    values["constraint"] = values["constraint"] and tuple(values["constraint"])
    values["adapter"] = values["adapter"] and Path(values["adapter"])
    return Ask(**values)


def news_frame(number: int, news: News) -> Frame:
    head: dict[str, Any] = {"kind": "news", "number": number, "text": news.text}
    if news.tokens:
        head["tokens"] = [
            [_text(token.data), token.logprob, [[_text(data), logprob] for data, logprob in token.top]]
            for token in news.tokens
        ]
    if news.finished is None:
        return Frame(head)
    head["finished"] = {name: value for name, value in _fields(news.finished).items() if name != "heatmap"}
    return Frame(head, news.finished.heatmap)


def read_news(frame: Frame) -> News:
    finished = frame.head.get("finished")
    if finished is not None:
        finished = Finished(**{**finished, "ids": tuple(finished["ids"]), "heatmap": frame.body})
    tokens = tuple(
        TokenNews(data=_bytes(data), logprob=logprob, top=tuple((_bytes(other), value) for other, value in top))
        for data, logprob, top in frame.head.get("tokens", ())
    )
    return News(text=frame.head["text"], tokens=tokens, finished=finished)


def embedded_frame(number: int, vectors: list[list[float]], prompt_tokens: int, truncated: int) -> Frame:
    head = {
        "kind": "embedded",
        "number": number,
        "count": len(vectors),
        "prompt_tokens": prompt_tokens,
        "truncated": truncated,
    }
    return Frame(head, b"".join(array("f", vector).tobytes() for vector in vectors))


def read_embedded(frame: Frame) -> Embedded:
    numbers, count = array("f"), frame.head["count"]
    numbers.frombytes(frame.body)
    width = len(numbers) // count if count else 0
    vectors = tuple(tuple(numbers[n * width : (n + 1) * width]) for n in range(count))
    return Embedded(vectors=vectors, prompt_tokens=frame.head["prompt_tokens"], truncated=frame.head["truncated"])


def error_frame(number: int, error: BaseException) -> Frame:
    """An error as its class's name and its text; what is none of ours is told as one of ours."""
    name, text = type(error).__name__, " ".join(str(error).split())
    if not isinstance(error, LapilliError):
        name, text = "LapilliError", f"the engine failed: {name}: {text}"[:500]
    return Frame({"kind": "error", "number": number, "error": name, "text": text})


def read_error(frame: Frame) -> LapilliError:
    """The error again, of the same class of `lapilli.errors`."""
    kind = getattr(errors, str(frame.head.get("error")), None)
    text = str(frame.head.get("text"))
    if isinstance(kind, type) and issubclass(kind, LapilliError):
        return kind(text)
    return LapilliError(text)


def _fields(value: Any) -> dict[str, Any]:
    return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")
