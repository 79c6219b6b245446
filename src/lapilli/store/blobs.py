"""Content by digest: the one function from a digest to a path, and files that are whole or not there.

blobs = Blobs(folder)
blob = blobs.add(b"...")            # Blob(digest="sha256:…", size=3); hashed while it is written
blobs.path(blob.digest).read_bytes()

A blob lies in `sha256-<hex>`. What is being written lies in `incoming-<owner>-<mark>.part`, what is being pulled in
`sha256-<hex>.partial/`; both name their owner, so that `prune` can tell what was abandoned.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lapilli.errors import InputError, NoRoomError, StoreError
from lapilli.ground.claim import abandon, is_aside
from lapilli.ground.files import flush, open_regular
from lapilli.ground.owner import ABANDONED_SECONDS, Owner

PARTIAL = ".partial"
"""How the folder of an unfinished pull ends."""

MODEL = "model"
"""The file in it that names the model which the blob is for."""

_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})", re.ASCII)
_INCOMING = re.compile(r"incoming-(.+)-[0-9a-f]{8}\.part")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Blob:
    """What was stored: its digest (`sha256:<64 hex>`) and its size in bytes."""

    digest: str
    size: int


def parse_digest(text: object) -> str:
    """The canonical form, `sha256:` and 64 lower-case hex digits, of a digest; `-` may stand for `:`.

    Raises InputError for anything else.
    """
    match = _DIGEST.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError("invalid digest format")
    return f"sha256:{match[1]}"


class Blobs:
    """The folder `blobs/` of a store; safe with many threads and processes at once.

    `root` is made when something is first put in. Every digest given is checked before it becomes a path: InputError.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, digest: str) -> Path:
        """Where the blob of that digest lies, or would lie."""
        return self.root / parse_digest(digest).replace(":", "-")

    def partial(self, digest: str) -> Path:
        """The folder in which a pull of that digest is under way, or would be."""
        path = self.path(digest)
        return path.with_name(path.name + PARTIAL)

    def has(self, digest: str) -> bool:
        """Whether the blob is here."""
        return self.size(digest) is not None

    def size(self, digest: str) -> int | None:
        """The blob's size in bytes, None where it is not here."""
        path = self.path(digest)
        return path.stat().st_size if path.is_file() else None

    def renew(self, digest: str) -> Blob | None:
        """The blob if it is here; it counts as new, so that no pruning takes it before a manifest names it."""
        with contextlib.suppress(OSError):
            os.utime(self.path(digest))
        size = self.size(digest)
        return None if size is None else Blob(digest, size)

    def __iter__(self) -> Iterator[str]:
        """The digests of all blobs, in order."""
        for name in sorted(self._names()):
            if _DIGEST.fullmatch(name) and (self.root / name).is_file():
                yield name.replace("-", ":", 1)

    def add(
        self, source: bytes | BinaryIO | Iterable[bytes], *, digest: str | None = None, size: int | None = None
    ) -> Blob:
        """Store what `source` gives, hashed while it is written; a blob that is already here is not read again.

        With `digest` or `size` the content must have them: InputError, and nothing is kept. At most one chunk more
        than `size` bytes is read. Raises NoRoomError where the disk is full or would be, StoreError where it cannot
        be written to.
        """
        wanted = None if digest is None else parse_digest(digest)
        if wanted is not None and (kept := self.renew(wanted)) is not None and size in (None, kept.size):
            return kept
        self.need_room(size or 0)
        with self._incoming() as fresh:
            hashed = hashlib.sha256()
            written = 0
            with _create(fresh) as file:
                for chunk in _chunks(source):
                    written += len(chunk)
                    if size is not None and written > size:
                        raise InputError(f"the blob has more than the {size} bytes it should have")
                    hashed.update(chunk)
                    with disk_errors():
                        file.write(chunk)
                with disk_errors():
                    os.fsync(file.fileno())
            if size is not None and written != size:
                raise InputError(f"the blob ended after {written} of {size} bytes")
            return self._publish(fresh, f"sha256:{hashed.hexdigest()}", written, wanted)

    def add_file(self, path: str | Path, *, digest: str | None = None, move: bool = False) -> Blob:
        """Store a file's content: a copy, or with `move` the file itself, where it lies on the same disk.

        Raises InputError where it is not a regular file or has another digest; NoRoomError, StoreError as `add`.
        """
        path = Path(path)
        try:
            source = open_regular(path)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        with source:
            if not move:
                return self.add(source, digest=digest, size=os.fstat(source.fileno()).st_size)
            wanted = None if digest is None else parse_digest(digest)
            size, found = os.fstat(source.fileno()).st_size, hash_file(source)
            if wanted is not None and found != wanted:
                raise InputError(f'digest mismatch, expected "{wanted}", got "{found}"')
            if (kept := self.renew(found)) is None:
                with self._incoming() as fresh, disk_errors():
                    shutil.move(path, fresh)
                    flush(fresh)
                    return self._publish(fresh, found, size, wanted)
        path.unlink(missing_ok=True)
        return kept

    def take(self, path: Path, digest: str) -> Blob:
        """Make a file in this folder, already checked against `digest` and flushed, the blob of that digest."""
        return self._publish(path, parse_digest(digest), path.stat().st_size, None)

    def remove(self, digest: str) -> None:
        """Remove a blob, and what a pull of it left unfinished; neither need be here. A live pull is left alone."""
        self.path(digest).unlink(missing_ok=True)
        self.abandon(digest)

    def abandon(self, digest: str) -> bool:
        """Remove what a pull of that digest left unfinished, unless somebody is at it; True if it is gone."""
        return abandon(self.partial(digest))

    def abandon_for(self, model: str) -> list[str]:
        """Remove what unfinished pulls of a model left, where nobody is at it; returns the names of what is gone."""
        unfinished = [name for name in self._names() if name.endswith(PARTIAL)]
        return [name for name in unfinished if _model(self.root / name) == model.lower() and abandon(self.root / name)]

    def prune(self, keep: Collection[str], older_than_seconds: float = ABANDONED_SECONDS) -> list[str]:
        """Remove what is older and nobody needs: blobs not in `keep`, and what dead writers and pulls left.

        Returns the names of what was removed. A live writer's file is never touched, whatever its age.
        """
        kept = {self.path(digest).name for digest in keep}
        removed = []
        for name in sorted(self._names()):
            path = self.root / name
            try:
                if name in kept or _age(path) < older_than_seconds:
                    continue
                if name.endswith(PARTIAL) and path.is_dir():
                    gone = abandon(path)
                elif is_aside(name):
                    shutil.rmtree(path, ignore_errors=True)
                    gone = True
                elif (incoming := _INCOMING.fullmatch(name)) or _DIGEST.fullmatch(name):
                    gone = not incoming or not _alive(incoming[1])
                    if gone:
                        path.unlink(missing_ok=True)
                else:
                    continue  # not ours
            except FileNotFoundError:
                continue
            if gone:
                removed.append(name.replace("-", ":", 1) if _DIGEST.fullmatch(name) else name)
        return removed

    def need_room(self, size: int) -> None:
        """Raise NoRoomError where the disk has no room for `size` more bytes; makes the folder."""
        with disk_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.root).free
        if size > free:
            raise NoRoomError(
                f"no space left on device: {size} bytes are needed and {free} are free; "
                "make room, or have LAPILLI_MODELS name a folder on another disk"
            )

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.root)
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def _incoming(self) -> Iterator[Path]:
        with disk_errors():
            self.root.mkdir(parents=True, exist_ok=True)
        fresh = self.root / f"incoming-{Owner.current()}-{secrets.token_hex(4)}.part"
        try:
            yield fresh
        finally:
            fresh.unlink(missing_ok=True)

    def _publish(self, fresh: Path, digest: str, size: int, wanted: str | None) -> Blob:
        if wanted is not None and digest != wanted:
            raise InputError(f'digest mismatch, expected "{wanted}", got "{digest}"')
        with disk_errors():
            os.replace(fresh, self.path(digest))
            flush(self.root)
        return Blob(digest, size)


