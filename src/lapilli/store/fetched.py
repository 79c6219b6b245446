"""The folder `hub/` of a store: repositories of the Hugging Face hub, one folder a revision."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lapilli.errors import InputError, ModelNotFoundError
from lapilli.ground.claim import abandon, aside
from lapilli.ground.files import folder_age, folders_in
from lapilli.ground.owner import ABANDONED_SECONDS
from lapilli.store.blobs import disk_error
from lapilli.store.sources import read_hub_name


class Fetched:
    """What was fetched from the hub: `<owner>/<name>/<revision>`, and hidden beside them what is not finished."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, owner: str, name: str, revision: str) -> Path:
        """Where a repository is kept, or would be. Raises InputError for no such name."""
        if read_hub_name(f"hf:{owner}/{name}@{revision}") != (owner, name, revision):
            raise InputError("invalid model name")
        return self.root / owner / name / revision

    def __iter__(self) -> Iterator[tuple[str, Path]]:
        """The names of what is here, and their folders."""
        for owner in folders_in(self.root):
            for name in folders_in(owner):
                for revision in folders_in(name):
                    suffix = "" if revision.name == "main" else f"@{revision.name}"
                    text = f"hf:{owner.name}/{name.name}{suffix}"
                    with contextlib.suppress(InputError):
                        read_hub_name(text)
                        yield text, revision

    def remove(self, text: str, owner: str, name: str, revision: str) -> None:
        """Remove a repository: first out of everybody's way. Raises ModelNotFoundError, StoreError."""
        folder = self.folder(owner, name, revision)
        if not folder.is_dir():
            raise ModelNotFoundError(f"model {text!r} not found")
        try:
            os.rename(folder, aside(folder))
        except OSError as error:
            raise disk_error(error) from None
        self.prune()

    def prune(self, older_than_seconds: float = ABANDONED_SECONDS) -> list[str]:
        """Remove what was put aside to be removed, what was given up half fetched, and folders that are left empty."""
        removed = []
        for owner in folders_in(self.root):
            for name in folders_in(owner):
                for folder in sorted(name.glob(".*")):
                    if folder.suffix != ".old" and (folder_age(folder) <= older_than_seconds or not abandon(folder)):
                        continue  # somebody is at it, or was until now
                    shutil.rmtree(folder, ignore_errors=True)
                    removed.append(folder.name)
                for empty in (name, owner):
                    with contextlib.suppress(OSError):
                        os.rmdir(empty)
        return removed
