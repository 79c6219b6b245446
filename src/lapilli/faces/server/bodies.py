"""Bytes of a request's body -> JSON that can be trusted to be small, flat and unambiguous."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from lapilli.errors import InputError
from lapilli.faces.server.problems import ClientGoneError, HttpError
from lapilli.wire.fields import kind_of

DEEPEST = 128
LONGEST_NUMBER = 100
INLINE_BYTES = 256 << 10


async def read_body(request: Request) -> bytes:
    """The whole body; the guard has bounded it."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise ClientGoneError("the client left while it was asking") from None


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object.

    Raises InputError for what is no JSON object, nests deeper than 128, names a key twice, holds a number that no
    computer holds or text that no encoding has; HttpError 415 for a compressed body.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() not in ("", "identity"):
        raise HttpError(415, f"content-encoding {encoding[:40]!r} is not taken: send the body as it is")
    data = await read_body(request)
    if len(data) > INLINE_BYTES:
        return await asyncio.to_thread(parse_object, data)
    return parse_object(data)


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object out of bytes; see `read_json` for what is refused."""
    if not data.strip():
        raise InputError("missing request body")
    value = parse(data)
    if not isinstance(value, dict):
        raise InputError(f"the body must be a JSON object, not {kind_of(value)}")
    return value


def parse(data: bytes) -> Any:
    """Any JSON value out of bytes, under the same rules."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the body is not UTF-8: byte {error.start}") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise InputError(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise InputError(f"the body nests too deep: at most {DEEPEST} levels are taken") from None
    _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InputError(f"the key {key[:80]!a} is given twice")
            seen.add(key)
    return found


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise InputError(f"a number of {len(text)} digits: at most {LONGEST_NUMBER} are taken")
    return int(text)


def _float(text: str) -> float:
    if len(text) > 10 * LONGEST_NUMBER or not math.isfinite(number := float(text)):
        raise InputError(f"the number {text[:40]} is too large")
    return number


def _constant(text: str) -> Any:
    raise InputError(f"the body is not JSON: {text} is not a number")


def _check(value: Any) -> None:
    """Look at depth and text without recursion."""
    level: list[Any] = [value]
    for _ in range(DEEPEST + 1):
        deeper: list[Any] = []
        for item in level:
            for text in _texts(item):
                _check_text(text)
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        if not deeper:
            return
        level = deeper
    raise InputError(f"the body nests too deep: at most {DEEPEST} levels are taken")


def _texts(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    elif isinstance(item, dict):
        yield from item


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("the body holds half of a surrogate pair: that is no text") from None
