"""Records: always valid by somebody else's validator, one way to write them, the published schema is this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import llguidance
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lapilli.apps.trials.schema import (
    Administration,
    Dosage,
    Evidence,
    Failure,
    Intervention,
    Provenance,
    Record,
    failure,
    model_schema,
    nothing,
    record_of,
    record_schema,
)
from lapilli.apps.trials.trial import TYPES, Trial

PUBLISHED = Path(__file__).resolve().parents[3] / "docs" / "trial-record.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(record_schema())


def trial(**rest: Any) -> Trial:
    return Trial(**{"ids": ("X1", "NCT1"), "register": "made", "fields": {"conditions": "a; b;a\nc"}, **rest})


def test_the_published_schema_is_this_one() -> None:
    jsonschema.Draft202012Validator.check_schema(record_schema())
    written = json.dumps(record_schema(), indent=2, ensure_ascii=False) + "\n"
    assert PUBLISHED.read_text(encoding="utf-8") == written, "lapilli trials schema > docs/trial-record.schema.json"


def test_every_key_is_in_the_data_dictionary() -> None:
    page = (PUBLISHED.parent / "trials.md").read_text(encoding="utf-8")
    for part in (Record, Dosage, Administration, Evidence, Provenance, Failure):
        for name in part.model_fields:
            assert f"`{name}`" in page, name
    for name in TYPES:
        assert name in page


def test_a_record_is_written_one_way() -> None:
    record = record_of(trial(), Intervention(name="Lapillin 中", dosage=Dosage(text="5 mg", value=5)), 1)
    line = record.to_line()
    assert '"name":"Lapillin 中"' in line
    assert list(json.loads(line)) == sorted(Record.model_fields)
    assert Record.model_validate_json(line) == record
    assert Record.model_validate_json(line).to_line() == line
    assert (record.primary_trial_id, record.trial_ids, record.conditions) == ("X1", ("X1", "NCT1"), ("a", "b", "c"))
    assert record.provenance.source_sha256 == trial().digest


@given(st.text(), st.text(), st.text(), st.lists(st.text(max_size=500), max_size=80))
def test_a_failure_is_valid_whatever_it_tells_of(code: str, message: str, register: str, ids: list[str]) -> None:
    odd = trial(ids=tuple(ids), register=register, fields={"conditions": message * 3}, file=message * 100)
    for record in (failure(odd, code, message * 50), nothing(odd)):
        VALIDATOR.validate(json.loads(record.to_line()))
        assert record.name is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "Medicine"}, {"name": ""}, {"name": "x" * 401}, {"status": "failed"}, {"status": "none"},
        {"role": "main"}, {"confidence": 1.5}, {"more": 1}, {"conditions": ["x"] * 65},
        {"evidence": [{"value": "name", "field": "f", "start": 0, "end": 3, "quote": "x", "alignment": "exact"}]},
        {"evidence": [{"value": "name", "field": "", "start": 0, "end": 0, "quote": "", "alignment": "exact"}]},
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(wrong: dict[str, Any]) -> None:
    right = record_of(trial(), Intervention(name="Lapillin", type="Drug")).to_json()
    Record.model_validate(right)
    with pytest.raises(ValidationError):
        Record.model_validate({**right, **wrong})


def test_what_a_model_is_asked_under_is_bounded_and_known_to_the_grammar() -> None:
    schema = model_schema(most=3, longest=40)
    assert llguidance.LLMatcher.validate_grammar(llguidance.LLMatcher.grammar_from_json_schema(schema)) == ""
    check = jsonschema.Draft202012Validator(schema).is_valid
    one = {"name": "Lapillin", "type": "Drug", "role": "experimental"}
    assert check({"interventions": [one, {**one, "dose": "5 mg"}]})
    assert check({"interventions": []})
    assert not check({"interventions": [one] * 4})
    assert not check({"interventions": [{**one, "name": "x" * 41}]})
    assert not check({"interventions": [{**one, "colour": "red"}]})
    named = jsonschema.Draft202012Validator(model_schema(names=["Lapillin", "Placebo"])).is_valid
    assert named({"interventions": [one]})
    assert not named({"interventions": [{**one, "name": "Basaltumab"}]})
