"""A JSON Schema whose answers cannot but end: every text, list, number and recursion gets a limit where it has none.

    schema = bounded(schema, max_string=400, max_items=20)
    tokens = longest(schema)        # no answer has more bytes, so none has more tokens

A bounded schema is narrower and never wider: what satisfies it satisfies the schema it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import llguidance

from lapilli.engine.schema import parse_schema, pointer
from lapilli.errors import InputError

_KINDS = ("null", "boolean", "number", "string", "array", "object")
_CHOICES = ("anyOf", "oneOf", "allOf", "$ref")
_PARTS = ("properties", "patternProperties", "additionalProperties", "items", "prefixItems", "additionalItems")
_LARGEST = 999_999_999_999_999
_SMALLEST_STEP = 1e-6
_NUMBER = 32  # bytes of a bounded number: sign, 16 digits, point, 9 digits, and room
_FORMAT = 64  # characters that any format can do with
_KEY = 64
_FREE_NAME = rf"^[\s\S]{{0,{_KEY}}}$"


def bounded(
    schema: Mapping[str, Any] | str | bool, *, max_string: int = 1000, max_items: int = 50, max_depth: int = 4
) -> dict[str, Any]:
    """The schema with limits where it has none; the argument is left as it is.

    Texts get `max_string` characters, lists and free properties `max_items`, recursion and values of any kind
    `max_depth` levels, numbers 15 digits before the point and 6 behind it. Objects whose properties are listed take no
    others, unless they say so. Raises InputError where there is no limit to be set.
    """
    whole = parse_schema(schema)
    _check_one_of(whole)
    return _Bounder(whole, max_string, max_items, max_depth).run()


def longest(schema: Mapping[str, Any] | str | bool) -> int:
    """The bytes that no answer to this schema exceeds; raises InputError where it has no limit: see `bounded`."""
    whole = parse_schema(schema)
    size = _Ruler(whole).size(whole)
    if size is None:
        raise InputError("the JSON Schema sets no limit to its answers: use bounded(schema)")
    return size


class _Bounder:
    def __init__(self, whole: dict[str, Any], max_string: int, max_items: int, max_depth: int) -> None:
        self.whole = whole
        self.max_string = max_string
        self.max_items = max_items
        self.max_depth = max_depth
        self.made: dict[str, Any] = {}
        self.reached: dict[str, set[str]] = {}

    def run(self) -> dict[str, Any]:
        root = self.schema(self.whole, "", self.max_depth)
        if not isinstance(root, dict):
            raise InputError("the JSON Schema is false: nothing can satisfy it")
        made = {name: part for name, part in self.made.items() if part is not False}
        return {**root, "$defs": made} if made else root

    def schema(self, node: Any, where: str, level: int) -> dict[str, Any] | bool:
        """One schema that stands for all that is said about a value."""
        if node is True:
            return self.free(self.max_depth)
        if node is False:
            return False
        own = {key: value for key, value in node.items() if key not in (*_CHOICES, "$defs", "definitions")}
        said = [key for key in _CHOICES if key in node]
        result: dict[str, Any] = dict(own)
        limited = bool({"enum", "const"} & own.keys()) or not said or "type" in own or bool(_parts(own))
        if limited:
            result = self.limits(own, where, level, self.max_depth)
        for key in said:
            at = pointer(where, key)
            if key == "$ref":
                self.alone(limited, at)
                name = self.reference(node["$ref"], level)
                if name is None:
                    return False
                result["$ref"] = name
            elif key == "allOf":
                parts = []
                for index, part in enumerate(node["allOf"]):
                    flat = _is_flat(part)
                    if not flat:
                        self.alone(limited, at)
                    parts.append(part if flat else self.schema(part, pointer(at, index), level))
                    limited = limited or not flat
                if not limited:  # nothing but simple rules: they and the limits hold side by side
                    parts.append(self.limits({}, where, level, self.max_depth))
                if False in parts:
                    return False
                result["allOf"] = parts
            elif limited:
                if not all(map(_is_flat, node[key])):
                    self.alone(limited, at)
                result[key] = node[key]
            else:
                branches = [self.schema(part, pointer(at, index), level) for index, part in enumerate(node[key])]
                result["anyOf"] = [branch for branch in branches if branch is not False]  # of oneOf, no two meet
                if not result["anyOf"]:
                    return False
            limited = True
        return False if _is_hopeless(result) else result

    def alone(self, limited: bool, where: str) -> None:
        if limited:
            raise InputError(
                f"the JSON Schema at {where} adds to what stands beside it, and both cannot be bounded: "
                "write them as one schema"
            )

    def limits(self, own: dict[str, Any], where: str, level: int, depth: int) -> dict[str, Any]:
        if "enum" in own or "const" in own:
            if _parts(own):
                self.alone(True, where or "/")
            return own
        said = own.get("type", _KINDS)
        kinds = [said] if isinstance(said, str) else list(said)
        if depth == 0:
            kinds = [kind for kind in kinds if kind not in ("array", "object")]
            own = {**own, "type": kinds}
        result = dict(own)
        if "string" in kinds:
            least = max(own.get("minLength", 0), _FORMAT if "format" in own else 0)
            result.setdefault("maxLength", max(self.max_string, least))
        if "number" in kinds or "integer" in kinds:
            if "minimum" not in own and own.get("exclusiveMinimum", False) in (False, True):
                result["minimum"] = -_LARGEST
            if "maximum" not in own and own.get("exclusiveMaximum", False) in (False, True):
                result["maximum"] = _LARGEST
            if "number" in kinds:
                result.setdefault("multipleOf", _SMALLEST_STEP)
        if "array" in kinds:
            self.limit_array(own, result, where, level, depth)
        if "object" in kinds:
            self.limit_object(own, result, where, level, depth)
        return result

    def limit_array(self, own: dict[str, Any], result: dict[str, Any], where: str, level: int, depth: int) -> None:
        result.setdefault("maxItems", max(self.max_items, own.get("minItems", 0)))
        rest = "items"
        for key in ("prefixItems", "items"):
            if isinstance(own.get(key), list):
                at = pointer(where, key)
                result[key] = [self.schema(part, pointer(at, index), level) for index, part in enumerate(own[key])]
                rest = "additionalItems" if key == "items" else rest
        result[rest] = self.schema_or_free(own.get(rest, True), pointer(where, rest), level, depth)

    def limit_object(self, own: dict[str, Any], result: dict[str, Any], where: str, level: int, depth: int) -> None:
        listed = own.get("properties", {})
        required = own.get("required", [])
        more = own.get("additionalProperties", not listed)
        if own.get("patternProperties"):
            raise InputError(
                f"JSON Schema keyword 'patternProperties' cannot be bounded at {where or '/'}: "
                "list the properties, or use additionalProperties"
            )
        at = pointer(where, "properties")
        properties = {name: self.schema(part, pointer(at, name), level) for name, part in listed.items()}
        for name in required:
            if name not in properties:
                rest = own.get("additionalProperties", True)
                properties[name] = self.schema_or_free(rest, pointer(where, "additionalProperties"), level, depth)
        if properties:
            result["properties"] = properties
        result["additionalProperties"] = False
        if more is False:
            return
        if listed:
            raise InputError(
                f"JSON Schema keyword 'additionalProperties' cannot be bounded at {where or '/'} beside listed "
                "properties: say false"
            )
        part = self.schema_or_free(more, pointer(where, "additionalProperties"), level, depth)
        result["patternProperties"] = {_FREE_NAME: part}
        result.setdefault("maxProperties", max(self.max_items, own.get("minProperties", 0), len(required)))

    def schema_or_free(self, node: Any, where: str, level: int, depth: int) -> dict[str, Any] | bool:
        return self.free(depth - 1) if node is True else self.schema(node, where, level)

    def free(self, depth: int) -> dict[str, Any]:
        """Any value, nested at most `depth` deep."""
        name = f"any{depth}"
        if name not in self.made:
            self.made[name] = {}
            self.made[name] = self.limits({"type": list(_KINDS)}, name, 0, depth)
        return {"$ref": f"#/$defs/{name}"}

    def reference(self, to: str, level: int) -> str | None:
        """A schema's copy at this level: each turn of a recursion leads one level down, the last to nothing at all."""
        if to not in self.reached:
            self.reached[to] = _reach(self.whole, to)
        level -= to in self.reached[to]
        name = f"{list(self.reached).index(to)}.{level}"
        if name not in self.made:
            self.made[name] = level >= 0 and self.schema(_resolve(self.whole, to), to[1:], level)
        return f"#/$defs/{name}" if self.made[name] is not False else None


