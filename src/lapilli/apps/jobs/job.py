"""A job's folder: what it is for, its parts, which of them are done; killed at any moment, it goes on where it was.

with Job.open(folder, {"model": digest, "input": sha256}, shard=64, columns=COLUMNS) as job:
    report = job.run(read_items, Worker("lapilli.apps.batch:open_questions", {...}), executor=LocalExecutor())
for row in Job.at(folder).rows(): ...

job.json                    fingerprint, shard size and columns: another run must have the same
parts/part-00000.parquet    the rows of shard 0: its name is its identity, so they are there once or not at all
manifest.sqlite             a line for each part that is done
running/                    whose the folder is while somebody works
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lapilli.apps.jobs import columns as parquet
from lapilli.apps.jobs.columns import Columns
from lapilli.apps.jobs.fingerprint import Fingerprint
from lapilli.apps.jobs.manifest import Manifest, Part
from lapilli.apps.jobs.todo import Asked, Todo
from lapilli.apps.jobs.work import Done, Executor, Item, Row, Worker
from lapilli.errors import InputError
from lapilli.ground.claim import Claim, is_aside
from lapilli.ground.files import flush, publish

_BEAT_SECONDS = 30.0
_OURS = ("job.json", "parts", "running", "manifest.sqlite", "manifest.sqlite-journal")


@dataclass(frozen=True)
class JobReport:
    """What a run did, so far: `made` and `kept` are parts, done now and found done; the other counts are of both."""

    items: int
    rows: int
    failed: int
    made: int
    kept: int
    seconds: float


def _has_error(row: Row) -> bool:
    return bool(row.get("error"))


class Job:
    """A job's folder; made by `open`, to work in it, or by `at`, to read what is done. A context manager."""

    def __init__(self, folder: Path, fingerprint: Fingerprint, manifest: Manifest, claim: Claim | None) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self._manifest, self._claim = manifest, claim

    @classmethod
    def open(cls, folder: str | Path, fingerprint: Mapping[str, Any], *, shard: int, columns: Columns) -> Job:
        """Make the folder, or go on in it.

        Raises InputError where it holds rows of another fingerprint, naming each field that differs and both values;
        where another run works in it; where it is no job's.
        """
        folder = Path(folder)
        wanted = Fingerprint(fingerprint, shard, columns)
        if shard < 1:
            raise InputError(f"a part of {shard} items cannot be: 1 is the least")
        parquet.arrow()
        _require_ours(folder)
        claim = Claim.take(folder / "running") or Claim.take(folder / "running")
        if claim is None:
            raise InputError(f"{folder}: another run works in it; wait until it ends")
        try:
            _sweep(folder)
            if (folder / "job.json").exists():
                Fingerprint.read(folder / "job.json").require_same(wanted, folder)
            else:
                wanted.write(folder / "job.json")
            (folder / "parts").mkdir(exist_ok=True)
            flush(folder)
            return cls(folder, wanted, Manifest(folder / "manifest.sqlite", writable=True), claim)
        except BaseException:
            claim.release()
            raise

    @classmethod
    def at(cls, folder: str | Path) -> Job:
        """A job to read, whoever works in it. Raises InputError where there is none."""
        folder = Path(folder)
        return cls(
            folder, Fingerprint.read(folder / "job.json"), Manifest(folder / "manifest.sqlite", writable=False), None
        )

    @property
    def columns(self) -> Columns:
        """What each row has, in order."""
        return self.fingerprint.columns

    def parts(self) -> dict[int, Part]:
        """The parts that are done, by number."""
        return self._manifest.parts()

    def missing(self) -> int | None:
        """How many items have no rows yet; None where no run has counted them."""
        total = self._manifest.total
        return None if total is None else total - sum(part.items for part in self.parts().values())

    def path(self, number: int) -> Path:
        """Where a part lies."""
        return self.folder / "parts" / f"part-{number:05}.parquet"

    def rows(self) -> Iterator[Row]:
        """The rows of all parts that are done, in order.

        Raises InputError where a part is not what was written down when it was made.
        """
        for part in self.parts().values():
            path = self.path(part.number)
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except FileNotFoundError:
                digest = "gone"
            if digest != part.digest:
                raise InputError(f"{path}: is {digest[:12]}, was {part.digest[:12]}; remove it and run the job again")
            yield from parquet.read(path, self.columns)

    def run(
        self,
        items: Callable[[], Iterator[Item]],
        worker: Worker,
        *,
        executor: Executor,
        limit: int | None = None,
        carry: Callable[[Item], Item] | None = None,
        failed: Callable[[Row], bool] = _has_error,
        retry: bool = False,
        progress: Callable[[JobReport], None] = lambda _: None,
    ) -> JobReport:
        """Do what is not done yet of the first `limit` items: exactly once, whatever happened before.

        `carry` adds to an item what its worker needs and could not find elsewhere, such as a file's bytes. `failed`
        says which rows count as failed; `retry` does the parts again that have such. Raises InputError where a part
        was made of other items than these, and what workers raise; what is done by then stays.
        """
        assert self._claim is not None, "this job was opened to be read"
        began = time.monotonic()
        todo = Todo(
            items, self.parts(), path=self.path, size=self.fingerprint.shard, limit=limit, retry=retry, carry=carry
        )
        made: list[Part] = []
        with self._beating(), contextlib.closing(executor.run(worker, todo.shards())) as finished:
            for done in finished:
                made.append(self._commit(done, todo.asked.pop(done.number), sum(map(failed, done.rows))))
                progress(_counted(made, todo.kept, began))
        assert not todo.asked, f"shards {sorted(todo.asked)} were never done"
        if todo.items is not None:
            self._manifest.end_at(todo.items)
        return _counted(made, todo.kept, began)

    def _commit(self, done: Done, asked: Asked, failed: int) -> Part:
        """Put a part on disk, then into the list: killed between, it is made again, the same."""
        data = parquet.encode(done.rows, self.columns)
        part = Part(
            number=done.number, items=asked.items, rows=len(done.rows), failed=failed, items_digest=asked.digest,
            digest=hashlib.sha256(data).hexdigest(), size=len(data),
        )  # fmt: skip
        if self._claim is None or not self._claim.held:
            raise InputError(f"{self.folder}: another run took it over; nothing of this one is lost, run it again")
        with publish(self.path(done.number)) as fresh:
            fresh.write_bytes(data)
        self._manifest.add(part)
        return part

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        """Show other machines that we live, however long a shard takes."""
        claim, over = self._claim, threading.Event()
        assert claim is not None

        def beat() -> None:
            while not over.wait(_BEAT_SECONDS):
                claim.beat()

        thread = threading.Thread(target=beat, name="job's beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def close(self) -> None:
        """Let others work in the folder."""
        self._manifest.close()
        if self._claim is not None:
            self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _counted(made: list[Part], kept: list[Part], began: float) -> JobReport:
    parts = [*made, *kept]
    return JobReport(
        items=sum(part.items for part in parts),
        rows=sum(part.rows for part in parts),
        failed=sum(part.failed for part in parts),
        made=len(made),
        kept=len(kept),
        seconds=time.monotonic() - began,
    )


def _require_ours(folder: Path) -> None:
    """Raise InputError for a folder that holds what no job made."""
    if not folder.is_dir() or (folder / "job.json").exists():
        return
    others = [path.name for path in folder.iterdir() if path.name not in _OURS and not _is_leftover(path)]
    if others:
        raise InputError(f"{folder}: holds {sorted(others)[0]!r} and no job; give a new folder, or a job's")


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed have left."""
    for place in (folder, folder / "parts"):
        for path in place.iterdir() if place.is_dir() else ():
            if _is_leftover(path):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_leftover(path: Path) -> bool:
    return is_aside(path.name) or (path.name.startswith(".") and path.name.endswith(".part"))
