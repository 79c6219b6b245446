"""Files as registers write them, with records that were made up and the traps that real ones hold."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

ROOT = "Trials_downloaded_from_ICTRP"

# One record with every trap: escaped markup, odd blanks, wrapped words, `<` as a word, full width, four kinds of dates.
TRAPS: Mapping[str, str] = {
    "TrialID": " ChiCTR2099000001\n   ",
    "Last_Refreshed_on": "17 February 2020",
    "Public_title": "Lapillin&#x0D;\n        for ash cough" + " " * 300,
    "Scientific_title": "Hydroxy-\n     lapillin in <the guide of diagnosis> &lt;br&gt; and a < b or c > d",
    "Primary_sponsor": "Vulcan\u00a0House\u3000of Health",
    "Date_registration": "17/02/2020",
    "Date_registration3": "20200217",
    "Export_date": "3/4/2020 6:53:35 PM",
    "Source_Register": "ChiCTR",
    "other_records": "Yes; NCT09900001",
    "Secondary_ID": "EUCTR2099-000001-25-FR; U1111-1234-5678; sponsor's 17",
    "Date_enrollement": "August 15, 2026",
    "Contact_Email": "someone@example.org",
    "Inclusion_agemin": "",
    "Inclusion_Criteria": "1. Age <= 65 and BP<140;\n<br>2. 肺炎\n患者；体温＞38",
    "Condition": "Ash cough;Made-up fever",
    "Intervention": "Experimental group：Lapillin 5 mg, p.o. tid. for 14 days;Control group:none;",
    "Primary_outcome": ";",
    "Unheard_of": "kept under its own name",
}
_REGISTERS = (
    ("ClinicalTrials.gov", "NCT{:08}", "Drug: Lapillin {dose} mg;Biological: Basaltumab;Drug: Placebo"),
    ("ChiCTR", "ChiCTR2099{:06}", "Experimental group:Lapillin tablets {dose} mg, twice daily;Control group:placebo;"),
    ("EU Clinical Trials Register", "EUCTR2099-{:06}-10-DE",
     "<br>Trade Name: Lapil<br>Pharmaceutical Form: Tablet<br>INN or Proposed INN: LAPILLIN<br><br>"),
    ("JPRN", "JPRN-UMIN{:09}", ""),
)  # fmt: skip


def made_record(number: int, size: int = 0) -> dict[str, str]:
    """WHO's names and texts of one trial; with `size`, as many characters of criteria as make it about so large."""
    register, pattern, given = _REGISTERS[number % 4]
    return {
        "TrialID": pattern.format(number),
        "Last_Refreshed_on": "2 March 2099",
        "Public_title": f"Lapillin for ash cough in {20 + number % 60} villages",
        "Scientific_title": f"Lapillin for ash cough in {20 + number % 60} villages: a made-up trial, number {number}",
        "Date_registration": "2099-02-17",
        "Date_registration3": "20990217",
        "Export_date": "3/18/2099 6:53:35 PM",
        "Source_Register": register,
        "Study_type": "Interventional study",
        "Phase": str(number % 5),
        "Countries": "Lapland;Vulcania",
        "Inclusion_Criteria": _filler(number, size),
        "Condition": "Ash cough; Made-up fever",
        "Intervention": given.format(dose=number % 9 + 1),
        "Primary_outcome": "Coughs a day;",
    }


