"""The functions that a program may call: Go's own that chat templates use, and those that Ollama adds."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lapilli.inputs.go.values import Record, Wrong, equal, is_true, kind_of, less, to_json, write

# No text of a function is longer; what is printed is bounded as a whole by the runner.
LONGEST = 4 << 20
_WIDEST = 1000


@dataclass(frozen=True)
class _Function:
    run: Callable[..., Any]
    least: int
    most: int | None


def _eq(first: Any, *others: Any) -> bool:
    return any(equal(first, other) for other in others)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (Mapping, Sequence)):
        return len(value)
    raise Wrong(f"{kind_of(value)} has no length")


def _index(value: Any, *keys: Any) -> Any:
    if value is None:
        raise Wrong("nothing cannot be indexed")
    for key in keys:
        if isinstance(value, Mapping):
            if not isinstance(key, str):
                raise Wrong(f"the keys of a map are texts, there is {kind_of(key)}")
            value = value.get(key)
            continue
        if not isinstance(value, Sequence):
            raise Wrong(f"{kind_of(value)} cannot be indexed")
        _require_place(key, len(value) - 1)
        value = value[key] if not isinstance(value, str) else ord(value[key])
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, Sequence):
        raise Wrong(f"{kind_of(value)} cannot be sliced")
    for bound in bounds:
        _require_place(bound, len(value))
    begin, end = (bounds[0] if bounds else 0), (bounds[1] if len(bounds) > 1 else len(value))
    if begin > end:
        raise Wrong(f"a slice from {begin} to {end} ends before it begins")
    return value[begin:end]


def _require_place(place: Any, last: int) -> None:
    if isinstance(place, bool) or not isinstance(place, int):
        raise Wrong(f"a place must be a whole number, it is {kind_of(place)}")
    if not 0 <= place <= last:
        raise Wrong(f"place {place} is out of range, the last is {last}")


def _print(*values: Any) -> str:
    written: list[str] = []
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            written.append(" ")
        written.append("<nil>" if value is None else write(value))
    return "".join(written)


def _println(*values: Any) -> str:
    return " ".join("<nil>" if value is None else write(value) for value in values) + "\n"


_VERB = re.compile(r"%([-+# 0]*)([0-9]*)(?:\.([0-9]*))?(.?)", re.DOTALL)


def _printf(form: Any, *values: Any) -> str:
    """Go's verbs v, s, q, d, t, f, e, g, x, X and c, with flags, width and precision."""
    if not isinstance(form, str):
        raise Wrong(f"printf needs a format, there is {kind_of(form)}")
    left = list(values)
    written: list[str] = []
    size = at = 0
    for verb in _VERB.finditer(form):
        piece = "%" if verb[4] == "%" else _verb(verb, left)
        written += [form[at : verb.start()], piece]
        at = verb.end()
        size += len(piece)
        if size > LONGEST:
            raise Wrong(f"printf writes more than {LONGEST} characters")
    if left:
        raise Wrong(f"printf has {len(values)} values, its format takes {len(values) - len(left)}")
    return "".join(written) + form[at:]


def _verb(verb: re.Match[str], left: list[Any]) -> str:
    flags, width_text, precision_text, kind = verb.groups()
    if len(width_text) > 4 or len(precision_text or "") > 4:
        raise Wrong(f"printf pads to {_WIDEST} characters at most")
    width = int(width_text or 0)
    precision = None if precision_text is None else int(precision_text or 0)
    if width > _WIDEST or (precision or 0) > _WIDEST:
        raise Wrong(f"printf pads to {_WIDEST} characters at most")
    if not left:
        raise Wrong(f"printf has no value for {verb[0][:20]!r}")
    text = _formatted(kind, left.pop(0), flags, precision, verb[0], padded=width > 0)
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and kind in "dfegxX":
        return text.zfill(width)
    return text.rjust(width)


