"""What comes back: a whole answer, or the pieces of one while it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer, and what it took: `print(answer)` shows the text.

    `finish_reason` is "stop" where the model (or a stop text) ended it, "length" where a limit did. Times are
    in seconds; those of a batch are the batch's.
    """

    text: str
    finish_reason: FinishReason
    token_ids: tuple[int, ...]
    prompt_tokens: int
    image_tokens: int
    image_seconds: float
    prefill_seconds: float
    decode_seconds: float

    @property
    def completion_tokens(self) -> int:
        return len(self.token_ids)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of text as it is made; the last one carries the whole answer."""

    text: str
    answer: Answer | None = None
