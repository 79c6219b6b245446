"""Doses, routes, forms, frequencies and durations in a text: the words as they stand, and their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lapilli.apps.trials.schema import Dosage

SlotName = Literal["dosage", "route", "form", "frequency", "duration"]

_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,9}(?:\.\d{1,6})?"
_UNIT = (
    r"mg|milligrams?|g|grams?|gm|mcg|µg|μg|ug|micrograms?|ng|kg|ml|mL|millilitres?|milliliters?|cc|dl|dL|"
    r"l|L|IU|UI|U|units?|"
    r"MU|MIU|mmol|mol|mEq|%|Gy|cGy|mCi|MBq|GBq|kcal|kJ|ppm|mmHg|cells|PFU|CFU|"
    r"tablets?|capsules?|drops?|puffs?|sachets?|ampoules?|vials?|sprays?|"
    r"毫克|克|毫升|片|粒|袋|支|单位"
)
_PER = (
    r"kg|m2|m\^2|m²|sqm|day|days|d|dose|doses|h|hr|hrs|hour|min|minute|time|times|week|wk|month|ml|mL|l|L|tablet|"
    r"capsule|body weight|bw|日|天|次"
)
_DOSE = re.compile(
    rf"""(?<![\w.,/-])(?P<low>{_NUMBER})
    (?:\s?(?:-|–|~|to|/)\s?(?P<high>{_NUMBER}))?
    (?:\s?[x×]\s?10\^?(?P<power>\d{{1,2}}))?
    \s?-?(?P<unit>{_UNIT})
    (?P<per>(?:\s?(?:/|per|a|每)\s?(?:{_PER})(?![A-Za-z]))*)
    (?![A-Za-z])""",
    re.VERBOSE,
)
_ROUTE = re.compile(
    r"""(?<![\w.])(?:
      oral(?:ly)? (?!\s(?:health|cavity|mucos|cancer|hygiene|glucose|candid|lesion|disease|lichen))
    | by\ mouth | per\ os | [pP]\.?[oO]\.(?=[\s,;)]|$|[a-z])
    | intravenous(?:ly)?(?:\ (?:infusion|injection|drip|bolus))? | [iI]\.?[vV]\.? (?![\w-])
    | subcutaneous(?:ly)?(?:\ injection)? | s\.c\. | SC(?=\s(?:inj|dose|every|q)) | intramuscular(?:ly)?(?:\ injection)?
    | i\.m\. | IM(?=\s(?:inj|dose)) | topical(?:ly)?
    | inhal(?:ed|ation) | (?:atomi[sz]ed|nebuli[sz]ed|aerosol)(?:\ inhalation)?
    | intranasal(?:ly)? | nasal\ (?:spray|inhalation) | sublingual(?:ly)? | rectal(?:ly)? | (?:intra)?vaginal(?:ly)?
    | transdermal(?:ly)? | intrathecal(?:ly)? | epidural(?:ly)? | intravitreal(?:ly)? | intra-?articular(?:ly)?
    | intradermal(?:ly)? | intraperitoneal(?:ly)? | intracoronary | intralesional(?:ly)? | intratumou?ral(?:ly)?
    | perineural(?:ly)? | buccal(?:ly)? | enteral(?:ly)? | percutaneous(?:ly)? | nasogastric(?:\ tube)?
    | 口服 | 静脉滴注 | 静脉注射 | 皮下注射 | 肌肉注射 | 雾化吸入 | 外用
    )(?!\w)
    | (?<![\w.])p\.o\.""",
    re.VERBOSE | re.IGNORECASE,
)
_FORM = re.compile(
    r"(?<!\w)(?:(?:film-?coated |coated |soft |hard |chewable |effervescent )?(?:tablet|capsule|"
    r"suppositor(?:y|ies)|lozenge)s?"
    r"|pre-?filled syringes?|(?:oral |injectable )?(?:solution|suspension)|cream|gel|ointment|lotion|"
    r"(?:transdermal )?patch(?:es)?"
    r"|eye drops?|nasal spray|mouthwash|syrup|granules|powder|injection|infusion|implant|pellets?|"
    r"lyophili[sz]ate)(?!\w)",
    re.IGNORECASE,
)
_TIMES = (
    r"(?:once|twice|thrice|one\ time|(?:two|three|four|five|six|\d{1,2})(?:\s?(?:-|to)\s?\d{1,2})?\ times?|\d{1,2}x)"
)
_SPAN = r"(?:day|week|month|year|hour|morning|evening|night)s?"
_FREQUENCY = re.compile(
    rf"""(?:(?<![\w.])|(?<=[pi]\.[ov]\.))(?:
      {_TIMES}(?:\s?(?:a|per|each|every|/)\s?{_SPAN} | \ (?:daily|weekly|monthly|yearly|nightly))
    | every(?:\ other|\ second|\ third)?\ (?:\d{{1,3}}(?:\s?(?:-|to)\s?\d{{1,3}})?|two|three|four|six|eight|twelve)?\s?
        {_SPAN}
    | each\ (?:day|week|month) | (?:once\ )?(?:daily|weekly|monthly|biweekly|nightly) | per\ day | a\ day
    | q\.?\s?\d{{1,2}}\s?-?\s?(?:h|hr|hrs|hours|d|w|wk|weeks|m)
    | (?:eow|[qbt]\.?i\.?d|q\.?d|q\.?o\.?d|q\.?h\.?s)(?:\.|(?!\w))
    | (?:[1-9]|1\d)\s?/\s?(?:day|week) | single\ (?:dose|injection|infusion|administration)
    | at\ bedtime | as\ needed | once
    | 每[日天周月]\s?\d{{0,2}}\s?次? | 一?[日天]\s?[一二三四\d]\s?次
    )(?!\w)""",
    re.VERBOSE | re.IGNORECASE,
)
_COUNT = r"(?:\d{1,4}(?:\s?(?:-|–|to)\s?\d{1,4})?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fourteen)"
_LENGTH = r"(?:minute|min|hour|day|week|month|year|cycle|session)s?"
_DURATION = re.compile(
    rf"""(?<!\w)(?:
      (?:for|over|during|lasting|up\ to|within)\s
        (?:up\ to\ |a\ (?:total|period|maximum|minimum)\ of\ |at\ least\ |the\ first\ )?
        (?P<for>(?:{_COUNT}|a|an)(?:\ consecutive)?[\s-]?{_LENGTH})
    | (?P<course>{_COUNT}[\s-]{_LENGTH})\ (?:course|treatment|period|program(?:me)?|of\ treatment)
    | [x×]\s?(?P<times>\d{{1,3}}\s?{_LENGTH})
    | (?P<cjk>(?:疗程|连续|共)?\s?\d{{1,3}}\s?[天周日个]月?)
    )(?!\w)""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Slot:
    """A value in a text: `text[start:end]`."""

    name: SlotName
    start: int
    end: int
    text: str


