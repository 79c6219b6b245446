"""A bounded schema's answers end, whatever writes them, and satisfy the schema it was made from."""

from __future__ import annotations

import copy
import json
import random
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import lapilli
from lapilli import InputError
from lapilli.engine.bounds import bounded, longest
from lapilli.engine.grammar import Constraint, GrammarCompiler
from lapilli.inputs.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(Path(lapilli.__file__).parent / "models" / "mini")


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size)


NODE = {"type": "object", "properties": {"v": {"type": "string"}, "kids": {"items": {"$ref": "#/$defs/node"}}}}
NODE["properties"]["kids"] |= {"type": "array"}
SCHEMAS: list[Any] = [
    True,
    {"type": "string"},
    {"type": "number"},
    {"type": "integer", "minimum": 3},
    {"type": "number", "exclusiveMaximum": -0.5},
    {"type": ["string", "array", "null"]},
    {"type": "object"},
    {"type": "array"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 5},
    {"type": "array", "prefixItems": [{"type": "string"}, True]},
    {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
    {"type": "array", "items": [{"type": "string"}, {"type": "integer"}], "additionalItems": {"type": "null"}},
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}}, "required": ["b", "c"]},
    {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string", "maxLength": 2}}},
    {"type": "object", "required": ["z"], "additionalProperties": {"type": "boolean"}},
    {"$ref": "#/$defs/l", "$defs": {"l": {"type": "object", "properties": {"next": {"anyOf": [
        {"type": "null"}, {"$ref": "#/$defs/l"}]}}, "required": ["next"]}}},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "email"},
    {"format": "date"},
    {"type": "string", "pattern": "^a+$"},
    {"enum": ["a", 1, {"b": [2]}]},
    {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"x": {"type": "boolean"}}}]},
    {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
    {"type": "object", "properties": {"self": {"$ref": "#"}, "v": {"type": "null"}}},
    {"allOf": [{"$ref": "#/$defs/name"}], "maxLength": 5, "$defs": {"name": {"type": "string", "minLength": 2}}},
    {"allOf": [{"minLength": 2}, {"type": "string"}]},
    {"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_any_answer_ends_and_is_valid(schema: Any, compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    before = copy.deepcopy(schema)
    narrow = bounded(schema, max_string=6, max_items=2, max_depth=2)
    assert schema == before
    most = longest(narrow)
    judge = jsonschema.Draft7Validator if "additionalItems" in str(schema) else jsonschema.Draft202012Validator
    for seed in range(6):
        chance = random.Random(seed)
        matcher = compiler.matcher(Constraint.json_schema(narrow))
        written = b""
        while not matcher.finished:
            # Letters and digits first, ends last: as far as any model could wander.
            allowed = np.flatnonzero(matcher.mask()).tolist()
            going = [token for token in allowed if tokenizer.token_bytes(token)[:1] not in (b"", b'"', b"]", b"}")]
            token = chance.choice(going or [token for token in allowed if token not in tokenizer.eos_ids] or allowed)
            matcher.accept(token)
            written += tokenizer.token_bytes(token)
            assert len(written) <= most
        value = json.loads(written.decode(), parse_float=Decimal)
        judge(json.loads(json.dumps(schema)), format_checker=judge.FORMAT_CHECKER).validate(value)


def test_what_has_a_limit_keeps_it() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "maxLength": 5000},
            "b": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 700},
            "c": {"enum": ["x"]},
        },
        "additionalProperties": False,
    }
    assert bounded(schema) == schema
    assert 20_000 < longest(schema) < 50_000


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "object", "patternProperties": {"^a": True}}, "'patternProperties' cannot be bounded at /"),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": {}}, "beside listed properties"),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, "write them as one schema"),
        ({"type": "object", "$ref": "#/$defs/a", "$defs": {"a": {}}}, "write them as one schema"),
        ({"oneOf": [{"properties": {"a": {}}}, {"required": ["b"]}]}, "'oneOf' cannot be enforced"),
        ({"items": {"not": {}}}, "'not' cannot be enforced at /items"),
        (False, "false"),
    ],
)
def test_what_has_no_limit_is_refused(schema: Any, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        bounded(schema)


def test_a_recursion_that_must_go_on_is_refused() -> None:
    with pytest.raises(InputError, match="nothing can satisfy"):
        bounded({"anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": 1}]})
    with pytest.raises(InputError, match="nothing can satisfy"):
        bounded({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]})


@pytest.mark.parametrize(
    "schema",
    [True, {"type": "string"}, {"type": "number", "minimum": 0, "maximum": 1}, {"type": "array", "maxItems": 3},
     {"type": "object", "additionalProperties": {"type": "null"}}, {"anyOf": [{"type": "null"}, {}]},
     {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}],
)  # fmt: skip
def test_answers_without_a_limit_are_not_measured(schema: Any) -> None:
    with pytest.raises(InputError, match="sets no limit"):
        longest(schema)
