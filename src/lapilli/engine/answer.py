"""What comes back: a whole answer, or the pieces of one while it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class TokenScore:
    """A token of an answer and its log-probability; `top` are the likeliest at its place, with theirs."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, scores_V: Tensor, token: int, top: int) -> TokenScore:
        """From the scores that the token was chosen by."""
        logprobs_V = scores_V.float().log_softmax(-1)
        best = logprobs_V.topk(min(top, len(logprobs_V)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return cls(token, float(logprobs_V[token]), tuple(pairs))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer, and what it took: `print(answer)` shows the text.

    `finish_reason` is "stop" where the model (or a stop text) ended it, "length" where a limit did. `cached_tokens`
    of the prompt were read before. Times are in seconds: waiting, pictures, the rest up to the first token, and from
    there to the end. `logprobs` has an entry for each token where it was asked for, `stopped_by` is the stop text that
    ended it.
    """

    text: str
    finish_reason: FinishReason
    token_ids: tuple[int, ...]
    prompt_tokens: int
    cached_tokens: int
    image_tokens: int
    queue_seconds: float
    image_seconds: float
    prefill_seconds: float
    decode_seconds: float
    logprobs: tuple[TokenScore, ...] | None = None
    stopped_by: str = ""

    @property
    def completion_tokens(self) -> int:
        return len(self.token_ids)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of text as it is made, with what is known of the tokens said meanwhile where that was asked for.

    The last one carries the whole answer. Text may come after its tokens: a character takes several, and what could
    be the beginning of a stop text is held back.
    """

    text: str
    scores: tuple[TokenScore, ...] = ()
    answer: Answer | None = None
