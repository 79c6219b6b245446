"""Ollama's dialect: its request bodies become questions, what is said becomes its response objects.

The contract is Ollama's `api/types.go`; `docs/ollama.md` lists what is deliberately different.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lapilli.errors import InputError, ModelNotFoundError
from lapilli.wire import fields
from lapilli.wire.durations import keep_alive, nanoseconds, now
from lapilli.wire.question import (
    LEAST_LOGPROB,
    LEVELS,
    MOST_PICTURES,
    MOST_TOOLS,
    MOST_TOP,
    MOST_TURNS,
    Account,
    Likelihood,
    Question,
    Said,
    Texts,
    Think,
    ToolCall,
    Turn,
)

ROLES = ("system", "user", "assistant", "tool")


# --- requests ---


def read_generate(body: Mapping[str, Any]) -> Question:
    """`POST /api/generate`; raises InputError, or ModelNotFoundError where no model is named."""
    model = fields.text(body, "model")
    if not model:
        raise ModelNotFoundError("model '' not found")
    raw = fields.flag(body, "raw")
    system, template = fields.text(body, "system"), fields.text(body, "template")
    context = tuple(_token(item) for item in fields.items(body, "context"))
    if raw and (system or template or context):
        raise InputError("raw mode does not support template, system, or context")
    return Question(
        model=model,
        prompt=fields.text(body, "prompt"),
        raw=raw,
        system=system or None,
        template=template or None,
        suffix=fields.text(body, "suffix"),
        context=context,
        pictures=_pictures(fields.items(body, "images")),
        **_shared(body),
    )


def read_chat(body: Mapping[str, Any]) -> Question:
    """`POST /api/chat`; raises InputError."""
    model = fields.text(body, "model")
    if not model:
        raise InputError("model is required")
    messages = fields.items(body, "messages")
    fields.at_most(messages, MOST_TURNS, "messages")
    pictures: list[bytes] = []
    turns = tuple(_turn(message, place, pictures) for place, message in enumerate(messages))
    tools = tuple(_tool(item, place) for place, item in enumerate(fields.items(body, "tools")))
    fields.at_most(tools, MOST_TOOLS, "tools")
    return Question(model=model, turns=turns, pictures=tuple(pictures), tools=tools, **_shared(body))


def read_embed(body: Mapping[str, Any]) -> Texts:
    """`POST /api/embed`; raises InputError."""
    given = body.get("input")
    if isinstance(given, str):
        texts = (given,) if given else ()
    elif isinstance(given, list) and all(isinstance(item, str) for item in given):
        texts = tuple(given)
    elif given is None:
        texts = ()
    else:
        raise InputError("invalid input type")
    truncate = fields.flag(body, "truncate") if body.get("truncate") is not None else None
    dimensions = fields.integer(body, "dimensions")
    if dimensions is not None and dimensions < 0:
        raise InputError(f"dimensions must be positive, not {dimensions}")
    return _texts(body, texts, truncate, dimensions or None)


def read_embeddings(body: Mapping[str, Any]) -> Texts:
    """`POST /api/embeddings`, the older call for one text; raises InputError."""
    prompt = fields.text(body, "prompt")
    return _texts(body, (prompt,) if prompt else (), None, None)


def wants_stream(body: Mapping[str, Any]) -> bool:
    """Whether to answer in pieces: yes, unless told not to."""
    return fields.flag(body, "stream", True)


def _texts(body: Mapping[str, Any], texts: tuple[str, ...], truncate: bool | None, dimensions: int | None) -> Texts:
    model = fields.text(body, "model")
    if not model:
        raise InputError("model is required")
    return Texts(
        model=model,
        texts=texts,
        truncate=truncate,
        dimensions=dimensions,
        options=fields.mapping(body, "options"),
        keep_alive=keep_alive(body.get("keep_alive")),
    )


def _shared(body: Mapping[str, Any]) -> dict[str, Any]:
    """What generate and chat have in common."""
    fields.flag(body, "stream", True)
    fields.flag(body, "shift", True)
    top = fields.integer(body, "top_logprobs", 0) or 0
    if not 0 <= top <= MOST_TOP:
        raise InputError(f"top_logprobs must be between 0 and {MOST_TOP}")
    return {
        "sampling": fields.mapping(body, "options"),
        "form": _form(body.get("format")),
        "think": _think(body.get("think")),
        "keep_alive": keep_alive(body.get("keep_alive")),
        "truncate": fields.flag(body, "truncate"),
        "logprobs": fields.flag(body, "logprobs"),
        "top_logprobs": top,
        "heatmap": fields.flag(body, "heatmap"),
        "render_only": fields.flag(body, "_debug_render_only"),
    }


def _form(value: Any) -> str | Mapping[str, Any] | None:
    if value is None or value == "":
        return None
    if value == "json":
        return "json"
    if isinstance(value, Mapping):
        return value
    shown = f'"{value[:40]}"' if isinstance(value, str) else fields.kind_of(value)
    raise InputError(f'invalid format: {shown}; expected "json" or a valid JSON Schema object')


def _think(value: Any) -> Think | None:
    if value is None or isinstance(value, bool):
        return value
    if value in LEVELS:
        return cast(Think, value)
    shown = f'"{value[:40]}"' if isinstance(value, str) else fields.kind_of(value)
    raise InputError(f'invalid think value: {shown} (must be "high", "medium", "low", "max", true, or false)')


def _token(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < fields.LARGEST:
        raise InputError("context must be an array of token ids, as an earlier answer gave it")
    return value


def _pictures(values: Sequence[Any], before: int = 0) -> tuple[bytes, ...]:
    if len(values) + before > MOST_PICTURES:
        raise InputError(f"{len(values) + before} images in one request: at most {MOST_PICTURES} are taken")
    return tuple(fields.from_base64(value, "images") for value in values)


def _turn(message: Any, place: int, pictures: list[bytes]) -> Turn:
    name = f"messages[{place}]"
    message = fields.as_mapping(message, name)
    role = fields.text(message, "role").lower()
    if role not in ROLES:
        raise InputError(f"{name}.role {role[:40]!r} is not known: use {', '.join(ROLES)}")
    images = fields.items(message, "images")
    if images and role not in ("user", "tool"):
        raise InputError(f"{name}: a picture can be shown by the user or a tool, not in a turn of the {role}'s")
    first = len(pictures)
    pictures.extend(_pictures(images, first))
    return Turn(
        role=role,
        content=fields.text(message, "content"),
        pictures=tuple(range(first, len(pictures))),
        thinking=fields.text(message, "thinking"),
        tool_calls=tuple(_called(call, name) for call in fields.items(message, "tool_calls")),
        tool_name=fields.text(message, "tool_name"),
        tool_call_id=fields.text(message, "tool_call_id"),
    )


def _called(call: Any, where: str) -> ToolCall:
    call = fields.as_mapping(call, f"{where}.tool_calls")
    function = fields.mapping(call, "function")
    return ToolCall(
        name=fields.text(function, "name"),
        arguments=fields.mapping(function, "arguments"),
        id=fields.text(call, "id"),
    )


def _tool(item: Any, place: int) -> Mapping[str, Any]:
    name = f"tools[{place}]"
    tool = fields.as_mapping(item, name)
    if fields.text(tool, "type", "function") not in ("function", ""):
        raise InputError(f"{name}.type must be function")
    function = fields.mapping(tool, "function")
    if not fields.text(function, "name"):
        raise InputError(f"{name}.function.name is required")
    fields.text(function, "description")
    fields.mapping(function, "parameters")
    return tool


# --- responses ---


def generate_piece(model: str, said: Said, *, raw: bool = False) -> dict[str, Any]:
    """One object of `/api/generate`'s stream."""
    piece: dict[str, Any] = {"model": model, "created_at": now(), "response": said.text}
    _give(piece, thinking=said.thinking, tool_calls=tool_calls(said.tool_calls))
    return _ended(piece, said, context=not raw)


