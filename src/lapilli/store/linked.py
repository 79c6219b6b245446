"""Folders made of blobs: of models and adapters that are more than one file, and are opened as a folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from lapilli.errors import StoreError
from lapilli.ground.files import publish
from lapilli.store.blobs import disk_error
from lapilli.store.manifests import Layer

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.(json|jinja|model|safetensors|txt)", re.ASCII)


def is_file_of_model(name: str) -> bool:
    """Whether a file of that name may be part of a model or an adapter: weights, and what is read beside them."""
    return _FILE.fullmatch(name) is not None


class LinkedFolders:
    """The folder `folders/` of a store: one for each set of blobs that is opened as a folder, linked to them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, layers: Sequence[Layer]) -> Path:
        """Where the folder of these layers lies, or would lie. Raises StoreError for what is no file of a model."""
        names = [layer.name for layer in layers]
        for name in names:
            if not is_file_of_model(name):
                raise StoreError(f"the manifest names a file {name[:80]!r}, which no model is read from")
        if len({name.lower() for name in names}) != len(names):
            raise StoreError("the manifest names a file twice")
        told = "\n".join(sorted(f"{layer.name} {layer.digest}" for layer in layers))
        return self.root / hashlib.sha256(told.encode()).hexdigest()[:32]

    def link(self, layers: Sequence[Layer], blob: Callable[[str], Path]) -> Path:
        """The folder of these layers, made where it is not there yet; `blob` finds one by its digest."""
        path = self.path(layers)
        if path.is_dir():
            return path
        try:
            with publish(path) as fresh:
                fresh.mkdir()
                for layer in layers:
                    link(blob(layer.digest), fresh / layer.name)
        except OSError as error:
            if not path.is_dir():  # another was faster
                raise disk_error(error) from None
        return path

    def prune(self, keep: Collection[Path]) -> list[str]:
        """Remove the folders that are not to be kept, finished or not."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        removed = [name for name in names if self.root / name not in keep]
        for name in removed:
            shutil.rmtree(self.root / name, ignore_errors=True)
        return removed


def link(blob: Path, path: Path) -> None:
    """Give a file a second name, or copy it where that cannot be."""
    try:
        os.link(blob, path)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(blob, path)
