"""Unfinished downloads: a file with holes, a journal of the segments that are in it, and one owner at a time.

`sha256-<hex>.partial/` holds `data` and `journal`: a line a segment, with its place, its hash and the server's tag.
What the journal says is checked against the data before it is believed: a crash may have kept one and lost the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from lapilli.ground.claim import Claim
from lapilli.store.blobs import MODEL, Blob, Blobs, disk_error, disk_errors, hash_file

_LONGEST_JOURNAL = 64 << 20


@dataclass(frozen=True)
class Segment:
    """A stretch of the data as it was received: its hash, and the tag of the answer it came in."""

    sha256: str
    tag: str = ""


class Partial:
    """One owner's hold on a download; made by `claim`. Many threads may write to it, each to segments of its own."""

    def __init__(self, blobs: Blobs, digest: str, size: int, segment_bytes: int, hold: Claim) -> None:
        self.digest = digest
        self.size = size
        self.segment_bytes = segment_bytes
        self.segments: dict[int, Segment] = {}
        self._blobs = blobs
        self._folder = hold.folder
        self._hold = hold
        self._lock = threading.Lock()
        try:
            self._data = os.open(self._folder / "data", os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
            try:
                self._adopt()
                os.ftruncate(self._data, size)
                self._journal = open(self._folder / "journal", "ab", buffering=0)  # noqa: SIM115
            except BaseException:
                os.close(self._data)
                raise
        except OSError as error:
            raise disk_error(error) from error

    @property
    def count(self) -> int:
        """How many segments the data has; the last may be shorter."""
        return -(-self.size // self.segment_bytes)

    @property
    def completed(self) -> int:
        """Bytes that are in it."""
        with self._lock:
            return sum(self.length(place) for place in self.segments)

    def length(self, place: int) -> int:
        """Bytes of a segment."""
        return min(self.segment_bytes, self.size - place * self.segment_bytes)

    def missing(self) -> list[int]:
        """The places of the segments that are not there yet, in order."""
        with self._lock:
            return [place for place in range(self.count) if place not in self.segments]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put bytes where they belong. Raises StoreError, NoRoomError."""
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._data, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise disk_error(error) from error

    def record(self, place: int, segment: Segment) -> None:
        """Note that a segment is complete. Raises StoreError, NoRoomError."""
        line = json.dumps({"n": place, "sha256": segment.sha256, "tag": segment.tag}) + "\n"
        with self._lock:
            try:
                self._journal.write(line.encode())
            except OSError as error:
                raise disk_error(error) from error
            self.segments[place] = segment

    def beat(self) -> None:
        """Show other machines that somebody is at it."""
        self._hold.beat()

    def is_right(self) -> bool:
        """Whether the data as a whole has the digest."""
        with open(self._folder / "data", "rb") as file:
            return hash_file(file) == self.digest

    def finish(self) -> Blob:
        """Make the data the blob, which must be right, and let go. Raises StoreError."""
        try:
            os.fsync(self._data)
        except OSError as error:
            raise disk_error(error) from error
        blob = self._blobs.take(self._folder / "data", self.digest)
        self._close()
        self._hold.discard()
        return blob

    def release(self) -> None:
        """Let go of an unfinished download; what is in it waits for the next owner. After `finish` it does nothing."""
        if self._data < 0:
            return
        self._close()
        if self.segments:
            self._hold.release()
        else:
            self._hold.discard()

    def _close(self) -> None:
        if self._data >= 0:
            os.close(self._data)
            self._data = -1
            self._journal.close()

    def _adopt(self) -> None:
        """Take over what an earlier owner's journal says, as far as the data bears it out."""
        lines = read_journal(self._folder)
        header = lines[0] if lines else {}
        if header.get("size") == self.size and (step := _count(header.get("segment_bytes"))):
            self.segment_bytes = step
            for line in lines[1:]:
                place, sha256, tag = line.get("n"), line.get("sha256"), line.get("tag")
                if isinstance(place, int) and 0 <= place < self.count and isinstance(sha256, str):
                    self.segments[place] = Segment(sha256, str(tag or "")[:200])
            for place, segment in list(self.segments.items()):
                if self.read_hash(place) != segment.sha256:
                    del self.segments[place]
        fresh: list[dict[str, object]] = [{"size": self.size, "segment_bytes": self.segment_bytes}]
        fresh += [{"n": place, "sha256": part.sha256, "tag": part.tag} for place, part in self.segments.items()]
        # A new journal: appending to a line that a crash cut short would lose the next one too.
        path = self._folder / "journal.new"
        path.write_text("".join(json.dumps(line) + "\n" for line in fresh), encoding="ascii")
        os.replace(path, self._folder / "journal")

    def read_hash(self, place: int) -> str:
        """The hash of a segment's bytes as they are on disk."""
        hashed = hashlib.sha256()
        offset, left = place * self.segment_bytes, self.length(place)
        while left and (chunk := os.pread(self._data, min(left, 1 << 20), offset)):
            hashed.update(chunk)
            offset, left = offset + len(chunk), left - len(chunk)
        return hashed.hexdigest()


def claim(blobs: Blobs, digest: str, size: int, segment_bytes: int, model: str) -> Partial | None:
    """Become the owner of a blob's download for a model, new or left behind; None while somebody else is at it.

    Raises StoreError, NoRoomError.
    """
    with disk_errors():
        hold = Claim.take(blobs.partial(digest))
    if hold is None:
        return None
    try:
        with disk_errors():
            (hold.folder / MODEL).write_text(model, encoding="utf-8")
        return Partial(blobs, digest, size, segment_bytes, hold)
    except BaseException:
        hold.release()
        raise


def completed_by_another(blobs: Blobs, digest: str) -> int:
    """How many bytes of a blob its present owner has, by the journal."""
    lines = read_journal(blobs.partial(digest))
    size, step = (_count(lines[0].get(key)) for key in ("size", "segment_bytes")) if lines else (0, 0)
    places = {place for line in lines[1:] if isinstance(place := line.get("n"), int)}
    return sum(max(0, min(step, size - place * step)) for place in places)


def read_journal(folder: Path) -> list[dict[str, object]]:
    """The lines of a journal that can be read; a crash may have cut the last one."""
    try:
        with open(folder / "journal", "rb") as file:
            text = file.read(_LONGEST_JOURNAL)
    except FileNotFoundError:
        return []
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                lines.append(value)
    return lines


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 60 else 0
