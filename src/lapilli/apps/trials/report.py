"""A job's trials as one HTML file: each text with what was found in it lit in colour, filters, charts of it all.

It works without a network, runs no script but its own, and holds ten thousand trials: they lie in parts that are read
when their page is turned to.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from lapilli.ground.files import publish

MOST = 10_000
_PART = 100
_WORDS = 400
_UNTYPED = "(none)"
TYPES = (
    "Drug", "Biological", "Device", "Procedure", "Radiation", "Behavioral", "Genetic", "Dietary Supplement",
    "Combination Product", "Diagnostic Test", "Other",
)  # fmt: skip
SLOTS = ("dose", "route", "form", "frequency", "duration")


@dataclass(frozen=True)
class Shown:
    """One trial of a job: its ids, its register, its status, its records as JSON values and its fields' texts."""

    ids: Sequence[str]
    register: str
    status: str
    records: Sequence[Mapping[str, Any]]
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Part:
    """A piece of a bar, in hundredths of its width."""

    kind: str
    start: float
    width: float


@dataclass(frozen=True)
class Bar:
    name: str
    said: str
    parts: tuple[Part, ...]
    kind: str = ""


@dataclass(frozen=True)
class Chart:
    title: str
    bars: tuple[Bar, ...]


@dataclass
class Counts:
    """What the charts are drawn from."""

    trials: int = 0
    interventions: int = 0
    failed: int = 0
    types: Counter[str] = field(default_factory=Counter)
    slots: Counter[str] = field(default_factory=Counter)
    alignments: Counter[str] = field(default_factory=Counter)
    statuses: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, trial: Shown) -> None:
        """Count one trial."""
        self.trials += 1
        self.failed += trial.status == "failed"
        self.statuses.setdefault(trial.register or _UNTYPED, Counter())[trial.status] += 1
        for record in trial.records:
            if not record.get("name"):
                continue
            self.interventions += 1
            self.types[record.get("type") or _UNTYPED] += 1
            self.slots.update(name for name, _ in _slots(record) if name in SLOTS)
            self.alignments.update({_alignment(record): 1})


def write_report(
    path: Path, title: str, trials: Callable[[], Iterable[Shown]], *, made: str = "", most: int = MOST
) -> Counts:
    """Write the report of a job, and say what it counted; `trials` gives them all each time that it is called.

    Charts are of all trials, `most` of them are shown. Memory is for one part of them at a time.
    """
    counts = Counts()
    for trial in trials():
        counts.add(trial)
    shown = min(counts.trials, most)
    style, script = _asset("report.css"), _asset("report.js")
    heads: list[dict[str, Any]] = []
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(_asset("report.html.jinja")).generate(
        title=title,
        made=made,
        counts=counts,
        shown=shown,
        charts=_charts(counts),
        registers=sorted(counts.statuses),
        statuses=sorted({status for found in counts.statuses.values() for status in found}),
        types=[name for name in (*TYPES, _UNTYPED) if counts.types[name]],
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        parts=_parts(trials(), shown, heads),
        index=lambda: _embed({"trials": heads, "types": TYPES, "size": _PART}),
    )
    with publish(path) as fresh, fresh.open("w", encoding="utf-8") as file:
        for piece in page:
            file.write(piece)
    return counts


def light(text: str, spans: Iterable[tuple[int, int, int]]) -> list[tuple[str, int]]:
    """A text in pieces: (its characters, which intervention they are evidence of, -1 for none).

    `spans` are (start, end, intervention); where they overlap the shorter one is shown. The pieces put together are
    the text.
    """
    owner = [-1] * len(text)
    for start, end, which in sorted(spans, key=lambda span: (span[0] - span[1], span[0], span[2])):
        owner[start:end] = [which] * len(owner[start:end])
    pieces: list[tuple[str, int]] = []
    begin = 0
    for place in range(1, len(text) + 1):
        if place == len(text) or owner[place] != owner[begin]:
            pieces.append((text[begin:place], owner[begin]))
            begin = place
    return pieces


def _parts(trials: Iterable[Shown], shown: int, heads: list[dict[str, Any]]) -> Iterator[str]:
    """The shown trials in parts of JSON; each trial's line of the index is put into `heads`."""
    part: list[dict[str, Any]] = []
    for place, trial in enumerate(trials):
        if place >= shown:
            break
        records = [record for record in trial.records if record.get("name")]
        heads.append(_head(trial, records))
        part.append(_view(trial, records))
        if len(part) == _PART:
            yield _embed(part)
            part = []
    if part:
        yield _embed(part)


