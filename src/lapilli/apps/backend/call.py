"""What an application asks a model, what comes back, and what it asks it of.

with open_backend("mini") as backend:
    print(backend.ask(Call.of("What is in this picture?", [picture])).text)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lapilli.errors import InputError, LapilliError
from lapilli.inputs.chat import Message, Part, TextPart, show

WINDOW = 32
"""How many calls of many are under way at once."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One thing to ask: a conversation, how to answer it, and what form the answer has.

    `schema` is a JSON Schema that the answer must satisfy; `chances` asks for the log-probability of each token.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    chances: bool = False

    @classmethod
    def of(cls, question: str, images: Sequence[Any] = (), *, system: str = "", **rest: Any) -> Call:
        """A question by itself, with pictures (paths, bytes or Pillow's) before it; `rest` are the other fields.

        Raises ImageError for what is no picture, PromptError for half a character.
        """
        parts: tuple[Part, ...] = (*(show(image) for image in images), TextPart(question))
        user = Message("user", parts)
        return cls(messages=(Message("system", (TextPart(system),)), user) if system else (user,), **rest)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer: its text, why it ended, and what it took in tokens.

    `chances` are (text, log-probability) of its tokens, where they were asked for and the model tells them; put
    together the texts are the answer.
    """

    text: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    tokens: int
    chances: tuple[tuple[str, float], ...] | None = None


class Backend(Protocol):
    """Whoever answers. `digest` names the weights, or what a server says they are: it goes into fingerprints.

    `context` is how many tokens question and answer may have together, None where it is not known; `sees` says whether
    pictures may be shown. A context manager that closes itself.
    """

    name: str
    digest: str
    context: int | None
    sees: bool

    def ask(self, call: Call) -> Reply:
        """The answer to one call; raises LapilliError."""
        ...

    def ask_all(self, calls: Iterable[Call], *, window: int = WINDOW) -> Iterator[Reply | LapilliError]:
        """Answers in the order of the calls, `window` of which are under way at once.

        The error of one is given in its place, and ends no other. Calls are taken as they are needed.
        """
        ...

    def stream(self, call: Call) -> Iterator[str]:
        """An answer in pieces as they are made; leaving early ends it."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (N, D) of length 1, one a text."""
        ...

    def count(self, call: Call) -> int | None:
        """How many tokens the prompt of a call has, None where that cannot be told without asking it."""
        ...

    def close(self) -> None:
        """Let go of the model, or of the connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def checked_window(window: int) -> int:
    """The window, once it is one. Raises InputError."""
    if window < 1:
        raise InputError(f"window is {window}, it must be at least 1")
    return window
