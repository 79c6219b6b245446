"""What to say next: from scores over the vocabulary to one token."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from lapilli.errors import InputError

COLD = 1e-5
"""Below this temperature nothing but the likeliest token has a chance."""


class SamplingKeywords(TypedDict, total=False):
    """The fields of SamplingOptions, for calls that name just a few."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    max_tokens: int | None
    stop: Sequence[str]
    logprobs: int | None


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How an answer is drawn; as it stands, the likeliest token each time.

    SamplingOptions()                           # greedy: always the same answer
    SamplingOptions(temperature=0.8, seed=7)    # drawn, and drawn again the same with this seed
    SamplingOptions(max_tokens=64, stop=["\\n"])  # an end by count or by text

    `top_k=0`, `top_p=1` and `min_p=0` (arXiv 2407.01082) keep every token. `repeat_penalty` (arXiv 1909.05858)
    looks at prompt and answer, the other two penalties at the answer. `logprobs=n` asks for each token's
    log-probability, and for the n likeliest at its place. Raises InputError out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        _check(self, "temperature", 0, 100)
        _check(self, "top_k", 0, 1 << 31)
        _check(self, "top_p", 0, 1, above=True)
        _check(self, "min_p", 0, 1)
        _check(self, "repeat_penalty", 0, 100, above=True)
        _check(self, "presence_penalty", -100, 100)
        _check(self, "frequency_penalty", -100, 100)
        for name, low, high in (("seed", -(1 << 63), (1 << 63) - 1), ("max_tokens", 0, 1 << 31), ("logprobs", 0, 100)):
            if getattr(self, name) is not None:
                _check(self, name, low, high)
        for name in ("top_k", "seed", "max_tokens", "logprobs"):
            if not isinstance(getattr(self, name), int | None):
                raise InputError(f"{name} must be a whole number, not {getattr(self, name)!r}")
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if not all(isinstance(text, str) and text for text in stops):
            raise InputError(f"stop must be texts of at least one character, not {self.stop!r}")
        object.__setattr__(self, "stop", stops)


def _check(options: SamplingOptions, name: str, low: float, high: float, *, above: bool = False) -> None:
    value = getattr(options, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} must be a number, not {value!r}")
    if not low <= value <= high or (above and value == low):
        raise InputError(f"{name} is {value}, it must be {'above' if above else 'at least'} {low} and at most {high}")


class Sampler:
    """Draws the tokens of one answer; it has its own random numbers, so neighbours never matter."""

    def __init__(self, options: SamplingOptions, prompt_ids: Sequence[int]) -> None:
        self.options = options
        self.prompt_ids = frozenset(prompt_ids)
        self.said: Counter[int] = Counter()
        self.random = torch.Generator()
        if options.seed is None:
            self.random.seed()
        else:
            self.random.manual_seed(options.seed)

    def choose(self, scores_V: Tensor) -> int:
        """The next token; it counts as said from now on."""
        scores_V = self._penalise(scores_V.float().cpu())
        if self.options.temperature < COLD:
            token = int(scores_V.argmax())
        else:
            # Less the greatest first: a low temperature would make infinities of large scores.
            scores_V = (scores_V - scores_V.max()) / self.options.temperature
            chances_V = torch.softmax(self._narrow(scores_V), dim=-1)
            token = int(torch.multinomial(chances_V, 1, generator=self.random))
        self.said[token] += 1
        return token

    def _penalise(self, scores_V: Tensor) -> Tensor:
        options = self.options
        if options.repeat_penalty != 1.0:
            seen = torch.tensor([i for i in self.prompt_ids | self.said.keys() if i < len(scores_V)])
            old = scores_V[seen]
            scores_V = scores_V.clone()
            scores_V[seen] = torch.where(old < 0, old * options.repeat_penalty, old / options.repeat_penalty)
        if self.said and (options.presence_penalty or options.frequency_penalty):
            scores_V = scores_V.clone()
            tokens, counts = torch.tensor(list(self.said)), torch.tensor(list(self.said.values()))
            scores_V[tokens] -= options.presence_penalty + options.frequency_penalty * counts
        return scores_V

    def _narrow(self, scores_V: Tensor) -> Tensor:
        """Put tokens out of reach that top-k, top-p or min-p leave out; the likeliest always stays."""
        options, nowhere = self.options, -math.inf
        if 0 < options.top_k < len(scores_V):
            scores_V = scores_V.masked_fill(scores_V < scores_V.topk(options.top_k).values[-1], nowhere)
        if options.top_p < 1.0:
            ordered_V, order_V = scores_V.sort(descending=True)
            chances_V = ordered_V.softmax(-1)
            beyond_V = chances_V.cumsum(-1) - chances_V >= options.top_p
            beyond_V[0] = False
            scores_V = scores_V.masked_fill(beyond_V.scatter(0, order_V, beyond_V), nowhere)
        if options.min_p > 0.0:
            chances_V = scores_V.softmax(-1)
            scores_V = scores_V.masked_fill(chances_V < options.min_p * chances_V.max(), nowhere)
        return scores_V
