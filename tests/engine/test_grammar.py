"""Under a grammar any model, even one that talks at random, gives a valid answer; what cannot be held to is refused."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

import lapilli
from lapilli import InputError
from lapilli.engine.grammar import Constraint, GrammarCompiler, Matcher
from lapilli.inputs.tokenizer import Tokenizer

MINI = Path(lapilli.__file__).parent / "models" / "mini"
SPARE = 40  # rows of scores that no token belongs to


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(MINI)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size + SPARE)


def blank_tokenizer() -> Tokenizer:
    """A vocabulary as sentencepiece makes them: a blank before the text that decoding drops, bytes as a last resort."""
    words = ["<unk>", "<s>", "</s>", "<image>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", *"abceinosyz0123456789,:", '"', "{", "}", "[", "]", "▁yes", "▁no", "▁{", "ye", "▁▁", "▁y"]
    blank = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    document = {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": words[index], "special": index < 3, "normalized": False,
             "single_word": False, "lstrip": False, "rstrip": False}
            for index in range(4)
        ],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, blank]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": {word: index for index, word in enumerate(words)}, "merges": [["▁", "y"]],
                  "unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True},
    }  # fmt: skip
    return Tokenizer.from_json(json.dumps(document), config={"eos_token": "</s>", "unk_token": "<unk>"})


def walk(matcher: Matcher, tokenizer: Tokenizer, seed: int, *, most: int = 250) -> list[int] | None:
    """The tokens of an answer drawn at random from what the mask allows, without its end; None for one past `most`."""
    chance = random.Random(seed)
    tokens: list[int] = []
    while len(tokens) < most:
        allowed = np.flatnonzero(matcher.mask()).tolist()
        ends = [token for token in allowed if token in tokenizer.eos_ids]
        assert allowed, f"nothing may follow {tokens}"
        assert matcher.finished == (len(allowed) == len(ends))
        # Letters and digits alone would wander; one time in three the answer closes what it can.
        closing = [token for token in allowed if tokenizer.token_bytes(token)[:1] in (b'"', b"]", b"}")]
        token = chance.choice(ends or closing or allowed) if chance.random() < 1 / 3 else chance.choice(allowed)
        matcher.accept(token)
        if token in ends:
            return tokens
        tokens.append(token)
    return None


def answers(constraint: Constraint, compiler: GrammarCompiler, tokenizer: Tokenizer, *, walks: int = 6) -> list[str]:
    """The finished ones of a few random answers, in whole characters, or the test fails."""
    found = [walk(compiler.matcher(constraint), tokenizer, seed) for seed in range(walks)]
    return [b"".join(map(tokenizer.token_bytes, tokens)).decode() for tokens in found if tokens is not None]


def accepts(constraint: Constraint, text: str, compiler: GrammarCompiler, tokenizer: Tokenizer) -> bool:
    """Whether this text is an answer."""
    tokens = [*tokenizer.encode(text), *tokenizer.eos_ids]
    return compiler.matcher(constraint).allows(tokens) == len(tokens)


PEOPLE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"type": "boolean"}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
            "required": ["v", "next"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS: list[Any] = [
    PEOPLE,
    TREE,
    True,
    {},
    {"title": "a title", "description": "d", "default": 3, "examples": [4], "x-mine": 5, "type": "integer"},
    {"type": "null"},
    {"type": "boolean"},
    {"type": ["integer", "null"]},
    {"const": {"a": [1, 2.5, None, "ü\n\"\\"]}},
    {"enum": [1, "1", None, True, [1], {"a": "b"}, -0.5]},
    {"type": "string", "enum": ["a", "ab", "abc"]},
    {"type": "string", "maxLength": 3},
    {"type": "string", "minLength": 4, "maxLength": 5},
    {"type": "string", "pattern": "^[a-z]{2,4}-\\d+$", "maxLength": 9},
    {"type": "string", "pattern": "^[äöü😀日本]{3}$"},
    {"type": "string", "pattern": "x.y", "maxLength": 6},
    {"type": "string", "pattern": "^\\w-\\s\\S\\d$", "maxLength": 5},
    *({"type": "string", "format": name} for name in ("date", "date-time", "time", "duration", "email")),
    *({"type": "string", "format": name} for name in ("hostname", "ipv4", "ipv6", "uuid", "uri")),
    {"type": "string", "format": "date", "pattern": "^20.*-02-29$"},
    {"type": "integer", "minimum": -5, "maximum": 17},
    {"type": "integer", "exclusiveMinimum": 99, "exclusiveMaximum": 1001},
    {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 1000},
    {"type": "number", "minimum": -1.5, "maximum": 2.25},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 3},
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "null"}], "items": False, "minItems": 1},
    {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {"const": 0}, "maxItems": 2},
                                "maxItems": 2}, "maxItems": 2},
    {"type": "array", "uniqueItems": False, "maxItems": 1},
    {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
    {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "minProperties": 1,
     "additionalProperties": False},
    {"type": "object", "patternProperties": {"^[ab]$": {"type": "boolean"}}, "additionalProperties": False},
    {"type": "object", "required": ["later", "sooner"], "properties": {"sooner": {"const": 1}}, "maxProperties": 2},
    {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "integer", "minimum": 5}]},
    {"oneOf": [{"type": "string", "maxLength": 2}, {"type": "integer"}]},
    {"oneOf": [
        {"type": "object", "properties": {"k": {"const": "a"}, "x": {"type": "integer"}}, "required": ["k", "x"]},
        {"type": "object", "properties": {"k": {"const": "b"}, "y": {"type": "null"}}, "required": ["k", "y"]}]},
    {"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 4}, {"pattern": "^[xyz]*$"}]},
    {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "additionalProperties": False,
     "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {"$defs": {"short": {"type": "string"}}, "$ref": "#/$defs/short", "maxLength": 2},
    {"definitions": {"a/b": {"const": "ok"}}, "type": "array", "items": {"$ref": "#/definitions/a~1b"}, "maxItems": 2},
    {"properties": {"a": {"const": 1}, "b": {"$ref": "#/properties/a"}}, "type": "object", "required": ["b"]},
    {"type": "object", "properties": {"ключ": {"const": "значение"}, 'q"\\\n': {"const": 2}},
     "required": ["ключ", 'q"\\\n']},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "minItems": 2,
     "items": [{"const": 1}, {"const": 2}], "additionalItems": False},
    {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 3, "maximum": 6,
     "exclusiveMinimum": True, "exclusiveMaximum": True},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_random_answers_are_valid(schema: Any, compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    found = answers(Constraint.json_schema(schema), compiler, tokenizer)
    assert found
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    exact = "multipleOf" in json.dumps(schema)
    for text in found:
        value = json.loads(text, parse_float=Decimal if exact else float)
        written = json.loads(json.dumps(schema), parse_float=Decimal if exact else float)
        kind(written, format_checker=kind.FORMAT_CHECKER).validate(value)
        assert not re.search(r'[^"\w]\s|\s$', re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)), "JSON is compact"


def test_any_json_is_an_object(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    found = answers(Constraint.json(), compiler, tokenizer, walks=20)
    assert found
    assert all(isinstance(json.loads(text), dict) for text in found)
    nested = '{"a":{"b":[1.5,-2e3,true,null,"ü\\n",{}]}}'
    assert accepts(Constraint.json(), nested, compiler, tokenizer)
    assert not accepts(Constraint.json(), '{"a":' * 200 + "1" + "}" * 200, compiler, tokenizer)


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        ({"type": "string", "maxLength": 3}, ['"日本語"', '"😀😀😀"', '"\\n\\"\\\\"'], ['"日本語x"', '"abcd"']),
        ({"type": "string", "minLength": 3}, ['"日本語"'], ['"日本"', '"äö"']),
        ({"type": "string", "format": "date"}, ['"2024-02-29"', '"2000-02-29"'], ['"2023-02-29"', '"1900-02-29"']),
        ({"format": "date-time"}, ['"2024-02-29T23:59:59Z"', "1"], ['"2023-02-29T00:00:00Z"']),
        ({"type": "string", "format": "time"}, ['"00:00:59Z"'], ['"00:00:60Z"', '"24:00:00Z"']),
        ({"type": "string", "pattern": "^[[]x$"}, ['"[x"'], ['"x"']),
        ({"type": "string", "pattern": "^[a&&b]$"}, ['"&"', '"a"'], ['"c"']),
        ({"type": "string", "pattern": "^\\d$"}, ['"3"'], ['"٣"']),
        ({"type": "string", "pattern": "b"}, ['"abc"'], ['"ac"']),
        # A name that is listed cannot come a second time as a free one, however it is spelt.
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, ['{"a":1,"b":"x"}'], ['{"a":1,"a":"x"}']),
        ({"type": "object", "properties": {"\n": {"type": "integer"}}}, ['{"\\n":1}'], ['{"\\u000a":"x"}']),
        ({"type": "object", "patternProperties": {"^a": {"type": "null"}}}, ['{"ab":null,"b":1}'], ['{"ab":1}']),
        ({"type": "object", "x-guidance": {"whitespace_flexible": True}}, ["{}"], ["{ }", '{"a": 1}']),
        ({"type": "integer"}, ["0", "-7"], ["01", "1.0", "+1", "1 "]),
    ],
)
def test_answers_that_pass_and_that_do_not(
    schema: Any, yes: list[str], no: list[str], compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = Constraint.json_schema(json.dumps(schema))
    assert {text: accepts(constraint, text, compiler, tokenizer) for text in yes + no} == {
        **dict.fromkeys(yes, True),
        **dict.fromkeys(no, False),
    }


DEEP: dict[str, Any] = {"type": "null"}
for _ in range(100):
    DEEP = {"type": "array", "items": DEEP}
ROUND: dict[str, Any] = {"type": "array"}
ROUND["items"] = ROUND


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": {"x": {"uniqueItems": True}}}, "'uniqueItems' cannot be enforced at /properties/x: remove it"),
        ({"items": {"if": {}, "then": {}}}, "'if' cannot be enforced at /items"),
        ({"then": {}}, "'then'"),
        ({"not": {"type": "null"}}, "'not' cannot be enforced at /: list what is allowed"),
        ({"dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
        ({"dependentSchemas": {}}, "'dependentSchemas'"),
        ({"dependencies": {}}, "'dependencies'"),
        ({"contains": {}}, "'contains'"),
        ({"minContains": 2}, "'minContains'"),
        ({"propertyNames": {"maxLength": 3}}, "'propertyNames' cannot be enforced at /: use patternProperties"),
        ({"unevaluatedProperties": False}, "'unevaluatedProperties'"),
        ({"unevaluatedItems": False}, "'unevaluatedItems'"),
        ({"$dynamicRef": "#a"}, "'$dynamicRef'"),
        ({"$recursiveRef": "#"}, "'$recursiveRef'"),
        ({"nullable": True}, "'nullable' cannot be enforced at /: say"),
        ({"maxlength": 3}, "did you mean 'maxLength'?"),
        ({"divisibleBy": 3}, "'divisibleBy'"),
        ({"properties": {"x": {"$id": "http://a/b"}}}, "'$id' cannot be enforced at /properties/x"),
        ({"$defs": {"unused": {"extends": {}}}}, "'extends' cannot be enforced at /$defs/unused"),
        ({"type": "string", "format": "iri"}, "format 'iri' cannot be enforced"),
        ({"type": "integer", "format": "int32"}, "format 'int32'"),
        ({"format": "unknown"}, "format 'unknown'"),
        ({"format": ["date"]}, "format ['date']"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "'oneOf' cannot be enforced where more than one"),
        ({"type": "object", "minProperties": 2}, "'minProperties' cannot be enforced at / beyond 1"),
        ({"minProperties": 1, "properties": {str(n): True for n in range(99)}}, "99 optional"),
        ({"type": "object", "properties": {"a": {}}, "maxProperties": 1}, "maxProperties"),
        ({"patternProperties": {"a": {}, "b": {}}}, "not disjoint"),
        ({"$ref": "http://example.com/s.json"}, "never fetched"),
        ({"$ref": "file:///etc/passwd"}, "never fetched"),
        ({"$ref": "#/$defs/absent"}, "points at no schema"),
        ({"$ref": "#/title", "title": {"x": 1}}, "points at no schema"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "nothing satisfies"),
        ({"type": "string", "pattern": "^(?=a)"}, "pars"),
        ({"type": "string", "pattern": "(a)\\1"}, "pars"),
        ({"type": "string", "pattern": "\\bfoo"}, "lookarounds"),
        ({"type": "string", "pattern": "("}, "pars"),
        ({"type": "string", "pattern": 3}, "no text but int"),
        ({"type": "strin"}, "strin"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "greater than maxLength"),
        ({"enum": []}, "empty"),
        (False, "false"),
        ({"required": "a"}, "'required' at / is a list"),
        ({"minimum": "3"}, "'minimum' at / is a number"),
        ({"minimum": float("nan")}, "'minimum' at / is a number"),
        ({"maximum": 2**60}, "2^53"),
        ({"const": 10**30}, "2^53"),
        ({"const": {1, 2}}, "no JSON but set"),
        ({"items": 3}, "an object or a boolean, not int, at /items"),
        ({"properties": [1]}, "an object of schemas at /properties"),
        ("{", "no JSON"),
        ("[]", "an object or a boolean, not list"),
        ({3: 4}, "is text, not int"),
        # Hostile sizes: refused before anything grows.
        (DEEP, "nested more than 64"),
        (ROUND, "nested more than 64"),
        ('{"items":' * 5000 + "{}" + "}" * 5000, "no JSON"),
        ({"const": [[[[[[[[[[]]]]]]]]]] * 2000}, "too many or too deep"),
        ({"type": "string", "maxLength": 10**9}, "from 0 to 1000000"),
        ({"type": "array", "maxItems": -1}, "from 0 to 1000000"),
        ({"type": "string", "minLength": True}, "from 0 to 1000000"),
        ({"anyOf": [{"const": n} for n in range(6000)]}, "more than 5000 parts"),
        ({"properties": {str(n): True for n in range(1001)}}, "1000 are the most"),
        ({"enum": list(range(10_001))}, "10000 values"),
        (" " * 300_000, "262144 bytes"),
        ({"const": "x" * 300_000}, "262144 are the most"),
        ({"type": "integer", "multipleOf": 9_999_991}, "10000 is the most"),
        ({"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}, "10000 is the most"),
        ({"type": "number", "multipleOf": 1e-300}, "1e-9 to 1e15"),
        ({"type": "integer", "multipleOf": 0}, "1e-9 to 1e15"),
        ({"type": "string", "pattern": "^(a{1000}){1000}$"}, "use smaller counts"),
        ({"type": "string", "pattern": "(" * 500 + ")" * 500}, "use smaller counts"),
        ({"allOf": [{"anyOf": [{"required": [f"{n}{m}"]} for m in range(3)]} for n in range(30)]}, "too large"),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_refused(schema: Any, said: str, compiler: GrammarCompiler) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as error:
        compiler.matcher(Constraint.json_schema(schema))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_choices_of_which_one_begins_another(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    options = ["yes", "yes please", "no", "née.*", "a/b\nc\\", "", "[x]{2} #~&"]
    found = answers(Constraint.choice(options), compiler, tokenizer, walks=60)
    assert set(found) == set(options)
    assert not accepts(Constraint.choice(options), "yes pleas", compiler, tokenizer)
    with pytest.raises(InputError, match="at least one text"):
        Constraint.choice([])
    with pytest.raises(InputError, match=r"U\+D800"):
        Constraint.choice(["\ud800"])


@pytest.mark.parametrize(
    "pattern", [r"\d{4}-\d{2}", "[äöü😀]{1,5}", "^(?:ja|nein)$", r"a/b|\p{Greek}{3}", "日本語?", "x{0,3}"]
)
def test_patterns_hold_for_the_whole_answer(pattern: str, compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    found = answers(Constraint.regex(pattern), compiler, tokenizer, walks=12)
    assert found
    plain = pattern.replace(r"\p{Greek}", "[\u0370-\u03ff\u1f00-\u1fff\U00010140-\U000101a0\u1d26-\u1dbf\u2126\uab65]")
    assert all(re.fullmatch(plain, text) for text in found)


def test_a_pattern_that_is_none_is_refused_in_one_line(compiler: GrammarCompiler) -> None:
    for pattern in ("(", "[a", "(?=a)b", "a{2,1}", "(a{999}){999}"):
        with pytest.raises(InputError, match="pattern") as error:
            compiler.matcher(Constraint.regex(pattern))
        assert "\n" not in str(error.value)


def test_a_grammar_of_ones_own(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    sums = Constraint.lark('start: /[0-9]/ ("+" /[0-9]/)~1..3')
    assert all(re.fullmatch(r"\d(\+\d){1,3}", text) for text in answers(sums, compiler, tokenizer))
    with pytest.raises(InputError, match="the grammar cannot be enforced"):
        compiler.matcher(Constraint.lark("start: absent"))


def test_special_tokens_are_never_allowed(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    anything = compiler.matcher(Constraint.regex("(?s:.*)"))
    mask_V = anything.mask()
    assert mask_V.shape == (tokenizer.vocab_size + SPARE,)
    special = set(tokenizer.special_tokens.values())
    allowed = set(np.flatnonzero(mask_V).tolist())
    assert special & allowed == tokenizer.eos_ids
    assert not mask_V[tokenizer.vocab_size :].any()
    for token in (*(special - tokenizer.eos_ids), tokenizer.vocab_size, -1, 10**9):
        assert anything.allows([token]) == 0
        with pytest.raises(InputError, match="cannot come next"):
            anything.accept(token)
    assert anything.mask().tolist() == mask_V.tolist()


def test_half_a_character_cannot_be_left(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.matcher(Constraint.regex("(?s:.*)"))
    first, *rest = tokenizer.encode("𓀀")
    assert rest, "this test wants a character of several tokens"
    matcher.accept(first)
    allowed = np.flatnonzero(matcher.mask()).tolist()
    assert not tokenizer.eos_ids & set(allowed)
    assert all(0x80 <= tokenizer.token_bytes(token)[0] < 0xC0 for token in allowed)


@pytest.mark.parametrize(
    "schema", [PEOPLE, TREE, {"const": {"a": "längerer Text", "b": [1, 2]}}, {"enum": ["aaab", "aaac"]}]
)
def test_what_is_forced_is_what_the_mask_leaves(schema: Any, compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.matcher(Constraint.json_schema(schema))
    chance = random.Random(5)
    skipped = 0
    while not matcher.finished and skipped < 200:
        forced = matcher.forced()
        text = b"".join(map(tokenizer.token_bytes, forced))
        assert matcher.allows(forced) == len(forced)
        for token in forced:
            allowed = np.flatnonzero(matcher.mask()).tolist()
            assert token in allowed
            # Whatever token is taken instead, it writes the same text.
            for other in allowed:
                piece = tokenizer.token_bytes(other)
                assert piece.startswith(text) or text.startswith(piece)
            matcher.accept(token)
            text = text[len(tokenizer.token_bytes(token)) :]
            skipped += 1
        if not matcher.finished:
            matcher.accept(chance.choice(sorted(set(np.flatnonzero(matcher.mask()).tolist()) - tokenizer.eos_ids)))
    assert skipped
    assert matcher.finished
    assert matcher.forced() == []


def test_drafts_are_judged_and_nothing_moves(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.matcher(Constraint.json_schema(PEOPLE))
    (end,) = tokenizer.eos_ids
    whole = tokenizer.encode('{"name":"Ann","age":40}')
    before = matcher.mask().tolist()
    assert matcher.allows([*whole, end]) == len(whole) + 1
    assert matcher.allows([*whole, end, end]) == len(whole) + 1
    assert matcher.allows([*whole, whole[0]]) == len(whole)
    assert matcher.allows([*whole[:3], end]) == 3
    assert matcher.allows([]) == matcher.allows([end]) == 0
    assert matcher.mask().tolist() == before
    for token in [*whole, end]:
        matcher.accept(token)
    assert matcher.finished
    with pytest.raises(InputError, match="cannot come next"):
        matcher.accept(whole[0])
    matcher.rollback(len(whole) + 1)
    assert not matcher.finished
    assert matcher.mask().tolist() == before


def test_copies_go_their_own_ways(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.matcher(Constraint.choice(["one", "two"]))
    other = matcher.copy()
    for token in tokenizer.encode("one"):
        matcher.accept(token)
    assert matcher.finished
    assert not other.finished
    assert other.allows(tokenizer.encode("two")) == len(tokenizer.encode("two"))
    assert compiler.matcher(Constraint.choice(["one", "two"])).allows(tokenizer.encode("two")) > 0


def test_scores_are_masked_where_they_lie(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.matcher(Constraint.choice(["yes", "no"]))
    scores_V = torch.randn(tokenizer.vocab_size + SPARE)
    masked_V = matcher.apply(scores_V)
    mask_V = torch.from_numpy(matcher.mask())
    assert torch.equal(masked_V[mask_V], scores_V[mask_V])
    assert masked_V[~mask_V].isneginf().all()
    assert tokenizer.decode([int(masked_V.argmax())])[0] in "yn"


def test_answers_in_several_threads(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    alone = [walk(compiler.matcher(Constraint.json_schema(PEOPLE)), tokenizer, seed) for seed in range(8)]
    together: list[Any] = [None] * 8

    def one(seed: int) -> None:
        together[seed] = walk(compiler.matcher(Constraint.json_schema(PEOPLE)), tokenizer, seed)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


@pytest.mark.parametrize(
    ("constraint", "yes", "no"),
    [
        (Constraint.choice(["yes", "no", " nay", "a/b\nc"]), ["yes", " nay", "no", "a/b\nc"], ["yes ", "nay", " yes"]),
        (Constraint.regex(r" ?[ab]/\d"), ["a/1", " a/1"], ["  a/1", "a"]),
        (Constraint.json_schema({"type": "object"}), ['{"a":1}', "{}"], [" {}", '{ "a":1}']),
    ],
)
def test_a_first_blank_that_decoding_drops_is_no_part_of_the_answer(
    constraint: Constraint, yes: Sequence[str], no: Sequence[str]
) -> None:
    tokenizer = blank_tokenizer()
    assert tokenizer.strips_blank
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size)
    assert {text for text in (*yes, *no) if accepts(constraint, text, compiler, tokenizer)} == set(yes)
    for seed in range(20):
        tokens = walk(compiler.matcher(constraint), tokenizer, seed)
        if tokens is not None and constraint.kind == "regex" and "yes" in constraint.text:
            assert tokenizer.decode(tokens) in yes
    mask_V = compiler.matcher(Constraint.regex("(?s:.*)")).mask()
    image = tokenizer.token_id("<image>")
    assert not mask_V[image], "a placeholder is no text even where the file does not call it special"


def test_what_is_forced_is_cut_as_the_tokenizer_cuts_it() -> None:
    tokenizer = blank_tokenizer()  # it puts a blank before any text, and never makes its longest token, "ye"
    matcher = GrammarCompiler(tokenizer, tokenizer.vocab_size).matcher(Constraint.choice(["yyes"]))
    letters = tokenizer.encode("oyyes")[-4:]
    matcher.accept(letters[0])
    assert matcher.forced() == letters[1:]
