"""Answers in a given form: `mini` under 40 schemas, each answer held against its schema by an independent validator.

An answer is valid, or its length ended it and it says so; anything else is a failure, and the script ends with 1.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.resources
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
from numbers_page import Section, publish

from lapilli.engine.engine import EngineOptions, Job
from lapilli.engine.grammar import Constraint
from lapilli.engine.local import LocalModel, open_checkpoint
from lapilli.engine.sampler import SamplingOptions

MINI = Path(str(importlib.resources.files("lapilli") / "models" / "mini"))
AT_ONCE = 8
LONGEST = 256


def thing(*required: str, **properties: Any) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required or properties),
        "additionalProperties": False,
    }


def text(most: int = 20, **more: Any) -> dict[str, Any]:
    return {"type": "string", "maxLength": most, **more}


def many(items: Any, most: int = 4, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "maxItems": most, **more}


COUNT, YES = {"type": "integer", "minimum": 0, "maximum": 100}, {"type": "boolean"}
COLOUR = {"enum": ["red", "green", "blue", "yellow"]}
PLACE = thing(x={"type": "integer", "minimum": -5, "maximum": 5}, y={"type": "integer", "minimum": -5, "maximum": 5})
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {"node": thing(name=text(8), children=many({"$ref": "#/$defs/leaf"}, 3)), "leaf": thing(name=text(8))},
}
SCHEMAS: tuple[dict[str, Any], ...] = (
    thing(name=text()),
    thing(name=text(), count=COUNT),
    thing("name", name=text(), count=COUNT, big=YES),
    thing(colour=COLOUR, shape={"enum": ["circle", "square", "star"]}, place=PLACE),
    thing(words=many(text(10))),
    thing(points=many(PLACE, 3, minItems=1)),
    thing(drug=text(), dose=text(10, pattern=r"^\d{1,4} ?(mg|ml|g)$"), times=COUNT),
    thing(drugs=many(thing(name=text(15), mg={"type": "number", "minimum": 0, "maximum": 1000}), 3)),
    thing(when={"type": "string", "format": "date"}),
    thing(at={"type": "string", "format": "date-time"}),
    thing(hour={"type": "string", "format": "time"}),
    thing(id={"type": "string", "format": "uuid"}, host={"type": "string", "format": "ipv4"}),
    thing(code=text(6, pattern="^[A-Z]{3}[0-9]{3}$")),
    thing(value={"anyOf": [text(8), COUNT, {"type": "null"}]}),
    thing(value={"oneOf": [thing(kind={"const": "a"}, n=COUNT), thing(kind={"const": "b"}, s=text(5))]}),
    thing(share={"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    thing(even={"type": "integer", "multipleOf": 2, "minimum": 0, "maximum": 50}),
    thing(pair={"type": "array", "prefixItems": [COUNT, text(6)], "items": False, "minItems": 2}),
    thing(ask=text(40), answer=text(40), sure=YES),
    {"type": "object", "additionalProperties": COUNT, "minProperties": 1, "maxProperties": 3},
    {"type": "object", "patternProperties": {"^k[0-9]$": text(6)}, "additionalProperties": False, "maxProperties": 3},
    many(COUNT, 5, minItems=2),
    many(COLOUR, 4),
    many({"type": ["string", "null"], "maxLength": 6}, 3),
    COLOUR,
    {"const": {"fixed": [1, 2, {"three": None}]}},
    text(30, minLength=5),
    {"type": "integer", "minimum": -3, "maximum": 12},
    {"type": "number", "minimum": -1.5, "maximum": 1.5},
    {"type": ["boolean", "null"]},
    TREE,
    thing(a=thing(b=thing(c=thing(d=text(5))))),
    thing(matrix=many(many({"type": "integer", "minimum": 0, "maximum": 9}, 3, minItems=3), 3, minItems=3)),
    thing("title", title=text(30), year={"type": "integer", "minimum": 1900, "maximum": 2100}, tags=many(text(8), 3)),
    thing(first=text(12), last=text(12), mail={"type": "string", "format": "email", "maxLength": 40}),
    thing(**{"ключ": text(5), "with space": YES, 'quo"ted': COUNT}),
    thing(**{f"field_{n}": YES for n in range(12)}),
    thing(score={"enum": [1, 2, 3, 4, 5]}, why={"anyOf": [{"const": "good"}, {"const": "bad"}, text(12)]}),
    {"anyOf": [thing(error=text(20)), thing(result=many(COUNT, 3))]},
    {"type": "object", "properties": {"open": text(10)}, "required": ["open"], "maxProperties": 2},
)  # fmt: skip
WISHES = ("Describe a scene.", "Make something up.", "Fill in this form, please.", "What do you know about cats?")


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers of mini in 40 forms, each validated.")
    parser.add_argument("--count", type=int, default=2000, help="answers")
    parser.add_argument("--write", action="store_true")
    count = parser.parse_args().count
    model = LocalModel(open_checkpoint(MINI, device="cpu"), EngineOptions(running=AT_ONCE))
    constraints = [Constraint.json_schema(schema) for schema in SCHEMAS]
    checkers = [jsonschema.Draft202012Validator(schema, format_checker=formats()) for schema in SCHEMAS]
    prompts = [model.prompt(wish) for wish in WISHES]
    ends, bad, waiting, running = Counter[str](), list[tuple[int, str]](), list(range(count)), dict[int, Job]()
    tokens, began = 0, time.perf_counter()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number = waiting.pop()
            options = SamplingOptions(max_tokens=LONGEST, temperature=(0.0, 0.7, 1.5)[number % 3], seed=number)
            prompt = prompts[number % len(prompts)]
            running[number] = model.engine.submit(prompt, options, constraints[number % len(SCHEMAS)])
        model.engine.step()
        for number, job in list(running.items()):
            if job.error is not None:
                raise job.error
            if job.over:
                answer = next(chunk.answer for chunk in job.news if chunk.answer)
                tokens += len(answer.token_ids)
                found = verdict(answer.text, answer.finish_reason, checkers[number % len(SCHEMAS)])
                ends[found] += 1
                if found == "invalid":
                    bad.append((number % len(SCHEMAS), answer.text))
                del running[number]
    seconds = time.perf_counter() - began
    section = Section("Answers in a given form")
    section.add(
        f"{count} answers of `mini` under {len(SCHEMAS)} schemas, greedy and drawn, at most {LONGEST} tokens, held "
        f"against their schemas by jsonschema {importlib.metadata.version('jsonschema')}: "
        f"{ends['valid']} are valid, {ends['length']} were ended by their length and say so, "
        f"**{ends['invalid']}** are anything else. {tokens / seconds:.0f} tokens a second, {AT_ONCE} at a time."
    )
    publish(section)
    for schema, said in bad[:20]:
        print(f"schema {schema}: {said[:200]}", file=sys.stderr)
    sys.exit(1 if bad else 0)


def formats() -> jsonschema.FormatChecker:
    """The validator's own checks of formats, and Python's of times, which it leaves to another package."""
    checker = jsonschema.FormatChecker(["date", "email", "ipv4", "uuid"])
    checker.checks("date-time", raises=ValueError)(lambda said: bool(datetime.datetime.fromisoformat(said.upper())))
    checker.checks("time", raises=ValueError)(lambda said: datetime.time.fromisoformat(said.upper()) is not None)
    return checker


def verdict(said: str, reason: str, checker: Any) -> str:
    """valid, length, or invalid."""
    if reason == "length":
        return "length"
    try:
        value = json.loads(said)
    except ValueError:
        return "invalid"
    return "valid" if checker.is_valid(value) else "invalid"


if __name__ == "__main__":
    main()
