"""What of a job is still to do: items cut into shards by position, those left out that have their part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lapilli.apps.jobs.columns import canonical
from lapilli.apps.jobs.manifest import Part
from lapilli.apps.jobs.work import Item, Shard
from lapilli.errors import InputError


@dataclass(frozen=True)
class Asked:
    """What a shard was made of, kept until its rows come: how many items, and the digest of them."""

    items: int
    digest: str


class Todo:
    """The shards that are to be done; read once, lazily, by the thread that collects what is done."""

    def __init__(
        self,
        items: Callable[[], Iterator[Item]],
        parts: Mapping[int, Part],
        *,
        path: Callable[[int], Path],
        size: int,
        limit: int | None,
        retry: bool,
        carry: Callable[[Item], Item] | None,
    ) -> None:
        self.asked: dict[int, Asked] = {}
        """Shards that were handed out and are not done."""
        self.kept: list[Part] = []
        """Parts that were found done."""
        self.items: int | None = None
        """How many items there are, once they were read to the end."""
        self._items, self._parts, self._path = items, parts, path
        self._size, self._limit, self._retry, self._carry = size, limit, retry, carry

    def shards(self) -> Iterator[Shard]:
        """Each shard that has no part; raises InputError where a part was made of other items."""
        source = self._items()
        read = number = 0
        while self._limit is None or read < self._limit:
            room = self._size if self._limit is None else min(self._size, self._limit - read)
            shard = Shard(number, list(islice(source, room)))
            read += len(shard.items)
            if shard.items and not self._keeps(shard):
                yield Shard(number, [self._carry(item) for item in shard.items]) if self._carry else shard
            if len(shard.items) < room:
                self.items = read
                return
            number += 1

    def _keeps(self, shard: Shard) -> bool:
        """Whether a shard is done; if not, it is written down as asked."""
        asked = Asked(len(shard.items), _digest(shard))
        part = self._parts.get(shard.number)
        if part is not None and part.items == asked.items and part.items_digest != asked.digest:
            first = shard.number * self._size
            raise InputError(
                f"items {first} to {first + asked.items - 1} are not those that part {shard.number} was made of: "
                "the input has changed; give another folder"
            )
        # One that a limit cut short is done again when there is more of it; a smaller limit takes nothing away.
        if (
            part is not None
            and part.items >= asked.items
            and not (self._retry and part.failed)
            and self._is_there(part)
        ):
            self.kept.append(part)
            return True
        self.asked[shard.number] = asked
        return False

    def _is_there(self, part: Part) -> bool:
        try:
            return self._path(part.number).stat().st_size == part.size
        except FileNotFoundError:
            return False


def _digest(shard: Shard) -> str:
    digest = hashlib.sha256()
    for item in shard.items:
        digest.update(canonical(item).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