class _Ruler:
    """Measures answers in bytes, None where they have no limit; a reference is measured once."""

    def __init__(self, whole: dict[str, Any]) -> None:
        self.whole = whole
        self.known: dict[str, int | None] = {}

    def size(self, node: Any) -> int | None:
        if isinstance(node, bool):
            return None if node else 0
        sizes = [self.own(node)]
        if "$ref" in node:
            sizes.append(self.reference(node["$ref"]))
        sizes += [_most(map(self.size, node[key])) for key in ("anyOf", "oneOf") if key in node]
        sizes += map(self.size, node.get("allOf", []))
        return min((size for size in sizes if size is not None), default=None)

    def reference(self, to: str) -> int | None:
        if to not in self.known:
            self.known[to] = None  # what comes back to itself has no limit
            self.known[to] = self.size(_resolve(self.whole, to))
        return self.known[to]

    def own(self, node: dict[str, Any]) -> int | None:
        values = node.get("enum", [node["const"]] if "const" in node else None)
        if values is not None:
            return max((len(json.dumps(value, ensure_ascii=False).encode()) for value in values), default=0)
        said = node.get("type", _KINDS)
        return _most(self.kind(node, kind) for kind in ([said] if isinstance(said, str) else said))

    def kind(self, node: dict[str, Any], kind: str) -> int | None:
        if kind in ("null", "boolean"):
            return 5
        if kind == "string":
            return 4 * node["maxLength"] + 2 if "maxLength" in node else None
        if kind in ("number", "integer"):
            limited = {"minimum", "exclusiveMinimum"} & node.keys() and {"maximum", "exclusiveMaximum"} & node.keys()
            return _NUMBER if limited and (kind == "integer" or "multipleOf" in node) else None
        return self.array(node) if kind == "array" else self.object(node)

    def array(self, node: dict[str, Any]) -> int | None:
        items = node.get("items", True)
        first = node.get("prefixItems", items if isinstance(items, list) else [])
        rest = node.get("additionalItems", True) if isinstance(items, list) else items
        most = len(first) if rest is False else node.get("maxItems")
        if most is None:
            return None
        sizes = [*map(self.size, first[:most]), *([self.size(rest)] if most > len(first) else [])]
        if any(size is None for size in sizes):
            return None
        known = [size for size in sizes if size is not None]
        repeated = known[-1] * (most - len(first) - 1) if most > len(first) else 0
        return sum(known) + repeated + most + 2

    def object(self, node: dict[str, Any]) -> int | None:
        total = 2
        for name, part in node.get("properties", {}).items():
            size = self.size(part)
            if size is None:
                return None
            total += len(json.dumps(name, ensure_ascii=False).encode()) + size + 2
        if node.get("additionalProperties", True) is not False:
            return None
        for name, part in node.get("patternProperties", {}).items():
            size = self.size(part)
            if name != _FREE_NAME or size is None or "maxProperties" not in node:
                return None
            total += (4 * _KEY + 2 + size + 2) * node["maxProperties"]
        return total


