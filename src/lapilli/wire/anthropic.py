"""Anthropic's dialect: what `/v1/messages` asks, and what it answers, whole or as a run of named events.

https://docs.anthropic.com/en/api/messages; `docs/openai.md` lists what is refused.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from lapilli.errors import InputError
from lapilli.wire import fields
from lapilli.wire.durations import keep_alive, nanoseconds
from lapilli.wire.question import MOST_TOOLS, MOST_TURNS, Account, Question, Said, Think, ToolCall, Turn
from lapilli.wire.shown import Shown

Event = tuple[str, dict[str, Any]]

ROLES = ("user", "assistant", "system")
DEFAULTS: Mapping[str, Any] = {"temperature": 1.0, "top_p": 1.0}
_EFFORTS: Mapping[str, Think] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}
_EMPTY = ("mcp_servers", "container")
_OPTIONS = ("temperature", "top_p", "top_k")


# --- requests ---


def read_messages(body: Mapping[str, Any], shown: Shown) -> Question:
    """The question; `shown` gets its pictures, which the question itself still lacks. Raises InputError."""
    model = fields.text(body, "model")
    if not model:
        raise InputError("model is required")
    most = fields.integer(body, "max_tokens", 0) or 0
    if most <= 0:
        raise InputError("max_tokens is required and must be positive")
    for name in _EMPTY:
        if body.get(name):
            raise InputError(f"{name} is not supported: leave it out")
    messages = fields.items(body, "messages")
    if not messages:
        raise InputError("messages is required")
    fields.at_most(messages, MOST_TURNS, "messages")
    turns: list[Turn] = []
    if body.get("system"):
        turns.append(Turn(role="system", content=_texts(body["system"], "system")))
    called: dict[str, str] = {}
    for place, message in enumerate(messages):
        turns += _turns(message, f"messages[{place}]", called, shown)
    if turns[-1].role == "assistant":
        raise InputError("messages must end with the user's: the beginning of an answer cannot be given here")
    sampling = {"num_predict": most, **{name: body[name] for name in _OPTIONS if body.get(name) is not None}}
    stops = fields.items(body, "stop_sequences")
    if stops:
        sampling["stop"] = list(stops)
    return Question(
        model=model,
        turns=tuple(turns),
        tools=_tools(body),
        sampling=sampling,
        defaults=DEFAULTS,
        form=_form(body),
        think=_think(body),
        think_leniently=True,
        truncate=fields.flag(body, "truncate"),
        heatmap=fields.flag(body, "heatmap"),
        keep_alive=keep_alive(body.get("keep_alive")),
    )


def _think(body: Mapping[str, Any]) -> Think:
    """Whether to think, and how hard: not unless asked."""
    thinking, output = fields.mapping(body, "thinking"), fields.mapping(body, "output_config")
    kind, effort = fields.text(thinking, "type"), fields.text(output, "effort")
    if kind not in ("", "enabled", "disabled", "adaptive"):
        raise InputError(f"thinking.type {kind[:40]!r} is not known: use enabled, adaptive or disabled")
    if effort and effort not in _EFFORTS:
        raise InputError(f"output_config.effort {effort[:40]!r} is not known: use {', '.join(_EFFORTS)}")
    if kind in ("", "disabled"):
        return False
    return _EFFORTS[effort] if effort else True


def _form(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The form that the answer must have: `output_config.format`, or `output_format` as it was called before."""
    name = "output_format" if body.get("output_format") is not None else "output_config.format"
    value = body.get("output_format") or fields.mapping(body, "output_config").get("format")
    if value is None:
        return None
    given = fields.as_mapping(value, name)
    if given.get("type") != "json_schema" or given.get("schema") is None:
        raise InputError(f"{name} must be of type json_schema, with a schema")
    return fields.mapping(given, "schema")


