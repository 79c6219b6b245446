"""A JSON Schema with nothing in it but what is truly enforced, or a refusal that names what is not.

Written for draft 2020-12, and for what older drafts say differently about arrays and exclusive bounds. What the grammar
library would pass over in silence (unknown keywords, dates that no calendar has) is refused here or made exact.
https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from lapilli.errors import InputError

_MAX_BYTES = 256 << 10
_MAX_DEPTH = 64
_MAX_SCHEMAS = 5_000
_MAX_PROPERTIES = 1_000
_MAX_VALUES = 10_000
_MAX_COUNT = 1_000_000
_MAX_OPTIONAL = 30  # the grammar grows with the square of the optional properties under minProperties
_MAX_EXPANDED = 20_000  # of patterns, their repetitions written out
_MAX_MULTIPLE = 10_000  # a number's remainder is a state of the automaton
_MAX_EXACT = 1 << 53

_LISTS = {"anyOf", "oneOf", "allOf", "prefixItems"}
_MAPS = {"properties", "patternProperties", "$defs", "definitions"}
_COUNTS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_ENFORCED = {
    *_LISTS, *_MAPS, *_COUNTS, *_BOUNDS, "$ref", "additionalItems", "additionalProperties", "const", "enum", "format",
    "items", "multipleOf", "pattern", "required", "type",
}  # fmt: skip
_SAYS_NOTHING = {
    "$anchor", "$comment", "$schema", "$vocabulary", "contentEncoding", "contentMediaType", "contentSchema", "default",
    "deprecated", "description", "example", "examples", "externalDocs", "readOnly", "title", "writeOnly",
}  # fmt: skip
_HINTS = {
    "nullable": 'say "type": [..., "null"]',
    "dependencies": "use anyOf",
    "dependentRequired": "use anyOf",
    "dependentSchemas": "use anyOf",
    "if": "use anyOf",
    "not": "list what is allowed",
    "propertyNames": "use patternProperties and additionalProperties: false",
}
_FORMATS = {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"}

# The library's own dates have a 29th of February in each year, its times a 60th second in each minute (RFC 3339, 5.7).
_DATE = (
    r"(?:0{3}[1-9]|0{2}[1-9]\d|0[1-9]\d{2}|[1-9]\d{3})-(?:(?:0[13-9]|1[0-2])-\d{2}|02-(?:[01]\d|2[0-8]))"
    r"|(?:\d{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29"
)
_EXACT: dict[str, dict[str, Any]] = {
    "date": {"pattern": f"^(?:{_DATE})$"},
    "date-time": {"pattern": rf"^(?:{_DATE})[Tt]\d{{2}}:\d{{2}}:[0-5].*$"},
    "time": {"pattern": r"^\d{2}:\d{2}:[0-5].*$"},
    "hostname": {"maxLength": 253},
}


def parse_schema(schema: Mapping[str, Any] | str | bool) -> dict[str, Any]:
    """The schema with its enforced keywords alone; raises InputError that names the first one that is not, and where.

    Text is read as JSON. References may point within the schema only; nothing is ever fetched.
    """
    if isinstance(schema, str):
        if len(schema) > _MAX_BYTES:
            raise InputError(f"the JSON Schema has {len(schema)} characters; {_MAX_BYTES} bytes are the most we read")
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the JSON Schema is no JSON: {str(error)[:100]}") from None
    reader = _Reader()
    root = reader.schema(schema, "", 0)
    reader.check_references()
    if root is False:
        raise InputError("the JSON Schema is false: nothing can satisfy it")
    result = root if isinstance(root, dict) else {}
    try:
        size = len(json.dumps(result, allow_nan=False).encode())
    except ValueError as error:
        raise InputError(f"the JSON Schema cannot be written as JSON: {str(error)[:100]}") from None
    if size > _MAX_BYTES:
        raise InputError(f"the JSON Schema has {size} bytes; {_MAX_BYTES} are the most we read")
    return result


def check_pattern(pattern: object, where: str) -> tuple[str, int]:
    """The pattern in the library's dialect, and its length with repetitions written out; raises InputError."""
    if not isinstance(pattern, str):
        raise InputError(f"the pattern at {where} is no text but {type(pattern).__name__}")
    if len(pattern) > _MAX_EXPANDED:
        raise InputError(f"the pattern at {where} has {len(pattern)} characters; {_MAX_EXPANDED} are the most")
    # In ECMA 262 a bracket or && within a class is a plain character, and \d and \w are ASCII.
    text: list[str] = []
    groups: list[int] = [0]
    atom = 0
    inside = False
    for match in _PIECE.finditer(pattern):
        piece = _ASCII.get(match[0], match[0])
        if inside:
            inside = piece != "]" or text[-1] in ("[", "[^")
            plain = piece in ("[", "[^", "&", "~", "--") or (piece == "]" and inside)
            text.append("".join("\\" + letter for letter in piece) if plain and match[0] == piece else piece)
            continue
        text.append(piece)
        if piece in ("[", "[^"):
            inside = True
        if piece.startswith("("):
            groups.append(0)
            atom = 0
            continue
        if piece == ")" and len(groups) > 1:
            atom = groups.pop()
        elif match["most"] is not None:
            times = int((match["upto"] or match["most"])[:9])
            groups[-1] -= atom
            atom *= max(times, 1)
        else:
            atom = 1
        groups[-1] += atom
        if max(groups) > _MAX_EXPANDED or len(groups) > _MAX_DEPTH:
            raise InputError(
                f"the pattern at {where} is too large with its repetitions written out; {_MAX_EXPANDED} steps and "
                f"{_MAX_DEPTH} brackets within each other are the most: use smaller counts"
            )
    return "".join(text), sum(groups)


