"""Values as Go has them: which are true, how they are written, compared, looked into, and made JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class Wrong(Exception):
    """What a program asks of a value that cannot be done; the runner adds the line."""


@dataclass(frozen=True)
class Record:
    """A struct: fields that are known, and a JSON form of its own."""

    kind: str
    fields: Mapping[str, Any]
    json: Any = None


class JsonList(tuple[Any, ...]):
    """A list that writes itself as JSON."""


class JsonMap(dict[str, Any]):
    """A map that writes itself as JSON."""


class Types(tuple[str, ...]):
    """The types of a property: one is written as itself."""


def is_true(value: Any) -> bool:
    """Go's notion: what is zero or empty is false, a struct is true."""
    return isinstance(value, Record) or bool(value)


def look_up(value: Any, name: str) -> Any:
    """A field of a struct, or what a map holds under a name: nothing where it is not there."""
    if isinstance(value, Record):
        if name not in value.fields:
            raise Wrong(f"a {value.kind} has no field {name[:40]!r}; it has {', '.join(value.fields)}")
        return value.fields[name]
    if isinstance(value, Mapping):
        return value.get(name)
    raise Wrong(f"{kind_of(value)} has no field {name[:40]!r}")


def kind_of(value: Any) -> str:
    """What to call a value in an error."""
    if isinstance(value, Record):
        return f"a {value.kind}"
    names = {bool: "a boolean", str: "a string", int: "a number", float: "a number", type(None): "nothing"}
    return names.get(type(value), "a map" if isinstance(value, Mapping) else "a list")


def write(value: Any) -> str:
    """As Go's fmt writes a value by itself."""
    if value is None:
        return "<no value>"
    return _written(value)


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return write_float(value, largest=21)
    if isinstance(value, int):
        return str(value)
    if value is None:
        return "<nil>"
    if isinstance(value, Types) and len(value) < 2:
        return "".join(value)
    if isinstance(value, (JsonList, JsonMap)) or (isinstance(value, Record) and value.json is not None):
        return to_json(value)
    if isinstance(value, Record):
        raise Wrong(f"a {value.kind} cannot be written; write one of {', '.join(value.fields)}")
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{_written(value[key])}" for key in sorted(value)) + "]"
    return "[" + " ".join(map(_written, value)) + "]"


def write_float(value: float, *, largest: int, smallest: int = -4) -> str:
    """The shortest digits that read back the same, with an exponent outside of 10^smallest to 10^largest."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    digits, _, exponent_text = _shortest(value).partition("e")
    exponent = int(exponent_text)
    sign = "-" if digits.startswith("-") else ""
    digits = digits.lstrip("-").replace(".", "").rstrip("0") or "0"
    if value and not smallest <= exponent < largest:
        point = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{point}e{exponent:+03d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    digits = digits.ljust(exponent + 1, "0")
    whole, rest = digits[: exponent + 1], digits[exponent + 1 :]
    return f"{sign}{whole}.{rest}" if rest else f"{sign}{whole}"


def _shortest(value: float) -> str:
    """Python's shortest digits with an exponent always."""
    return next(text for places in range(17) if float(text := f"{value:.{places}e}") == value)


# --- comparisons ---


def equal(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    _require_basic(first, second)
    return bool(first == second)


def less(first: Any, second: Any) -> bool:
    _require_basic(first, second)
    if isinstance(first, bool):
        raise Wrong("booleans have no order")
    return bool(first < second)


def _require_basic(first: Any, second: Any) -> None:
    for value in (first, second):
        if not isinstance(value, (str, int, float)):
            raise Wrong(f"{kind_of(value)} cannot be compared")
    if type(first) is not type(second):
        raise Wrong(f"{kind_of(first)} ({type(first).__name__}) cannot be compared with {kind_of(second)}")


# --- JSON, as encoding/json writes it: keys of maps in order, <, > and & escaped ---


def to_json(value: Any) -> str:
    return "".join(_json(value))


def _json(value: Any) -> Iterator[str]:
    if isinstance(value, Record):
        yield from _json_object(value.fields.items() if value.json is None else value.json.items())
    elif isinstance(value, Mapping):
        yield from _json_object((key, value[key]) for key in sorted(value))
    elif isinstance(value, Types) and len(value) == 1:
        yield _json_text(value[0])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, inner in enumerate(value):
            yield "," if place else "["
            yield from _json(inner)
        yield "]" if value else "[]"
    elif isinstance(value, str):
        yield _json_text(value)
    elif isinstance(value, float) and math.isfinite(value):
        yield write_float(value, largest=21, smallest=-6).replace("e-0", "e-")
    else:
        yield json.dumps(value)


def _json_object(items: Any) -> Iterator[str]:
    mark = "{"
    for key, inner in items:
        yield f"{mark}{_json_text(key)}:"
        yield from _json(inner)
        mark = ","
    yield "}" if mark == "," else "{}"


_ESCAPED = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def _json_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_ESCAPED)