def _most(sizes: Iterable[int | None]) -> int | None:
    most = 0
    for size in sizes:
        if size is None:
            return None
        most = max(most, size)
    return most


def _parts(node: Mapping[str, Any]) -> set[str]:
    return node.keys() & set(_PARTS)


def _is_flat(node: Any) -> bool:
    """Whether a schema only asks more of a value whose limits are set elsewhere."""
    if isinstance(node, bool):
        return True
    return not _parts(node) and "$ref" not in node and all(map(_is_flat, _branches(node)))


def _is_hopeless(node: dict[str, Any]) -> bool:
    """Whether a list or an object wants a part that cannot be."""
    if node.get("type") == "array":
        return node.get("items") is False and node.get("minItems", 0) > len(node.get("prefixItems", []))
    properties = node.get("properties", {})
    return node.get("type") == "object" and any(properties.get(name) is False for name in node.get("required", []))


def _branches(node: Mapping[str, Any]) -> list[Any]:
    return [part for key in ("anyOf", "oneOf", "allOf") for part in node.get(key, [])]


def _reach(whole: dict[str, Any], to: str) -> set[str]:
    """The references that may be followed on the way through a schema."""
    found: set[str] = set()
    nodes = [_resolve(whole, to)]
    while nodes:
        node = nodes.pop()
        if not isinstance(node, dict):
            continue
        reference = node.get("$ref")
        if reference is not None and reference not in found:
            found.add(reference)
            nodes.append(_resolve(whole, reference))
        nodes += _branches(node)
        for key in _parts(node):
            part = node[key]
            if key in ("properties", "patternProperties"):
                nodes += part.values()
            else:
                nodes += part if isinstance(part, list) else [part]
    return found


def _resolve(whole: dict[str, Any], to: str) -> Any:
    node: Any = whole
    for key in unquote(to[1:]).split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        node = node[int(key)] if isinstance(node, list) else node[key]
    return node


def _check_one_of(whole: dict[str, Any]) -> None:
    """Narrower branches may part where the wider ones met, so the library judges them as they were written."""
    text = json.dumps(whole)
    if '"oneOf"' not in text:
        return
    grammar = llguidance.LLMatcher.grammar_from_json_schema(text)
    if "oneOf" in llguidance.LLMatcher.validate_grammar(
        grammar, limits=llguidance.LLParserLimits(verbose_errors=False)
    ):
        raise InputError(
            "JSON Schema keyword 'oneOf' cannot be enforced where more than one branch may match: use 'anyOf'"
        )