def chat_piece(model: str, said: Said, calls_before: int = 0) -> dict[str, Any]:
    """One object of `/api/chat`'s stream; `calls_before` calls of tools were told of already."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    _give(message, thinking=said.thinking, tool_calls=tool_calls(said.tool_calls, calls_before))
    piece = {"model": model, "created_at": now(), "message": message}
    return _ended(piece, said, context=False)


def rendered_piece(model: str, account: Account) -> dict[str, Any]:
    """The answer to `_debug_render_only`."""
    info = {"rendered_template": account.rendered}
    _give(info, image_count=account.pictures)
    return {"model": model, "created_at": now(), "_debug_info": info}


def embed_body(model: str, vectors: Sequence[Sequence[float]], account: Account) -> dict[str, Any]:
    """`/api/embed`'s answer."""
    body: dict[str, Any] = {"model": model, "embeddings": [list(vector) for vector in vectors]}
    _give(
        body,
        total_duration=nanoseconds(account.total_seconds),
        load_duration=nanoseconds(account.load_seconds),
        prompt_eval_count=account.prompt_tokens,
    )
    return _own(body, account)


def tool_calls(calls: Sequence[ToolCall], before: int = 0) -> list[dict[str, Any]]:
    """Calls of tools as messages carry them; each has its number within the answer."""
    told = []
    for place, call in enumerate(calls, before):
        item: dict[str, Any] = {"id": call.id} if call.id else {}
        item["function"] = {"index": place, "name": call.name, "arguments": dict(call.arguments)}
        told.append(item)
    return told


