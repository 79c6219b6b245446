"""The folder `manifests/` of a store: which names there are, and the manifest of each.

A manifest lies at `<host>/<namespace>/<model>/<tag>`, as Ollama has it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from lapilli.errors import InputError, ModelNotFoundError, StoreError
from lapilli.ground.files import flush, open_regular, publish
from lapilli.store.blobs import disk_error
from lapilli.store.manifests import MAX_BYTES, Manifest
from lapilli.store.naming import ModelName

_DEPTH = 4
_UNFINISHED = ".part"


class Shelf:
    """The manifests in one folder; names that differ in upper and lower case are one.

    Nothing is made or changed but by `write`, `remove` and `prune`, which are called under `lock`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[tuple[ModelName, Path]]:
        """The models that are here, and where the manifest of each lies."""
        found: dict[tuple[str, ...], tuple[ModelName, Path]] = {}
        for path in _leaves(self.root, _DEPTH):
            with contextlib.suppress(InputError):
                name = ModelName(*path.relative_to(self.root).parts)
                found.setdefault(name.key, (name, path))
        return list(found.values())

    def locate(self, name: ModelName) -> Path | None:
        """The manifest of that name, None where there is none."""
        exact = self.root.joinpath(*name.path_parts)
        if exact.is_file():
            return exact
        return next((path for path in _alike(self.root, name.key) if path.is_file()), None)

    def named(self, path: Path) -> ModelName:
        """The name that a manifest lies under."""
        return ModelName(*path.relative_to(self.root).parts)

    def read(self, path: Path) -> Manifest:
        """A manifest. Raises StoreError for a damaged one, ModelNotFoundError where it has been removed meanwhile."""
        return Manifest.parse(self.raw(path))

    def raw(self, path: Path) -> bytes:
        """A manifest's bytes, no more of them than a manifest may have and one.

        Raises ModelNotFoundError where it has been removed meanwhile, StoreError where it cannot be read.
        """
        try:
            with open_regular(path) as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise ModelNotFoundError(f"model {self.named(path).short!r} not found") from None
        except OSError as error:
            raise StoreError(f"the manifest cannot be read: {(error.strerror or 'unknown error').lower()}") from None

    def written(self, path: Path) -> float:
        """When a manifest was written, in seconds since the epoch. Raises ModelNotFoundError where it is gone."""
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            raise ModelNotFoundError(f"model {self.named(path).short!r} not found") from None

    def write(self, name: ModelName, manifest: Manifest) -> None:
        """Put a manifest under a name; it is there whole, or what was there before is."""
        path = self.locate(name) or self.root.joinpath(*name.path_parts)
        try:
            _make_folders(path.parent)
            with publish(path) as fresh:
                fresh.write_bytes(manifest.to_bytes())
        except OSError as error:
            raise disk_error(error) from None

    def remove(self, path: Path) -> None:
        """Remove a manifest, and the folders that it leaves empty."""
        try:
            path.unlink(missing_ok=True)
            flush(path.parent)
        except OSError as error:
            raise disk_error(error) from None
        self._tidy(path.parent)

    def prune(self) -> list[str]:
        """Remove what a writer that was killed left: nobody else writes under the lock."""
        removed = []
        for folder, _, files in os.walk(self.root, topdown=False):
            for file in files:
                if file.startswith(".") and file.endswith(_UNFINISHED):
                    Path(folder, file).unlink(missing_ok=True)
                    removed.append(file)
            if Path(folder) != self.root:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        return removed

    def _tidy(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            while folder != self.root:
                os.rmdir(folder)
                folder = folder.parent

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other writer of this store out, in this process and in others, until the block ends."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root.with_name("lock"), os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            raise disk_error(error) from None
        try:
            with _THREADS:
                _wait_for(handle)
                yield
        finally:
            os.close(handle)


_THREADS = threading.Lock()


def _wait_for(handle: int) -> None:
    try:
        import fcntl
    except ImportError:
        return  # Windows: the threads of one process are kept apart, processes are not
    fcntl.flock(handle, fcntl.LOCK_EX)


def _leaves(folder: Path, depth: int) -> Iterator[Path]:
    """The files that lie that deep, none of them hidden."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if depth == 1:
            if entry.is_file():
                yield Path(entry.path)
        elif entry.is_dir():
            yield from _leaves(Path(entry.path), depth - 1)


def _alike(folder: Path, key: tuple[str, ...]) -> Iterator[Path]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.lower() == key[0])
    except OSError:
        return
    for name in names:
        if len(key) == 1:
            yield folder / name
        else:
            yield from _alike(folder / name, key[1:])


def _make_folders(path: Path) -> None:
    """Make a folder and those above it, each of them kept through a loss of power."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        flush(folder.parent)
