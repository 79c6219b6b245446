"""Models that lie outside the store's own layout: the built-in one, folders, GGUF files, and the hub's."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from lapilli.errors import InputError
from lapilli.ground.files import open_regular
from lapilli.store.linked import is_file_of_model
from lapilli.store.naming import ModelName
from lapilli.store.package import Package

BUILT_IN = ("mini",)
_HUB = re.compile(
    r"hf:([A-Za-z0-9][A-Za-z0-9_.-]{0,95})/([A-Za-z0-9][A-Za-z0-9_.-]{0,95})(?:@([A-Za-z0-9][A-Za-z0-9_.-]{0,127}))?",
    re.ASCII,
)
_SAMPLE = 1 << 20


def built_in(name: str) -> Path:
    """The folder of a model that comes with the package."""
    return Path(str(importlib.resources.files("lapilli") / "models" / name))


def built_in_name(name: ModelName) -> str | None:
    """Which built-in model a name means, if any."""
    return next((known for known in BUILT_IN if ModelName.parse(known).key == name.key), None)


def read_hub_name(text: str) -> tuple[str, str, str] | None:
    """Owner, name and revision in `hf:owner/name[@revision]`; None where a text does not begin so.

    Raises InputError for one that does and goes on otherwise.
    """
    if not text.startswith("hf:"):
        return None
    match = _HUB.fullmatch(text)
    if match is None:
        raise InputError("invalid model name")
    return match[1], match[2], match[3] or "main"


def package_at(path: Path, name: str) -> Package | None:
    """The model that lies at a path, a folder or a GGUF file; None where there is none."""
    try:
        if not name:
            return None
        if path.is_dir():
            model = path if (path / "config.json").is_file() else _only_gguf(path) or path
        elif path.is_file():
            model = path
        else:
            return None
        files = [] if model.is_dir() else [model]
        if model.is_dir():
            files = sorted(entry for entry in model.iterdir() if is_file_of_model(entry.name) and entry.is_file())
        projector = None if model.is_dir() else projector_beside(model)
        stats = [file.stat() for file in [*files, *([projector] if projector else [])]]
        marks = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        digest = _fingerprint(marks, model.is_dir())
    except (OSError, ValueError):
        return None  # a name that no file could ever have
    return Package(
        name=name,
        digest=digest,
        size=sum(stat.st_size for stat in stats),
        modified=datetime.fromtimestamp(max((stat.st_mtime for stat in stats), default=0), UTC),
        model=model,
        projector=projector,
    )


def projector_beside(path: Path) -> Path | None:
    """The `mmproj` file in the same folder: the one of the model's own name, else the only one."""
    if path.suffix != ".gguf" or "mmproj" in path.name.lower():
        return None
    own = path.with_name(f"mmproj-{path.name}")
    if own.is_file():
        return own
    found = sorted(other for other in path.parent.glob("*.gguf") if "mmproj" in other.name.lower())
    return found[0] if len(found) == 1 else None


def _only_gguf(folder: Path) -> Path | None:
    found = sorted(path for path in folder.glob("*.gguf") if "mmproj" not in path.name.lower())
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=64)
def _fingerprint(marks: tuple[tuple[str, int, int], ...], is_folder: bool) -> str:
    """A hash of the files' names, sizes, beginnings and ends: weights are too large to be read for a name."""
    hashed = hashlib.sha256()
    for file, size, _ in marks:
        name = os.path.basename(file) if is_folder else ""
        hashed.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        with open_regular(file) as opened:
            hashed.update(opened.read(_SAMPLE))
            opened.seek(max(_SAMPLE, size - _SAMPLE))
            hashed.update(opened.read(_SAMPLE))
    return hashed.hexdigest()
