"""Records as tables: one column for each value, or the few keys of the article that began it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from lapilli.apps.jobs import export as rows_out
from lapilli.apps.jobs.columns import Columns, canonical
from lapilli.errors import InputError

PROFILES = ("records", "article")

FLAT: Columns = {
    "trial_ids": "json", "primary_trial_id": "text", "source_register": "text", "intervention_index": "int",
    "name": "text", "name_normalized": "text", "synonyms": "json", "type": "text", "role": "text",
    "is_new": "bool", "is_new_basis": "text", "arm_labels": "json", "conditions": "json",
    "dosage_text": "text", "dosage_value": "float", "dosage_value_max": "float", "dosage_unit": "text",
    "dosage_per": "text", "dosage_strength": "text",
    "administration_text": "text", "administration_route": "text", "administration_form": "text",
    "administration_frequency": "text", "administration_duration": "text", "administration_timing": "text",
    "codes": "json", "combination_of": "json", "evidence": "json",
    "status": "text", "error_code": "text", "error_message": "text", "confidence": "float", "origin": "text",
    "model": "text", "model_digest": "text", "prompt_hash": "text", "schema_version": "text", "run_id": "text",
    "source_file": "text", "source_position": "int", "source_sha256": "text", "extracted_at": "text",
}  # fmt: skip
_NESTED = {"dosage": "dosage_", "administration": "administration_", "error": "error_", "provenance": ""}

ARTICLE: Columns = {
    "name": "text", "type": "text", "is_new_drug": "text", "conditions": "json", "dosage_administration": "json",
}  # fmt: skip


def export(records: Iterable[Mapping[str, Any]], format: str, out: BinaryIO, *, profile: str = "records") -> int:
    """Write records (JSON values) in one format; how many there were.

    "jsonl" has them as they are, "parquet" and "csv" as `FLAT`; the profile "article" has the keys `ARTICLE` and
    leaves trials without an intervention out. Raises InputError for a format or profile that is none.
    """
    if profile not in PROFILES:
        raise InputError(f"profile {profile[:40]!r} is not known: use {', '.join(PROFILES)}")
    if profile == "article":
        named = (article(record) for record in records if record["name"] is not None)
        return rows_out.export(named, ARTICLE, format, out)
    if format == "jsonl":
        count = 0
        for record in records:
            out.write(f"{canonical(record)}\n".encode())
            count += 1
        return count
    return rows_out.export(map(flat, records), FLAT, format, out)


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with what is nested under names of its own."""
    return dict(_flat(record))


def article(record: Mapping[str, Any]) -> dict[str, Any]:
    """An intervention under the keys of the article's prompt, whose answer to "new?" is Yes, or No for all else."""
    dosage, how = record["dosage"] or {}, record["administration"] or {}
    return {
        "name": record["name"],
        "type": record["type"] or "",
        "is_new_drug": "Yes" if record["is_new"] else "No",
        "conditions": list(record["conditions"]),
        "dosage_administration": {"dosage": dosage.get("text", ""), "administration": how.get("text", "")},
    }


def _flat(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if name in _NESTED:
            yield from ((_NESTED[name] + inner, given) for inner, given in (value or {}).items())
        else:
            yield name, value
