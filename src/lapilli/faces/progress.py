"""How far a pull, a push or a create is: bars on a terminal, a line for each step elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from lapilli.faces.columns import size_text
from lapilli.faces.terminal import printable
from lapilli.store.progress import Progress

_LINE_SECONDS = 5.0


@contextlib.contextmanager
def following(again: str, out: TextIO | None = None) -> Iterator[Callable[[Progress], None]]:
    """Yield the function that shows progress; `again` says, after Ctrl-C, how what was kept is gone on with."""
    out = out or sys.stderr
    try:
        if out.isatty():
            with _bars(out) as step:
                yield step
        else:
            lines = Lines(out)
            yield lines.step
            lines.end()
    except KeyboardInterrupt:
        print(f"\nstopped. {again}", file=out)
        raise


class Lines:
    """Progress for a log: a step is written when it is over, one of many bytes every few seconds as well.

    A step that fails is never written: the error that follows says it.
    """

    def __init__(self, out: TextIO, seconds: float = _LINE_SECONDS) -> None:
        self._out = out
        self._seconds = seconds
        self._last: Progress | None = None
        self._written = self._began = time.monotonic()
        self._first = 0

    def step(self, progress: Progress) -> None:
        """Hear how far it is."""
        now, last = time.monotonic(), self._last
        if last is None or (last.status, last.digest) != (progress.status, progress.digest):
            self.end()
            self._written = self._began = now
            self._first = progress.completed
        elif progress.total and progress.completed < progress.total and now - self._written >= self._seconds:
            self._write(f"{progress.status}: {self._rate(progress, now)}")
            self._written = now
        self._last = progress

    def end(self) -> None:
        """Write the step that is over."""
        if self._last is not None:
            size = f": {size_text(self._last.total)}" if self._last.total else ""
            self._write(f"{self._last.status}{size}")
        self._last = None

    def _rate(self, progress: Progress, now: float) -> str:
        done = 100 * progress.completed // progress.total
        rate = (progress.completed - self._first) / max(now - self._began, 1e-9)
        left = f", {(progress.total - progress.completed) / rate:.0f} s left" if rate > 0 else ""
        return f"{done}% of {size_text(progress.total)}, {size_text(int(rate))}/s{left}"

    def _write(self, text: str) -> None:
        self._out.write(printable(text) + "\n")
        self._out.flush()


@contextlib.contextmanager
def _bars(out: TextIO) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
        DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Bars(*columns, console=Console(file=out)) as bars:
        tasks: dict[str, Any] = {}
        said = ""

        def step(progress: Progress) -> None:
            nonlocal said
            status = printable(progress.status)
            if not progress.total:
                if status != said:
                    bars.console.print(status, markup=False, highlight=False)
                said = status
                return
            key = progress.digest or progress.status
            if key not in tasks:
                tasks[key] = bars.add_task(status, total=progress.total)
            bars.update(tasks[key], completed=progress.completed, total=progress.total, description=status)

        yield step
