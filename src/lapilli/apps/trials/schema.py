"""The record: one row for each trial and intervention, as types, as JSON Schema, and as a line of text.

Every string and list has a longest length, so that a record's size is bounded whatever a file or a model says.
`docs/trials.md` is its data dictionary, `docs/trial-record.schema.json` is `record_schema()` written down.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lapilli.apps.trials.trial import ROLES, TYPES, Trial
from lapilli.apps.trials.vocabulary import Alignment, Basis, InterventionType, Origin, Role, Status

SCHEMA_VERSION = "1"
LIST = "interventions"

Name = Annotated[str, Field(min_length=1, max_length=400)]
Short = Annotated[str, Field(max_length=400)]
Prose = Annotated[str, Field(max_length=2000)]
Id = Annotated[str, Field(min_length=1, max_length=200)]
Digest = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Dosage(_Part):
    """How much: the words of the text, and what they say as numbers (`value` to `value_max`, in `unit`, `per`)."""

    text: Prose
    value: float | None = None
    value_max: float | None = None
    unit: Short | None = None
    per: Short | None = None
    strength: Short | None = None


class Administration(_Part):
    """How it is given: the words of the text."""

    text: Prose = ""
    route: Short | None = None
    form: Short | None = None
    frequency: Short | None = None
    duration: Short | None = None
    timing: Short | None = None


class Code(_Part):
    """A term of a vocabulary, and how sure it is."""

    system: Short
    code: Id
    label: Short = ""
    score: Share | None = None


class Evidence(_Part):
    """Where a value stands: `fields[field][start:end] == quote`. With alignment "none" it stands nowhere.

    `value` says which of the record's values it is about: name, dosage, route, frequency, …
    """

    value: Short
    field: Short
    start: Count
    end: Count
    quote: Prose
    alignment: Alignment

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.end - self.start != len(self.quote) or (self.alignment == "none") != (self.quote == ""):
            raise ValueError(
                f"evidence for {self.value} from {self.start} to {self.end} has {len(self.quote)} characters"
            )
        return self


class Failure(_Part):
    """Why a trial has no interventions, or not all."""

    code: Short
    message: Prose


class Provenance(_Part):
    """What made a record of what. `extracted_at` is empty unless a run was given a time: bytes depend on no clock."""

    model: Short = ""
    model_digest: Short = ""
    prompt_hash: Short = ""
    schema_version: Short = SCHEMA_VERSION
    run_id: Short = ""
    source_file: Prose = ""
    source_position: Count = 0
    source_sha256: Digest = ""
    extracted_at: Short = ""


class Intervention(_Part):
    """One thing that a trial gives or does to people.

    `is_new` is whether it is what the trial tests, not whether it is approved somewhere; None where nothing tells, and
    `is_new_basis` says what told. `origin` is who said it: the register's own field, a model, or rules.
    """

    name: Name | None
    name_normalized: Short | None = None
    synonyms: tuple[Short, ...] = Field(default=(), max_length=64)
    type: InterventionType | None = None
    role: Role | None = None
    is_new: bool | None = None
    is_new_basis: Basis = "not_stated"
    arm_labels: tuple[Short, ...] = Field(default=(), max_length=64)
    conditions: tuple[Short, ...] = Field(default=(), max_length=64)
    dosage: Dosage | None = None
    administration: Administration | None = None
    codes: tuple[Code, ...] = Field(default=(), max_length=64)
    combination_of: tuple[Short, ...] = Field(default=(), max_length=64)
    evidence: tuple[Evidence, ...] = Field(default=(), max_length=64)
    confidence: Share | None = None
    origin: Origin = ""


class Record(Intervention):
    """One row: a trial and one of its interventions.

    A trial without interventions has one record, of status "none" or "failed", whose `name` is None. `status` is
    "partial" where the trial's interventions are not all there.
    """

    trial_ids: tuple[Id, ...] = Field(max_length=64)
    primary_trial_id: Annotated[str, Field(max_length=200)]
    source_register: Short
    intervention_index: Count = 0
    status: Status
    error: Failure | None = None
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.name is None) != (self.status in ("none", "failed")):
            raise ValueError(f"a record of status {self.status} with the name {self.name!r}")
        if self.status == "failed" and self.error is None:
            raise ValueError("a failed record without its error")
        return self

    def to_json(self) -> dict[str, Any]:
        """As a JSON value: every key is there, None where there is nothing."""
        return self.model_dump(mode="json")

    def to_line(self) -> str:
        """The one way to write it: keys sorted, no blanks, characters as they are."""
        return json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def record_of(
    trial: Trial,
    found: Intervention,
    index: int = 0,
    *,
    status: Literal["ok", "partial"] = "ok",
    error: Failure | None = None,
    provenance: Provenance | None = None,
) -> Record:
    """The record of a trial's `index`-th intervention. Conditions are the trial's where the intervention has none."""
    values = {name: getattr(found, name) for name in Intervention.model_fields}
    values["conditions"] = found.conditions or conditions_of(trial)
    return Record(**values, **_head(trial, provenance), intervention_index=index, status=status, error=error)


def nothing(trial: Trial, *, provenance: Provenance | None = None) -> Record:
    """The record of a trial in which no intervention is named."""
    return Record(name=None, conditions=conditions_of(trial), **_head(trial, provenance), status="none")


def failure(trial: Trial, code: str, message: str, *, provenance: Provenance | None = None) -> Record:
    """The record of a trial that could not be read out, and why. Always valid."""
    error = Failure(code=_cut(code, 400), message=_cut(message, 2000))
    return Record(name=None, conditions=conditions_of(trial), **_head(trial, provenance), status="failed", error=error)


def conditions_of(trial: Trial) -> tuple[str, ...]:
    """The conditions that a trial's field lists, each once, cut to what a record holds."""
    parts = trial.fields.get("conditions", "").replace("\n", ";").split(";")
    kept = dict.fromkeys(_cut(part.strip(), 400) for part in parts)
    return tuple(part for part in kept if part)[:64]


