"""Interventions without a model: what a register states, read exactly; and what rules find in the other texts.

The rules are the baseline that a model has to be better than. They know the stems of substances' names, some common
names, and the ways in which titles and groups speak of what is tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from lapilli.apps.trials.align import align
from lapilli.apps.trials.hints import find_substances, is_code, is_placebo, role_hint, type_hint
from lapilli.apps.trials.schema import Administration, Dosage, Evidence, Intervention
from lapilli.apps.trials.slots import Slot, find_slots, read_dosage
from lapilli.apps.trials.stated import canonical_type
from lapilli.apps.trials.trial import Arm, Stated, Trial
from lapilli.apps.trials.vocabulary import Basis, Role

RULES = ("public_title", "scientific_title", "arms", "summary")
"""The fields in which rules look, in this order: never the register's own field of interventions."""

_MOST = 32
_MOST_TEXT = 20_000
_SENTENCE = re.compile(r"(?<=[.;。；])\s+|\n|。|；")
_NOTHING = re.compile(
    r"(?:none|nil|no|n/?a|not applicable|not available|blank|无|none\.|no intervention|/|-)\W*", re.IGNORECASE
)
_LEAD = re.compile(
    r"^(?:the|a|an|oral|intravenous|topical|use of|using|treatment with|administration of|effects? of|"
    r"efficacy of|standard)\s+",
    re.IGNORECASE,
)
_PEOPLE = (
    r"(?:in|on|for|among|during|after|before|to|versus|vs\.?|compared|against|as|at|by|from|with|added|combined|plus|"
    r"when|within|following|of patients|through|via|who|that|which)"
)
_OF = re.compile(
    r"\b(?:effects?|efficacy|safety|effectiveness|evaluation|study|trial|comparison|use|role|impact|tolerability|"
    r"pharmacokinetics|benefits?|immunogenicity|performance|assessment|feasibility|utility|value|outcomes?) of "
    rf"(?:the |an? |using )?(.{{3,90}}?)(?=\s{_PEOPLE}\s|[,.;:(]|$)",
    re.IGNORECASE,
)
_VERSUS = re.compile(
    rf"(?:^|\bof |: |comparing |between )([^,.;:()]{{3,80}}?) (?:versus|vs\.?|compared (?:to|with)|"
    rf"against) ([^,.;:()]{{3,80}}?)"
    rf"(?=\s{_PEOPLE}\s|[,.;:(]|$)",
    re.IGNORECASE,
)
_IN_PEOPLE = re.compile(
    r"^([^,.;:()]{3,70}?) (?:in|for) (?:the (?:treatment|prevention|management) of |patients|adults|children|subjects|"
    r"participants|women|men|people|healthy|treating|adolescents|infants|individuals|pregnant|older|"
    r"elderly|severe|acute)",
    re.IGNORECASE,
)
_GETS = re.compile(
    r"\b(?:receiv(?:e|es|ed|ing)|treated with|given|administered|treatment with|injections? of|infusions? of|doses? of|"
    r"therapy with|randomi[sz]ed to) (?:an? |the |oral |intravenous |single |standard )*"
    rf"([^,.;:()\n]{{3,70}}?)(?=\s{_PEOPLE}\s|\s(?:once|twice|daily|every|and|or|will|\d)|[,.;:()\n]|$)",
    re.IGNORECASE,
)
_HEAD = re.compile(rf"(?:[^:]{{1,40}}: )?(.{{3,90}}?)(?=\s{_PEOPLE}\s|[,.;:(]|$)", re.IGNORECASE)
_STUDY = re.compile(
    r"\b(?:stud(?:y|ies)|trial|evaluation|phase|random|efficacy|safety|effects?|comparison|patients?|"
    r"participants?|subjects?|"
    r"group|arm|model|characteristics|analysis|clinical|investigation|research|outcomes?|factors|risk|"
    r"prevalence|incidence|"
    r"association|relationship|covid|disease|cancer|syndrome|same|following|either|both|different|two|"
    r"three|intervention)\b",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"[.。]\s*\S")
# What is given together: "A + B", "A combined with B".
_TOGETHER = re.compile(r"\s*(?:\+|＋|\bcombined with\b|\bplus\b|联合)\s*", re.IGNORECASE)


