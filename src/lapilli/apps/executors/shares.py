"""Which worker has which shards, and what is done again after one died: plain Python, for every executor."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator

from lapilli.apps.jobs.work import Shard
from lapilli.errors import LapilliError


class Shares:
    """Hands shards out, at most `each` to a worker at a time, and takes back those of workers that died.

    A shard that was with a worker when it died is handed out first, and alone: so it is known which one it is that
    workers die of.
    """

    def __init__(self, shards: Iterator[Shard], *, each: int = 2, attempts: int = 3) -> None:
        self._fresh = shards
        self._each, self._attempts = each, attempts
        self._again: deque[Shard] = deque()
        self._held: dict[Hashable, list[Shard]] = {}
        self._lost: dict[int, int] = {}
        self._read_out = False

    def take(self, who: Hashable) -> Shard | None:
        """What this worker does next; None where it has enough, or nothing is left for now."""
        held = self._held.setdefault(who, [])
        if len(held) >= self._each or (held and (self._again or held[0].number in self._lost)):
            return None
        shard = self._again.popleft() if self._again else self._next()
        if shard is not None:
            held.append(shard)
        return shard

    def done(self, who: Hashable, number: int) -> None:
        """A worker has done a shard that it had."""
        held = self._held[who]
        assert any(shard.number == number for shard in held), f"shard {number} is not with {who}"
        held[:] = [shard for shard in held if shard.number != number]
        self._lost.pop(number, None)

    def lost(self, who: Hashable, why: str) -> None:
        """A worker has died; raises LapilliError where too many have died of its shard."""
        for shard in self._held.pop(who, []):
            count = self._lost[shard.number] = self._lost.get(shard.number, 0) + 1
            if count >= self._attempts:
                raise LapilliError(f"{count} workers ended at shard {shard.number}, the last: {why}")
            self._again.append(shard)

    @property
    def empty(self) -> bool:
        """Whether all is handed out and done."""
        return self._read_out and not self._again and not any(self._held.values())

    def _next(self) -> Shard | None:
        shard = None if self._read_out else next(self._fresh, None)
        self._read_out = shard is None
        return shard
