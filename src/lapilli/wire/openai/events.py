"""OpenAI's responses: what `/v1/responses` answers, whole or as a run of named events.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from lapilli.wire.openai import common
from lapilli.wire.openai.responses import Asked
from lapilli.wire.question import Account, Said, ToolCall

Event = tuple[str, dict[str, Any]]


def response_body(asked: Asked, said: Said) -> dict[str, Any]:
    """A response's whole answer."""
    stream = ResponseStream(asked)
    last = {}
    for _, data in stream.events(said):
        last = data
    found: dict[str, Any] = last["response"]
    return found


class ResponseStream:
    """A response as events: each has a name, and a number that counts up from 0."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.number = 0
        self.output: list[dict[str, Any]] = []
        self.open: _Item | None = None
        self.response: dict[str, Any] = {
            "id": common.new_id("resp_"),
            "object": "response",
            "created_at": common.moment(),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": asked.question.model,
            "output": [],
            "usage": None,
            **asked.repeated,
        }

    def events(self, said: Said) -> Iterator[Event]:
        """What a piece of the answer comes to."""
        if not self.number:
            yield self._event("response.created", response=self.response)
            yield self._event("response.in_progress", response=self.response)
        if said.thinking:
            yield from self._continue(_Thoughts, said)
        if said.text or (said.logprobs and not said.thinking and not said.tool_calls):
            yield from self._continue(_Words, said)
        for call in said.tool_calls:
            yield from self._close()
            yield from self._begin(_Call(len(self.output), call))
            yield from self._close()
        if said.account is not None:
            yield from self._end(said.account)

    def failed(self, text: str) -> Event:
        """The end of an answer that an error broke off."""
        self.response |= {"status": "failed", "error": {"code": "server_error", "message": text}}
        return self._event("response.failed", response={**self.response, "output": self.output})

    def _end(self, account: Account) -> Iterator[Event]:
        if not (self.output or self.open):
            yield from self._continue(_Words, Said())
        yield from self._close()
        cut = account.reason == "length"
        status = "incomplete" if cut else "completed"
        self.response |= {
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "completed_at": None if cut else common.moment(),
            "output": self.output,
            "usage": _usage(account),
        }
        if account.heatmap:
            self.response["heatmap"] = base64.b64encode(account.heatmap).decode("ascii")
        yield self._event(f"response.{status}", response=self.response)

    def _continue(self, kind: type[_Thoughts] | type[_Words], said: Said) -> Iterator[Event]:
        """Go on with an item of that kind, which is begun if another is open."""
        if not isinstance(self.open, kind):
            yield from self._close()
            yield from self._begin(kind(len(self.output)))
        assert isinstance(self.open, _Thoughts | _Words), "an item was begun"
        yield from self._numbered(self.open.add(said))

    def _begin(self, item: _Item) -> Iterator[Event]:
        self.open = item
        yield self._event("response.output_item.added", output_index=item.index, item=item.value("in_progress"))
        yield from self._numbered(item.begun())

    def _close(self) -> Iterator[Event]:
        item, self.open = self.open, None
        if item is not None:
            yield from self._numbered(item.ended())
            self.output.append(item.value("completed"))
            yield self._event("response.output_item.done", output_index=item.index, item=self.output[-1])

    def _numbered(self, events: Iterator[Event]) -> Iterator[Event]:
        for name, data in events:
            yield self._event(f"response.{name}", **data)

    def _event(self, name: str, /, **data: Any) -> Event:
        found = {"type": name, "sequence_number": self.number, **data}
        self.number += 1
        return name, found


class _Item:
    """A part of an answer under way, and the events that tell of it; names of events lack their `response.`."""

    prefix = ""

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = common.new_id(self.prefix)
        self.text = ""
        self.place: Mapping[str, Any] = {"item_id": self.id, "output_index": index}

    def value(self, status: str) -> dict[str, Any]:
        """The item as it is now."""
        raise AssertionError("each kind of item has its own")

    def begun(self) -> Iterator[Event]:
        """What follows the item's beginning."""
        yield from ()

    def ended(self) -> Iterator[Event]:
        """What comes before the item's end."""
        yield from ()


class _Words(_Item):
    prefix = "msg_"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.logprobs: list[dict[str, Any]] = []
        self.place = {**self.place, "content_index": 0}

    def value(self, status: str) -> dict[str, Any]:
        content = [self._part()] if status == "completed" else []
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content}

    def begun(self) -> Iterator[Event]:
        yield "content_part.added", {**self.place, "part": self._part()}

    def add(self, said: Said) -> Iterator[Event]:
        """Go on."""
        logprobs = common.likelihoods(said.logprobs)
        self.text += said.text
        self.logprobs += logprobs
        if said.text or logprobs:
            yield "output_text.delta", {**self.place, "delta": said.text, "logprobs": logprobs}

    def ended(self) -> Iterator[Event]:
        yield "output_text.done", {**self.place, "text": self.text, "logprobs": self.logprobs}
        yield "content_part.done", {**self.place, "part": self._part()}

    def _part(self) -> dict[str, Any]:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": list(self.logprobs)}


class _Thoughts(_Item):
    prefix = "rs_"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.place = {**self.place, "summary_index": 0}

    def value(self, status: str) -> dict[str, Any]:
        summary = [self._part()] if status == "completed" else []
        return {"id": self.id, "type": "reasoning", "status": status, "summary": summary}

    def begun(self) -> Iterator[Event]:
        yield "reasoning_summary_part.added", {**self.place, "part": self._part()}

    def add(self, said: Said) -> Iterator[Event]:
        """Go on."""
        self.text += said.thinking
        yield "reasoning_summary_text.delta", {**self.place, "delta": said.thinking}

    def ended(self) -> Iterator[Event]:
        yield "reasoning_summary_text.done", {**self.place, "text": self.text}
        yield "reasoning_summary_part.done", {**self.place, "part": self._part()}

    def _part(self) -> dict[str, Any]:
        return {"type": "summary_text", "text": self.text}


class _Call(_Item):
    prefix = "fc_"

    def __init__(self, index: int, call: ToolCall) -> None:
        super().__init__(index)
        self.name, self.call_id = call.name, call.id or common.new_id("call_")
        self.text = common.call_text(call)

    def value(self, status: str) -> dict[str, Any]:
        text = self.text if status == "completed" else ""
        told = {"id": self.id, "type": "function_call", "status": status, "call_id": self.call_id}
        return {**told, "name": self.name, "arguments": text}

    def begun(self) -> Iterator[Event]:
        yield "function_call_arguments.delta", {**self.place, "delta": self.text}

    def ended(self) -> Iterator[Event]:
        yield "function_call_arguments.done", {**self.place, "name": self.name, "arguments": self.text}


def _usage(account: Account) -> dict[str, Any]:
    return {
        "input_tokens": account.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": account.cached_tokens,
            "cache_write_tokens": 0,
            "image_tokens": account.image_tokens,
        },
        "output_tokens": account.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": account.prompt_tokens + account.completion_tokens,
        **common.more_usage(account),
    }
