"""A model of this server as applications ask one: from threads, in the places and the queue that everybody has."""

from __future__ import annotations

import asyncio
import io
import queue
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lapilli.apps.backend.call import WINDOW, Call, Reply
from lapilli.errors import LapilliError
from lapilli.faces import answering
from lapilli.faces.residents import Residents
from lapilli.inputs.chat import ImagePart
from lapilli.store.package import Package
from lapilli.wire.question import Question, Said, Turn, join

T = TypeVar("T")


class ResidentBackend:
    """A `Backend` over `Residents`; its calls block, so they are for threads other than the event loop's."""

    context: int | None = None

    def __init__(self, package: Package, residents: Residents, loop: asyncio.AbstractEventLoop) -> None:
        self.name, self.digest = package.name, package.digest
        self.sees = "vision" in package.capabilities
        self._residents, self._loop = residents, loop

    def ask(self, call: Call) -> Reply:
        """The answer to one call; raises LapilliError."""

        async def whole() -> Said:
            return join([part async for part in self._said(call)])

        said = self._wait(whole())
        account = said.account
        assert account is not None, "an answer ends with its account"
        return Reply(
            text=said.text,
            finish="length" if account.reason == "length" else "stop",
            prompt_tokens=account.prompt_tokens,
            tokens=account.completion_tokens,
        )

    def ask_all(self, calls: Iterable[Call], *, window: int = WINDOW) -> Iterator[Reply | LapilliError]:
        """Answers in the order of the calls, one after another: others use the server, too."""
        for call in calls:
            try:
                yield self.ask(call)
            except LapilliError as error:
                yield error

    def stream(self, call: Call) -> Iterator[str]:
        """An answer in pieces as they are made; leaving early ends it."""
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()

        async def tell() -> None:
            try:
                async for part in self._said(call):
                    if part.text:
                        pieces.put(part.text)
                pieces.put(None)
            except BaseException as error:
                pieces.put(error)
                raise

        telling = asyncio.run_coroutine_threadsafe(tell(), self._loop)
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece if isinstance(piece, Exception) else LapilliError("the server is shutting down")
                yield piece
        finally:
            telling.cancel()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (N, D) of length 1, one a text."""
        vectors, _ = self._wait(answering.embed(self.name, list(texts), self._residents, truncate=True))
        return np.array(vectors, dtype=np.float32)

    def count(self, call: Call) -> int | None:
        """Nobody knows before the model is asked."""
        return None

    def close(self) -> None:
        """The model stays as long as the server keeps it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _said(self, call: Call) -> AsyncGenerator[Said, None]:
        return answering.answer(question_of(self.name, call), self._residents)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def question_of(model: str, call: Call) -> Question:
    """A call of an application as the server's dialects ask it."""
    pictures: list[bytes] = []
    turns = []
    for message in call.messages:
        shown = []
        for part in message.parts:
            if isinstance(part, ImagePart):
                file = io.BytesIO()
                part.image.save(file, "PNG")
                shown.append(len(pictures))
                pictures.append(file.getvalue())
        turns.append(Turn(role=message.role, content=message.text, pictures=tuple(shown)))
    sampling: dict[str, Any] = {"num_predict": call.max_tokens, "temperature": call.temperature, "top_p": call.top_p}
    sampling |= {"seed": call.seed} if call.seed is not None else {}
    sampling |= {"stop": list(call.stop)} if call.stop else {}
    return Question(
        model=model, turns=tuple(turns), pictures=tuple(pictures), sampling=sampling, form=call.schema, truncate=False
    )
