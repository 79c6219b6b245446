"""ClinicalTrials.gov: the legacy XML (`clinical_study`) and the JSON of API v2, to one shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lapilli.apps.trials.readers.clean import clean
from lapilli.apps.trials.readers.dates import iso_date
from lapilli.apps.trials.readers.ids import find_ids, join_ids
from lapilli.apps.trials.readers.names import in_order
from lapilli.apps.trials.stated import canonical_type
from lapilli.apps.trials.trial import Arm, Stated, Trial

if TYPE_CHECKING:
    from lxml.etree import _Element

REGISTER = "ClinicalTrials.gov"
_EXCLUSION = re.compile(r"(?:^|\n|\s)(?=(?:Key |Main )?Exclusion Criteria\s*:)", re.IGNORECASE)


@dataclass
class _Study:
    """What both forms have, as it was written."""

    id: str
    other_ids: Sequence[str] = ()
    texts: dict[str, str | None] = field(default_factory=dict)
    criteria: str = ""
    interventions: list[Stated] = field(default_factory=list)
    arms: list[Arm] = field(default_factory=list)


def read_study_element(element: _Element, *, file: str, position: int, complete: bool = True) -> Trial:
    """The trial of a `clinical_study`."""

    def text(path: str) -> str:
        found = element.find(path)
        return "" if found is None else _text(found)

    def texts(path: str) -> list[str]:
        return [_text(found) for found in element.iterfind(path)]

    def several(item: _Element, path: str) -> tuple[str, ...]:
        return _clean_all(_text(found) for found in item.iterfind(path))

    design = [
        f"{child.tag.replace('_', ' ').capitalize()}: {child.text}" for child in element.iterfind("study_design_info/*")
    ]
    study = _Study(
        text("id_info/nct_id"),
        texts("id_info/secondary_id") + texts("id_info/org_study_id") + texts("id_info/nct_alias"),
        {
            "public_title": text("brief_title"),
            "scientific_title": text("official_title"),
            "acronym": text("acronym"),
            "conditions": _list(texts("condition")),
            "summary": text("brief_summary"),
            "description": text("detailed_description"),
            "keywords": _list(texts("keyword")),
            "primary_outcome": _list(texts("primary_outcome/measure"), "\n"),
            "secondary_outcome": _list(texts("secondary_outcome/measure"), "\n"),
            "study_type": text("study_type"),
            "study_design": _list(design) or text("study_design"),
            "phase": text("phase"),
            "target_size": text("enrollment"),
            "recruitment_status": text("overall_status"),
            "countries": _list(texts("location_countries/country")),
            "gender": text("eligibility/gender"),
            "age_min": text("eligibility/minimum_age"),
            "age_max": text("eligibility/maximum_age"),
            "primary_sponsor": text("sponsors/lead_sponsor/agency"),
            "secondary_sponsor": _list(texts("sponsors/collaborator/agency")),
            "secondary_ids": _list(texts("id_info/secondary_id")),
            "web_address": text("required_header/url"),
            "date_registration": text("study_first_submitted") or text("firstreceived_date"),
            "date_enrolment": text("start_date"),
            "date_refreshed": text("last_update_posted") or text("lastchanged_date"),
            "condition_terms": _list(texts("condition_browse/mesh_term")),
            "intervention_terms": _list(texts("intervention_browse/mesh_term")),
        },
        text("eligibility/criteria"),
    )
    for item in element.iterfind("intervention"):
        study.interventions.append(
            Stated(
                clean(item.findtext("intervention_name")),
                _type(item.findtext("intervention_type")),
                clean(item.findtext("description")),
                several(item, "other_name"),
                several(item, "arm_group_label"),
            )
        )
    for item in element.iterfind("arm_group"):
        label, kind, told = (
            clean(item.findtext(name)) for name in ("arm_group_label", "arm_group_type", "description")
        )
        study.arms.append(Arm(label, kind, told))
    return _trial(study, file, position, complete)


def read_study_value(value: Mapping[str, Any], *, file: str, position: int, complete: bool = True) -> Trial:
    """The trial of a study of API v2. Whatever is not where it should be is taken as not there."""
    root = _Value(value)
    protocol = root["protocolSection"]
    about, status = protocol["identificationModule"], protocol["statusModule"]
    told, design = protocol["descriptionModule"], protocol["designModule"]
    sponsors, eligible = protocol["sponsorCollaboratorsModule"], protocol["eligibilityModule"]
    given, outcomes = protocol["armsInterventionsModule"], protocol["outcomesModule"]
    terms = root["derivedSection"]
    secondary = [one["id"].text for one in about["secondaryIdInfos"].items]
    info = design["designInfo"]
    designs = [f"{name}: {info[key].text}" for key, name in _DESIGN.items() if info[key].text]
    countries = [one["country"].text for one in protocol["contactsLocationsModule"]["locations"].items]
    study = _Study(
        about["nctId"].text,
        [*secondary, about["orgStudyIdInfo"]["id"].text, *about["nctIdAliases"].texts],
        {
            "public_title": about["briefTitle"].text,
            "scientific_title": about["officialTitle"].text,
            "acronym": about["acronym"].text,
            "conditions": _list(protocol["conditionsModule"]["conditions"].texts),
            "summary": told["briefSummary"].text,
            "description": told["detailedDescription"].text,
            "keywords": _list(protocol["conditionsModule"]["keywords"].texts),
            "primary_outcome": _list((one["measure"].text for one in outcomes["primaryOutcomes"].items), "\n"),
            "secondary_outcome": _list((one["measure"].text for one in outcomes["secondaryOutcomes"].items), "\n"),
            "study_type": design["studyType"].text,
            "study_design": _list(designs),
            "phase": _list(design["phases"].texts),
            "target_size": design["enrollmentInfo"]["count"].text,
            "recruitment_status": status["overallStatus"].text,
            "countries": _list(countries),
            "gender": eligible["sex"].text,
            "age_min": eligible["minimumAge"].text,
            "age_max": eligible["maximumAge"].text,
            "primary_sponsor": sponsors["leadSponsor"]["name"].text,
            "secondary_sponsor": _list(one["name"].text for one in sponsors["collaborators"].items),
            "secondary_ids": _list(secondary),
            "date_registration": status["studyFirstSubmitDate"].text,
            "date_enrolment": status["startDateStruct"]["date"].text,
            "date_refreshed": status["lastUpdatePostDateStruct"]["date"].text,
            "condition_terms": _list(one["term"].text for one in terms["conditionBrowseModule"]["meshes"].items),
            "intervention_terms": _list(one["term"].text for one in terms["interventionBrowseModule"]["meshes"].items),
        },
        eligible["eligibilityCriteria"].text,
    )
    for one in given["interventions"].items:
        study.interventions.append(
            Stated(
                clean(one["name"].text),
                _type(one["type"].text),
                clean(one["description"].text),
                _clean_all(one["otherNames"].texts),
                _clean_all(one["armGroupLabels"].texts),
            )
        )
    for one in given["armGroups"].items:
        kind = clean(one["type"].text).replace("_", " ").title()
        study.arms.append(Arm(clean(one["label"].text), kind, clean(one["description"].text)))
    return _trial(study, file, position, complete)


_DESIGN = {
    "allocation": "Allocation", "interventionModel": "Intervention model", "primaryPurpose": "Primary purpose",
    "observationalModel": "Observational model", "timePerspective": "Time perspective",
}  # fmt: skip


class _Value:
    """A JSON value that may be asked for anything: what is not there is empty."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getitem__(self, key: str) -> _Value:
        return _Value(self.value.get(key) if isinstance(self.value, dict) else None)

    @property
    def text(self) -> str:
        return self.value if isinstance(self.value, str) else ""

    @property
    def items(self) -> list[_Value]:
        return [_Value(one) for one in self.value] if isinstance(self.value, list) else []

    @property
    def texts(self) -> list[str]:
        return [one.text for one in self.items if one.text]