_ASCII = {r"\d": "[0-9]", r"\D": "[^0-9]", r"\w": "[0-9A-Za-z_]", r"\W": "[^0-9A-Za-z_]"}
_PIECE = re.compile(
    r"\\.|\(\?(?:P?<[^>]*>|[a-zA-Z]*:|[=!]|<[=!])|\[\^?|\{(?P<most>\d+)(?:,(?P<upto>\d*))?\}|--|.", re.S
)


def slashed(pattern: str) -> str:
    """A pattern as it stands between the slashes of a grammar."""
    spelt = {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}
    return "".join(spelt.get(match[0], match[0]) for match in _PIECE.finditer(pattern))


def pointer(where: str, *keys: str | int) -> str:
    """The JSON pointer (RFC 6901) of a place below another."""
    return where + "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


class _Reader:
    """Reads one schema: what it found so far, and how much of it."""

    def __init__(self) -> None:
        self.places: set[str] = set()
        self.references: list[tuple[str, str]] = []
        self.values = 0
        self.expanded = 0
        self.multiple = 1

    def schema(self, node: object, where: str, depth: int) -> dict[str, Any] | bool:
        self.places.add(where)
        if isinstance(node, bool):
            return node
        if not isinstance(node, Mapping):
            raise InputError(f"a JSON Schema is an object or a boolean, not {type(node).__name__}, at {where or '/'}")
        if depth > _MAX_DEPTH:
            raise InputError(f"the JSON Schema is nested more than {_MAX_DEPTH} deep")
        if len(self.places) > _MAX_SCHEMAS:
            raise InputError(f"the JSON Schema has more than {_MAX_SCHEMAS} parts")
        result: dict[str, Any] = {}
        for key, value in node.items():
            if not isinstance(key, str):
                raise InputError(f"a keyword of a JSON Schema is text, not {type(key).__name__}, at {where or '/'}")
            self.keyword(result, node, key, value, where, depth)
        if "additionalItems" in result and not isinstance(result.get("items"), list):
            del result["additionalItems"]  # it means something beside a list of items only
        exact = _EXACT.get(result.get("format", ""))
        if exact is not None:
            result["allOf"] = [*result.get("allOf", []), exact]
        return result

    def keyword(
        self, result: dict[str, Any], node: Mapping[str, Any], key: str, value: Any, where: str, depth: int
    ) -> None:
        if key in _SAYS_NOTHING or key.startswith("x-") or (key in ("$id", "id") and not where):
            return
        if key == "uniqueItems" and value is False:
            return
        if key not in _ENFORCED:
            raise _refusal(key, where)
        at = pointer(where, key)
        if key in _LISTS or (key == "items" and isinstance(value, list)):
            value = [
                self.schema(part, pointer(at, index), depth + 1) for index, part in enumerate(_list(value, key, where))
            ]
        elif key in _MAPS:
            value = self.mapping(key, value, at, depth)
        elif key in ("items", "additionalItems", "additionalProperties"):
            value = self.schema(value, at, depth + 1)
        elif key in ("enum", "const"):
            for item in _list(value, key, where) if key == "enum" else [value]:
                self.value(item, at, depth + 1)
        elif key in _COUNTS:
            if not _is_integer(value) or not 0 <= value <= _MAX_COUNT:
                raise InputError(
                    f"{key!r} at {where or '/'} is a whole number from 0 to {_MAX_COUNT}, not {value!r:.40}"
                )
            if key == "minProperties":
                _check_min_properties(node, value, where)
        elif key in _BOUNDS:
            if not isinstance(value, bool) and _is_number(value, key, where) and abs(value) > _MAX_EXACT:
                raise InputError(f"{key!r} at {where or '/'} is past 2^53 = {_MAX_EXACT}, where numbers are not exact")
        elif key == "multipleOf":
            self.multiple_of(value, where)
        elif key == "pattern":
            value = self.pattern(value, at)
        elif key == "format" and (not isinstance(value, str) or value not in _FORMATS):
            raise InputError(
                f"JSON Schema format {value!r:.40} cannot be enforced at {where or '/'}: remove it, "
                f"or use one of {', '.join(sorted(_FORMATS))}"
            )
        elif key == "$ref":
            self.references.append((where, value))
        elif key == "required" and not all(isinstance(name, str) for name in _list(value, key, where)):
            raise InputError(f"'required' at {where or '/'} is a list of names")
        result[key] = value

    def mapping(self, key: str, value: object, at: str, depth: int) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise InputError(f"a JSON Schema has an object of schemas at {at}")
        if len(value) > _MAX_PROPERTIES:
            raise InputError(f"the JSON Schema has {len(value)} names at {at}; {_MAX_PROPERTIES} are the most")
        parts = {name: self.schema(part, pointer(at, name), depth + 1) for name, part in value.items()}
        if key == "patternProperties":
            return {self.pattern(name, at): part for name, part in parts.items()}
        return parts

    def value(self, value: object, where: str, depth: int) -> None:
        self.values += 1
        if self.values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise InputError(
                f"the values of 'enum' and 'const' are too many or too deep at {where}; "
                f"{_MAX_VALUES} values and {_MAX_DEPTH} levels are the most"
            )
        if isinstance(value, Mapping):
            for name, part in value.items():
                self.value(part, pointer(where, name), depth + 1)
        elif isinstance(value, list | tuple):
            for part in value:
                self.value(part, where, depth + 1)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _is_number(value, "const", where)
            if abs(value) > _MAX_EXACT:
                raise InputError(f"the value at {where} is past 2^53 = {_MAX_EXACT}, where numbers are not exact")
        elif value is not None and not isinstance(value, str | bool):
            raise InputError(f"the value at {where} is no JSON but {type(value).__name__}")

    def multiple_of(self, value: Any, where: str) -> None:
        _is_number(value, "multipleOf", where)
        digits = repr(float(value)).partition("e")[0].replace(".", "").strip("0-") or "0"
        if not 1e-9 <= value <= 1e15:
            raise InputError(f"'multipleOf' at {where or '/'} is from 1e-9 to 1e15, not {value!r:.40}")
        self.multiple = math.lcm(self.multiple, int(digits))
        if self.multiple > _MAX_MULTIPLE:
            raise InputError(
                f"'multipleOf' at {where or '/'} is too fine together with the others (a common multiple of "
                f"{self.multiple}, without zeros at its end): {_MAX_MULTIPLE} is the most"
            )

    def pattern(self, value: object, where: str) -> str:
        text, expanded = check_pattern(value, where)
        self.expanded += expanded
        if self.expanded > 5 * _MAX_EXPANDED:
            raise InputError(f"the patterns of the JSON Schema have more than {5 * _MAX_EXPANDED} steps in all")
        return text

    def check_references(self) -> None:
        for where, reference in self.references:
            if not isinstance(reference, str) or not reference.startswith("#"):
                raise InputError(
                    f"JSON Schema '$ref' to {reference!r:.60} is never fetched, at {where or '/'}: put it under '$defs'"
                )
            if unquote(reference[1:]) not in self.places:
                raise InputError(f"JSON Schema '$ref' to {reference!r:.60} points at no schema, at {where or '/'}")


