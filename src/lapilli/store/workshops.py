"""The folder `making/` of a store: where models are made, each in a folder that names its owner."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from lapilli.ground.files import folder_age, folders_in
from lapilli.ground.owner import ABANDONED_SECONDS, Owner
from lapilli.store.blobs import disk_error

_WORKSHOP = re.compile(r"(.+)-[0-9a-f]{8}")


class Workshops:
    """The folders of those who are at work."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def open(self) -> Iterator[Path]:
        """A fresh folder, gone when the block ends. Raises StoreError where the disk refuses."""
        folder = self.root / f"{Owner.current()}-{secrets.token_hex(4)}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise disk_error(error) from None
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def busy(self) -> bool:
        """Whether somebody is at work."""
        return any(_alive(folder, ABANDONED_SECONDS) for folder in folders_in(self.root))

    def prune(self, older_than_seconds: float) -> list[str]:
        """Remove the folders of the dead; where nobody can tell, age counts."""
        dead = [folder for folder in folders_in(self.root) if not _alive(folder, older_than_seconds)]
        for folder in dead:
            shutil.rmtree(folder, ignore_errors=True)
        return [folder.name for folder in dead]


def _alive(folder: Path, seconds: float) -> bool:
    match = _WORKSHOP.fullmatch(folder.name)
    owner = Owner.parse(match[1]) if match else None
    alive = owner.alive if owner is not None else None
    return folder_age(folder) <= seconds if alive is None else alive
