"""The worker in this process: what ten items need, and a server's machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from lapilli.apps.executors.flow import flow
from lapilli.apps.jobs.work import Done, Shard, Work, Worker


@dataclass(frozen=True)
class LocalExecutor:
    """Opens the worker here. `opened` replaces that, for work that is open already."""

    opened: Callable[[Worker], Work] = Worker.open

    def run(self, worker: Worker, shards: Iterator[Shard]) -> Generator[Done, None, None]:
        """Each shard in order; nothing is opened where there is nothing to do."""
        first = next(shards, None)
        if first is None:
            return
        work = self.opened(worker)
        try:
            yield from flow(work, _with(first, shards))
        finally:
            work.close()


def _with(first: Shard, others: Iterator[Shard]) -> Iterator[Shard]:
    yield first
    yield from others