def stated_interventions(trial: Trial) -> list[Intervention]:
    """What a register's own field states: typed names and products are `origin` "stated", and exact.

    What groups get (ChiCTR, IRCT) is told in words: a name is what is left without doses, and `origin` is "rules".
    """
    if trial.stated:
        return [_of_stated(one, trial) for one in trial.stated[:64]]
    found: dict[str, Intervention] = {}
    for arm in trial.arms if trial.fields.get("interventions") else ():
        for name, start in _names_of_group(arm, trial.fields["interventions"]):
            if name.lower() not in found:
                found[name.lower()] = _of_group(name, start, arm, trial)
    return list(found.values())[:_MOST]


def rule_based(trial: Trial, hide_interventions: bool = False) -> list[Intervention]:
    """The interventions that rules find: the stated ones where there are any, else those that the texts speak of.

    With `hide_interventions` the register's own field, and what was read from it, are not looked at: the baseline.
    """
    if not hide_interventions and (stated := stated_interventions(trial)):
        return stated
    fields = {name: trial.fields[name][:_MOST_TEXT] for name in RULES if name in trial.fields}
    found: dict[str, Intervention] = {}
    for name, field, start in _candidates(fields):
        key = name.lower()
        if not any(key == other or key in other.split() for other in found):
            found[key] = _of_text(name, field, start, fields)
    if not found:
        for name, field, start in _title_heads(fields):
            found.setdefault(name.lower(), _of_text(name, field, start, fields))
    return list(found.values())[:_MOST]


def _of_stated(stated: Stated, trial: Trial) -> Intervention:
    role = _role_of_arms(stated, trial.arms)
    texts = {"interventions": trial.fields.get("interventions", "")}
    named = {**texts, **_named(trial.fields, ("arms", "public_title"))}
    evidence = [_evidence("name", stated.name, named)]
    parts = stated.name.split(" + ") if evidence[0].alignment == "none" else []
    evidence += [_evidence("combination_of", part, named) for part in parts[:16] if len(parts) > 1]
    slots = _slots_of(f"{stated.name}\n{stated.description}", texts)
    basis, new = _newness(role, stated.name, stated.other_names)
    return Intervention(
        name=_cut(stated.name),
        synonyms=tuple(_cut(name) for name in stated.other_names[:64]),
        type=canonical_type(stated.type) or type_hint(f"{stated.name} {' '.join(stated.other_names)}"),
        role=role,
        is_new=new,
        is_new_basis=basis,
        arm_labels=tuple(_cut(label) for label in stated.arms[:64] if label),
        dosage=slots[0],
        administration=slots[1],
        combination_of=tuple(map(_cut, parts)) if 1 < len(parts) <= 64 else (),
        evidence=(*evidence, *slots[2]),
        confidence=1.0,
        origin="stated",
    )


def _role_of_arms(stated: Stated, arms: Sequence[Arm]) -> Role | None:
    """From the kinds of the groups that get it; what experimental and comparing groups both get is background."""
    if is_placebo(stated.name):
        return "placebo"
    kinds = {arm.kind.lower() for arm in arms if arm.label in stated.arms}
    others = {arm.kind.lower() for arm in arms if arm.label not in stated.arms}
    if "experimental" in kinds:
        return "background" if kinds - {"experimental"} and not others else "experimental"
    if "active comparator" in kinds:
        return "comparator"
    return "background" if kinds & {"placebo comparator", "sham comparator", "no intervention"} else None


def _names_of_group(arm: Arm, text: str) -> Iterator[tuple[str, int]]:
    """What a group gets, each with where it stands in the field."""
    told = arm.description
    if not told or _NOTHING.fullmatch(told):
        return
    base = text.find(told)
    if base < 0:
        return
    substances = find_substances(told)
    if len(told) <= 120 and not _SENTENCES.search(told):
        names = [(name, base + start) for start, name in _parts(told)]
        held = [any(told[slice(*span)] in name for name, _ in names) for span in substances]
        if names and all(held) and all(len(name.split()) <= 8 for name, _ in names):
            yield from (each for each in names if not _NOTHING.fullmatch(each[0]))
            return
    for start, end in substances:
        yield told[start:end], base + start


