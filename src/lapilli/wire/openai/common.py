"""What OpenAI's calls have in common: options, forms, tools, calls of them, figures."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lapilli.errors import InputError
from lapilli.wire import fields
from lapilli.wire.durations import keep_alive, nanoseconds
from lapilli.wire.question import LEAST_LOGPROB, MOST_TOOLS, MOST_TOP, Account, Likelihood, Think, ToolCall

DEFAULTS: Mapping[str, Any] = {"temperature": 1.0, "top_p": 1.0}
FINGERPRINT = "fp_ollama"
DEEPEST = 128
_EFFORTS: Mapping[str, Think] = {
    "none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "ultra": "max",
    "max": "max",
}  # fmt: skip


# --- requests ---


def named(body: Mapping[str, Any]) -> str:
    """The model that is asked; raises InputError where none is named."""
    model = fields.text(body, "model")
    if not model:
        raise InputError("model is required")
    return model


def refuse(body: Mapping[str, Any], *, empty: Sequence[str] = (), one: Sequence[str] = ()) -> None:
    """Raise InputError for fields that would change the answer and that nobody here heeds.

    Those in `empty` may be null, false or empty; those in `one` may be null or 1.
    """
    for name in empty:
        if body.get(name):
            raise InputError(f"{name} is not supported: leave it out")
    for name in one:
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or value != 1):
            raise InputError(f"{name} must be 1: a request has one answer here")


def options(body: Mapping[str, Any], *longest: str) -> dict[str, Any]:
    """Ollama's options out of OpenAI's fields; `longest` are the names of the answer's longest length, best first."""
    names = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop")
    found = {name: body[name] for name in names if body.get(name) is not None}
    for name in longest:
        most = fields.integer(body, name)
        if most is None:
            continue
        if most < -1:
            raise InputError(f"{name} is {most}: it must be 0 or more, or -1 for no limit")
        found.setdefault("num_predict", most)
    return found