def _formatted(kind: str, value: Any, flags: str, precision: int | None, verb: str, *, padded: bool) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole = number and isinstance(value, int)
    if kind in "vs" and kind:
        if kind == "s" and not isinstance(value, str) and (number or isinstance(value, bool) or value is None):
            raise Wrong(f"printf {verb[:20]!r} needs a text, there is {kind_of(value)}")
        text = "<nil>" if value is None else write(value)
        if padded and isinstance(value, (Sequence, Mapping)) and not isinstance(value, str):
            raise Wrong(f"printf {verb[:20]!r} pads what a list or a map holds, which is not known here")
        return text if precision is None or not isinstance(value, str) else text[:precision]
    if kind == "q" and isinstance(value, str):
        return _quoted(value)
    if kind == "t" and isinstance(value, bool):
        return "true" if value else "false"
    sign = "+" if "+" in flags else " " if " " in flags else ""
    if kind == "d" and whole:
        return format(value, f"{sign}d")
    if kind in ("f", "e", "g") and isinstance(value, float):
        if kind == "g" and precision is None:
            return write(value)
        return format(value, f"{sign}.{6 if precision is None else precision}{kind}")
    if kind in ("x", "X"):
        if whole:
            return format(value, kind)
        if isinstance(value, str):
            digits = value.encode("utf-8", "surrogatepass").hex()
            return digits.upper() if kind == "X" else digits
    if kind == "c" and whole and 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000:
        return chr(value)
    raise Wrong(f"printf {verb[:20]!r} does not fit {kind_of(value)}")


def _quoted(text: str) -> str:
    names = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    names |= {"\\": "\\\\", '"': '\\"'}
    return '"' + "".join(names.get(c) or (c if c.isprintable() else _code(c)) for c in text) + '"'


def _code(character: str) -> str:
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _date(days: int) -> Callable[..., str]:
    def date(*form: Any) -> str:
        return (datetime.datetime.now() + datetime.timedelta(days=days)).strftime("%Y-%m-%d")

    return date


_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def typescript_type(value: Any) -> str:
    """The type of a tool's property in TypeScript's words, `any` for what is no property."""
    if not isinstance(value, Record) or "AnyOf" not in value.fields:
        return "any"
    if value.fields["AnyOf"]:
        return " | ".join(typescript_type(inner) for inner in value.fields["AnyOf"])
    return " | ".join(_TYPESCRIPT.get(kind, "any") for kind in value.fields["Type"]) or "any"


def _contains(text: Any, part: Any) -> bool:
    if not isinstance(text, str) or not isinstance(part, str):
        raise Wrong(f"contains needs two texts, there are {kind_of(text)} and {kind_of(part)}")
    return part in text


def _not_to_be_called(*values: Any) -> Any:
    raise AssertionError("the runner does this itself")


FUNCTIONS: Mapping[str, _Function] = {
    "and": _Function(_not_to_be_called, 1, None),
    "or": _Function(_not_to_be_called, 1, None),
    "not": _Function(lambda value: not is_true(value), 1, 1),
    "eq": _Function(_eq, 2, None),
    "ne": _Function(lambda first, second: not equal(first, second), 2, 2),
    "lt": _Function(less, 2, 2),
    "le": _Function(lambda first, second: less(first, second) or equal(first, second), 2, 2),
    "gt": _Function(lambda first, second: less(second, first), 2, 2),
    "ge": _Function(lambda first, second: less(second, first) or equal(first, second), 2, 2),
    "len": _Function(_length, 1, 1),
    "index": _Function(_index, 1, None),
    "slice": _Function(_slice, 1, 3),
    "print": _Function(_print, 0, None),
    "println": _Function(_println, 0, None),
    "printf": _Function(_printf, 1, None),
    "json": _Function(to_json, 1, 1),
    "currentDate": _Function(_date(0), 0, None),
    "yesterdayDate": _Function(_date(-1), 0, None),
    "toTypeScriptType": _Function(typescript_type, 1, 1),
    "contains": _Function(_contains, 2, 2),
}
