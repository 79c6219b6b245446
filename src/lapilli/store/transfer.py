"""A blob fetched in parts, several at once, each over and over until it is there; then checked, and mended if need be.

Only the hash of the whole is known. When it is wrong, segments are fetched again, those that came in odd answers first;
one that comes out different is fetched until two agree, and then the whole is checked again.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from lapilli.errors import FetchError, RegistryError
from lapilli.ground.door import Answer, Network
from lapilli.store.partials import Partial, Segment

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_SLOWEST = 100  # bytes a second; less than that, for as long as a stall takes, is a stall
_MOST_VOTES = 5
_MOST_ROUNDS = 2
_WHOLE_ANSWERS = 3  # so many to questions for a part, and none that is a part: the server knows no ranges
_BEAT = 10.0
_LONGEST_TAG = 200


@dataclass(frozen=True)
class TransferSettings:
    """How pulls and pushes go: sizes in bytes, times in seconds.

    `allowed_registries` are hosts, or `host:port`, that may have private addresses; with `trust_loopback` and an
    insecure pull, this machine's own may too. `attempts` count in a row, without a byte in between.
    """

    streams: int = 4
    least_part: int = 100_000_000
    most_part: int = 1_000_000_000
    segment: int = 8 << 20
    stall: float = 30.0
    attempts: int = 6
    backoff: float = 1.0
    longest_backoff: float = 30.0
    tick: float = 0.06
    allowed_registries: frozenset[str] = frozenset()
    trust_loopback: bool = False
    network: Network = field(default_factory=Network)


class BlobSource(Protocol):
    """Where a blob comes from."""

    def open(self, start: int, stop: int) -> AbstractContextManager[Answer]:
        """Ask for bytes `start` to `stop` (not included) of the blob."""
        ...


class Interrupted(Exception):
    """The transfer was told to stop."""


def download(
    source: BlobSource,
    partial: Partial,
    settings: TransferSettings,
    stop: threading.Event,
    report: Callable[[int], None],
) -> None:
    """Fetch what is missing of a blob until the whole has its digest; `report` hears how many bytes are there.

    Raises RegistryError, FetchError (an address that may not be), StoreError, and Interrupted soon after `stop` is set.
    """
    work = _Work(source, partial, settings, stop)
    work.run(report)
    if not partial.is_right() and not _mend(work):
        raise RegistryError(
            f"{partial.digest}: digest mismatch, file must be downloaded again: "
            "what the registry sends is not what its manifest names"
        )


class _Retry(Exception):
    """An answer that cannot be used; the next may be."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _Sink(Protocol):
    """Where segments go: their bytes as they come, then word that one is complete."""

    def write(self, offset: int, data: memoryview) -> None: ...

    def record(self, place: int, segment: Segment) -> None: ...


class _Cutter:
    """Cuts a stream of bytes where segments end; goes on where it was when the stream breaks off."""

    def __init__(self, partial: Partial, sink: _Sink, place: int) -> None:
        self.position = place * partial.segment_bytes
        self.pending = 0
        self._partial = partial
        self._sink = sink
        self._hashed = hashlib.sha256()

    def take(self, chunk: bytes, tag: str) -> None:
        view = memoryview(chunk)
        while view:
            place = self.position // self._partial.segment_bytes
            left = self._partial.length(place) - self.pending
            piece, view = view[:left], view[left:]
            self._hashed.update(piece)
            self._sink.write(self.position, piece)
            self.position += len(piece)
            self.pending += len(piece)
            if len(piece) == left:
                self._sink.record(place, Segment(self._hashed.hexdigest(), tag))
                self.pending, self._hashed = 0, hashlib.sha256()


