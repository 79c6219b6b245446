"""The one function that turns a model name into its parts."""

from __future__ import annotations

import difflib
import importlib.resources
from dataclasses import dataclass
from pathlib import Path

from lapilli.errors import ModelNotFoundError

BUILT_IN = ("mini",)


@dataclass(frozen=True)
class Reference:
    """Where a named model lies: a folder, or a GGUF file with the projector found beside it."""

    name: str
    path: Path
    projector: Path | None = None


def resolve(name: str | Path) -> Reference:
    """Find a model by name: a built-in one, a checkpoint folder, or a GGUF file.

    A name with no such file or folder is looked up among the built-in ones; a path always wins where it says so
    (`./mini`). Raises ModelNotFoundError with the nearest name.
    """
    text = str(name)
    if text in BUILT_IN:
        return Reference(text, Path(str(importlib.resources.files("lapilli") / "models" / text)))
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return Reference(text, path)
        if path.is_file():
            return Reference(text, path, _projector_beside(path))
    except (OSError, ValueError):
        pass  # a name that no file could ever have
    near = difflib.get_close_matches(text, BUILT_IN, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"built in are: {', '.join(BUILT_IN)}"
    raise ModelNotFoundError(f"no model {text[:200]!r}: {hint} Or give a checkpoint folder or a .gguf file")


def _projector_beside(path: Path) -> Path | None:
    """The `mmproj` file in the same folder: the one of the model's own name, else the only one."""
    if path.suffix != ".gguf" or "mmproj" in path.name.lower():
        return None
    own = path.with_name(f"mmproj-{path.name}")
    if own.is_file():
        return own
    found = sorted(other for other in path.parent.glob("*.gguf") if "mmproj" in other.name.lower())
    return found[0] if len(found) == 1 else None
