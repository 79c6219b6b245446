"""The names under which a trial's texts stand, whatever register they came from."""

from __future__ import annotations

import re
from functools import lru_cache

FIELDS = (
    "public_title", "scientific_title", "acronym", "conditions", "interventions", "arms", "summary", "description",
    "keywords", "inclusion_criteria", "exclusion_criteria", "primary_outcome", "secondary_outcome",
    "study_type", "study_design", "phase", "target_size", "recruitment_status", "countries",
    "gender", "age_min", "age_max", "primary_sponsor", "secondary_sponsor", "funding", "secondary_ids", "other_records",
    "internal_number", "web_address", "date_registration", "date_enrolment", "date_refreshed", "date_export",
    "condition_terms", "intervention_terms",
)  # fmt: skip
"""The canonical names, in the order in which texts are given; what a file has besides keeps its own name."""

# WHO's names as snakes: the XML has `Public_title`, the CSV `Public title`, both are `public_title`.
_WHO = {
    "condition": "conditions",
    "intervention": "interventions",
    "trialid": "trial_id",
    "source_support": "funding",
    "secondary_id": "secondary_ids",
    "date_enrollement": "date_enrolment",
    "date_enrollment": "date_enrolment",
    "last_refreshed_on": "date_refreshed",
    "export_date": "date_export",
    "inclusion_gender": "gender",
    "inclusion_agemin": "age_min",
    "inclusion_agemax": "age_max",
}
_ODD = re.compile(r"[^0-9a-z]+")
_PLACES = {name: place for place, name in enumerate(FIELDS)}


@lru_cache(1024)
def who_name(tag: str) -> str:
    """The canonical name of an element or a column of WHO's."""
    snake = _ODD.sub("_", tag.lower()).strip("_")
    return _WHO.get(snake, snake)


def in_order(fields: dict[str, str]) -> dict[str, str]:
    """Those that have text: canonical ones first, in their order, then others in theirs."""
    last = len(FIELDS)
    return {name: text for name, text in sorted(fields.items(), key=lambda item: _PLACES.get(item[0], last)) if text}
