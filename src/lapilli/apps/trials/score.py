"""How right records are: against labelled trials, with each measure told for every register and language.

A name is right when it is a label's, or one of its other names, after case, blanks and punctuation are taken off; it is
nearly right (relaxed) when all words of one are in the other. Each label can be found once. What a register states
outright is read, not found: such records are counted apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lapilli.apps.trials.labels import Label, Labelled
from lapilli.apps.trials.language import language_of

Record = Mapping[str, Any]
SLOTS = ("dose", "route", "form", "frequency", "duration")

_EDGE = re.compile(r"[^\w]+")
_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


@dataclass
class Hits:
    """What was wanted, what was said, and what of it was right."""

    wanted: int = 0
    said: int = 0
    right: int = 0
    f1_sum: float = 0.0  # of trials, for the macro average
    trials: int = 0

    def add(self, wanted: int, said: int, right: int) -> None:
        """Count one trial."""
        self.wanted, self.said, self.right = self.wanted + wanted, self.said + said, self.right + right
        self.f1_sum += f1(wanted, said, right)
        self.trials += 1

    @property
    def precision(self) -> float:
        return self.right / self.said if self.said else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.wanted if self.wanted else 0.0

    @property
    def micro(self) -> float:
        return f1(self.wanted, self.said, self.right)

    @property
    def macro(self) -> float:
        return self.f1_sum / self.trials if self.trials else 0.0

    def told(self) -> dict[str, float]:
        """The shares by name."""
        shares = {"precision": self.precision, "recall": self.recall, "f1": self.micro, "macro_f1": self.macro}
        return {name: round(share, 4) for name, share in shares.items()} | {
            "wanted": self.wanted, "said": self.said, "right": self.right,
        }  # fmt: skip


@dataclass
class Score:
    """All measures of some trials; `names` are exact after normalising, `names_relaxed` nearly right."""

    trials: int = 0
    without_record: int = 0
    failed: int = 0
    stated: int = 0
    names: Hits = field(default_factory=Hits)
    names_relaxed: Hits = field(default_factory=Hits)
    spans: Hits = field(default_factory=Hits)
    spans_relaxed: Hits = field(default_factory=Hits)
    typed: int = 0
    typed_right: int = 0
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    slots: dict[str, Hits] = field(default_factory=dict)
    newness: Counter[tuple[str, str]] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)
    records: int = 0
    grounded: int = 0
    values: int = 0
    values_missing: int = 0

    @property
    def type_accuracy(self) -> float:
        """Of the names that are nearly right and whose label has a type."""
        return self.typed_right / self.typed if self.typed else 0.0

    @property
    def grounding(self) -> float:
        """The share of records whose name stands in the text."""
        return self.grounded / self.records if self.records else 0.0

    @property
    def hallucination(self) -> float:
        """The share of values (names, doses, routes …) that stand nowhere in the text."""
        return self.values_missing / self.values if self.values else 0.0

    def told(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "trials": self.trials,
            "without_record": self.without_record,
            "failed": self.failed,
            "stated_apart": self.stated,
            "records": self.records,
            "names": self.names.told(),
            "names_relaxed": self.names_relaxed.told(),
            "spans": self.spans.told(),
            "spans_relaxed": self.spans_relaxed.told(),
            "type_accuracy": round(self.type_accuracy, 4),
            "types": {"compared": self.typed, "right": self.typed_right},
            "confusion": [[wanted, said, count] for (wanted, said), count in sorted(self.confusion.items())],
            "slots": {name: hits.told() for name, hits in sorted(self.slots.items())},
            "slots_filled": {name: self.filled[name] for name in SLOTS},
            "is_new": [[wanted, said, count] for (wanted, said), count in sorted(self.newness.items())],
            "grounding": round(self.grounding, 4),
            "hallucination": round(self.hallucination, 4),
        }


@dataclass
class Scores:
    """The score of all trials, and the same for each register and each language."""

    all: Score = field(default_factory=Score)
    registers: dict[str, Score] = field(default_factory=dict)
    languages: dict[str, Score] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "all": self.all.told(),
            "registers": {name: score.told() for name, score in sorted(self.registers.items())},
            "languages": {name: score.told() for name, score in sorted(self.languages.items())},
        }


def score(pairs: Iterable[tuple[Labelled, Sequence[Record]]]) -> Scores:
    """Compare labelled trials with their records (JSON values); those that a register states are counted apart."""
    scores = Scores()
    for trial, records in pairs:
        language = language_of(" ".join(trial.fields.values()))
        for one in (
            scores.all,
            scores.registers.setdefault(trial.register, Score()),
            scores.languages.setdefault(language, Score()),
        ):
            _add(one, trial, records)
    return scores


def f1(wanted: int, said: int, right: int) -> float:
    """The harmonic mean of precision and recall; 1 where nothing was wanted and nothing said."""
    return 1.0 if not wanted and not said else 2 * right / (wanted + said)


def normal(name: str) -> str:
    """A name without what does not tell it from another: case, width, blanks, punctuation."""
    return _EDGE.sub(" ", unicodedata.normalize("NFKC", name).casefold()).strip()


def _add(total: Score, trial: Labelled, records: Sequence[Record]) -> None:
    total.trials += 1
    total.without_record += not records
    total.failed += any(record.get("status") == "failed" for record in records)
    named = [record for record in records if record.get("name")]
    found = [record for record in named if record.get("origin") != "stated"]
    total.stated += len(named) - len(found)
    labels = trial.interventions
    exact = match(labels, found, _is_same)
    nearly = match(labels, found, _is_near)
    total.names.add(len(labels), len(found), len(exact))
    total.names_relaxed.add(len(labels), len(found), len(nearly))
    for label, record in nearly:
        if label.type:
            total.typed += 1
            total.typed_right += label.type == record.get("type")
            total.confusion[label.type, record.get("type") or "(none)"] += 1
        if label.is_new:
            total.newness[label.is_new, _yes(record.get("is_new"))] += 1
        _add_slots(total, label, record)
    _add_spans(total, trial, found)
    _add_grounding(total, trial, found)


def match(
    labels: Sequence[Label], records: Sequence[Record], alike: Callable[[Label, str], bool]
) -> list[tuple[Label, Record]]:
    """Each label with the first record that is like it and no other label's."""
    left = list(records)
    pairs: list[tuple[Label, Record]] = []
    # What is exactly right is matched before what is nearly right can take its place.
    for test in dict.fromkeys((_is_same, alike)):
        for label in labels:
            if any(label is taken for taken, _ in pairs):
                continue
            for record in left:
                if test(label, str(record["name"])):
                    pairs.append((label, record))
                    left.remove(record)
                    break
    return pairs


