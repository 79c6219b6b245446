"""A configuration as text: YAML or JSON, read as data and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lapilli.errors import InputError
from lapilli.ground.files import open_regular

_LARGEST = 64 << 10
_DEEPEST = 32


def read_config_text(path: Path) -> Mapping[str, Any]:
    """What a file of YAML (`.yaml`, `.yml`) or JSON (`.json`) holds, an object.

    Raises InputError for what cannot be read, is larger than 64 KiB, nested deeper than 32 levels, has YAML's tags of
    Python or its aliases (CVE-2024-23731), or is no object.
    """
    suffix = path.suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise InputError(f"a configuration is a file of YAML or JSON, not {suffix or 'one without a suffix'}")
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(error.strerror or str(error)) from None
    if len(data) > _LARGEST:
        raise InputError(f"more than {_LARGEST >> 10} KiB, the most that a configuration may have")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("this is no text in UTF-8") from None
    value = parse_json(text) if suffix == ".json" else parse_yaml(text)
    if not isinstance(value, Mapping):
        raise InputError(f"a configuration is an object of keys and values, this is a {type(value).__name__}")
    return value


def parse_json(text: str) -> Any:
    """The value of a JSON text; raises InputError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError("this JSON is nested too deep") from None
    except ValueError as error:
        raise InputError(f"this is no JSON: {error}") from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of plain values; raises InputError for tags, aliases and deep nesting."""
    import yaml

    depth = 0
    try:
        # Events come one by one and build nothing: what would be dear is seen before it costs.
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{_place(event)}: aliases are not taken here: write the value out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise InputError(f"{_place(event)}: nested deeper than {_DEEPEST} levels")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise InputError(f"{where}this YAML cannot be read as data: {' '.join(problem.split())}") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # a date that is none, say
        raise InputError(f"this YAML cannot be read as data: {error}") from None


def _place(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"