def _trial(study: _Study, file: str, position: int, complete: bool) -> Trial:
    fields = {name: clean(text) for name, text in study.texts.items()}
    for name in ("date_registration", "date_enrolment", "date_refreshed"):
        fields[name] = iso_date(fields[name])
    criteria = clean(study.criteria)
    cut = _EXCLUSION.search(criteria)
    fields["inclusion_criteria"] = criteria[: cut.start()].strip() if cut else criteria
    fields["exclusion_criteria"] = criteria[cut.end() :].strip() if cut else ""
    stated = tuple(one for one in study.interventions if one.name)
    arms = tuple(arm for arm in study.arms if arm.label or arm.description)
    fields["interventions"] = "\n".join(intervention_text(one) for one in stated)
    fields["arms"] = "\n".join(arm_text(arm) for arm in arms)
    own = clean(study.id).upper()
    others = find_ids(own, *(clean(each) for each in study.other_ids))
    return Trial(join_ids(own, others), REGISTER, in_order(fields), stated, arms, file, position, complete=complete)


def intervention_text(stated: Stated) -> str:
    """A stated intervention as a line of the field `interventions`."""
    others = f" ({'; '.join(stated.other_names)})" if stated.other_names else ""
    told = f": {_one_line(stated.description)}" if stated.description else ""
    return f"{stated.type}: {stated.name}{others}{told}" if stated.type else f"{stated.name}{others}{told}"


def arm_text(arm: Arm) -> str:
    """A group as a line of the field `arms`."""
    return ": ".join(_one_line(part) for part in (arm.kind, arm.label, arm.description) if part)


def _text(element: _Element) -> str:
    return "".join(map(str, element.itertext()))


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _type(text: str | None) -> str:
    return canonical_type(clean(text)) or ""


def _clean_all(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for each in texts if (text := clean(each))))


def _list(texts: Iterable[str], between: str = "; ") -> str:
    """Texts as one, each once; cleaned here, as cleaning later would take the lines apart."""
    return ("<br>" if between == "\n" else between).join(_clean_all(texts))