def _refusal(key: str, where: str) -> InputError:
    close = difflib.get_close_matches(key, _ENFORCED, n=1, cutoff=0.85)
    hint = f"did you mean {close[0]!r}?" if close else _HINTS.get(key, "remove it")
    return InputError(f"JSON Schema keyword {key[:60]!r} cannot be enforced at {where or '/'}: {hint}")


def _check_min_properties(node: Mapping[str, Any], least: int, where: str) -> None:
    required = node.get("required")
    named = set(required) if isinstance(required, list) and all(isinstance(name, str) for name in required) else set()
    if least > max(1, len(named)):
        # A free name may come twice, and would be counted twice.
        raise InputError(
            f"JSON Schema keyword 'minProperties' cannot be enforced at {where or '/'} beyond 1 or the "
            f"{len(named)} required properties: name them in 'required'"
        )
    properties = node.get("properties")
    optional = len(properties.keys() - named) if isinstance(properties, Mapping) else 0
    if least > len(named) and optional > _MAX_OPTIONAL:
        raise InputError(
            f"JSON Schema keyword 'minProperties' cannot be enforced at {where or '/'} beside {optional} optional "
            f"properties; {_MAX_OPTIONAL} are the most"
        )


def _list(value: object, key: str, where: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{key!r} at {where or '/'} is a list, not {type(value).__name__}")
    return value


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object, key: str, where: str) -> bool:
    if not (_is_integer(value) or (isinstance(value, float) and math.isfinite(value))):
        raise InputError(f"{key!r} at {where or '/'} is a number, not {value!r:.40}")
    return True