def find_slots(text: str) -> Iterator[Slot]:
    """Every value in a text, those of one kind in their order."""
    patterns: tuple[tuple[SlotName, re.Pattern[str]], ...] = (
        ("dosage", _DOSE), ("route", _ROUTE), ("form", _FORM), ("frequency", _FREQUENCY), ("duration", _DURATION),
    )  # fmt: skip
    for name, pattern in patterns:
        for hit in pattern.finditer(text):
            start, end = hit.span() if name != "duration" else hit.span(hit.lastgroup or 0)
            yield Slot(name, start, end, text[start:end])


def read_dosage(text: str) -> Dosage:
    """The words of a dose with what they say as numbers, as far as they do."""
    hit = _DOSE.search(text)
    if hit is None:
        return Dosage(text=text[:2000])
    per = re.sub(r"\s?(?:/|per|每)\s?", "/", hit["per"].strip()).strip("/") if hit["per"] else ""
    value, high = _number(hit["low"]), _number(hit["high"]) if hit["high"] else None
    if high is not None and high < value:
        high = None
    if hit["power"]:
        value, high = value * 10 ** int(hit["power"]), high and high * 10 ** int(hit["power"])
    return Dosage(text=text[:2000], value=value, value_max=high, unit=hit["unit"], per=per or None)


def _number(text: str) -> float:
    return float(text.replace(",", ""))
