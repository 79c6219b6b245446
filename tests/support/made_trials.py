"""Trials that were made up: records and texts for reports, exports and pictures of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lapilli.apps.trials.report import Shown

_THINGS = (
    ("Lapillin", "Drug", "5 mg", "by mouth", "twice daily"),
    ("Basaltumab", "Biological", "200 mg", "intravenous infusion", "every 3 weeks"),
    ("Breathing lessons", "Behavioral", "", "", "weekly"),
    ("Pumice brace", "Device", "", "worn on the knee", "daily"),
    ("Vitamin Q", "Dietary Supplement", "1 g", "by mouth", "daily"),
    ("Obsidian scan", "Diagnostic Test", "", "", "once"),
    ("Tephra plasty", "Procedure", "", "", "once"),
)
_REGISTERS = ("ClinicalTrials.gov", "ChiCTR", "EUCTR", "JPRN")


def intervention(name: str, kind: str | None, **rest: Any) -> dict[str, Any]:
    """One record as a JSON value, with what a test says of it."""
    return {"name": name, "type": kind, "status": "ok", "evidence": [], **rest}


def evidence(fields: Mapping[str, str], *quotes: str) -> list[dict[str, Any]]:
    """Where quotes stand in a trial's fields, each at its first place; the first one is the name."""
    found: list[dict[str, Any]] = []
    for quote in filter(None, quotes):
        value = "slot" if found else "name"
        for field, text in fields.items():
            if (start := text.find(quote)) >= 0:
                end = start + len(quote)
                place = {"field": field, "start": start, "end": end, "quote": quote}
                found.append({"value": value, **place, "alignment": "exact"})
                break
    return found


def made_trials(count: int) -> Iterator[Shown]:
    """Trials of four registers; every thirteenth one failed, every seventh one has nothing in it."""
    for number in range(count):
        name, kind, dose, route, often = _THINGS[number % len(_THINGS)]
        register = _REGISTERS[number % 3 if number % 11 else 3]
        fields = {
            "public_title": f"{name} for made-up fever in {20 + number % 60} villages",
            "conditions": "Made-up fever; Ash cough",
            "arms": f"Experimental: {name} {dose} {route}, {often}, for 12 weeks\nComparator: placebo".replace(
                "  ", " "
            ),
            "summary": f"Whether {name} is better than placebo is not known. People at home (60 < age) are asked.",
        }
        records: Sequence[dict[str, Any]]
        if number % 13 == 12:
            status = "failed"
            failed = {"code": "too_long", "message": "9,999 tokens; 2,048 are the most"}
            records = [{"name": None, "status": status, "error": failed}]
        elif number % 7 == 6:
            status, records = "none", [{"name": None, "status": "none"}]
        else:
            status = "ok"
            first = intervention(
                name,
                kind,
                role="experimental",
                is_new=True,
                confidence=0.9,
                dosage={"text": dose},
                administration={"route": route, "frequency": often, "duration": "12 weeks"},
                evidence=evidence(fields, name, dose, route, often),
            )
            other = intervention(
                "placebo",
                "Drug" if number % 5 else None,
                role="placebo",
                confidence=0.6,
                evidence=evidence(fields, "placebo"),
            )
            records = [first, other]
        yield Shown((f"MADE{number:08}",), register, status, records, fields)
