"""One answer being written: tokens in, text out, and the reasons to stop."""

from __future__ import annotations

from dataclasses import dataclass, field

from lapilli.engine.answer import FinishReason
from lapilli.engine.sampler import Sampler, SamplingOptions
from lapilli.inputs.tokenizer import TextStream


@dataclass
class Writing:
    """What was said so far, and why it ended; text is held back while it may be the start of a stop text."""

    options: SamplingOptions
    stream: TextStream
    sampler: Sampler
    limit: int
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    shown: int = 0
    finish_reason: FinishReason | None = None
    stopped_by: str = ""

    def say(self, token: int, eos_ids: frozenset[int]) -> None:
        """Take the next token in; ends at an end token, a stop text or the limit."""
        if token in eos_ids:
            self.end("stop")
            return
        self.token_ids.append(token)
        self._append(self.stream.push(token))
        if self.finish_reason is None and len(self.token_ids) >= self.limit:
            self.end("length")

    def fresh_text(self) -> str:
        """Text not shown yet, less what may still turn out to be the start of a stop text."""
        end = len(self.text)
        if self.finish_reason is None:
            end -= max((_overlap(self.text, stop) for stop in self.options.stop), default=0)
        fresh, self.shown = self.text[self.shown : end], max(self.shown, end)
        return fresh

    def end(self, reason: FinishReason) -> None:
        """Nothing more will be said."""
        self.finish_reason = reason
        self._append(self.stream.flush())

    def _append(self, piece: str) -> None:
        before = len(self.text)
        self.text += piece
        longest = max((len(stop) for stop in self.options.stop), default=0)
        window = max(0, before - longest)
        found = [(at, stop) for stop in self.options.stop if (at := self.text.find(stop, window)) >= 0]
        if found:
            at, self.stopped_by = min(found)
            self.text, self.finish_reason = self.text[:at], "stop"


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text begin the stop text."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
