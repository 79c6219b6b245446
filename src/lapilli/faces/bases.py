"""A base model in memory, and how a request sees it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lapilli.engine.ask import LoadOrder
from lapilli.engine.service import EngineProcess
from lapilli.faces.places import Places
from lapilli.ground.settings import Settings
from lapilli.store.package import Package

Key = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Resident:
    """A model in memory, as one request (or who lists them) sees it.

    `load_seconds` and `queue_seconds` are how long this request waited for it to be loaded and for a place.
    `expires_at` is None where it stays for ever.
    """

    package: Package
    process: EngineProcess
    load_seconds: float = 0.0
    queue_seconds: float = 0.0
    expires_at: datetime | None = None


@dataclass(eq=False)
class Base:
    """One base model: its process, who is at it, and until when it stays. `held` are bytes that are counted for it."""

    key: Key
    order: LoadOrder
    packages: dict[str, Package]
    places: Places
    keep_alive: float
    need: int
    held: int = 0
    users: int = 0
    process: EngineProcess | None = None
    leaving: bool = False
    used_at: float = field(default_factory=time.time)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    loading: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def package(self) -> Package:
        """The one of its names that was asked for last."""
        return next(reversed(self.packages.values()))

    @property
    def expires_at(self) -> float:
        """When it is given up if nobody asks, in seconds since 1970."""
        return float("inf") if self.keep_alive < 0 else self.used_at + self.keep_alive

    @property
    def ready(self) -> bool:
        return self.process is not None and self.process.alive

    def memory(self) -> int:
        """Bytes that it has now."""
        return 0 if self.process is None else self.process.memory_bytes()

    def leaves_at(self) -> datetime | None:
        """The same as a moment, None for never; while somebody is at it, counted from now."""
        if self.keep_alive < 0:
            return None
        now = datetime.now(UTC)
        return now + timedelta(seconds=self.keep_alive if self.users else max(0.0, self.expires_at - time.time()))


def key_of(package: Package, settings: Settings) -> Key:
    """What two packages have in common that one process can serve: the files, as they are now."""
    return _stamp(package.model), package.projector and _stamp(package.projector), settings.quantize


def _stamp(path: Path) -> tuple[Any, ...]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files if not file.name.startswith(".")]
    # What is named by its content never changes; the store touches it where it is found again.
    named = path.name.startswith("sha256-") or path.parent.name == "folders"
    return str(path.resolve()), *((file.name, stat.st_size, 0 if named else stat.st_mtime_ns) for file, stat in stats)


def is_plain(package: Package) -> bool:
    """Whether its matrices are floats, which can be rounded on loading."""
    return all(type.startswith(("F", "BF")) for _, type, _ in package.header.tensors)