def ours(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are taken beyond OpenAI's."""
    return {
        "truncate": fields.flag(body, "truncate"),
        "heatmap": fields.flag(body, "heatmap"),
        "keep_alive": keep_alive(body.get("keep_alive")),
    }


def effort(body: Mapping[str, Any]) -> Think | None:
    """How hard to think: `reasoning_effort`, or `effort` of `reasoning`."""
    given = fields.text(body, "reasoning_effort") or fields.text(fields.mapping(body, "reasoning"), "effort")
    if not given:
        return None
    if given not in _EFFORTS:
        raise InputError(f"invalid reasoning effort: {given[:40]!r} (must be one of {', '.join(_EFFORTS)})")
    return _EFFORTS[given]


def form(value: Any, name: str) -> str | Mapping[str, Any] | None:
    """The form that an answer must have, out of `response_format` or `text.format`."""
    if value is None:
        return None
    given = fields.as_mapping(value, name)
    kind = fields.text(given, "type")
    if kind in ("", "text"):
        return None
    if kind == "json_object":
        return "json"
    if kind != "json_schema":
        raise InputError(f"{name}.type {kind[:40]!r} is not supported: use text, json_object or json_schema")
    holder = fields.mapping(given, "json_schema") if "json_schema" in given else given
    if holder.get("schema") is None:
        raise InputError(f"{name} of type json_schema needs a schema")
    return fields.mapping(holder, "schema")


def tools(items: Sequence[Any], name: str = "tools") -> tuple[Mapping[str, Any], ...]:
    """Tools as the templates take them: {"type": "function", "function": {...}}; OpenAI's flat form too."""
    fields.at_most(items, MOST_TOOLS, name)
    found = []
    for place, item in enumerate(items):
        tool = fields.as_mapping(item, f"{name}[{place}]")
        kind = fields.text(tool, "type", "function")
        if kind != "function":
            raise InputError(f"{name}[{place}].type {kind[:40]!r} is not supported: use function")
        function = fields.mapping(tool, "function") if "function" in tool else tool
        if not fields.text(function, "name"):
            raise InputError(f"{name}[{place}].function.name is required")
        kept = {key: function[key] for key in ("name", "description", "parameters") if function.get(key) is not None}
        fields.text(kept, "description")
        fields.mapping(kept, "parameters")
        found.append({"type": "function", "function": kept})
    return tuple(found)


def chosen(body: Mapping[str, Any], given: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """The tools that the request lets the model call: `tool_choice` is auto or none, else InputError."""
    choice = body.get("tool_choice")
    if choice not in (None, "auto", "none"):
        raise InputError("tool_choice must be auto or none: the model decides what it calls")
    if given and body.get("parallel_tool_calls") is False:
        raise InputError("parallel_tool_calls cannot be false: the model decides how many tools it calls")
    return () if choice == "none" else given


def arguments(text: Any, name: str) -> Mapping[str, Any]:
    """A call's arguments, an object told as JSON text."""
    if isinstance(text, Mapping):
        return text
    if not isinstance(text, str):
        raise InputError(f"{name} must be a string of JSON, not {fields.kind_of(text)}")
    try:
        value = json.loads(text, parse_constant=_no_number) if text.strip() else {}
    except (ValueError, RecursionError):
        raise InputError(f"{name} must be JSON: it cannot be read as such") from None
    _check_depth(value, name)
    return fields.as_mapping(value, name)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _check_depth(value: Any, name: str) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise InputError(f"{name} nests too deep: at most {DEEPEST} levels are taken")


def top_logprobs(body: Mapping[str, Any]) -> int:
    """How many of the likeliest tokens are told at each place."""
    top = fields.integer(body, "top_logprobs", 0) or 0
    if not 0 <= top <= MOST_TOP:
        raise InputError(f"top_logprobs must be between 0 and {MOST_TOP}")
    return top


def joined(texts: Sequence[str]) -> str:
    """Parts of a message as one text, a blank line between them as Ollama has it."""
    return "\n\n".join(text for text in texts if text)


# --- answers ---


def new_id(kind: str) -> str:
    """A name that nothing else has: `chatcmpl-…`, `call_…`."""
    return f"{kind}{secrets.token_hex(12)}"


def moment() -> int:
    """This moment in whole seconds since 1970."""
    return int(time.time())


def finish(account: Account, *, called: bool) -> str:
    """Why an answer ended, in OpenAI's words."""
    if account.reason == "length":
        return "length"
    return "tool_calls" if called else "stop"


def call_text(call: ToolCall) -> str:
    """A call's arguments as JSON text."""
    return json.dumps(dict(call.arguments), ensure_ascii=False)


def usage(account: Account) -> dict[str, Any]:
    """The figures of an answer; beyond OpenAI's the tokens of pictures, and what is not zero of the rest."""
    found: dict[str, Any] = {
        "prompt_tokens": account.prompt_tokens,
        "completion_tokens": account.completion_tokens,
        "total_tokens": account.prompt_tokens + account.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": account.cached_tokens, "image_tokens": account.image_tokens},
    }
    return {**found, **more_usage(account)}


def more_usage(account: Account) -> dict[str, Any]:
    """What no other server tells, where it is not zero: nanoseconds of waiting and of pictures, tokens left out."""
    told = {
        "queue_duration": nanoseconds(account.queue_seconds),
        "image_duration": nanoseconds(account.image_seconds),
        "truncated_tokens": account.truncated,
    }
    return {name: value for name, value in told.items() if value}


def likelihoods(tokens: Sequence[Likelihood]) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities and the likeliest in their place, as chats and responses tell them."""
    return [
        {**_likelihood(token), "top_logprobs": [_likelihood(other) for other in possible(token)]} for token in tokens
    ]


def possible(token: Likelihood) -> list[Likelihood]:
    """The likeliest in a token's place, less those that a form forbids."""
    return [other for other in token.top if math.isfinite(other.logprob)]


def _likelihood(token: Likelihood) -> dict[str, Any]:
    return {"token": token.token, "logprob": finite(token.logprob), "bytes": list(token.data)}


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, LEAST_LOGPROB)


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether a stream ends with its figures."""
    given = body.get("stream_options")
    return False if given is None else fields.flag(fields.as_mapping(given, "stream_options"), "include_usage")