class _Work:
    """The stretches that are yet to be fetched, and the threads that fetch them."""

    def __init__(self, source: BlobSource, partial: Partial, settings: TransferSettings, stop: threading.Event) -> None:
        self.partial = partial
        self._settings = settings
        self._source = source
        self._stop = stop
        self._failed = threading.Event()
        self._lock = threading.Lock()
        self._runs = list(reversed(self.cut(partial.missing())))
        self._cutters: set[_Cutter] = set()
        self._error: Exception | None = None
        self._ranges_seen = False
        self._whole_answers = 0

    def run(self, report: Callable[[int], None]) -> None:
        """Fetch everything that is missing."""
        self._in_threads(self._fetch_runs, min(self._settings.streams, len(self._runs)), report)
        if self.partial.missing():
            self._in_threads(self.fetch_whole, 1, report)

    def _in_threads(self, target: Callable[[], None], count: int, report: Callable[[int], None]) -> None:
        threads = [threading.Thread(target=self._kept, args=(target,), name="pull", daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        beat = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(self._settings.tick / count)
            report(self.completed)
            if time.monotonic() - beat > _BEAT:
                self.partial.beat()
                beat = time.monotonic()
        if self._error is not None:
            raise self._error
        if self._stop.is_set():
            raise Interrupted

    def _kept(self, target: Callable[[], None]) -> None:
        """Run in a thread; the first error is kept, and ends the other threads."""
        try:
            target()
        except Interrupted:
            pass
        except Exception as error:
            with self._lock:
                self._error = self._error or error
            self._failed.set()

    @property
    def completed(self) -> int:
        """Bytes that are there, those of segments under way included."""
        with self._lock:
            pending = sum(cutter.pending for cutter in self._cutters)
        return min(self.partial.completed + pending, self.partial.size)

    def cut(self, places: list[int]) -> list[tuple[int, int]]:
        """Stretches of neighbouring segments, from first to last, none longer than a part."""
        settings = self._settings
        part = min(max(self.partial.size // 16, settings.least_part), settings.most_part)
        most = max(1, part // self.partial.segment_bytes)
        runs: list[tuple[int, int]] = []
        for place in places:
            if runs and runs[-1][1] == place - 1 and place - runs[-1][0] < most:
                runs[-1] = (runs[-1][0], place)
            else:
                runs.append((place, place))
        return runs

    def fetch(self, first: int, last: int, sink: _Sink) -> None:
        """Fetch segments `first` to `last`, however many answers that takes."""
        end = min((last + 1) * self.partial.segment_bytes, self.partial.size)
        cutter, failures = _Cutter(self.partial, sink, first), 0
        with self._listed(cutter):
            while cutter.position < end and not self.knows_no_ranges:
                before = cutter.position
                trouble = self._take(cutter, end)
                if cutter.position < end:
                    failures = 0 if cutter.position > before else failures + 1
                    self._pause(failures, trouble)

    def _fetch_runs(self) -> None:
        while not self._failed.is_set() and not self.knows_no_ranges:
            with self._lock:
                if not self._runs:
                    return
                first, last = self._runs.pop()
            self.fetch(first, last, self.partial)

    def fetch_whole(self) -> None:
        """From a server that knows no ranges: everything from the start, again after each cut."""
        failures = 0
        while missing := set(self.partial.missing()):
            cutter = _Cutter(self.partial, _Only(self.partial, missing), 0)
            trouble = self._take(cutter, self.partial.size)
            if left := self.partial.missing():
                failures = 0 if len(left) < len(missing) else failures + 1
                self._pause(failures, trouble)

    @property
    def knows_no_ranges(self) -> bool:
        """Whether the server sends the whole whatever is asked for."""
        return self._whole_answers >= _WHOLE_ANSWERS and not self._ranges_seen

    @contextmanager
    def _listed(self, cutter: _Cutter) -> Iterator[None]:
        with self._lock:
            self._cutters.add(cutter)
        try:
            yield
        finally:
            with self._lock:
                self._cutters.discard(cutter)

    def _take(self, cutter: _Cutter, end: int) -> _Retry:
        """Have one answer cut, as far as it goes; returns what was wrong with it if that is not the end."""
        try:
            with self._answer(cutter.position, end) as (answer, tag):
                for chunk in self._chunks(answer, end - cutter.position):
                    cutter.take(chunk, tag)
        except _Retry as error:
            return error
        except FetchError as error:
            if error.status in (400, 403, 499):
                raise
            return _Retry(str(error))
        return _Retry("it sent less than it should have")

    def _pause(self, failures: int, trouble: _Retry) -> None:
        """Wait before the next try, longer each time. Raises RegistryError where there were tries enough."""
        settings = self._settings
        if failures >= settings.attempts:
            raise RegistryError(f"{self.partial.digest}: given up after {failures} attempts: {trouble}")
        wait = max(trouble.wait, settings.backoff * 2.0 ** (failures - 1))
        until = time.monotonic() + min(wait, settings.longest_backoff)
        while (left := until - time.monotonic()) > 0:
            if self._stop.wait(min(left, 0.1)) or self._failed.is_set():
                raise Interrupted

    @contextmanager
    def _answer(self, start: int, stop: int) -> Iterator[tuple[Answer, str]]:
        """An answer that by its own account holds what is asked for, from `start` on; with its tag."""
        size = self.partial.size
        with self._source.open(start, stop) as answer:
            if answer.status == 206:
                found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
                if found is None or int(found[1]) != start or not start <= int(found[2]) < stop:
                    raise _Retry("it sent another range than was asked for")
                if found[3] not in ("*", str(size)):
                    raise _Retry(f"it says that there are {found[3]} bytes, by the manifest there are {size}")
                if answer.length not in (None, int(found[2]) + 1 - start):
                    raise _Retry("its length and its range do not agree")
                self._ranges_seen = True
            elif answer.status == 200:
                if answer.length not in (None, size):
                    raise _Retry(f"it says that there are {answer.length} bytes, by the manifest there are {size}")
                if start > 0:
                    self._whole_answers += 1
                    raise _Retry("it sent the whole where a part was asked for")
            elif answer.status == 404:
                raise RegistryError(f"{self.partial.digest}: file does not exist", 500)
            elif answer.status in (400, 401, 402, 403, 405, 410, 451):
                raise RegistryError(f"{self.partial.digest}: refused with status {answer.status}")
            else:
                raise _Retry(f"it answered with status {answer.status}", retry_after(answer))
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise _Retry("it packed what was asked for unpacked")
            yield answer, answer.headers.get("etag", "")[:_LONGEST_TAG]

    def _chunks(self, answer: Answer, most: int) -> Iterator[bytes]:
        """At most so many bytes of an answer that keeps coming."""
        since, got = time.monotonic(), 0
        for chunk in answer.chunks():
            if self._stop.is_set() or self._failed.is_set():
                raise Interrupted
            yield chunk[:most]
            if len(chunk) > most or (len(chunk) == most and answer.length is None):
                return
            most -= len(chunk)
            got += len(chunk)
            if (passed := time.monotonic() - since) > self._settings.stall:
                if got < passed * _SLOWEST:
                    raise _Retry("it sent next to nothing")
                since, got = time.monotonic(), 0


class _Only:
    """Takes the segments that are wanted, and lets the others pass."""

    def __init__(self, partial: Partial, wanted: set[int]) -> None:
        self._partial = partial
        self._wanted = wanted

    def write(self, offset: int, data: memoryview) -> None:
        if offset // self._partial.segment_bytes in self._wanted:
            self._partial.write(offset, data)

    def record(self, place: int, segment: Segment) -> None:
        if place in self._wanted:
            self._partial.record(place, segment)


class _Mender:
    """Holds each segment fetched again against the one that is there."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._partial = work.partial
        self._held = bytearray()
        self.differed = 0

    def write(self, offset: int, data: memoryview) -> None:
        self._held += data

    def record(self, place: int, segment: Segment) -> None:
        data, self._held = bytes(self._held), bytearray()
        present = self._partial.segments[place]
        if segment.sha256 == present.sha256:
            return
        self.differed += 1
        votes = Counter((present.sha256, segment.sha256))
        found = {segment.sha256: (data, segment)}
        while votes.most_common(1)[0][1] < 2 and votes.total() < _MOST_VOTES:
            again = _Held()
            self._work.fetch(place, place, again)
            votes[again.segment.sha256] += 1
            found[again.segment.sha256] = (bytes(again.data), again.segment)
        winner, agreed = votes.most_common(1)[0]
        if agreed >= 2 and winner != present.sha256:
            data, segment = found[winner]
            self._partial.write(place * self._partial.segment_bytes, memoryview(data))
            self._partial.record(place, segment)
            if self._partial.is_right():
                raise _Mended


class _Held:
    """One segment, in memory."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.segment = Segment("")

    def write(self, offset: int, data: memoryview) -> None:
        self.data += data

    def record(self, place: int, segment: Segment) -> None:
        self.segment = segment


class _Mended(Exception):
    """The whole is right."""


def _mend(work: _Work) -> bool:
    """Find the segments that are wrong by fetching them again, until the whole is right; False where it stays wrong."""
    partial, everything = work.partial, range(work.partial.count)
    if not everything:
        return False
    if work.knows_no_ranges:
        partial.segments.clear()
        work.fetch_whole()
        return partial.is_right()
    usual = Counter(segment.tag for segment in partial.segments.values()).most_common(1)[0][0]
    odd = [place for place in everything if partial.segments[place].tag != usual]
    rest = [place for place in everything if partial.segments[place].tag == usual]
    mender = _Mender(work)
    try:
        for _ in range(_MOST_ROUNDS):
            changed = mender.differed
            for first, last in work.cut(odd) + work.cut(rest):
                work.fetch(first, last, mender)
            if mender.differed == changed:
                return False  # it always sends the same: that is not the network's doing
    except _Mended:
        return True
    return False


def retry_after(answer: Answer) -> float:
    """Seconds that a server asks to be left alone for."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0.0
