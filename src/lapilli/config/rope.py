"""How positions are rotated, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lapilli.config.fields import Json, integer, number, numbers, shown
from lapilli.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding (arXiv 2104.09864) and the way it is stretched past the trained length."""

    kind: Literal["default", "linear", "dynamic", "yarn", "longrope", "llama3"] = "default"
    theta: float = 10_000.0
    factor: float = 1.0
    partial: float = 1.0
    original_max_positions: int | None = None
    attention_factor: float | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("theta", "factor", "partial"):
            value = getattr(self, name)
            if not value > 0:
                raise CheckpointError(f"rope_parameters: {name} is {value}, it must be a positive number")
        if self.partial > 1:
            raise CheckpointError(f"rope_parameters: partial is {self.partial}, no more than a whole head can turn")

    @classmethod
    def from_dict(cls, values: Json, where: str) -> RopeConfig:
        """Read `rope_parameters` (transformers 5) or `rope_theta` + `rope_scaling` (before)."""
        nested = values.get("rope_parameters") or values.get("rope_scaling") or {}
        if not isinstance(nested, Mapping):
            raise CheckpointError(f"{where}: rope_scaling must be an object, it is {type(nested).__name__}")
        kind = str(nested.get("rope_type", nested.get("type", "default")))
        kind = {"su": "longrope"}.get(kind, kind)
        if kind not in ("default", "linear", "dynamic", "yarn", "longrope", "llama3"):
            raise CheckpointError(f"{where}: rope type {shown(kind)} is not known here")
        merged: dict[str, Any] = {
            "rope_theta": values.get("rope_theta", 10_000.0),
            "partial_rotary_factor": values.get("partial_rotary_factor", 1.0),
            "original_max_position_embeddings": values.get("original_max_position_embeddings"),
            **{key: value for key, value in nested.items() if value is not None},
        }
        original = merged.get("original_max_position_embeddings")
        if original is not None:
            original = integer(merged, "original_max_position_embeddings", where)
        # Phi-3's files omit the factor: it is the ratio of the two context lengths.
        if "factor" not in merged and kind in ("longrope", "yarn") and original:
            merged["factor"] = integer(values, "max_position_embeddings", where, original) / original
        return cls(
            kind=kind,  # type: ignore[arg-type]
            theta=number(merged, "rope_theta", where),
            factor=number(merged, "factor", where, 1.0),
            partial=number(merged, "partial_rotary_factor", where, 1.0),
            original_max_positions=original,
            attention_factor=_optional(merged, "attention_factor", where),
            low_freq_factor=number(merged, "low_freq_factor", where, 1.0),
            high_freq_factor=number(merged, "high_freq_factor", where, 4.0),
            beta_fast=number(merged, "beta_fast", where, 32.0),
            beta_slow=number(merged, "beta_slow", where, 1.0),
            mscale=_optional(merged, "mscale", where),
            mscale_all_dim=_optional(merged, "mscale_all_dim", where),
            truncate=bool(merged.get("truncate", True)),
            short_factor=numbers(merged, "short_factor", where),
            long_factor=numbers(merged, "long_factor", where),
        )

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {"rope_type": self.kind, "rope_theta": self.theta}
        if self.partial != 1.0:
            values["partial_rotary_factor"] = self.partial
        if self.kind == "default":
            return values
        values["factor"] = self.factor
        if self.original_max_positions is not None:
            values["original_max_position_embeddings"] = self.original_max_positions
        if self.attention_factor is not None:
            values["attention_factor"] = self.attention_factor
        if self.kind == "llama3":
            values |= {"low_freq_factor": self.low_freq_factor, "high_freq_factor": self.high_freq_factor}
        if self.kind == "yarn":
            values |= {"beta_fast": self.beta_fast, "beta_slow": self.beta_slow, "truncate": self.truncate}
            values |= {k: v for k in ("mscale", "mscale_all_dim") if (v := getattr(self, k)) is not None}
        if self.kind == "longrope":
            values |= {"short_factor": list(self.short_factor), "long_factor": list(self.long_factor)}
        return values


def _optional(values: Json, key: str, where: str) -> float | None:
    return None if values.get(key) is None else number(values, key, where)
