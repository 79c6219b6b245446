"""Pulls, pushes and creates: long work in threads, whose progress is told while it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lapilli.errors import BusyError
from lapilli.faces.server.streams import Json, lines, whole
from lapilli.store.progress import SUCCESS, Progress, Report

TICK_SECONDS = 0.06
AT_ONCE = 16

Work = Callable[[Report, threading.Event], None]


class Transfers:
    """Threads for long work, apart from those that answer: at most 16 jobs at once, a further one is BusyError."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self.at_once = at_once
        self.running = 0
        self._cancels: set[threading.Event] = set()
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="lapilli-work")

    async def steps(self, work: Work) -> AsyncGenerator[Progress, None]:
        """Run `work(report, cancel)` and yield what it reports, at most every 60 ms, the latest of each kind.

        Closing the generator sets `cancel`; what `work` raises is raised here.
        """
        if self.running >= self.at_once:
            raise BusyError(f"{self.running} models are being fetched or made already: try again later")
        news: dict[tuple[str, str], Progress] = {}
        lock, arrived, cancel = threading.Lock(), asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def report(step: Progress) -> None:
            with lock:
                news[step.status, step.digest] = step
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens
                loop.call_soon_threadsafe(arrived.set)

        self.running += 1
        self._cancels.add(cancel)
        future = loop.run_in_executor(self._threads, work, report, cancel)
        future.add_done_callback(lambda _: self._over(cancel, arrived))
        last = ""
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                over = future.done()
                with lock:
                    told, news = list(news.values()), {}
                for step in told:
                    last = step.status
                    yield step
                if over:
                    break
                await asyncio.sleep(TICK_SECONDS)
            future.result()
            if last != SUCCESS:
                yield Progress(SUCCESS)
        finally:
            cancel.set()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def close(self) -> None:
        """Tell all work to stop; do not wait."""
        for cancel in list(self._cancels):
            cancel.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _over(self, cancel: threading.Event, arrived: asyncio.Event) -> None:
        self.running -= 1
        self._cancels.discard(cancel)
        arrived.set()


async def told(request: Request, steps: AsyncGenerator[Progress, None], *, stream: bool) -> Response:
    """The progress as a stream of lines, or in the end only the last of it."""

    async def objects() -> AsyncGenerator[Mapping[str, Any], None]:
        async with contextlib.aclosing(steps) as each:
            async for step in each:
                yield step.to_dict()

    async def last() -> Mapping[str, Any]:
        async with contextlib.aclosing(objects()) as each:
            return [step async for step in each][-1]

    return lines(objects()) if stream else Json(await whole(request, last()))
