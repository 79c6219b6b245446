"""WHO's ICTRP: exports as XML (two roots) and as CSV, one flat record a trial.

Dates become ISO: `Date_registration3` is the sure one, `Export_date` has the month first, all others the day.
Names, addresses and telephones of people are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lapilli.apps.trials.readers.clean import clean
from lapilli.apps.trials.readers.dates import iso_date
from lapilli.apps.trials.readers.ids import find_ids, join_ids, register_of
from lapilli.apps.trials.readers.names import in_order, who_name
from lapilli.apps.trials.stated import groups, product_blocks, typed_interventions
from lapilli.apps.trials.trial import Arm, Stated, Trial

if TYPE_CHECKING:
    from lxml.etree import _Element

MAX_FIELDS = 400
KNOWN = frozenset({"trial_id", "public_title", "scientific_title", "source_register", "conditions", "interventions"})
"""Columns by which a file of WHO's is known."""


def element_cells(element: _Element) -> Iterable[tuple[str, str]]:
    """The names and texts of a record's elements."""
    for child in element.iterchildren():
        tag = child.tag
        if isinstance(tag, str):
            text = child.text if not len(child) else "".join(map(str, child.itertext()))
            if text:
                yield tag.rpartition("}")[2], text


def read_cells(cells: Iterable[tuple[str, str]], *, file: str, position: int, complete: bool = True) -> Trial:
    """The trial of a record's names and texts, as the XML and the CSV have them."""
    parts: dict[str, list[str]] = {}
    for tag, raw in cells:
        name = who_name(tag)
        if name.startswith("contact_") or (name not in parts and len(parts) >= MAX_FIELDS):
            continue
        if text := clean(raw):
            parts.setdefault(name, []).append(text)
    fields = {name: "\n".join(texts) for name, texts in parts.items()}
    own = fields.pop("trial_id", "")
    register = fields.pop("source_register", "") or register_of(own)
    _put_dates(fields)
    others = find_ids(own, *(fields.get(name, "") for name in ("secondary_ids", "other_records")))
    stated, arms = read_interventions(fields.get("interventions", ""), register)
    return Trial(join_ids(own, others), register, in_order(fields), stated, arms, file, position, complete=complete)


def read_interventions(text: str, register: str) -> tuple[tuple[Stated, ...], tuple[Arm, ...]]:
    """What a field of interventions states, and the groups it tells of."""
    stated = typed_interventions(text) or product_blocks(text)
    return stated, () if stated else groups(text, register)


def _put_dates(fields: dict[str, str]) -> None:
    sure = fields.pop("date_registration3", "")
    if sure or "date_registration" in fields:
        fields["date_registration"] = iso_date(sure or fields["date_registration"])
    for name in ("date_enrolment", "date_refreshed", "results_date_posted", "results_date_completed"):
        if name in fields:
            fields[name] = iso_date(fields[name])
    if "date_export" in fields:
        fields["date_export"] = iso_date(fields["date_export"], month_first=True)
