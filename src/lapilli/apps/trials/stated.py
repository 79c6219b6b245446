"""What a register's own field of interventions states outright, each in its register's way of writing.

`Drug: X;Procedure: Y` (ClinicalTrials.gov), `Group:text;Group:text;` (ChiCTR), `Intervention 1: text Intervention 2:`
(IRCT, DRKS), lines of products (`Trade Name: …`, `INN or Proposed INN: …`: the EU's register). Texts in sentences
state nothing in this sense.
"""

from __future__ import annotations

import re

from lapilli.apps.trials.trial import TYPES, Arm, Stated
from lapilli.apps.trials.vocabulary import InterventionType

_TYPES: dict[str, InterventionType] = {
    **{name.lower(): name for name in TYPES},
    "dietary_supplement": "Dietary Supplement",
    "combination_product": "Combination Product",
    "diagnostic_test": "Diagnostic Test",
    "biological/vaccine": "Biological",
    "behavioural": "Behavioral",
}
_NAMES = "|".join(re.escape(name) for name in sorted(_TYPES, key=len, reverse=True))
_TYPED = re.compile(rf"(?:^|[;\n|])\s*({_NAMES})\s*:\s*", re.IGNORECASE)
_PRODUCT_KEYS = (
    "Trade Name", "Product Name", "Product Code", "Pharmaceutical Form of the Placebo",
    "Route of administration of the placebo", "Pharmaceutical Form", "INN or Proposed INN", "CAS Number",
    "Current Sponsor code", "Other descriptive name", "Concentration unit", "Concentration type",
    "Concentration number", "Route of administration", "Active substance",
)  # fmt: skip
_KEY = re.compile(rf"^\s*({'|'.join(_PRODUCT_KEYS)})\s*:[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)
_NUMBERED = re.compile(r"(?:^|(?<=[\s;.]))Intervention (\d{1,2}): ")
_GROUP = re.compile(r"([^:：;；\n]{1,200})[:：]([^;；\n]*)")
_MOST = 200


def canonical_type(text: str) -> InterventionType | None:
    """One of the eleven types, however it is written (`DIETARY_SUPPLEMENT`, `biological`); None for another."""
    return _TYPES.get(" ".join(text.replace("_", " ").split()).lower())


def typed_interventions(text: str) -> tuple[Stated, ...]:
    """`Drug: X;Procedure: Y`: each type with its name. A `;` inside a name is part of it."""
    first = _TYPED.match(text)
    if first is None:
        return ()
    marks = list(_TYPED.finditer(text))[:_MOST]
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    found = []
    for mark, end in zip(marks, ends, strict=True):
        if name := text[mark.end() : end].strip(" ;\n"):
            found.append(Stated(name, _TYPES[" ".join(mark[1].split()).lower()]))
    return tuple(dict.fromkeys(found))


def product_blocks(text: str) -> tuple[Stated, ...]:
    """The EU register's lines of products; a product is called by its INN, else by its own name, else as it is sold."""
    blocks: list[dict[str, list[str]]] = []
    substance = False
    for hit in list(_KEY.finditer(text))[: _MOST * 20]:
        key, value = hit[1].lower(), hit[2].strip()
        begins = key in ("trade name", "product name", "product code")
        if not blocks or (begins and (substance or key in blocks[-1])):
            blocks.append({})
            substance = False
        substance = substance or not begins
        blocks[-1].setdefault(key, []).append(value)
    return tuple(dict.fromkeys(one for block in blocks[:_MOST] if (one := _product(block)) is not None))


def _product(block: dict[str, list[str]]) -> Stated | None:
    def values(*keys: str) -> list[str]:
        return [value for key in keys for value in block.get(key, ()) if value and value not in ("-", "N/A")]

    substances = values("inn or proposed inn", "active substance")
    own = values("product name", "trade name")
    substances = list(dict.fromkeys(substances))
    names = substances + own
    if len(substances) > 1:  # the product's own name tells; without one they are named together
        names = own + substances if own else [" + ".join(substances)]
    names += values("other descriptive name", "product code", "current sponsor code")
    kept = list({name.lower(): name for name in reversed(names)}.values())[::-1]
    if not kept:
        return Stated("Placebo") if any("placebo" in key for key in block) else None
    told = [
        f"{label}: {', '.join(found)}"
        for label, key in (("Pharmaceutical form", "pharmaceutical form"), ("Route", "route of administration"))
        if (found := values(key))
    ]
    numbers, units = values("concentration number"), values("concentration unit")
    if numbers and units:
        told.append(f"Concentration: {numbers[0].strip(' -')} {units[0].split()[0]}")
    return Stated(kept[0], "", "; ".join(told), tuple(kept[1:]))


def groups(text: str, register: str) -> tuple[Arm, ...]:
    """The groups that a text gives with what each gets; () where the register does not write so."""
    if marks := list(_NUMBERED.finditer(text))[:_MOST]:
        if marks[0].start() > 0 or marks[0][1] != "1":
            return ()
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        return tuple(_numbered(text[mark.end() : end].strip(), mark[1]) for mark, end in zip(marks, ends, strict=True))
    if register.lower() not in ("chictr", "chinese clinical trial registry"):
        return ()
    found = []
    for hit in list(_GROUP.finditer(text))[:_MOST]:
        label, told = hit[1].strip(), hit[2].strip()
        found.append(Arm(label, "", told))
    return tuple(found)


def _numbered(text: str, number: str) -> Arm:
    label, colon, told = text.partition(":")
    if colon and len(label) < 60 and "." not in label:
        return Arm(label.strip(), "", told.strip())
    return Arm(f"Intervention {number}", "", text)