def _parts(told: str) -> Iterator[tuple[int, str]]:
    """What is given together, each without its doses: (where it stands, its name)."""
    start = 0
    for end, begin in (*(hit.span() for hit in _TOGETHER.finditer(told)), (len(told), len(told))):
        if name := _bare(told[start:end]):
            yield told.index(name, start), name
        start = begin


def _of_group(name: str, start: int, arm: Arm, trial: Trial) -> Intervention:
    text = trial.fields["interventions"]
    role: Role | None = "placebo" if is_placebo(name) else role_hint(arm.label)
    basis, new = _newness(role, name, ())
    base = text.rfind(arm.description, 0, start + len(arm.description))
    bounds = (base, base + len(arm.description)) if base >= 0 else None
    dosage, how, evidence = _slots_near(text, "interventions", start, start + len(name), bounds)
    first = Evidence(
        value="name", field="interventions", start=start, end=start + len(name), quote=name, alignment="exact"
    )
    return Intervention(
        name=_cut(name), type=type_hint(name), role=role, is_new=new, is_new_basis=basis,
        arm_labels=(_cut(arm.label),) if arm.label else (), dosage=dosage, administration=how,
        evidence=(first, *evidence), origin="rules",
    )  # fmt: skip


def _candidates(fields: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Names that the rules find: (name, field, where it stands)."""
    for field in RULES:
        text = fields.get(field, "")
        if field == "summary" and len(text) > 1500:
            text = text[:1500]
        for start, end in _places(text, field):
            name = text[start:end]
            yield name, field, start


def _title_heads(fields: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Where nothing else was found: what the title begins with, if it speaks of a treatment."""
    for field in ("public_title", "scientific_title"):
        text = fields.get(field, "")
        if hit := _HEAD.match(text):
            for part in re.finditer(r"(?:(?! and | or | versus ).)+", hit[1]):
                start = hit.start(1) + part.start()
                if span := _trimmed(text, start, start + len(part[0])):
                    yield text[slice(*span)], field, span[0]
            return


def _places(text: str, field: str) -> Iterator[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    if field in ("public_title", "scientific_title"):
        for pattern in (_VERSUS, _OF, _IN_PEOPLE):
            for hit in pattern.finditer(text):
                spans += [hit.span(group) for group in range(1, (hit.lastindex or 0) + 1)]
    elif field == "arms":
        spans += [hit.span(1) for hit in _GETS.finditer(text)]
    phrases = [span for each in spans if (span := _trimmed(text, *each)) is not None]
    substances = find_substances(text)
    # A phrase around one substance says it better ("inhaled budesonide"); around several they say it better.
    for start, end in sorted({*phrases, *substances}):
        inside = [span for span in substances if start <= span[0] and span[1] <= end]
        if (start, end) in substances or not inside:
            yield start, end


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """A phrase without what leads to it; None where it speaks of the study rather than of a treatment."""
    phrase = text[start:end]
    while hit := _LEAD.match(phrase):
        start += hit.end()
        phrase = text[start:end]
    end = start + len(phrase.rstrip())
    phrase = text[start:end].strip()
    if not len(phrase) >= 3 or len(phrase.split()) > 8 or _STUDY.search(phrase) or type_hint(phrase) is None:
        return None
    return start, end


def _of_text(name: str, field: str, start: int, fields: Mapping[str, str]) -> Intervention:
    role: Role | None = "placebo" if is_placebo(name) else None
    line = _sentence_at(fields[field], start)
    if role is None and field == "arms":
        role = role_hint(line[: max(line.find(":"), 0)])
    if role is None and field in ("public_title", "scientific_title"):
        role = "experimental"
    basis, new = _newness(role, name, ())
    dosage, how, evidence = _slots_near(fields[field], field, start, start + len(name))
    if dosage is None and field != "arms" and (place := align(name, fields.get("arms", ""))).how != "none":
        dosage, how, evidence = _slots_near(fields["arms"], "arms", place.start, place.end)
    first = Evidence(value="name", field=field, start=start, end=start + len(name), quote=name, alignment="exact")
    return Intervention(
        name=_cut(name), type=type_hint(name), role=role, is_new=new, is_new_basis=basis, dosage=dosage,
        administration=how, evidence=(first, *evidence), origin="rules",
    )  # fmt: skip


def _sentence_at(text: str, place: int) -> str:
    start, end = _sentence(text, place)
    return text[start:end]


def _sentence(text: str, place: int) -> tuple[int, int]:
    start, end = 0, len(text)
    window = max(place - 600, 0)
    for hit in _SENTENCE.finditer(text, window, min(place + 600, len(text))):
        if hit.end() <= place:
            start = hit.end()
        else:
            end = hit.start()
            break
    return max(start, window), min(end, place + 600)


def _slots_near(
    text: str, field: str, start: int, end: int, bounds: tuple[int, int] | None = None
) -> tuple[Dosage | None, Administration | None, tuple[Evidence, ...]]:
    """The values in the sentence of a name: those after it, up to the next name of a substance."""
    first, last = bounds or _sentence(text, start)
    others = [place for place, _ in find_substances(text[end:last]) if place > 0]
    stop = end + others[0] if others else last
    found = [
        Slot(slot.name, slot.start + begin, slot.end + begin, slot.text)
        for begin, until in ((end, stop), (first, start))
        for slot in find_slots(text[begin:until])
    ]
    return _filled(found, field)


def _slots_of(told: str, texts: Mapping[str, str]) -> tuple[Dosage | None, Administration | None, tuple[Evidence, ...]]:
    """The values in a stated intervention's own words, tied to where they stand in the field."""
    found = []
    for field, text in texts.items():
        one_line = " ".join(told.split())
        for slot in find_slots(one_line[:_MOST_TEXT]):
            around = one_line[max(slot.start - 20, 0) : slot.end]
            place = align(around, text)
            span = align(slot.text, text, after=max(place.end - len(slot.text), 0) if place.how != "none" else 0)
            if span.how != "none":
                found.append(Slot(slot.name, span.start, span.end, text[span.start : span.end]))
        return _filled(found, field)
    return None, None, ()


def _filled(found: Sequence[Slot], field: str) -> tuple[Dosage | None, Administration | None, tuple[Evidence, ...]]:
    """The first value of each kind."""
    first: dict[str, Slot] = {}
    for slot in found:
        first.setdefault(slot.name, slot)
    evidence = tuple(
        Evidence(value=slot.name, field=field, start=slot.start, end=slot.end, quote=slot.text, alignment="exact")
        for slot in first.values()
    )
    dosage = read_dosage(first.pop("dosage").text) if "dosage" in first else None
    if not first:
        return dosage, None, evidence
    text = ", ".join(slot.text for slot in sorted(first.values(), key=lambda slot: slot.start))
    how = Administration(text=text, **{name: _cut(slot.text) for name, slot in first.items()})
    return dosage, how, evidence


def _evidence(about: str, value: str, texts: Mapping[str, str]) -> Evidence:
    for field, text in texts.items():
        span = align(value[:2000], text)
        if span.how in ("exact", "normalised"):
            quote = text[span.start : span.end]
            return Evidence(value=about, field=field, start=span.start, end=span.end, quote=quote, alignment=span.how)
    return Evidence(value=about, field="", start=0, end=0, quote="", alignment="none")


def _newness(role: Role | None, name: str, others: Sequence[str]) -> tuple[Basis, bool | None]:
    """Whether it is what is tried, and what tells so."""
    if role in ("comparator", "placebo", "background"):
        return "comparator_or_background", False
    if role == "experimental":
        return "experimental_arm", True
    if is_code(name) or any(is_code(other) for other in others):
        return "investigational_code_name", True
    return "not_stated", None


def _bare(told: str) -> str:
    """The words before the first value, or all of them; "" where nothing is left."""
    slots = [slot.start for slot in find_slots(told) if slot.name in ("dosage", "frequency", "duration")]
    cut = min(slots) if slots and min(slots) >= 3 else len(told)
    return told[:cut].strip(" ,;:.-+，；。、(（")


def _named(fields: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    return {name: fields[name] for name in names if name in fields}


def _cut(text: str) -> str:
    return text[:400]
