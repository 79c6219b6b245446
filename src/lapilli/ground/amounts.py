"""Amounts as people write and read them: lengths of time ("1h30m"), memory ("2GiB"), numbers of weights ("7.2B")."""

from __future__ import annotations

import re

from lapilli.errors import InputError

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NUMBER = re.compile(r"\d+\.?\d*|\.\d+")
_SIZE = re.compile(r"(\d+\.?\d*|\.\d+)\s*(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds out of Go's notation (https://pkg.go.dev/time#ParseDuration); raises InputError in Go's words."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text[1:] if text[:1] == "+" else text)
    if rest == "0":
        return 0.0
    total, at = 0.0, 0
    for part in _PART.finditer(rest):
        if part.start() != at:
            break
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if at != len(rest) or not rest:
        if _NUMBER.fullmatch(rest):
            raise InputError(f'time: missing unit in duration "{text[:40]}"')
        raise InputError(f'time: invalid duration "{text[:40]}"')
    return sign * total


def parse_size(text: str) -> int:
    """Bytes out of a number with a unit, 1000 or 1024 to the next ("GB", "GiB"); raises InputError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InputError(f"{text[:40]!r} is no amount of memory such as 8GiB, 500MB or a number of bytes")
    step = 1024 if found[3] else 1000
    return int(float(found[1]) * step ** (" kmgt".index(found[2].lower()) if found[2] else 0))


def memory_text(count: float) -> str:
    """An amount of memory for people to read: 6.3 GiB."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def count_text(count: int) -> str:
    """A number of weights as Ollama writes it: 7.2B, 311.89M, 350K."""
    for size, letter, digits in ((10**12, "T", 1), (10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if count >= size:
            return f"{count / size:.{0 if count % size == 0 else digits}f}{letter}"
    return str(count)
