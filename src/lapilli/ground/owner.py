"""Whose an unfinished file is: a process, named so that others can tell whether it still lives."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

ABANDONED_SECONDS = 3600.0
"""So long after it was last touched, what names no owner that can be asked for is taken to be nobody's."""

_TEXT = re.compile(r"([0-9a-f]{8})-([0-9]{1,10})-([0-9]{1,20})", re.ASCII)


@dataclass(frozen=True)
class Owner:
    """A process: its machine, its number, and when it started, so that a number used again is not taken for it."""

    machine: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(_machine(), pid, _started(pid) or 0)

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that `str(owner)` named, None where the text names none."""
        match = _TEXT.fullmatch(text)
        return cls(match[1], int(match[2]), int(match[3])) if match else None

    def __str__(self) -> str:
        return f"{self.machine}-{self.pid}-{self.started}"

    @property
    def alive(self) -> bool | None:
        """Whether the process still runs; None where it is another machine's and nobody here can tell."""
        if self.machine != _machine():
            return None
        if Path("/proc/self/stat").exists():
            return _started(self.pid) == self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return True
        return True


@functools.cache
def _machine() -> str:
    # Containers share the machine's boot but not its process numbers.
    try:
        where = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        where = platform.node()
    return hashlib.sha256(where.encode()).hexdigest()[:8]


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks after boot; None where it is gone, or the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    return int(fields[19]) if fields[0] != "Z" else None
