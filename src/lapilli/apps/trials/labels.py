"""Trials whose interventions people have named: what extraction is scored against, and the one split of them.

{"id": "X1", "register": "…", "fields": {"public_title": "…"}, "interventions": [{"name": "…", "type": "Drug"}]}

is a line of our own form. Two more are known, neither part of the package: studies of ClinicalTrials.gov with typed,
named interventions (`ctgov_labelled.jsonl`, of which a share may train a model), and texts of WHO's ICTRP joined to
interventions that were normalised by hand (`ictrp_ebm_labelled.jsonl`, for tests alone).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lapilli.errors import InputError

Share = Literal["train", "held", "all"]

# Of the 263 labelled studies exactly 200 lie below: half way between the 200th and the 201st hash.
_TRAIN_BELOW = 3_020_425_259


@dataclass(frozen=True)
class Label:
    """One intervention as people named it; `type` is one of the eleven of ClinicalTrials.gov, or "".

    `slots` are dose, route, form, frequency and duration where they were labelled, `is_new` is "yes", "no", "not told",
    or "" where it was not labelled.
    """

    name: str
    type: str = ""
    others: tuple[str, ...] = ()
    slots: Mapping[str, str] | None = None
    is_new: str = ""


@dataclass(frozen=True)
class Labelled:
    """One trial's text without its interventions, and the interventions apart.

    `fields` has canonical names (public_title, scientific_title, conditions, summary, arms); `stated` is what the
    register's own field of interventions says, "" where the file does not have it.
    """

    id: str
    register: str
    fields: Mapping[str, str]
    interventions: tuple[Label, ...]
    conditions: tuple[str, ...] = ()
    stated: str = ""
    normalised: bool = False  # labels are concepts that need not stand in the text


def is_train(trial_id: str) -> bool:
    """Whether a study of ClinicalTrials.gov may train a model; every other one is set aside for scoring.

    By the first 32 bits of the id's SHA-256: it does not depend on which other studies there are.
    """
    return int.from_bytes(hashlib.sha256(trial_id.encode()).digest()[:4], "big") < _TRAIN_BELOW


def read_labelled(path: Path, share: Share = "held") -> Iterator[Labelled]:
    """The labelled trials of a JSONL file in its order: `share` "train" (200), "held" (the rest) or "all".

    Only the studies of ClinicalTrials.gov have a share that may train: all others are "held" as a whole.
    Raises InputError where a line is not of a known form.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                trial = _read(row)
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}, line {number}: not a labelled trial of a known form ({error})") from None
            if share == "all" or (share == "train") == ("arms" in row and is_train(trial.id)):
                yield trial


def _read(row: Mapping[str, Any]) -> Labelled:
    if "arms" in row:
        return _read_ctgov(row)
    return _read_ictrp(row) if "gold_list" in row else _read_own(row)


def _read_own(row: Mapping[str, Any]) -> Labelled:
    labels = tuple(
        Label(
            given["name"],
            given.get("type", ""),
            tuple(given.get("others", ())),
            given.get("slots"),
            given.get("is_new", ""),
        )
        for given in row["interventions"]
    )
    return Labelled(row["id"], row["register"], row["fields"], labels, tuple(row.get("conditions", ())))


def _read_ctgov(row: Mapping[str, Any]) -> Labelled:
    conditions = tuple(row["conditions"])
    fields = {
        "public_title": row["brief_title"],
        "scientific_title": row["official_title"],
        "conditions": "; ".join(conditions),
        "summary": row["brief_summary"],
        "arms": "\n".join(arm for arm in row["arms"] if arm),
    }
    labels = tuple(
        Label(given["name"], given["type"].replace("_", " ").title(), tuple(given["other"]))
        for given in row["interventions"]
    )
    kept = {name: text for name, text in fields.items() if text}
    return Labelled(row["id"], "ClinicalTrials.gov", kept, labels, conditions)


def _read_ictrp(row: Mapping[str, Any]) -> Labelled:
    fields = {name: row[name] for name in ("public_title", "scientific_title")} | {"conditions": row["condition"]}
    names = [name for name in row["gold_list"] if name != "No Intervention"]
    kept = {name: text for name, text in fields.items() if text}
    labels = tuple(Label(name) for name in names)
    return Labelled(
        row["id"],
        row["register"],
        kept,
        labels,
        (row["condition"],) if row["condition"] else (),
        row["intervention"],
        True,
    )