def _model(partial: Path) -> str:
    """The model that a pull was for, in lower case."""
    try:
        return (partial / MODEL).read_text(encoding="utf-8").strip().lower()
    except (OSError, UnicodeDecodeError):
        return ""


def hash_file(file: BinaryIO) -> str:
    """The digest of what a file holds from its current place on."""
    hashed = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        hashed.update(chunk)
    return f"sha256:{hashed.hexdigest()}"


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """The disk's own errors in our words."""
    try:
        yield
    except OSError as error:
        raise disk_error(error) from error


def disk_error(error: OSError) -> StoreError:
    """The StoreError that tells what the disk said."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoomError("no space left on device: make room, or have LAPILLI_MODELS name a folder on another disk")
    return StoreError(f"the store of models cannot be written to: {error.strerror or error}")


def _create(path: Path) -> BinaryIO:
    with disk_errors():
        return open(path, "xb", buffering=0)


def _chunks(source: bytes | BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
    elif hasattr(source, "read"):
        while chunk := source.read(_CHUNK):
            yield chunk
    else:
        yield from source


def _age(path: Path) -> float:
    """Seconds since a file, or anything in a folder, was last written to."""
    newest = path.stat().st_mtime
    if path.is_dir():
        newest = max([newest, *(entry.stat().st_mtime for entry in path.iterdir())])
    return time.time() - newest


def _alive(owner: str) -> bool:
    found = Owner.parse(owner)
    # What a process on another machine left counts by its age alone.
    return found is not None and found.alive is True
