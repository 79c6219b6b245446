"""How a setting is read from a text, or from a value of a TOML file: each reader raises ValueError."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lapilli.ground.amounts import parse_duration, parse_size

PORT = 11434
FOR_EVER = -1.0
_LONGEST = 100 * 365.25 * 86400
_LARGEST = (1 << 31) - 1
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")
_YES, _NO = ("1", "t", "true", "yes", "on"), ("0", "f", "false", "no", "off")


@dataclass(frozen=True)
class Variable:
    """How one setting is read: what it does, what is allowed, and Ollama's variable that stands in for ours.

    `read` makes a value of a text, or of what a TOML file holds; it raises ValueError. `shown` is the default as the
    documentation tells it, where that is not its value.
    """

    does: str
    allowed: str
    read: Callable[[Any], Any]
    fallback: str = ""
    shown: str = ""
    secret: bool = False


def read_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    return str(value)


def read_flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = read_text(value).lower()
    if word in _YES or word in _NO:
        return word in _YES
    raise ValueError


def read_level(value: Any) -> bool:
    return str(value) == "2" or read_flag(value)


def count(least: int, most: int = _LARGEST) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        text = read_text(value)
        if not re.fullmatch(r"[+-]?\d{1,20}", text) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return read


def seconds_of(*, forever: bool = False, zero: bool = True) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        text = read_text(value)
        number = re.fullmatch(r"[+-]?(\d{1,15}\.?\d*|\.\d+)", text)
        seconds = float(text) if number else parse_duration(text)
        if seconds < 0 or seconds >= _LONGEST:
            if forever:
                return FOR_EVER
            raise ValueError
        if seconds == 0 and not zero:
            raise ValueError
        return seconds

    return read


def bytes_of(least: int = 0) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        size = parse_size(read_text(value))
        if size < least or size > 1 << 60:
            raise ValueError
        return size

    return read


def read_names(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else read_text(value).split(",")
    if not all(isinstance(part, str) for part in parts):
        raise ValueError
    return tuple(part.strip() for part in parts if part.strip())


def read_keys(value: Any) -> tuple[str, ...]:
    keys = read_names(value)
    if any(len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise ValueError
    return keys


def read_hosts(value: Any) -> tuple[str, ...]:
    hosts = read_names(value)
    if not all(_HOST.fullmatch(host.removeprefix("*.").partition(":")[0]) for host in hosts):
        raise ValueError
    return hosts


def read_folder(value: Any) -> Path:
    return Path(read_text(value)).expanduser().absolute()


def choice(*words: str) -> Callable[[Any], str | None]:
    def read(value: Any) -> str | None:
        word = read_text(value).lower()
        if word not in words:
            raise ValueError
        return None if word == "none" else word

    return read


def read_host(value: Any) -> str:
    """Ollama's rules: a name alone has port 11434, one with `http://` 80, with `https://` 443."""
    scheme, mark, rest = read_text(value).strip().rpartition("://")
    if scheme not in ("", "http", "https"):
        raise ValueError
    rest, slash, path = rest.partition("/")
    bare = rest.strip("[]")
    if bare.count(":") > 1 and ("]:" not in rest or not rest.startswith("[")):
        rest = f"[{bare}]"
    parts = urlsplit(f"http://{rest}")
    if parts.username is not None or "@" in rest or parts.query or parts.fragment:
        raise ValueError
    port = parts.port if parts.port is not None else PORT if not mark else 443 if scheme == "https" else 80
    name = parts.hostname if rest and not rest.startswith(":") else "0.0.0.0" if rest else "127.0.0.1"
    if not name or (":" not in name and not _HOST.fullmatch(name)):
        raise ValueError
    if ":" in name:
        name = f"[{ipaddress.IPv6Address(name)}]"
    return f"{scheme}{mark}{name}:{port}{slash if path else ''}{path.rstrip('/')}"


def read_context(value: Any) -> int:
    length = count(0)(value)
    if 0 < length < 4:
        raise ValueError
    return length


def is_flag(text: str) -> bool:
    return text.lower() in (*_YES, *_NO)
