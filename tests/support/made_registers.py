"""Registers' files that were made up: WHO's XML as it is sent, with blanks, odd marks and empty elements."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

_TRIAL = """  <Trial>
    <TrialID>{id}</TrialID>
    <Last_Refreshed_on>17 February 2026</Last_Refreshed_on>
    <Public_title>{title}   </Public_title>
    <Scientific_title>{title}: a made-up trial&#x0D;</Scientific_title>
    <Source_Register>{register}</Source_Register>
    <Recruitment_Status>Recruiting</Recruitment_Status>
    <Inclusion_agemin />
    <Inclusion_Criteria>People at home, 60 &lt; age &lt; 80</Inclusion_Criteria>
    <Condition>Made-up fever; Ash cough</Condition>
    {intervention}
    <Primary_outcome>days of fever;</Primary_outcome>
  </Trial>
"""
_KINDS = (
    ("Lapillin tablets against made-up fever", "ClinicalTrials.gov", "Drug: Lapillin 5 mg;Drug: Placebo"),
    ("Basaltumab in made-up fever", "ChiCTR", "Treated group:Basaltumab 200 mg iv;Control group:routine treatment;"),
    ("Effect of breathing lessons on ash cough", "JPRN", ""),
    ("Pumice brace or rest", "ClinicalTrials.gov", "Device: Pumice brace;Behavioral: Rest"),
)


def write_ictrp(path: Path, count: int) -> Path:
    """A file of so many trials in WHO's XML; every fourth one has no Intervention."""
    with path.open("w", encoding="utf-8") as file:
        file.write("<?xml version='1.0' encoding='UTF-8' ?><Trials_downloaded_from_ICTRP>\n")
        for number in range(count):
            title, register, given = _KINDS[number % len(_KINDS)]
            file.write(
                _TRIAL.format(
                    id=f"MADE{number:08}",
                    title=escape(f"{title}, place {number}"),
                    register=register,
                    intervention=f"<Intervention>{escape(given)}</Intervention>" if given else "<Intervention/>",
                )
            )
        file.write("</Trials_downloaded_from_ICTRP>\n")
    return path