def record_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a record as it is written."""
    schema = Record.model_json_schema(mode="serialization")
    schema.pop("title", None)
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One intervention of a clinical trial",
        "version": SCHEMA_VERSION,
    }
    return {**about, **schema}


def model_schema(*, most: int = 8, longest: int = 120, names: Sequence[str] = ()) -> dict[str, Any]:
    """The schema that a model is asked under: small, flat, and bounded in every string and list.

    With `names` an intervention can only be one of them: what the register states is not asked. Keys stand in the order
    in which they are written; all but name, type and role may be left out.
    """
    text = {"type": "string", "minLength": 1, "maxLength": longest}
    name: Mapping[str, Any] = {"enum": list(dict.fromkeys(names))} if names else text
    properties = {
        "name": name,
        "type": {"enum": list(TYPES)},
        "role": {"enum": list(ROLES)},
        "dose": text,
        "route": text,
        "frequency": text,
        "duration": text,
    }
    item = {
        "type": "object",
        "properties": properties,
        "required": ["name", "type", "role"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {LIST: {"type": "array", "maxItems": most, "items": item}},
        "required": [LIST],
        "additionalProperties": False,
    }


def _head(trial: Trial, provenance: Provenance | None) -> dict[str, Any]:
    ids = tuple(dict.fromkeys(_cut(each, 200) for each in trial.ids if each))[:64]
    given = provenance or Provenance()
    source = {
        "source_file": _cut(trial.file, 2000),
        "source_position": trial.position,
        "source_sha256": trial.digest,
    }
    return {
        "trial_ids": ids,
        "primary_trial_id": ids[0] if ids else "",
        "source_register": _cut(trial.register, 400),
        "provenance": given.model_copy(update=source),
    }


def _cut(text: str, most: int) -> str:
    """At most so many characters, and none that cannot be written down."""
    return text.encode("utf-8", "replace").decode()[:most]
