"""The dates of registers as ISO writes them: year, month and day, or as much as is told."""

from __future__ import annotations

import re
from datetime import date

_MONTHS = {
    name: number + 1
    for number, month in enumerate(
        ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
         "december"]
    )
    for name in (month, month[:3], month[:4])
}  # fmt: skip
_PLAIN = re.compile(r"(\d{4})(\d{2})(\d{2})$")
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})(?:[-/.](\d{1,2}))?(?:[T ].*)?$")
_NUMBERS = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})(?:[T ].*)?$")
_DAY_FIRST = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[ -]([A-Za-z]+)\.?,?[ -](\d{4})$")
_MONTH_FIRST = re.compile(r"([A-Za-z]+)\.? (?:(\d{1,2})(?:st|nd|rd|th)?, ?)?(\d{4})$")


def iso_date(text: str, *, month_first: bool = False) -> str:
    """`2020-02-17`, or `2020-02` where no day is told; the text itself where it is no date that is known.

    `month_first` says how `3/4/2020` is to be read; where only one reading is a date, it is that one.
    """
    text = text.strip()
    if hit := _PLAIN.match(text) or _ISO.match(text):
        year, month, day = (hit[1], hit[2], hit[3])
    elif hit := _NUMBERS.match(text):
        day, month, year = (hit[2], hit[1], hit[3]) if month_first else (hit[1], hit[2], hit[3])
        if int(month) > 12:
            day, month = month, day
    elif hit := _DAY_FIRST.match(text):
        day, month, year = hit[1], str(_MONTHS.get(hit[2].lower(), 0)), hit[3]
    elif hit := _MONTH_FIRST.match(text):
        month, day, year = str(_MONTHS.get(hit[1].lower(), 0)), hit[2], hit[3]
    else:
        return text
    try:
        found = date(int(year), int(month), int(day or 1))
    except ValueError:
        return text
    return found.isoformat() if day else found.isoformat()[:7]
