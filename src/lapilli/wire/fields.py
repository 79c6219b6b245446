"""Values out of a stranger's JSON: each by its name, of the kind it must be, or an error that says both."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lapilli.errors import InputError

LARGEST = 1 << 31
_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "an object"}


def kind_of(value: Any) -> str:
    """JSON's own word for the kind of a value."""
    if value is None:
        return "null"
    return _KINDS.get(type(value), "something else")


def text(body: Mapping[str, Any], name: str, default: str = "") -> str:
    """A string; null and nothing are `default`."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise InputError(f"{name} must be a string, not {kind_of(value)}")
    return value


def flag(body: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """A boolean; null and nothing are `default`."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, not {kind_of(value)}")
    return value


def integer(body: Mapping[str, Any], name: str, default: int | None = None) -> int | None:
    """A whole number below 2^31 in size; null and nothing are `default`."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} must be of type integer, not {kind_of(value)}")
    if abs(value) >= LARGEST:
        raise InputError(f"{name} is out of range: below {LARGEST} in size is taken")
    return value


def items(body: Mapping[str, Any], name: str) -> Sequence[Any]:
    """An array; null and nothing are empty."""
    value = body.get(name)
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} must be an array, not {kind_of(value)}")
    return value


def at_most(found: Sequence[Any], most: int, name: str) -> None:
    """Refuse more of something than are taken."""
    if len(found) > most:
        raise InputError(f"{len(found)} {name}: at most {most} are taken")


def mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object; null and nothing are empty."""
    value = body.get(name)
    if value is None:
        return {}
    return as_mapping(value, name)


def as_mapping(value: Any, name: str) -> Mapping[str, Any]:
    """`value` itself, if it is an object."""
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be an object, not {kind_of(value)}")
    return value


_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


def from_base64(value: Any, name: str) -> bytes:
    """Bytes out of standard base64; line ends are skipped, anything else is refused where it stands."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a base64 string, not {kind_of(value)}")
    plain = value.replace("\n", "").replace("\r", "")
    try:
        return base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError):
        odd = _NOT_BASE64.search(plain)
        place = odd.start() if odd else len(plain) // 4 * 4
        raise InputError(f"illegal base64 data at input byte {place}") from None
