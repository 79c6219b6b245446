"""How a checkpoint's makers would have its answers drawn: `generation_config.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lapilli.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class GenerationDefaults:
    """What a checkpoint recommends; None where it says nothing, temperature 0 where it wants the likeliest token."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GenerationDefaults:
        """Read a `generation_config.json`. Raises CheckpointError for a value that is no number."""
        temperature = _number(values, "temperature")
        return cls(
            temperature=(1.0 if temperature is None else temperature) if values.get("do_sample") else 0.0,
            top_k=_whole(values, "top_k"),
            top_p=_number(values, "top_p"),
            min_p=_number(values, "min_p"),
            repetition_penalty=_number(values, "repetition_penalty"),
            max_new_tokens=_whole(values, "max_new_tokens"),
        )

    def to_dict(self, *, bos_id: int | None, eos_ids: Iterable[int], pad_id: int | None) -> dict[str, Any]:
        """The `generation_config.json` that transformers reads."""
        ends = sorted(eos_ids)
        drawn = ("top_k", "top_p", "min_p") if self.temperature > 0 else ()
        values: dict[str, Any] = {
            "bos_token_id": bos_id,
            "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
            "pad_token_id": pad_id,
            "do_sample": self.temperature > 0,
            "temperature": self.temperature if self.temperature > 0 else None,
            # transformers warns of options for drawing where nothing is drawn.
            **{name: getattr(self, name) for name in (*drawn, "repetition_penalty", "max_new_tokens")},
        }
        return {name: value for name, value in values.items() if value is not None}


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise CheckpointError(f"generation_config.json: {name} must be a number from 0 up, it is {str(value)[:40]!r}")
    return float(value)


def _whole(values: Mapping[str, Any], name: str) -> int | None:
    value = _number(values, name)
    if value is not None and value != int(value):
        raise CheckpointError(f"generation_config.json: {name} must be a whole number, it is {value}")
    return None if value is None else int(value)
