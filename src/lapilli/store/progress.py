"""What pull, push and create say of how far they are, in the words that clients of Ollama know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PULLING_MANIFEST = "pulling manifest"
VERIFYING = "verifying sha256 digest"
WRITING_MANIFEST = "writing manifest"
RETRIEVING_MANIFEST = "retrieving manifest"
PUSHING_MANIFEST = "pushing manifest"
SUCCESS = "success"


@dataclass(frozen=True)
class Progress:
    """One line of progress; with a digest, `completed` of its `total` bytes are there."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0

    @classmethod
    def layer(cls, doing: str, digest: str, total: int, completed: int) -> Progress:
        """How far one layer is; `doing` is `pulling` or `pushing`."""
        return cls(f"{doing} {digest.partition(':')[2][:12]}", digest, total, completed)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the wire; what is empty or zero is left out."""
        told: dict[str, Any] = {"status": self.status}
        if self.digest:
            told["digest"] = self.digest
        if self.total:
            told["total"] = self.total
        if self.completed:
            told["completed"] = self.completed
        return told


Report = Callable[[Progress], None]
"""Where progress goes; it may be called from any thread, one call at a time."""


def say_nothing(_: Progress) -> None:
    """A report that nobody wants."""
