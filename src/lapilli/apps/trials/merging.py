"""What a register states, what rules find and what a model says, as one list of interventions, each tied to the text.

What a register states outright stands: nobody else adds to its list, or changes a name or a type. What a model says
counts where its name stands in the text; it fills what is empty, and what rules found stays beside it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from lapilli.apps.trials.align import align
from lapilli.apps.trials.answers import Said
from lapilli.apps.trials.hints import type_hint
from lapilli.apps.trials.schema import Administration, Evidence, Intervention
from lapilli.apps.trials.slots import read_dosage
from lapilli.apps.trials.trial import ROLES, TYPES

LEAST = 0.8
"""Below this confidence a small model's words were worse than none, on the labelled studies that may train."""

SURE = 0.95
_RANK = {"exact": 3, "normalised": 2, "fuzzy": 1, "none": 0}
_EDGE = re.compile(r"[^\w]+")
_HOW = ("route", "frequency", "duration")
_MOST = 64
_LONGEST = 2000


def said_interventions(said: Sequence[Said], fields: Mapping[str, str]) -> list[Intervention]:
    """What a model said as interventions, each name once: the surest of each. Values that stand nowhere say so."""
    found: dict[str, Intervention] = {}
    for one in said:
        made = _intervention(one, fields)
        key = normal(made.name or "")
        if key and (key not in found or (made.confidence or 0) > (found[key].confidence or 0)):
            found[key] = made
    return list(found.values())[:_MOST]


def merge(known: Sequence[Intervention], said: Sequence[Intervention], *, least: float = LEAST) -> list[Intervention]:
    """Interventions that are known, filled with what a model said of them, and after them what only the model found.

    Below the confidence `least` the model's word does not count, nor does a name of its own that the text has not.
    Where the register states its interventions, there are no others.
    """
    stated = any(one.origin == "stated" for one in known)
    merged = list(known)
    for one in said:
        if one.confidence is not None and one.confidence < least:
            continue
        place = _place_of(one, merged)
        if place is not None:
            merged[place] = _filled(merged[place], one)
        elif not stated and is_grounded(one):
            merged.append(one)
    return merged[:_MOST]


def is_grounded(one: Intervention) -> bool:
    """Whether its name stands in the text, and not just nearly."""
    return any(each.value == "name" and each.alignment in ("exact", "normalised") for each in one.evidence)


def normal(name: str) -> str:
    """A name without case, width, blanks and punctuation."""
    return _EDGE.sub(" ", unicodedata.normalize("NFKC", name).casefold()).strip()


def locate(about: str, value: str, fields: Mapping[str, str], near: Evidence | None = None) -> Evidence:
    """Where a value stands best, in the field of `near` and after its beginning before all others.

    Evidence of alignment "none" where it stands nowhere.
    """
    names = list(fields)
    if near is not None and near.field in fields:
        names = list(dict.fromkeys((near.field, *names)))
    best = Evidence(value=about, field="", start=0, end=0, quote="", alignment="none")
    for name in names:
        after = near.start if near is not None and name == near.field else 0
        span = align(value, fields[name], after=after)
        quote = fields[name][span.start : span.end]
        if _RANK[span.how] > _RANK[best.alignment] and 0 < len(quote) <= _LONGEST:
            best = Evidence(value=about, field=name, start=span.start, end=span.end, quote=quote, alignment=span.how)
        if best.alignment == "exact":
            break
    return best


def _intervention(one: Said, fields: Mapping[str, str]) -> Intervention:
    values = one.values
    name = values["name"][:400]
    evidence = [locate("name", name, fields)]
    dose = values.get("dose", "")
    how = {slot: values[slot] for slot in _HOW if slot in values}
    slots = ({"dosage": dose} if dose else {}) | how
    evidence += [locate(about, given, fields, evidence[0]) for about, given in slots.items()]
    role = values.get("role")
    return Intervention(
        name=name,
        name_normalized=normal(name)[:400] or None,
        type=_type(one, name),
        role=_one_of(role, ROLES),
        **_newness(role),
        dosage=read_dosage(dose) if dose else None,
        administration=Administration(text=", ".join(how.values()), **how) if how else None,
        evidence=tuple(evidence),
        confidence=one.confidence,
        origin="model",
    )


def _type(one: Said, name: str) -> Any:
    """The type that was said; where that was not quite sure, what the name itself tells comes first."""
    sure = one.confidence is None or one.confidence >= SURE
    return (None if sure else type_hint(name)) or _one_of(one.values.get("type"), TYPES)


def _newness(role: str | None) -> dict[str, Any]:
    """New is what is under test: see the documentation of `is_new`."""
    if role == "experimental":
        return {"is_new": True, "is_new_basis": "experimental_arm"}
    if role in ROLES:
        return {"is_new": False, "is_new_basis": "comparator_or_background"}
    return {}


def _one_of(value: str | None, words: Sequence[Any]) -> Any:
    return value if value in words else None


def _place_of(one: Intervention, known: Sequence[Intervention]) -> int | None:
    """Which of the known ones has the same name, or failing that all words of it."""
    wanted = normal(one.name or "")
    names = [{normal(each) for each in (other.name or "", *other.synonyms)} for other in known]
    for place, found in enumerate(names):
        if wanted in found:
            return place
    words = set(wanted.split())
    for place, found in enumerate(names):
        if any(set(each.split()) <= words or words <= set(each.split()) for each in found if each):
            return place
    return None


def _filled(known: Intervention, said: Intervention) -> Intervention:
    """A known intervention with what was empty filled, and the evidence for that."""
    fill: dict[str, Any] = {}
    for name in ("type", "role", "dosage", "administration"):
        if getattr(known, name) is None and getattr(said, name) is not None:
            fill[name] = getattr(said, name)
    if known.is_new is None and said.is_new is not None:
        fill |= {"is_new": said.is_new, "is_new_basis": said.is_new_basis}
    told = {each.value for each in known.evidence}
    fresh = [each for each in said.evidence if each.value not in told and _is_used(each.value, fill)]
    fill["evidence"] = (*known.evidence, *fresh)[:_MOST]
    if known.confidence is None:
        fill["confidence"] = said.confidence
    return known.model_copy(update=fill)


def _is_used(value: str, fill: Mapping[str, Any]) -> bool:
    return value in fill or (value in _HOW and "administration" in fill)