def logprobs(tokens: Sequence[Likelihood]) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities and the likeliest in their place."""
    told = []
    for token in tokens:
        item = _likelihood(token)
        possible = [other for other in token.top if math.isfinite(other.logprob)]
        if possible:
            item["top_logprobs"] = [_likelihood(other) for other in possible]
        told.append(item)
    return told


def _likelihood(token: Likelihood) -> dict[str, Any]:
    # JSON has no infinity.
    return {"token": token.token, "logprob": max(token.logprob, LEAST_LOGPROB), "bytes": list(token.data)}


def _ended(piece: dict[str, Any], said: Said, *, context: bool) -> dict[str, Any]:
    account = said.account
    piece["done"] = account is not None
    if account is not None:
        piece["done_reason"] = account.reason
        if account.reason not in ("load", "unload"):
            _count(piece, account, context)
    _give(piece, logprobs=logprobs(said.logprobs))
    return piece


def _count(piece: dict[str, Any], account: Account, context: bool) -> None:
    """The figures of an answer, those that are zero left out as Ollama does."""
    if context:
        _give(piece, context=list(account.context))
    _give(
        piece,
        total_duration=nanoseconds(account.total_seconds),
        load_duration=nanoseconds(account.load_seconds),
        prompt_eval_count=account.prompt_tokens,
        prompt_eval_duration=nanoseconds(account.image_seconds + account.prefill_seconds),
        eval_count=account.completion_tokens,
        eval_duration=nanoseconds(account.decode_seconds),
    )
    _own(piece, account)


def _own(piece: dict[str, Any], account: Account) -> dict[str, Any]:
    """What we tell beyond Ollama."""
    _give(
        piece,
        cached_tokens=account.cached_tokens,
        image_tokens=account.image_tokens,
        queue_duration=nanoseconds(account.queue_seconds),
        image_duration=nanoseconds(account.image_seconds),
        truncated=account.truncated > 0,
        truncated_tokens=account.truncated,
        heatmap=base64.b64encode(account.heatmap).decode("ascii"),
    )
    return piece


def _give(piece: dict[str, Any], **values: Any) -> None:
    """Add what is not empty."""
    piece.update((name, value) for name, value in values.items() if value)