def _head(trial: Shown, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    words = [*trial.ids, _title(trial)[1], *(str(record["name"]) for record in records)]
    return {
        "r": trial.register or _UNTYPED,
        "s": trial.status,
        "t": sorted({record.get("type") or _UNTYPED for record in records}),
        "w": " ".join(words).lower()[:_WORDS],
    }


def _view(trial: Shown, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    title_name, _ = _title(trial)
    spans: dict[str, list[tuple[int, int, int]]] = {}
    for which, record in enumerate(records):
        for one in record.get("evidence") or ():
            if one["alignment"] == "none":
                continue
            spans.setdefault(one["field"], []).append((one["start"], one["end"], which))
    fields = [(name, light(text, spans.get(name, ()))) for name, text in trial.fields.items() if text]
    others = [(name.replace("_", " "), pieces, name in spans) for name, pieces in fields if name != title_name]
    return {
        "ids": " · ".join(trial.ids),
        "register": trial.register,
        "status": trial.status,
        "told": next((told for record in trial.records if (told := _told(record))), ""),
        "title": dict(fields).get(title_name, []),
        "found": [_intervention(record) for record in records],
        "lit": [(name, pieces) for name, pieces, lit in others if lit],
        "rest": [(name, pieces) for name, pieces, lit in others if not lit],
    }


def _intervention(record: Mapping[str, Any]) -> dict[str, Any]:
    is_new = {True: "yes", False: "no", None: ""}[record.get("is_new")]
    confidence = record.get("confidence")
    slots = [*_slots(record), ("role", record.get("role") or ""), ("new", is_new)]
    slots.append(("confidence", "" if confidence is None else f"{confidence:.2f}"))
    missing = _alignment(record) == "none"
    return {
        "name": record["name"],
        "type": record.get("type") or _UNTYPED,
        "slots": [(name, value) for name, value in slots if value],
        "told": "not found in the text" if missing else "",
    }


def _slots(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    dosage, how = record.get("dosage") or {}, record.get("administration") or {}
    found = [("dose", dosage.get("text"))]
    found += [(name, how.get(name)) for name in ("route", "form", "frequency", "duration", "timing")]
    return [(name, str(value)) for name, value in found if value]


def _alignment(record: Mapping[str, Any]) -> str:
    """How its name stands in the text."""
    names = [one["alignment"] for one in record.get("evidence") or () if one["value"] == "name"]
    return names[0] if names else "none"


def _told(record: Mapping[str, Any]) -> str:
    error = record.get("error") or {}
    return f"{error.get('code', '')}: {error.get('message', '')}" if error else ""


def _title(trial: Shown) -> tuple[str, str]:
    return next(
        ((name, trial.fields[name]) for name in ("public_title", "scientific_title") if trial.fields.get(name)),
        ("", ""),
    )


def _charts(counts: Counts) -> list[Chart]:
    kinds = [(name, counts.types[name], f"t{place}") for place, name in enumerate(TYPES) if counts.types[name]]
    kinds += [(name, count, "untyped") for name, count in sorted(counts.types.items()) if name not in TYPES]
    most = max((count for _, count, _ in kinds), default=1)
    types = [
        Bar(name, f"{count:,}", (Part("bar", 0, _share(count, most)),), kind)
        for name, count, kind in sorted(kinds, key=lambda each: -each[1])
    ]
    slots = [_whole(name, counts.slots[name], counts.interventions) for name in SLOTS]
    ways = ("exact", "normalised", "fuzzy", "none")
    said = {"none": "not found"}
    places = [_whole(said.get(way, way), counts.alignments[way], counts.interventions) for way in ways]
    return [
        Chart("Types of interventions", tuple(types)),
        Chart(
            "Trials by register, and how many name nothing",
            tuple(_register(name, found) for name, found in _largest(counts)),
        ),
        Chart("Said of an intervention", tuple(slots)),
        Chart("Found in the text", tuple(places)),
    ]


def _largest(counts: Counts) -> list[tuple[str, Counter[str]]]:
    return sorted(counts.statuses.items(), key=lambda each: (-each[1].total(), each[0]))[:12]


def _register(name: str, found: Counter[str]) -> Bar:
    parts: list[Part] = []
    start = 0.0
    kinds = {"ok": "bar", "failed": "bad", "partial": "part"}
    for status in sorted(found, key=lambda status: (list(kinds).index(status) if status in kinds else 9, status)):
        width = _share(found[status], found.total())
        parts.append(Part(kinds.get(status, "none"), round(start, 2), width))
        start += width
    apart = [f"{found[status]:,} {status}" for status in ("none", "partial", "failed") if found[status]]
    return Bar(name, " · ".join([f"{found.total():,}", *apart]), tuple(parts))


def _whole(name: str, count: int, whole: int) -> Bar:
    share = _share(count, whole)
    return Bar(name, f"{share:.0f} %", (Part("bar", 0, share),))


def _share(count: int, whole: int) -> float:
    return round(100 * count / whole, 2) if whole else 0.0


def _embed(value: Any) -> str:
    """JSON that can stand in a script element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # `<` alone could end the element or begin a comment; half a surrogate pair is no UTF-8.
    return text.encode("utf-8", "replace").decode().replace("<", "\\u003c")


def _hash(text: str) -> str:
    return "-".join(("sha256", base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()))


def _asset(name: str) -> str:
    return importlib.resources.files("lapilli.apps.trials").joinpath(name).read_text(encoding="utf-8")
