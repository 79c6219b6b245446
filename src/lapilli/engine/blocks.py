"""Who owns the cache: blocks of token places, shared by prompts that begin alike and kept until room is needed."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Unit = int | tuple[str, int]
"""What one place holds: a token's id, or (a picture's digest, which of its features). Equal ids of two pictures'
placeholders are thus never equal units, and no two pictures share a block."""

ROOT = 0
"""The prefix of no tokens; other roots are negative."""


@dataclass
class Block:
    """Places of the cache, and how many requests read them; `key` is set once their content may be shared."""

    users: int = 0
    key: tuple[int, tuple[Unit, ...]] | None = None


@dataclass(frozen=True)
class Match:
    """Sealed blocks that hold the beginning of a prompt, and the prefix that each of them ends."""

    blocks: tuple[int, ...]
    prefixes: tuple[int, ...]

    def first(self, count: int) -> Match:
        """The first so many of them."""
        return Match(self.blocks[:count], self.prefixes[:count])


class BlockPool:
    """All blocks of one cache, by number.

    A block is free (nobody uses it), or used by one or more requests. A free block keeps its content, and can be
    found by it, until it is taken for something else: the one that lay unused longest first.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._blocks = [Block() for _ in range(count)]
        self._free = OrderedDict.fromkeys(range(count))  # in the order in which they are taken
        self._sealed: dict[tuple[int, tuple[Unit, ...]], tuple[int, int]] = {}  # key -> (block, prefix it ends)
        self._prefixes = itertools.count(ROOT + 1)

    @property
    def count(self) -> int:
        return len(self._blocks)

    @property
    def free(self) -> int:
        return len(self._free)

    def blocks_of(self, places: int) -> int:
        """How many blocks so many places need."""
        return -(-places // self.size)

    def match(self, units: Sequence[Unit], root: int = ROOT) -> Match:
        """The longest beginning of `units` that lies in sealed blocks; whole blocks only.

        Keys are compared in full, not by their hashes: a hit is the same content.
        """
        found: list[int] = []
        prefixes: list[int] = []
        prefix = root
        for start in range(0, len(units) - self.size + 1, self.size):
            hit = self._sealed.get((prefix, tuple(units[start : start + self.size])))
            if hit is None:
                break
            number, prefix = hit
            found.append(number)
            prefixes.append(prefix)
        return Match(tuple(found), tuple(prefixes))

    def fits(self, match: Match, fresh: int) -> bool:
        """Whether the matched blocks can be held and as many fresh ones taken."""
        return fresh + sum(self._blocks[number].users == 0 for number in match.blocks) <= self.free

    def hold(self, numbers: Iterable[int]) -> None:
        """Use these blocks too."""
        for number in numbers:
            self._blocks[number].users += 1
            self._free.pop(number, None)

    def take(self, count: int) -> list[int]:
        """Fresh blocks for one user; what they held is forgotten. There must be as many free ones."""
        assert count <= self.free, f"{count} blocks are wanted, {self.free} are free"
        taken = list(itertools.islice(self._free, count))
        for number in taken:
            self._unseal(self._blocks[number])
        self.hold(taken)
        return taken

    def release(self, numbers: Sequence[int]) -> None:
        """Use these blocks no more; the last ones of a prompt are the first to be taken, as beginnings are shared."""
        for number in reversed(numbers):
            block = self._blocks[number]
            assert block.users > 0, f"block {number} is released and nobody used it"
            block.users -= 1
            if block.users == 0:
                self._free[number] = None
                if block.key is None:  # nothing in it can be found again
                    self._free.move_to_end(number, last=False)

    def seal(self, number: int, prefix: int, units: Sequence[Unit]) -> int:
        """A block is full: from now on it can be found. Returns the prefix that it ends.

        Where another block already holds the same, that one stays the one to be found.
        """
        key = (prefix, tuple(units))
        assert len(key[1]) == self.size, f"a block of {self.size} places is sealed with {len(key[1])} units"
        if key in self._sealed:
            return self._sealed[key][1]
        ends = next(self._prefixes)
        self._sealed[key] = (number, ends)
        self._blocks[number].key = key
        return ends

    def _unseal(self, block: Block) -> None:
        if block.key is not None:
            del self._sealed[block.key]
            block.key = None

    def users(self, number: int) -> int:
        """How many requests use this block."""
        return self._blocks[number].users
