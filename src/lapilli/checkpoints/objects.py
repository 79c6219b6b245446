"""JSON files of checkpoints, read with limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lapilli.errors import CheckpointError
from lapilli.ground.files import open_regular

_MAX_JSON = 1 << 24


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty where there is no such file.

    Raises CheckpointError for what is no JSON object, or larger than any real one.
    """
    values = _read(path)
    if values is ...:
        return {}
    if not isinstance(values, dict):
        raise CheckpointError(f"{path.name}: an object is needed, it holds a {type(values).__name__}")
    return values


def read_list(path: Path) -> list[Any]:
    """The JSON list in a file, empty where there is no such file. Raises CheckpointError, as `read_object`."""
    values = _read(path)
    if values is ...:
        return []
    if not isinstance(values, list):
        raise CheckpointError(f"{path.name}: a list is needed, it holds a {type(values).__name__}")
    return values


def _read(path: Path) -> Any:
    """What a JSON file holds, Ellipsis where there is none."""
    try:
        with open_regular(path) as file:
            raw = file.read(_MAX_JSON + 1)
        if len(raw) > _MAX_JSON:
            raise CheckpointError(f"{path.name}: has more than {_MAX_JSON} bytes")
        return json.loads(raw)
    except FileNotFoundError:
        return ...
    except OSError as error:
        raise CheckpointError(f"{path.name}: cannot be read: {(error.strerror or 'unknown error').lower()}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: is no valid JSON: {str(error)[:120]}") from None
