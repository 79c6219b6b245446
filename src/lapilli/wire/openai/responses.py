"""OpenAI's responses: what `/v1/responses` asks. They are stateless here: a request brings its whole conversation.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lapilli.errors import InputError
from lapilli.wire import fields
from lapilli.wire.openai import common
from lapilli.wire.question import MOST_TURNS, Question, ToolCall, Turn
from lapilli.wire.shown import Shown

ROLES = ("system", "developer", "user", "assistant")
TEXTS = ("input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text")
LOGPROBS = "message.output_text.logprobs"
_EMPTY = ("previous_response_id", "conversation", "background", "prompt")
MOST_NOTES = 16
LONGEST_NOTE = 512


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question, and what its response repeats of the request."""

    question: Question
    repeated: Mapping[str, Any]


def read_response(body: Mapping[str, Any], shown: Shown) -> Asked:
    """A response's question; `shown` gets its pictures, which the question itself still lacks. Raises InputError."""
    model = common.named(body)
    for name in _EMPTY:
        if body.get(name):
            raise InputError(f"{name} is not supported: responses are not kept here, send the whole conversation")
    turns = _Turns(shown)
    instructions = fields.text(body, "instructions")
    if instructions:
        turns.say(Turn(role="system", content=instructions))
    given = body.get("input")
    if isinstance(given, str):
        turns.say(Turn(role="user", content=given))
    elif isinstance(given, list):
        fields.at_most(given, MOST_TURNS, "items")
        for place, item in enumerate(given):
            turns.read(fields.as_mapping(item, f"input[{place}]"), f"input[{place}]")
    else:
        raise InputError(f"input must be a string or an array of items, not {fields.kind_of(given)}")
    if not turns.told:
        raise InputError("input is empty: ask something")
    logprobs = LOGPROBS in fields.items(body, "include")
    question = Question(
        model=model,
        turns=tuple(turns.told),
        tools=common.chosen(body, common.tools(fields.items(body, "tools"))),
        sampling=common.options(body, "max_output_tokens"),
        defaults=common.DEFAULTS,
        form=common.form(fields.mapping(body, "text").get("format"), "text.format"),
        think=common.effort(body),
        logprobs=logprobs,
        top_logprobs=common.top_logprobs(body) if logprobs else 0,
        **{**common.ours(body), "truncate": _truncates(body)},
    )
    return Asked(question=question, repeated=_repeated(body, question.tools))


def _truncates(body: Mapping[str, Any]) -> bool:
    given = fields.text(body, "truncation", "disabled")
    if given not in ("auto", "disabled"):
        raise InputError(f"truncation {given[:40]!r} is not known: use auto or disabled")
    return given == "auto" or fields.flag(body, "truncate")


def _repeated(body: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": _metadata(body),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": fields.mapping(body, "reasoning").get("effort"), "summary": None},
        "store": False,
        "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
        "text": {"format": _format(body)},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": [{"type": "function", "strict": False, "parameters": None, **tool["function"]} for tool in tools],
        "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
        "truncation": "auto" if _truncates(body) else "disabled",
        "user": fields.text(body, "user")[:LONGEST_NOTE] or None,
    }


def _metadata(body: Mapping[str, Any]) -> dict[str, str]:
    """Notes of the client's own, within OpenAI's bounds."""
    notes = dict(fields.mapping(body, "metadata"))
    if len(notes) > MOST_NOTES:
        raise InputError(f"metadata has {len(notes)} keys: at most {MOST_NOTES} are taken")
    for name, note in notes.items():
        if not isinstance(note, str) or len(note) > LONGEST_NOTE or len(name) > LONGEST_NOTE:
            raise InputError(f"metadata must hold strings of at most {LONGEST_NOTE} characters")
    return notes


def _format(body: Mapping[str, Any]) -> dict[str, Any]:
    given = fields.mapping(fields.mapping(body, "text"), "format") or {"type": "text"}
    return {name: given[name] for name in ("type", "name", "schema", "strict") if name in given}


class _Turns:
    """Items of a conversation, put together to turns: thoughts, words and calls in a row are one of the assistant's."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.told: list[Turn] = []
        self.called: dict[str, str] = {}

    def say(self, turn: Turn) -> None:
        """Add a turn, to the one before it where both are parts of one answer."""
        last = self.told[-1] if self.told else None
        if turn.role == "assistant" and last is not None and last.role == "assistant":
            self.told[-1] = replace(
                last,
                content=common.joined((last.content, turn.content)),
                thinking=common.joined((last.thinking, turn.thinking)),
                tool_calls=(*last.tool_calls, *turn.tool_calls),
            )
        else:
            self.told.append(turn)

    def read(self, item: Mapping[str, Any], name: str) -> None:
        """Add an item of `input`."""
        kind = fields.text(item, "type", "message") or "message"
        if kind == "message":
            self.say(self._message(item, name))
        elif kind == "function_call":
            call = ToolCall(
                name=fields.text(item, "name"),
                arguments=common.arguments(item.get("arguments", ""), f"{name}.arguments"),
                id=fields.text(item, "call_id"),
            )
            self.called[call.id] = call.name
            self.say(Turn(role="assistant", tool_calls=(call,)))
        elif kind == "function_call_output":
            words, pictures = self._content(item.get("output"), f"{name}.output")
            answered = fields.text(item, "call_id")
            turn = Turn(role="tool", content=words, pictures=pictures, tool_call_id=answered)
            self.say(replace(turn, tool_name=self.called.get(answered, "")))
        elif kind == "reasoning":
            texts = [*fields.items(item, "summary"), *fields.items(item, "content")]
            thoughts, _ = self._content(texts, f"{name}.summary")
            self.say(Turn(role="assistant", thinking=thoughts))
        else:
            known = "message, function_call, function_call_output, reasoning"
            raise InputError(f"{name}.type {kind[:40]!r} is not supported: use {known}")

    def _message(self, item: Mapping[str, Any], name: str) -> Turn:
        role = fields.text(item, "role").lower()
        if role not in ROLES:
            raise InputError(f"{name}.role {role[:40]!r} is not known: use {', '.join(ROLES)}")
        words, pictures = self._content(item.get("content"), f"{name}.content")
        if pictures and role != "user":
            raise InputError(f"{name}: a picture can be shown by the user, not in a turn of the {role}'s")
        return Turn(role="system" if role == "developer" else role, content=words, pictures=pictures)

    def _content(self, content: Any, name: str) -> tuple[str, tuple[int, ...]]:
        if isinstance(content, str):
            return content, ()
        if not isinstance(content, list):
            raise InputError(f"{name} must be a string or an array of parts, not {fields.kind_of(content)}")
        texts, pictures = [], []
        for place, item in enumerate(content):
            where = f"{name}[{place}]"
            part = fields.as_mapping(item, where)
            kind = fields.text(part, "type")
            if kind in TEXTS:
                texts.append(fields.text(part, "refusal" if kind == "refusal" else "text"))
            elif kind == "input_image" and part.get("image_url") is not None:
                given = part["image_url"]
                url = given.get("url") if isinstance(given, Mapping) else given
                pictures.append(self.shown.add_url(url, f"{where}.image_url"))
            elif kind == "input_image":
                raise InputError(f"{where} needs an image_url: files are not kept here")
            else:
                raise InputError(f"{where}.type {kind[:40]!r} is not supported: use input_text or input_image")
        return common.joined(texts), tuple(pictures)
