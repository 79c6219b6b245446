"""A backend that answers what a function says, and an embedder that counts words: no model, always the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lapilli.apps.backend.call import WINDOW, Call, Reply
from lapilli.errors import LapilliError

_WORD = re.compile(r"\w+")


def last_words(call: Call) -> str:
    """What was said last: the answer of a parrot that nobody told what to say."""
    return call.messages[-1].text


class ParrotBackend:
    """Answers each call with what `answers` returns for it, or with the error that it raises; `calls` are kept.

    Where chances are asked for, each word costs the same `chance` (a log-probability).
    """

    def __init__(
        self,
        answers: Callable[[Call], str] = last_words,
        *,
        name: str = "parrot",
        context: int | None = None,
        sees: bool = True,
        chance: float = -0.1,
    ) -> None:
        self.answers, self.chance = answers, chance
        self.name, self.context, self.sees = name, context, sees
        self.digest = hashlib.sha256(name.encode()).hexdigest()
        self.calls: list[Call] = []
        self.closed = False
        self._words = WordEmbedder()

    @property
    def count_of_calls(self) -> int:
        return len(self.calls)

    def ask(self, call: Call) -> Reply:
        self.calls.append(call)
        text = self.answers(call)
        if not isinstance(text, str):
            text = json.dumps(text, ensure_ascii=False)
        pieces = re.findall(r"\s*\S+|\s+$", text)
        said, finish = pieces[: call.max_tokens], "length" if len(pieces) > call.max_tokens else "stop"
        return Reply(
            text="".join(said),
            finish=finish,  # type: ignore[arg-type]
            prompt_tokens=self.count(call),
            tokens=len(said),
            chances=tuple((piece, self.chance) for piece in said) if call.chances else None,
        )

    def ask_all(self, calls: Iterable[Call], *, window: int = WINDOW) -> Iterator[Reply | LapilliError]:
        for call in calls:
            try:
                yield self.ask(call)
            except LapilliError as error:
                yield error

    def stream(self, call: Call) -> Iterator[str]:
        yield from re.findall(r"\s*\S+|\s+$", self.ask(call).text)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._words.embed(texts)

    def count(self, call: Call) -> int:
        return sum(len(message.text.split()) for message in call.messages)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WordEmbedder:
    """A bag of hashed words: texts that share words are near. `texts` and `queries` are kept as they were given."""

    def __init__(self, size: int = 64, *, name: str = "words") -> None:
        self.name, self.size = name, size
        self.digest = hashlib.sha256(f"{name}:{size}".encode()).hexdigest()
        self.texts: list[str] = []
        self.queries: list[str] = []

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        (self.queries if query else self.texts).extend(texts)
        vectors_ND = np.zeros((len(texts), self.size), np.float32)
        for vector_D, text in zip(vectors_ND, texts, strict=True):
            for word in _WORD.findall(text.lower()) or ["\0"]:
                place = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
                vector_D[place % self.size] += 1.0
        return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
