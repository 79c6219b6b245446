"""Ids of trials in the registers of the world: found in any text, written one way, so that records can be joined."""

from __future__ import annotations

import re

# Primary registers of WHO's network, ClinicalTrials.gov, and WHO's universal trial number.
_ID = re.compile(
    r"""(?<![A-Za-z0-9])(?:
      NCT\d{8} | ISRCTN\d{8} | DRKS\d{8} | ACTRN\d{14} | KCT\d{7} | TCTR\d{8,11} | RPCEC\d{8} | LBCTR\d{6,12}
    | EUCTR\d{4}-\d{6}-\d{2}(?:-(?:Outside-EU/EEA|3rd|[A-Z]{2}))? | CTIS\d{4}-\d{6}-\d{2}(?:-\d{2})?
    | \d{4}-\d{6}-\d{2}(?:-\d{2})? | ChiCTR(?:-[A-Z]{2,4})?-?\d{8,12} | IRCT\d{8,14}N\d{1,3} | CTRI/\d{4}/\d{2,3}/\d{6}
    | (?:JPRN-)?(?:UMIN\d{9} | C000\d{6} | jRCT[a-z]?\d{8,11} | JapicCTI-?\d{6} | JMA-IIA\d{5})
    | NTR\d{2,5} | NL-OMON\d{4,6} | PACTR\d{15,16} | RBR-[0-9a-z]{5,8} | SLCTR/\d{4}/\d{3} | PER-\d{3}-\d{2}
    | HKUCTR-\d{2,5} | U1111-\d{4}-\d{4}
    )(?![A-Za-z0-9])""",
    re.VERBOSE | re.IGNORECASE,
)
_LOWER = {
    "chictr": "ChiCTR", "jrct": "jRCT", "japiccti": "JapicCTI", "jprn-": "JPRN-", "rbr-": "RBR-",
}  # fmt: skip
_EUDRACT = re.compile(r"EUCTR(\d{4}-\d{6}-\d{2})", re.IGNORECASE)


def find_ids(*texts: str) -> tuple[str, ...]:
    """Every register's id that stands in the texts, in order, each once; an EU trial also by its number alone.

    The EU's register has a record for each country: what they have in common is the number.
    """
    found: dict[str, None] = {}
    for text in texts:
        for hit in _ID.finditer(text):
            found[_written(hit[0])] = None
            if number := _EUDRACT.match(hit[0]):
                found[number[1]] = None
    return tuple(found)


def _written(text: str) -> str:
    """As its register writes it."""
    lower = text.lower()
    if lower.startswith("jprn-"):
        return "JPRN-" + _written(text[5:])
    for start, written in _LOWER.items():
        if lower.startswith(start):
            rest = text[len(start) :]
            return written + (rest.lower() if start in ("jrct", "rbr-") else rest.upper())
    if lower.startswith("euctr") and lower.endswith("outside-eu/eea"):
        return text[: -len("outside-eu/eea")].upper() + "Outside-EU/EEA"
    return text.upper()


def join_ids(own: str, others: tuple[str, ...]) -> tuple[str, ...]:
    """Its own id first, then the others, each once."""
    first = (own,) if own else ()
    return tuple(dict.fromkeys((*first, *(each for each in others if each.lower() != own.lower()))))


_REGISTERS = {
    "NCT": "ClinicalTrials.gov", "CHICTR": "ChiCTR", "EUCTR": "EU Clinical Trials Register", "ISRCTN": "ISRCTN",
    "JPRN": "JPRN", "IRCT": "IRCT", "ACTRN": "ANZCTR", "CTRI": "CTRI", "DRKS": "German Clinical Trials Register",
    "KCT": "CRIS", "TCTR": "TCTR", "PACTR": "PACTR", "RBR": "REBEC", "CTIS": "CTIS",
}  # fmt: skip


def register_of(own: str) -> str:
    """The register that gives out ids like this one; "" where that is not known."""
    upper = own.upper()
    return next((name for start, name in _REGISTERS.items() if upper.startswith(start)), "")