def _is_same(label: Label, name: str) -> bool:
    wanted = normal(name)
    return any(normal(each) == wanted for each in (label.name, *label.others))


def _is_near(label: Label, name: str) -> bool:
    said = normal(name)
    for each in (label.name, *label.others):
        wanted = normal(each)
        words, others = set(wanted.split()), set(said.split())
        if words and others and (words <= others or others <= words):
            return True
        if _CJK.search(wanted) and (wanted in said or said in wanted):
            return True
    return False


def _holds(text: str, value: str) -> bool:
    """Whether a normalised text has a value as whole words; words of Chinese or Japanese have no ends."""
    return value in text if _CJK.search(value) else f" {value} " in f" {text} "


def _add_spans(total: Score, trial: Labelled, records: Sequence[Record]) -> None:
    """Labels that stand in the text against the places of names; a label may be found at any place where it stands."""
    places = [found for label in trial.interventions if (found := _places(label, trial.fields))]
    spans = [span for record in records if (span := name_span(record)) is not None]
    for hits, alike in ((total.spans, _equal), (total.spans_relaxed, _overlap)):
        left = list(spans)
        right = 0
        for found in places:
            for span in left:
                if any(alike(place, span) for place in found):
                    left.remove(span)
                    right += 1
                    break
        hits.add(len(places), len(spans), right)


Place = tuple[str, int, int]


def name_span(record: Record) -> Place | None:
    """Where a record's name stands."""
    for one in record.get("evidence") or ():
        if one["value"] == "name" and one["alignment"] != "none":
            return (one["field"], one["start"], one["end"])
    return None


def _places(label: Label, fields: Mapping[str, str]) -> list[Place]:
    found = []
    for each in (label.name, *label.others):
        if not each.strip():
            continue
        edges = ("", "") if _CJK.search(each) else (r"(?<!\w)", r"(?!\w)")
        words = re.compile(edges[0] + re.escape(each.strip()) + edges[1], re.IGNORECASE)
        for name, text in fields.items():
            found += [(name, hit.start(), hit.end()) for hit in words.finditer(text)]
    return found


def _equal(one: Place, other: Place) -> bool:
    return one == other


def _overlap(one: Place, other: Place) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def _add_slots(total: Score, label: Label, record: Record) -> None:
    if label.slots is None:
        return
    said = slots_of(record)
    for name in SLOTS:
        wanted, given = normal(label.slots.get(name, "")), normal(said.get(name, ""))
        if wanted or given:
            total.slots.setdefault(name, Hits()).add(bool(wanted), bool(given), bool(wanted) and wanted == given)


def slots_of(record: Record) -> dict[str, str]:
    """The slots of a record that are filled."""
    dosage, how = record.get("dosage") or {}, record.get("administration") or {}
    values = {"dose": dosage.get("text")} | {name: how.get(name) for name in SLOTS[1:]}
    return {name: str(value) for name, value in values.items() if value}


def _add_grounding(total: Score, trial: Labelled, records: Sequence[Record]) -> None:
    text = normal(" ".join([*trial.fields.values(), trial.stated]))
    for record in records:
        total.records += 1
        values = {"name": str(record["name"]), **slots_of(record)}
        total.filled.update(values.keys() - {"name"})
        for name, value in values.items():
            missing = not _holds(text, normal(value))
            total.values += 1
            total.values_missing += missing
            total.grounded += name == "name" and not missing


def _yes(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, "not told")
