"""How far a job is: a bar at a terminal, a line every few seconds in a log, and how it is gone on with."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from lapilli.ground.files import publish

if TYPE_CHECKING:
    from pathlib import Path

    from lapilli.apps.jobs.job import Job, JobReport

_LINE_SECONDS = 5.0


@contextlib.contextmanager
def job_progress(what: str, total: int | None, again: str) -> Iterator[Callable[[JobReport], None]]:
    """Yield the function that shows progress of so many items; `again` is the command that goes on after Ctrl-C."""
    try:
        with _bar(what, total) if sys.stderr.isatty() else _lines(what, total) as step:
            yield step
    except KeyboardInterrupt:
        print(f"\nlapilli: note: stopped; what is done stays, and the same command goes on: {again}", file=sys.stderr)
        raise


def told(report: JobReport, what: str) -> str:
    """A finished run as a line."""
    failed = f", {report.failed:,} failed" if report.failed else ""
    before = f" ({report.kept:,} of {report.kept + report.made:,} parts were there already)" if report.kept else ""
    return f"{report.items:,} {what}, {report.rows:,} rows{failed}{before}, {report.seconds:.1f} s"


@contextlib.contextmanager
def output(to: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that is whole or not there."""
    if to is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with publish(to) as fresh, fresh.open("wb") as file:
        yield file


def note_what_is_missing(job: Job) -> None:
    """Say on standard error where a job is not at its end."""
    missing = job.missing()
    if missing is None:
        done = sum(part.items for part in job.parts().values())
        print(f"lapilli: note: no run has come to the end yet: {done:,} items are done", file=sys.stderr)
    elif missing:
        print(f"lapilli: note: {missing:,} items are not done yet", file=sys.stderr)


@contextlib.contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[JobReport], None]]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[failed]}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, failed="")
        yield lambda report: bar.update(
            task, completed=report.items, failed=f"{report.failed:,} failed" if report.failed else ""
        )


@contextlib.contextmanager
def _lines(what: str, total: int | None) -> Iterator[Callable[[JobReport], None]]:
    last = time.monotonic()

    def step(report: JobReport) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            of = f" of {total:,}" if total is not None else ""
            failed = f", {report.failed:,} failed" if report.failed else ""
            print(f"{report.items:,}{of} {what}{failed}", file=sys.stderr, flush=True)

    yield step
