"""How models write calls of tools: the syntaxes of published templates, and their readers.

Sources: the templates of Qwen 2.5 and 3, Hermes, Qwen3-Coder, GLM 4.5, Mistral, Llama 3.1, Command R, DeepSeek V3,
Granite and Phi 4. A reader is given what stands between two tags, and gives calls, or None where there is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lapilli.errors import PromptError
from lapilli.inputs.chat import ToolCall

Reader = Callable[[str, "Signatures"], "list[ToolCall] | None"]


@dataclass(frozen=True)
class Signatures:
    """The names of the tools that may be called, and which of their parameters are texts."""

    texts: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, tools: Sequence[Mapping[str, Any]]) -> Signatures:
        return cls({tool["function"]["name"]: frozenset(_text_parameters(tool["function"])) for tool in tools})

    def value(self, name: str, parameter: str, text: str) -> Any:
        """A value that was written without quotes: a text where the tool wants one, or else JSON where it is that."""
        if parameter in self.texts.get(name, ()):
            return text
        values = json_values(text)
        return values[0] if values and len(values) == 1 else text


def _text_parameters(function: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in ((function.get("parameters") or {}).get("properties") or {}).items():
        if isinstance(schema, Mapping) and schema.get("type") == "string":
            yield name


@dataclass(frozen=True)
class Head:
    """How JSON begins after an opening tag (its first bracket is a group), and what will never begin it."""

    begins: re.Pattern[str]
    never: re.Pattern[str]


@dataclass(frozen=True, kw_only=True)
class CallSyntax:
    """A way to write calls: it begins with `opens` and ends with `closes`, or where the JSON after `head` does.

    `signs` tell it in a template's program. `inner` are tags within it, `trails` what may follow and is dropped.
    Without `opens` it stands at the very beginning, and counts only with the name of a known tool.
    """

    opens: str
    read: Reader
    closes: str = ""
    head: Head | None = None
    signs: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    trails: tuple[str, ...] = ()


# --- readers ---


def _constant(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_constant)
_BETWEEN = re.compile(r"[\s,;]*")


def json_values(text: str) -> list[Any] | None:
    """The JSON values that a text consists of, with blanks, commas and semicolons between them; None for another."""
    values, at = [], _skip(text, 0)
    while at < len(text):
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        values.append(value)
        at = _skip(text, at)
    return values


def _skip(text: str, at: int) -> int:
    between = _BETWEEN.match(text, at)
    return between.end() if between else at


def read_json(body: str, signatures: Signatures) -> list[ToolCall] | None:
    """Objects with a name and arguments, one after another or in a list."""
    values = json_values(body)
    if values is not None and len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    return _calls(_from_object(value) for value in values or [])


def _calls(found: Iterator[ToolCall | None]) -> list[ToolCall] | None:
    calls = list(found)
    return [call for call in calls if call is not None] if calls and None not in calls else None


_NAMES = ("name", "tool_name", "function", "tool")
_ARGUMENTS = ("arguments", "parameters", "args", "input")


def _from_object(value: Any) -> ToolCall | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    outer, value = value, inner if isinstance(inner, dict) else value
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), "")
    arguments: Any = next((value[key] for key in _ARGUMENTS if key in value), {})
    ids = (found.get(key) for found in (outer, value) for key in ("id", "tool_call_id"))
    return _call(name, arguments, next((text for text in ids if isinstance(text, str)), ""))


def _call(name: str, arguments: Any, call_id: str = "") -> ToolCall | None:
    if isinstance(arguments, str):
        values = json_values(arguments)
        arguments = values[0] if values else {}
    try:
        return ToolCall(name.strip(), arguments if arguments is not None else {}, call_id)
    except PromptError:
        return None


def read_tagged(body: str, signatures: Signatures) -> list[ToolCall] | None:
    """What stands in `<tool_call>`: JSON, or tags for the function and its parameters, or pairs of keys and values."""
    text = body.strip()
    if text.startswith("<function="):
        return _calls(_from_tags(piece, signatures) for piece in text.split("<function=")[1:])
    if "<arg_key>" in text:
        return _calls(iter([_from_pairs(text, signatures)]))
    return read_json(text, signatures)


def read_function(body: str, signatures: Signatures) -> list[ToolCall] | None:
    """What stands in `<function=...</function>`: a name, then JSON or tags for the parameters."""
    name, _, rest = body.partition(">")
    if "<parameter=" in rest:
        return _calls(iter([_from_tags(body, signatures)]))
    values = json_values(rest)
    return _calls(iter([_call(name, values[0] if values else {})])) if values is not None else None


def _from_tags(piece: str, signatures: Signatures) -> ToolCall | None:
    name, _, rest = piece.partition(">")
    name = name.strip()
    arguments: dict[str, Any] = {}
    for parameter in rest.partition("</function>")[0].split("<parameter=")[1:]:
        key, _, value = parameter.partition(">")
        value = value.rpartition("</parameter>")[0] or value
        value = value.removeprefix("\n").removesuffix("\n")
        arguments[key.strip()] = signatures.value(name, key.strip(), value)
    return _call(name, arguments)


def _from_pairs(text: str, signatures: Signatures) -> ToolCall | None:
    name, *pairs = text.split("<arg_key>")
    name = name.strip()
    arguments = {}
    for pair in pairs:
        key, closed, rest = pair.partition("</arg_key>")
        _, opened, value = rest.partition("<arg_value>")
        if not closed or not opened:
            return None
        arguments[key.strip()] = signatures.value(name, key.strip(), value.partition("</arg_value>")[0])
    return _call(name, arguments)


_NAMED = re.compile(r"\s*([\w.-]{1,128})(?:\[CALL_ID\]([\w-]{1,64}))?(?:\[ARGS\])?\s*(?=\{)")


def read_mistral(body: str, signatures: Signatures) -> list[ToolCall] | None:
    """A list of objects, or one name and its arguments."""
    named = _NAMED.match(body)
    if named is None:
        return read_json(body, signatures)
    values = json_values(body[named.end() :])
    return _calls(iter([_call(named[1], values[0], named[2] or "")])) if values else None


def read_deepseek(body: str, signatures: Signatures) -> list[ToolCall] | None:
    """Calls between tags of their own: a kind, a name and fenced JSON, or a name and JSON."""
    pieces = body.split("<｜tool▁call▁begin｜>")[1:]
    return _calls(_from_deepseek(piece.partition("<｜tool▁call▁end｜>")[0]) for piece in pieces)


def _from_deepseek(piece: str) -> ToolCall | None:
    first, _, rest = piece.partition("<｜tool▁sep｜>")
    name, fence, fenced = rest.partition("```json")
    if fence:
        values, name = json_values(fenced.rpartition("```")[0]), name
    else:
        values, name = json_values(rest), first
    return _call(name, values[0]) if values else None


# --- syntaxes ---

_JSON_HEAD = Head(re.compile(r"\s*([\[{])"), re.compile(r"\s*[^\s\[{]"))
_MISTRAL_HEAD = Head(
    re.compile(r"\s*([\[{])|\s*[\w.-]{1,128}(?:\[CALL_ID\][\w-]{1,64})?(?:\[ARGS\])?\s*(\{)"),
    re.compile(r"\s*[^\s\[{\w.-]|\s*[\w.-]+\s+[^\s{]"),
)
_KEYS = "|".join((*_NAMES, *_ARGUMENTS, "type", "id", "tool_call_id"))
_BARE_HEAD = Head(
    re.compile(rf'\s*(?=(?:\[\s*)?\{{\s*"(?:{_KEYS})"\s*:)([\[{{])'),
    re.compile(rf'\s*(?:[^\s\[{{]|\[\s*[^\s{{]|\[?\s*\{{\s*(?:[^\s"]|"(?!(?:{_KEYS})")[^"]*"|"[^"]*"\s*[^\s:]))'),
)

SYNTAXES: tuple[CallSyntax, ...] = (
    CallSyntax(opens="<tool_call>", closes="</tool_call>", read=read_tagged, signs=("<tool_call>",)),
    CallSyntax(
        opens="[TOOL_CALLS]", head=_MISTRAL_HEAD, read=read_mistral,
        signs=("[TOOL_CALLS]",), inner=("[ARGS]", "[CALL_ID]"),
    ),
    CallSyntax(
        opens="<|python_tag|>", head=_JSON_HEAD, read=read_json, trails=(";",),
        signs=("<|python_tag|>", "<|start_header_id|>"),
    ),
    CallSyntax(opens="<function=", closes="</function>", read=read_function, signs=("<function=",)),
    CallSyntax(opens="Action: ```json", closes="```", read=read_json, signs=("Action: ```json", "'Action:'")),
    CallSyntax(opens="Action:```json", closes="```", read=read_json, signs=("Action: ```json", "'Action:'")),
    CallSyntax(
        opens="<|START_ACTION|>", closes="<|END_ACTION|>", read=read_json,
        signs=("<|START_ACTION|>",), inner=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
    CallSyntax(
        opens="<｜tool▁calls▁begin｜>", closes="<｜tool▁calls▁end｜>", read=read_deepseek,
        signs=("<｜tool▁calls▁begin｜>",), inner=("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
    ),
    CallSyntax(
        opens="<|tool_call|>", head=_JSON_HEAD, read=read_json, signs=("<|tool_call|>",), trails=("<|/tool_call|>",)
    ),
    CallSyntax(opens="functools", head=_JSON_HEAD, read=read_json, signs=("functools[",)),
)  # fmt: skip

BARE = CallSyntax(opens="", head=_BARE_HEAD, read=read_json, trails=(";",))


def syntax_for_tag(tag: str) -> CallSyntax:
    """JSON after a tag that no published template has."""
    return CallSyntax(opens=tag, head=_JSON_HEAD, read=read_json)
