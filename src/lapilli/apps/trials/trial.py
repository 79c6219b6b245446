"""One record of a register as it was read: its texts under one set of names, and what the register states outright."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from lapilli.apps.trials.vocabulary import InterventionType, Role

TYPES: tuple[InterventionType, ...] = get_args(InterventionType)
"""The eleven of ClinicalTrials.gov, in their order there."""

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Stated:
    """An intervention that the register itself gives, apart from its texts.

    `type` is one of the eleven, or "" where the register has no types; `arms` are labels of the trial's arms.
    """

    name: str
    type: InterventionType | str = ""
    description: str = ""
    other_names: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arm:
    """A group of a trial as its register gives it; `kind` is the register's own word ("Placebo Comparator")."""

    label: str
    kind: str = ""
    description: str = ""


@dataclass(frozen=True)
class Trial:
    """One record of a register as it was read.

    `ids` are its own id first, then those it has elsewhere. `fields` are cleaned texts under canonical names
    (`lapilli.apps.trials.readers.names.FIELDS`), those without text left out: every offset into a trial counts the
    characters of such a text. `position` counts a file's records from 0, `digest` is the sha256 of what was read.
    `complete` is False for what was salvaged from a damaged end.
    """

    ids: tuple[str, ...]
    register: str
    fields: Mapping[str, str]
    stated: tuple[Stated, ...] = ()
    arms: tuple[Arm, ...] = ()
    file: str = ""
    position: int = 0
    digest: str = field(default="")
    complete: bool = True

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", _digest(self))

    @property
    def id(self) -> str:
        """Its id in its own register; "" where it gives none."""
        return self.ids[0] if self.ids else ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON value, which `from_json` turns into an equal trial."""
        return {**asdict(self), "fields": dict(self.fields)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trial:
        """A trial of what `to_json` gave."""
        known = {each.name for each in fields(cls)}
        rest = {name: given for name, given in value.items() if name in known}
        stated = tuple(
            Stated(**{**one, "other_names": tuple(one["other_names"]), "arms": tuple(one["arms"])})
            for one in value["stated"]
        )
        arms = tuple(Arm(**one) for one in value["arms"])
        return cls(**{**rest, "ids": tuple(value["ids"]), "stated": stated, "arms": arms})


def _digest(trial: Trial) -> str:
    """Of what the register says, whatever file it came in."""
    said = {
        "ids": trial.ids,
        "register": trial.register,
        "fields": dict(trial.fields),
        "stated": [asdict(one) for one in trial.stated],
        "arms": [asdict(one) for one in trial.arms],
    }
    text = json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
