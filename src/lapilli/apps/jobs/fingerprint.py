"""What a job's folder is for, as a file; another run must be for the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lapilli.apps.jobs.columns import KINDS, Columns, Kind, canonical
from lapilli.errors import InputError
from lapilli.ground.files import open_regular, publish

_FORMAT = 1
_MOST_BYTES = 4 << 20
_SHOWN = 120


@dataclass(frozen=True)
class Fingerprint:
    """All that decides what the rows are: what the caller names, how many items a part has, and the columns."""

    fields: Mapping[str, Any]
    shard: int
    columns: Columns

    def write(self, path: Path) -> None:
        """Write it down; whole or not at all."""
        value = {"format": _FORMAT, "shard": self.shard, "columns": dict(self.columns), "fingerprint": self.fields}
        with publish(path) as fresh:
            fresh.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """What `write` wrote; raises InputError for anything else."""
        try:
            with open_regular(path) as file:
                value = json.loads(file.read(_MOST_BYTES))
            found, columns, shard = value["format"], value["columns"], value["shard"]
            right = (
                isinstance(value["fingerprint"], dict) and isinstance(shard, int) and shard > 0
                and all(kind in KINDS for kind in columns.values())
            )  # fmt: skip
        except FileNotFoundError:
            raise InputError(f"{path.parent}: holds no job: there is no {path.name}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read: {type(error).__name__}: {error}") from None
        if found != _FORMAT or not right:
            raise InputError(f"{path}: is of format {found!r}, not {_FORMAT}: it was made by another lapilli")
        return cls(value["fingerprint"], shard, {name: cast(Kind, kind) for name, kind in columns.items()})

    def require_same(self, other: Fingerprint, folder: Path) -> None:
        """Raise InputError where the other differs, with each field that does and both values."""
        old, new = self._flat(), other._flat()
        differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if differing:
            said = "; ".join(
                f"{name} was {_shown(old.get(name))}, now it is {_shown(new.get(name))}" for name in differing[:3]
            )
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise InputError(f"{folder}: holds rows of another run: {said}{more}; give another folder")

    def _flat(self) -> dict[str, str]:
        """Each value under its dotted name."""
        order = {f"column {name}": kind for name, kind in self.columns.items()}
        flat: dict[str, str] = {}
        todo: list[tuple[str, Any]] = [("", self.fields), ("", {"shard": self.shard}), ("", order)]
        while todo:
            name, value = todo.pop(0)
            if isinstance(value, Mapping) and (value or not name):
                todo[:0] = [(f"{name}.{key}" if name else str(key), inner) for key, inner in value.items()]
            else:
                flat[name] = canonical(value)
        return flat


def _shown(text: str | None) -> str:
    if text is None:
        return "not there"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
