"""Shards through one opened worker, without a seam: what follows is under way while a shard ends."""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from collections.abc import Generator, Iterable, Iterator

from lapilli.apps.jobs.work import Done, Item, Row, Shard, Work
from lapilli.errors import LapilliError


def flow(work: Work, shards: Iterable[Shard]) -> Generator[Done, None, None]:
    """Each shard's rows, in order. Raises LapilliError where a worker gives rows for too few items or too many."""
    begun: deque[Shard] = deque()

    def items() -> Iterator[Item]:
        for shard in shards:
            begun.append(shard)
            yield from shard.items

    rows: list[Row] = []
    answered = 0
    made = work.rows(items())
    try:
        for each in made:
            if not begun:
                raise LapilliError("the worker gave rows for more items than it was given")
            rows.extend(each)
            answered += 1
            if answered == len(begun[0].items):
                yield Done(begun.popleft().number, rows)
                rows, answered = [], 0
        if begun:
            raise LapilliError(
                f"the worker gave rows for {answered} of the {len(begun[0].items)} items of shard {begun[0].number}"
            )
    finally:
        if isinstance(made, Generator):
            with contextlib.suppress(RuntimeError):
                made.close()


def what_is_there(first: Shard, waiting: queue.SimpleQueue[Shard | None]) -> Iterator[Shard]:
    """Shards for as long as the next is there already: waiting for it would hold up those that are under way."""
    yield first
    while True:
        try:
            shard = waiting.get_nowait()
        except queue.Empty:
            return
        if shard is None:
            waiting.put(None)
            return
        yield shard
