"""One request: what it reads, what it has said, and how much of that the cache holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from lapilli.engine.blocks import ROOT, Unit


class Status(Enum):
    """Where a request is: not admitted (or preempted), holding blocks, or over."""

    WAITING = "waiting"
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True)
class Picture:
    """A run of placeholders in a prompt: the digest of what stands there, where, and how many features."""

    digest: str
    start: int
    length: int


def units_of(token_ids: Sequence[int], pictures: Sequence[Picture] = ()) -> list[Unit]:
    """What each place of a prompt holds: token ids, and under placeholders the features of their picture."""
    units: list[Unit] = list(token_ids)
    for picture in pictures:
        units[picture.start : picture.start + picture.length] = [(picture.digest, n) for n in range(picture.length)]
    return units


@dataclass(eq=False)
class Request:
    """A prompt and its answer so far; `computed` places of it lie in `blocks`, the first ones found there already.

    `sealed` of the blocks can be found by others; `prefix` names what these hold. `root` is the prefix of nothing:
    another one where the same tokens would leave something else in the cache. `drafts` is what the answer may go on
    with: guesses that the next step may check along the way.
    """

    id: str
    units: list[Unit]
    limit: int
    root: int = ROOT
    prompt_length: int = field(init=False)
    status: Status = Status.WAITING
    arrival: int = 0
    computed: int = 0
    reused: int = 0
    blocks: list[int] = field(default_factory=list)
    sealed: int = 0
    prefix: int = ROOT
    drafts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.units)

    @property
    def length(self) -> int:
        return len(self.units)

    @property
    def reading(self) -> bool:
        """Whether some of its prompt is still to be read."""
        return self.computed < self.prompt_length

    @property
    def said(self) -> int:
        """How many tokens of its answer there are."""
        return self.length - self.prompt_length
