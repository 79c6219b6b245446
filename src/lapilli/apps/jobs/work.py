"""What a job is made of: items in shards, a worker that makes rows of them, and an executor that runs workers."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from lapilli.errors import InputError

Item: TypeAlias = Mapping[str, Any]
"""One thing to work on: a JSON object."""
Row: TypeAlias = Mapping[str, Any]
"""One line of what comes out: a JSON object with the job's columns."""

# A worker runs on other machines: its name may only lead to a function that lapilli itself defines.
_NAME = re.compile(r"(lapilli(?:\.[a-z][a-z0-9_]*)+):([a-z][a-z0-9_]*)", re.ASCII)


class Work(Protocol):
    """An opened worker, with its model in memory."""

    def rows(self, items: Iterable[Item]) -> Iterator[Sequence[Row]]:
        """The rows of each item, in the items' order: one sequence for each item, never none.

        Items may be read ahead, so that many are worked on at once; they come from several shards without a seam. The
        same item has the same rows whatever came before it. What goes wrong with one item is told in its rows.
        """
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...


@dataclass(frozen=True)
class Worker:
    """How work is opened, as plain JSON, so that every process and machine opens the same.

    Worker("lapilli.apps.batch:open_questions", {"model": "mini"})

    `function` is `module:name` of a function of lapilli's own that takes the settings and returns a `Work`; it imports
    what is heavy when it is called. Raises InputError for any other name.
    """

    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.function) is None:
            raise InputError(f"{self.function[:80]!r} is no worker of lapilli's: write lapilli.module:function")

    def open(self) -> Work:
        """Import the function and call it with the settings."""
        module, name = self.function.split(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InputError(f"{self.function}: no such worker here: {error}") from None
        # Not what a module merely imports: that would be anybody's function.
        if getattr(found, "__module__", None) != module or not callable(found):
            raise InputError(f"{self.function}: {module} does not define this worker")
        work: Work = found(dict(self.settings))
        return work

    def to_json(self) -> str:
        """One line, from which `of_json` makes the same worker elsewhere."""
        return json.dumps({"function": self.function, "settings": dict(self.settings)})

    @classmethod
    def of_json(cls, text: str) -> Worker:
        """The worker that `to_json` wrote down."""
        value = json.loads(text)
        return cls(value["function"], value["settings"])


@dataclass(frozen=True)
class Shard:
    """Items that follow each other, and the number of their part."""

    number: int
    items: Sequence[Item]


@dataclass(frozen=True)
class Done:
    """A shard's rows, in its items' order."""

    number: int
    rows: Sequence[Row]


class Executor(Protocol):
    """Runs a worker over shards: `local`, `processes` and `ray` in lapilli.apps.executors."""

    def run(self, worker: Worker, shards: Iterator[Shard]) -> Generator[Done, None, None]:
        """Each shard exactly once, in whatever order they are done.

        Shards are taken as there is room for them, in the thread that takes what is done.

        A worker that dies is replaced and its shards are done again. Raises what a worker raised, and LapilliError
        where workers die of the same shard again and again. Closing the iterator ends all workers.
        """
        ...
