"""An answer with what bears it out, whole or in pieces as it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass

from lapilli.apps.rag.rows import Hit


@dataclass(frozen=True, kw_only=True)
class Citation:
    """Where an answer has something from: `text` is `document.text[start:end]` of that source, seen to be so.

    `number` is the one that the answer names it by, `picture` the digest of the picture where the source is one.
    """

    number: int
    source: str
    start: int
    end: int
    text: str
    title: str = ""
    label: str = ""
    picture: str = ""
    score: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Cited:
    """An answer, and what it rests on.

    `found` is False where the documents do not hold the answer, as retrieval or the model says. An answer without
    citations that is `found` is one that no passage bears out. `hits` are all passages found, `prompt` is what the
    model was asked (empty where it was not), `notes` say what was left out of it.
    """

    text: str
    citations: tuple[Citation, ...] = ()
    found: bool = True
    hits: tuple[Hit, ...] = ()
    prompt: str = ""
    prompt_tokens: int | None = None
    tokens: int | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


class Stream(Iterator[str]):
    """An answer in pieces: iterate, or ask for `text` or `cited`, which wait for the rest.

    The pieces joined are `text`. It prints as its text.
    """

    def __init__(self, pieces: Generator[str, None, Cited]) -> None:
        self._pieces = pieces
        self._cited: Cited | None = None

    def __next__(self) -> str:
        if self._cited is not None:
            raise StopIteration
        try:
            return next(self._pieces)
        except StopIteration as end:
            self._cited = end.value
            if self._cited is None:
                raise RuntimeError("this answer was given up before its end") from None
            raise StopIteration from None

    async def __aiter__(self) -> AsyncIterator[str]:
        """The same pieces for `async for`; each is waited for in a thread."""
        while (piece := await asyncio.to_thread(next, self, None)) is not None:
            yield piece

    @property
    def cited(self) -> Cited:
        """The whole answer with its citations."""
        for _ in self:
            pass
        assert self._cited is not None, "a stream that ended has its answer"
        return self._cited

    @property
    def text(self) -> str:
        """The whole answer."""
        return self.cited.text

    @property
    def citations(self) -> tuple[Citation, ...]:
        return self.cited.citations

    def __str__(self) -> str:
        return self.text

    def close(self) -> None:
        """Give up the rest: the model stops writing."""
        self._pieces.close()
