"""What `lapilli run` was told beside the question: of the answer, and of how the model is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapilli.errors import InputError
from lapilli.wire.question import LEVELS


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What `lapilli run` was told beside the question; what was not said is None."""

    sampling: dict[str, float | int | list[str] | None] = field(default_factory=dict)
    system: str | None = None
    format: str | None = None
    think: bool | str | None = None
    hide_thinking: bool = False
    keep_alive: str | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    insecure: bool = False
    wrap: bool = True
    as_json: bool = False
    verbose: bool = False


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a model is opened in this process; a server opens models in its own way and takes none of these."""

    quantize: str | None = None
    device: str = "auto"
    dtype: str | None = None
    projector: Path | None = None
    adapter: Path | None = None
    show_attention: Path | None = None

    def given(self) -> list[str]:
        """The options that were given, as they are written."""
        names = ("quantize", "dtype", "projector", "adapter", "show_attention")
        found = [name for name in names if getattr(self, name) is not None] + ["device"] * (self.device != "auto")
        return [f"--{name.replace('_', '-')}" for name in found]


def read_think(text: str | None) -> bool | str | None:
    """What --think says: yes, no, or how hard. Raises InputError."""
    if text is None:
        return None
    known: dict[str, bool | str] = {"true": True, "false": False, **{level: level for level in LEVELS}}
    if text.lower() not in known:
        raise InputError(f"--think={text[:40]}: it can be {', '.join(known)}")
    return known[text.lower()]


def read_form(format: str | None) -> str | Mapping[str, Any] | None:
    """The form that the answer must have: "json", or a JSON Schema as an object.

    Raises InputError.
    """
    if format is None or format == "json":
        return format
    text = format
    if not format.lstrip().startswith("{"):
        try:
            text = Path(format).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"--format {format[:80]}: is neither json nor a schema, and no such file is there"
            ) from error
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--format {format[:80]}: the schema is no JSON: {error}") from None
    if not isinstance(schema, dict):
        raise InputError(f"--format {format[:80]}: a schema is a JSON object, this is a {type(schema).__name__}")
    return schema