def _filler(number: int, size: int) -> str:
    line = f"{number % 97}. Age < 65 and at home in the village for at least {number % 11} winters;\n<br>"
    return line * max((size - 1000) // len(line), 1)


def ictrp_xml(records: Iterable[Mapping[str, str]], *, root: str = ROOT, closed: bool = True) -> Iterator[bytes]:
    """An export of WHO's, piece by piece; texts are escaped once."""
    yield f'<?xml version="1.0" encoding="UTF-8" ?><{root}>\n'.encode()
    for record in records:
        lines = [f"    <{tag}>{escape(text)}</{tag}>" if text else f"    <{tag} />" for tag, text in record.items()]
        yield ("  <Trial>\n" + "\n".join(lines) + "\n  </Trial>\n").encode()
    if closed:
        yield f"</{root}>\n".encode()


def ictrp_csv(records: Iterable[Mapping[str, str]]) -> str:
    """The CSV variant, whose columns have blanks in their names."""
    rows = list(records)
    columns = list(dict.fromkeys(tag for row in rows for tag in row))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([column.replace("_", " ") for column in columns])
    writer.writerows([[row.get(column, "") for column in columns] for row in rows])
    return out.getvalue()


def study_value(number: int = 1) -> dict[str, Any]:
    """A study of API v2."""
    return {
        "protocolSection": {
            "identificationModule": {
                "nctId": f"NCT{number:08}", "briefTitle": "Lapillin in Ash Cough", "acronym": "LAVA",
                "orgStudyIdInfo": {"id": "VH-17"}, "secondaryIdInfos": [{"id": "2099-000001-25", "type": "EUDRACT"}],
            },
            "statusModule": {"overallStatus": "RECRUITING", "startDateStruct": {"date": "2099-03"}},
            "descriptionModule": {"briefSummary": "Whether lapillin helps.\n\nIt may."},
            "conditionsModule": {"conditions": ["Ash Cough", "Made-up Fever"]},
            "designModule": {"studyType": "INTERVENTIONAL", "phases": ["PHASE2", "PHASE3"]},
            "armsInterventionsModule": {
                "armGroups": [
                    {"label": "Lapillin", "type": "EXPERIMENTAL", "description": "5 mg twice daily for 12 weeks"},
                    {"label": "Placebo", "type": "PLACEBO_COMPARATOR"},
                ],
                "interventions": [
                    {"type": "DRUG", "name": "Lapillin", "description": "5 mg tablets by mouth, twice daily",
                     "armGroupLabels": ["Lapillin"], "otherNames": ["LPL-555", "Lapil"]},
                    {"type": "DIETARY_SUPPLEMENT", "name": "Placebo", "armGroupLabels": ["Placebo"]},
                ],
            },
            "eligibilityModule": {
                "eligibilityCriteria": "Inclusion Criteria:\n\n* Age < 65\n\nExclusion Criteria:\n\n* Fear of ash",
                "sex": "ALL", "minimumAge": "18 Years",
            },
        },
        "hasResults": False,
    }  # fmt: skip


def study_xml(number: int = 1) -> str:
    """The same study in the legacy XML."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<clinical_study>
  <!-- <Trial> is no record here -->
  <id_info><org_study_id>VH-17</org_study_id><secondary_id>2099-000001-25</secondary_id><nct_id>NCT{number:08}</nct_id></id_info>
  <brief_title>Lapillin in Ash Cough</brief_title>
  <acronym>LAVA</acronym>
  <brief_summary><textblock>
      Whether lapillin
      helps.

      It may.
  </textblock></brief_summary>
  <overall_status>Recruiting</overall_status>
  <start_date>March 2099</start_date>
  <phase>Phase 2/Phase 3</phase>
  <study_type>Interventional</study_type>
  <condition>Ash Cough</condition><condition>Made-up Fever</condition>
  <arm_group><arm_group_label>Lapillin</arm_group_label><arm_group_type>Experimental</arm_group_type>
    <description>5 mg twice daily for 12 weeks</description></arm_group>
  <arm_group><arm_group_label>Placebo</arm_group_label><arm_group_type>Placebo Comparator</arm_group_type></arm_group>
  <intervention><intervention_type>Drug</intervention_type><intervention_name>Lapillin</intervention_name>
    <description>5 mg tablets by mouth, twice daily</description><arm_group_label>Lapillin</arm_group_label>
    <other_name>LPL-555</other_name><other_name>Lapil</other_name></intervention>
  <intervention><intervention_type>Dietary Supplement</intervention_type><intervention_name>Placebo</intervention_name>
    <arm_group_label>Placebo</arm_group_label></intervention>
  <eligibility><criteria><textblock>Inclusion Criteria:

          -  Age &lt; 65

        Exclusion Criteria:

          -  Fear of ash</textblock></criteria><gender>All</gender><minimum_age>18 Years</minimum_age></eligibility>
</clinical_study>
"""


def page_of(*numbers: int, token: str = "next") -> str:
    """A page of API v2."""
    studies = [study_value(number) for number in numbers]
    return json.dumps({"totalCount": len(numbers), "studies": studies, "nextPageToken": token}, indent=1)
