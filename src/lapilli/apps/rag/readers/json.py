"""JSON and JSON lines: each value on a line after its path, records of a list one after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from lapilli.apps.rag.readers.encodings import charset_of, decode
from lapilli.apps.rag.readers.refusal import RefusedError
from lapilli.apps.rag.readers.text import Hints, Text

MAX_DEPTH = 200
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)
_TITLES = ("title", "name", "public_title")
_PART = re.compile(r"[^\[\]]+\[\d+\]|[^.]+")
_PLAIN_KEY = re.compile(r"[^\s.\[\]:]+")


class _Pairs(list[tuple[str, Any]]):
    """An object as it was written: in order, and with keys that are there twice."""


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write a line for each value; a list's records and a file's lines are marked."""
    content, text.meta["encoding"] = decode(data, charset_of(hints.content_type))
    content = content.strip("\ufeff \t\r\n\x00")
    _check_depth(content)
    try:
        value = _load(content)
    except ValueError as error:
        _read_lines(content, text, error)
        return
    if isinstance(value, list) and not isinstance(value, _Pairs) and any(isinstance(item, list) for item in value):
        for number, item in enumerate(value):
            text.gap()
            text.mark(f"[{number}]")
            _write(text, item)
        return
    if isinstance(value, _Pairs):
        text.title = next((item for key, item in value if key.casefold() in _TITLES and isinstance(item, str)), "")
    _write(text, value, marked=True)


def _read_lines(content: str, text: Text, error: ValueError) -> None:
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    for count, (number, line) in enumerate(lines):
        try:
            value = _load(line)
        except ValueError:
            if count == 0 or len(lines) < 2:
                raise RefusedError(f"it is no JSON: {_where(error)}") from None
            raise RefusedError(f"line {number} of it is no JSON, the {count} before it are") from None
        text.gap()
        text.mark(f"line {number}")
        _write(text, value)


def _load(content: str) -> Any:
    # Numbers stay as they were written: no digit is lost, none is too long.
    return json.loads(content, object_pairs_hook=_Pairs, parse_int=str, parse_float=str, parse_constant=str)


def _where(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[:60]}, at line {error.lineno}, character {error.colno}"
    return "it cannot be read"


def _check_depth(content: str) -> None:
    depth = deepest = 0
    for token in _TOKEN.finditer(content):
        sign = token[0][0]
        if sign in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                raise RefusedError(f"its JSON is nested deeper than the {MAX_DEPTH} levels that are read")
        elif sign != '"':
            depth -= 1


def _write(text: Text, value: Any, *, marked: bool = False) -> None:
    """Write a value; of an object at the top each part, and of the first list in it each record, is marked."""
    if not marked:
        text.line("\n".join(f"{path}: {shown}" if path else shown for path, shown in _lines(value, "")))
        return
    part = ""
    for path, shown in _lines(value, ""):
        found = _PART.match(path)
        if found and found[0] != part:
            part = found[0]
            text.end_line()
            text.mark(part)
        text.line(f"{path}: {shown}" if path else shown)


def _lines(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, _Pairs):
        for key, item in value:
            name = key if _PLAIN_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
            yield from _lines(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        if value and all(not isinstance(item, list) and len(_shown(item)) <= 80 for item in value):
            yield path, ", ".join(_shown(item) for item in value)
            return
        for number, item in enumerate(value):
            yield from _lines(item, f"{path}[{number}]")
    elif value is not None and value != "":
        yield path, _shown(value)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)
