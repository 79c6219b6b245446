"""OpenAI's chats: `/v1/chat/completions`.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lapilli.errors import InputError
from lapilli.wire import fields
from lapilli.wire.openai import common
from lapilli.wire.question import MOST_TURNS, Account, Question, Said, ToolCall, Turn
from lapilli.wire.shown import Shown

ROLES = ("system", "developer", "user", "assistant", "tool")
# What would change the answer, and is heeded by nobody here.
_EMPTY = ("logit_bias", "functions", "function_call", "audio", "web_search_options")


# --- requests ---


def read_chat(body: Mapping[str, Any], shown: Shown) -> Question:
    """A chat's question; `shown` gets its pictures, which the question itself still lacks. Raises InputError."""
    model = common.named(body)
    common.refuse(body, empty=_EMPTY, one=("n",))
    if any(mode != "text" for mode in fields.items(body, "modalities")):
        raise InputError("modalities: only text is made here")
    messages = fields.items(body, "messages")
    if not messages:
        raise InputError("[] is too short - 'messages'")
    fields.at_most(messages, MOST_TURNS, "messages")
    called: dict[str, str] = {}
    turns = tuple(_turn(message, f"messages[{place}]", called, shown) for place, message in enumerate(messages))
    logprobs, top = fields.flag(body, "logprobs"), common.top_logprobs(body)
    if top and not logprobs:
        raise InputError("top_logprobs needs logprobs to be true")
    return Question(
        model=model,
        turns=turns,
        tools=common.chosen(body, common.tools(fields.items(body, "tools"))),
        sampling=common.options(body, "max_completion_tokens", "max_tokens"),
        defaults=common.DEFAULTS,
        form=common.form(body.get("response_format"), "response_format"),
        think=common.effort(body),
        logprobs=logprobs,
        top_logprobs=top,
        **common.ours(body),
    )


def _turn(message: Any, name: str, called: dict[str, str], shown: Shown) -> Turn:
    """One message; `called` are the names of the tools called so far, by the calls' ids."""
    message = fields.as_mapping(message, name)
    role = fields.text(message, "role").lower()
    if role not in ROLES:
        raise InputError(f"{name}.role {role[:40]!r} is not known: use {', '.join(ROLES)}")
    calls = tuple(_called(call, f"{name}.tool_calls") for call in fields.items(message, "tool_calls"))
    called.update((call.id, call.name) for call in calls)
    if message.get("content") is None and role != "assistant":
        raise InputError(f"{name}.content must be a string or an array of parts, not null")
    words, pictures = _content(message.get("content"), f"{name}.content", shown)
    if pictures and role not in ("user", "tool"):
        raise InputError(f"{name}: a picture can be shown by the user or a tool, not in a turn of the {role}'s")
    answered = fields.text(message, "tool_call_id") if role == "tool" else ""
    return Turn(
        role="system" if role == "developer" else role,
        content=words,
        pictures=pictures,
        thinking=fields.text(message, "reasoning") or fields.text(message, "reasoning_content"),
        tool_calls=calls,
        tool_name=(fields.text(message, "name") or called.get(answered, "")) if role == "tool" else "",
        tool_call_id=answered,
    )


def _content(content: Any, name: str, shown: Shown) -> tuple[str, tuple[int, ...]]:
    """The words of a message, and the numbers of its pictures."""
    if content is None or isinstance(content, str):
        return content or "", ()
    if not isinstance(content, list | tuple):
        raise InputError(f"{name} must be a string or an array of parts, not {fields.kind_of(content)}")
    texts, pictures = [], []
    for place, item in enumerate(content):
        part, where = fields.as_mapping(item, f"{name}[{place}]"), f"{name}[{place}]"
        kind = fields.text(part, "type")
        if kind in ("text", "refusal"):
            texts.append(fields.text(part, kind))
        elif kind == "image_url":
            given = part.get("image_url")
            url = given.get("url") if isinstance(given, Mapping) else given
            pictures.append(shown.add_url(url, f"{where}.image_url"))
        else:
            raise InputError(f"{where}.type {kind[:40]!r} is not supported: use text or image_url")
    return common.joined(texts), tuple(pictures)


def _called(call: Any, name: str) -> ToolCall:
    call = fields.as_mapping(call, name)
    function = fields.mapping(call, "function")
    return ToolCall(
        name=fields.text(function, "name"),
        arguments=common.arguments(function.get("arguments", {}), f"{name}.function.arguments"),
        id=fields.text(call, "id"),
    )


# --- answers ---


def chat_body(question: Question, said: Said) -> dict[str, Any]:
    """A chat's whole answer."""
    account = said.account
    assert account is not None, "a whole answer has an account"
    message: dict[str, Any] = {"role": "assistant", "content": said.text or (None if said.tool_calls else "")}
    if said.thinking:
        message["reasoning"] = said.thinking
    if said.tool_calls:
        message["tool_calls"] = [_call(call) for call in said.tool_calls]
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "finish_reason": common.finish(account, called=bool(said.tool_calls)),
        "logprobs": _logprobs(said) if question.logprobs else None,
    }
    return {
        "id": common.new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": common.moment(),
        "model": question.model,
        "system_fingerprint": common.FINGERPRINT,
        "choices": [choice],
        "usage": common.usage(account),
        **_heatmap(account),
    }


class ChatStream:
    """A chat's answer as chunks: the role in the first alone, why it ended in an empty one, figures if asked for."""

    def __init__(self, question: Question, *, usage: bool) -> None:
        self.question, self.usage = question, usage
        self.id, self.created = common.new_id("chatcmpl-"), common.moment()
        self.begun = False
        self.calls = 0

    def chunks(self, said: Said) -> Iterator[dict[str, Any]]:
        """What a piece of the answer comes to."""
        deltas: list[dict[str, Any]] = []
        if said.thinking:
            deltas.append({"reasoning": said.thinking})
        if said.text:
            deltas.append({"content": said.text})
        if said.tool_calls:
            deltas.append({"tool_calls": self._numbered(said.tool_calls)})
        if said.logprobs and not deltas:
            deltas.append({"content": ""})
        logprobs = _logprobs(said) if said.logprobs else None
        for delta in deltas:
            yield self._delta(delta, logprobs=logprobs)
            logprobs = None
        if said.account is not None:
            yield from self._end(said.account)

    def _end(self, account: Account) -> Iterator[dict[str, Any]]:
        if not self.begun:
            yield self._delta({"content": ""})
        yield {**self._delta({}, finish=common.finish(account, called=self.calls > 0)), **_heatmap(account)}
        if self.usage:
            yield {**self._chunk([]), "usage": common.usage(account)}

    def _delta(
        self, delta: dict[str, Any], finish: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if not self.begun:
            delta = {"role": "assistant", **delta}
            if "content" not in delta:
                delta["content"] = ""
        self.begun = True
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}])

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.question.model,
            "system_fingerprint": common.FINGERPRINT,
            "choices": choices,
        }

    def _numbered(self, calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
        told = [{"index": place, **_call(call)} for place, call in enumerate(calls, self.calls)]
        self.calls += len(calls)
        return told


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": common.call_text(call)}
    return {"id": call.id or common.new_id("call_"), "type": "function", "function": function}


def _logprobs(said: Said) -> dict[str, Any]:
    return {"content": common.likelihoods(said.logprobs), "refusal": None}


def _heatmap(account: Account) -> dict[str, Any]:
    return {"heatmap": base64.b64encode(account.heatmap).decode("ascii")} if account.heatmap else {}
