"""A folder of unfinished work with one owner at a time, and no lock of the file system's.

The owner is an empty file in it: `owner.<owner>-<mark>`, or `free`. It changes by a renaming, so that of many takers
one wins; a new folder comes with its owner in it. What is in the way goes aside as `.<mark>.old`, to be removed by all.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from lapilli.ground.files import flush
from lapilli.ground.owner import Owner

_FREE = "free"
_OWNER = "owner."
_SILENCE = 120.0  # seconds after which an owner on another machine is taken for dead
_ASIDE = re.compile(r"\.[0-9a-f]{8}\.old")


@dataclass(frozen=True)
class Claim:
    """This process's hold on a folder."""

    folder: Path
    _name: str

    @classmethod
    def take(cls, folder: Path) -> Claim | None:
        """Become the owner of a folder, made if need be; None while another is, or was quicker.

        Raises OSError as the disk has it.
        """
        name = f"{_OWNER}{Owner.current()}-{secrets.token_hex(4)}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            return cls(folder, name) if _take_over(folder, name) else None
        fresh = aside(folder)
        fresh.mkdir()
        (fresh / name).touch()
        try:
            os.rename(fresh, folder)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            if not folder.exists():
                raise
            return None
        flush(folder.parent)
        return cls(folder, name)

    @property
    def held(self) -> bool:
        """Whether it is still ours: another machine takes it after a long silence."""
        return (self.folder / self._name).exists()

    def beat(self) -> None:
        """Show other machines that the owner lives; at least every minute."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / self._name)

    def release(self) -> None:
        """Let go; what is in the folder waits for the next owner."""
        # Where it is gone, somebody removed the folder.
        with contextlib.suppress(OSError):
            os.rename(self.folder / self._name, self.folder / _FREE)

    def discard(self) -> None:
        """Remove the folder."""
        with contextlib.suppress(OSError):
            _remove(self.folder)


def abandon(folder: Path) -> bool:
    """Remove a folder and what is in it, unless its owner lives here; whether it is gone."""
    try:
        owners = [_owner(name) for name in os.listdir(folder) if name.startswith(_OWNER)]
        if any(owner is not None and owner.alive for owner in owners):
            return False
        _remove(folder)
    except FileNotFoundError:
        pass
    return True


def aside(folder: Path) -> Path:
    """A name beside a folder that it can be put aside under, to be removed by anybody."""
    return folder.with_name(f".{secrets.token_hex(4)}.old")


def is_aside(name: str) -> bool:
    """Whether a folder of that name was put aside to be removed."""
    return _ASIDE.fullmatch(name) is not None


def _remove(folder: Path) -> None:
    """First out of everybody's way, then bit by bit."""
    away = aside(folder)
    os.rename(folder, away)
    shutil.rmtree(away, ignore_errors=True)


def _take_over(folder: Path, name: str) -> bool:
    try:
        holders = [other for other in os.listdir(folder) if other == _FREE or other.startswith(_OWNER)]
        if not all(_lets_go(folder / holder) for holder in holders):
            return False
        if holders and all(_is_dead(holder) for holder in holders):
            os.rename(folder / holders[0], folder / name)
            for other in holders[1:]:
                (folder / other).unlink(missing_ok=True)
            return True
        # Another machine's, silent for long: it may yet wake up, and must not write into what is ours.
        os.rename(folder, aside(folder))
    except FileNotFoundError:
        pass
    return False


def _lets_go(holder: Path) -> bool:
    owner = _owner(holder.name)
    if _is_dead(holder.name):
        return True
    return not (owner is not None and owner.alive) and time.time() - holder.stat().st_mtime > _SILENCE


def _is_dead(name: str) -> bool:
    owner = _owner(name)
    return name == _FREE or (owner is not None and owner.alive is False)


def _owner(name: str) -> Owner | None:
    return Owner.parse(name.removeprefix(_OWNER).rpartition("-")[0])