def _tools(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    items = fields.items(body, "tools")
    fields.at_most(items, MOST_TOOLS, "tools")
    found = []
    for place, item in enumerate(items):
        name = f"tools[{place}]"
        tool = fields.as_mapping(item, name)
        kind = fields.text(tool, "type", "custom")
        if kind != "custom":
            raise InputError(f"{name}.type {kind[:40]!r} is not supported: tools of the server's are none here")
        if not fields.text(tool, "name"):
            raise InputError(f"{name}.name is required")
        function: dict[str, Any] = {"name": tool["name"], "parameters": fields.mapping(tool, "input_schema")}
        if fields.text(tool, "description"):
            function["description"] = tool["description"]
        found.append({"type": "function", "function": function})
    choice = fields.mapping(body, "tool_choice")
    kind = fields.text(choice, "type", "auto")
    if kind not in ("auto", "none"):
        raise InputError("tool_choice must be auto or none: the model decides what it calls")
    if found and choice.get("disable_parallel_tool_use"):
        raise InputError("tool_choice.disable_parallel_tool_use is not supported: the model decides what it calls")
    return () if kind == "none" else tuple(found)


def _turns(message: Any, name: str, called: dict[str, str], shown: Shown) -> list[Turn]:
    """One message as turns: results of tools are turns of their own, before the words beside them."""
    message = fields.as_mapping(message, name)
    role = fields.text(message, "role").lower()
    if role not in ROLES:
        raise InputError(f"{name}.role {role[:40]!r} is not known: use user or assistant")
    content = message.get("content")
    if isinstance(content, str):
        return [Turn(role=role, content=content)]
    if not isinstance(content, list):
        raise InputError(f"{name}.content must be a string or an array of blocks, not {fields.kind_of(content)}")
    results: list[Turn] = []
    words, pictures, thoughts, calls = [], [], [], []
    for place, item in enumerate(content):
        where = f"{name}.content[{place}]"
        block = fields.as_mapping(item, where)
        kind = fields.text(block, "type")
        if kind == "text":
            words.append(fields.text(block, "text"))
        elif kind == "image" and role == "user":
            pictures.append(_picture(block, where, shown))
        elif kind == "tool_result" and role == "user":
            results.append(_result(block, where, called, shown))
        elif kind == "tool_use" and role == "assistant":
            call = ToolCall(
                name=fields.text(block, "name"), arguments=fields.mapping(block, "input"), id=fields.text(block, "id")
            )
            called[call.id] = call.name
            calls.append(call)
        elif kind == "thinking" and role == "assistant":
            thoughts.append(fields.text(block, "thinking"))
        elif kind == "redacted_thinking" and role == "assistant":
            continue  # nobody but its maker can read it
        else:
            raise InputError(f"{where}.type {kind[:40]!r} is not supported in a message of the {role}'s")
    if results and not (words or pictures):
        return results
    turn = Turn(
        role=role,
        content=_joined(words),
        pictures=tuple(pictures),
        thinking=_joined(thoughts),
        tool_calls=tuple(calls),
    )
    return [*results, turn]


def _result(block: Mapping[str, Any], name: str, called: Mapping[str, str], shown: Shown) -> Turn:
    content, pictures = block.get("content"), []
    if isinstance(content, list):
        words = []
        for place, item in enumerate(content):
            part, where = fields.as_mapping(item, f"{name}.content[{place}]"), f"{name}.content[{place}]"
            kind = fields.text(part, "type")
            if kind == "text":
                words.append(fields.text(part, "text"))
            elif kind == "image":
                pictures.append(_picture(part, where, shown))
            else:
                raise InputError(f"{where}.type {kind[:40]!r} is not supported: use text or image")
        text = _joined(words)
    else:
        text = fields.text(block, "content")
    answered = fields.text(block, "tool_use_id")
    return Turn(
        role="tool",
        content=text,
        pictures=tuple(pictures),
        tool_name=called.get(answered, ""),
        tool_call_id=answered,
    )


def _picture(block: Mapping[str, Any], name: str, shown: Shown) -> int:
    source = fields.mapping(block, "source")
    kind = fields.text(source, "type")
    if kind == "base64":
        return shown.add_base64(source.get("data"), f"{name}.source.data")
    if kind == "url":
        return shown.add_url(source.get("url"), f"{name}.source.url")
    raise InputError(f"{name}.source.type {kind[:40]!r} is not supported: use base64")


def _texts(value: Any, name: str) -> str:
    """Words that are told as a string, or as blocks of text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise InputError(f"{name} must be a string or an array of blocks, not {fields.kind_of(value)}")
    blocks = [fields.as_mapping(item, f"{name}[{place}]") for place, item in enumerate(value)]
    if any(block.get("type") != "text" for block in blocks):
        raise InputError(f"{name}: only blocks of text are taken")
    return _joined([fields.text(block, "text") for block in blocks])


def _joined(texts: list[str]) -> str:
    return "\n\n".join(text for text in texts if text)


# --- answers ---


def message_body(question: Question, said: Said) -> dict[str, Any]:
    """A whole answer."""
    account = said.account
    assert account is not None, "a whole answer has an account"
    content: list[dict[str, Any]] = []
    if said.thinking:
        content.append({"type": "thinking", "thinking": said.thinking, "signature": ""})
    if said.text or not (said.thinking or said.tool_calls):
        content.append({"type": "text", "text": said.text})
    content += [{**_called(call), "input": dict(call.arguments)} for call in said.tool_calls]
    return {
        **_head(question),
        "content": content,
        **_ending(question, account, called=bool(said.tool_calls)),
        "usage": _usage(account),
        **_heatmap(account),
    }


class MessageStream:
    """An answer as events: blocks of thoughts, words and calls one after the other, then why it ended."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.begun = False
        self.open = ""
        self.blocks = 0
        self.called = False

    def events(self, said: Said) -> Iterator[Event]:
        """What a piece of the answer comes to."""
        if not self.begun:
            self.begun = True
            usage = {"input_tokens": 0, "output_tokens": 0}
            head = {**_head(self.question), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
            yield _event("message_start", message=head)
            yield _event("ping")
        if said.thinking:
            yield from self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": said.thinking})
        if said.text:
            yield from self._begin("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": said.text})
        for call in said.tool_calls:
            self.called = True
            yield from self._close()
            yield from self._begin("tool_use", {**_called(call), "input": {}})
            text = json.dumps(dict(call.arguments), ensure_ascii=False)
            yield self._delta({"type": "input_json_delta", "partial_json": text})
            yield from self._close()
        if said.account is not None:
            yield from self._end(said.account)

    def _end(self, account: Account) -> Iterator[Event]:
        if not self.blocks:
            yield from self._begin("text", {"type": "text", "text": ""})
        yield from self._close()
        delta = {**_ending(self.question, account, called=self.called), **_heatmap(account)}
        yield _event("message_delta", delta=delta, usage=_usage(account))
        yield _event("message_stop")

    def _begin(self, kind: str, block: Mapping[str, Any]) -> Iterator[Event]:
        if self.open == kind:
            return
        yield from self._close()
        self.open = kind
        self.blocks += 1
        yield _event("content_block_start", index=self.blocks - 1, content_block=block)

    def _delta(self, delta: Mapping[str, Any]) -> Event:
        return _event("content_block_delta", index=self.blocks - 1, delta=delta)

    def _close(self) -> Iterator[Event]:
        if not self.open:
            return
        if self.open == "thinking":
            yield self._delta({"type": "signature_delta", "signature": ""})
        self.open = ""
        yield _event("content_block_stop", index=self.blocks - 1)


def _event(name: str, /, **data: Any) -> Event:
    return name, {"type": name, **data}


def _head(question: Question) -> dict[str, Any]:
    return {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": question.model}


def _called(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id or f"toolu_{secrets.token_hex(12)}", "name": call.name}


def _ending(question: Question, account: Account, *, called: bool) -> dict[str, Any]:
    """Why an answer ended; a text that the model's own package stops at is no stop sequence of the request."""
    stop = account.stopped_by if account.stopped_by in question.sampling.get("stop", ()) else ""
    if account.reason == "length":
        reason = "max_tokens"
    elif called:
        reason = "tool_use"
    else:
        reason = "stop_sequence" if stop else "end_turn"
    return {"stop_reason": reason, "stop_sequence": stop or None}


def _usage(account: Account) -> dict[str, Any]:
    """The figures: as Anthropic counts, tokens that were read before stand apart from those of the input."""
    told = {
        "input_tokens": account.prompt_tokens - account.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": account.cached_tokens,
        "output_tokens": account.completion_tokens,
    }
    more = {
        "image_tokens": account.image_tokens,
        "queue_duration": nanoseconds(account.queue_seconds),
        "image_duration": nanoseconds(account.image_seconds),
        "truncated_tokens": account.truncated,
    }
    return {**told, **{name: value for name, value in more.items() if value}}


def _heatmap(account: Account) -> dict[str, Any]:
    return {"heatmap": base64.b64encode(account.heatmap).decode("ascii")} if account.heatmap else {}
