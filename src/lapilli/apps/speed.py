"""How fast a model is here: a picture encoded, prompts of growing length read and answered, several users at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lapilli.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from lapilli.engine.engine import Job
    from lapilli.engine.local import LocalModel


@dataclass(frozen=True)
class Length:
    """A prompt of so many tokens: seconds to the first token of its answer, and tokens a second after it."""

    tokens: int
    first_seconds: float
    decode_rate: float

    @property
    def read_rate(self) -> float:
        return self.tokens / self.first_seconds


@dataclass(frozen=True)
class Company:
    """So many users at once: tokens a second of all together."""

    users: int
    rate: float


@dataclass(frozen=True)
class Speed:
    """What was measured, medians; `picture_seconds` is None for a model that sees nothing."""

    lengths: tuple[Length, ...]
    company: tuple[Company, ...]
    picture_seconds: float | None
    picture_tokens: int


def measure(
    model: LocalModel,
    *,
    lengths: Sequence[int] = (64, 256, 1024, 4096),
    users: Sequence[int] = (1, 2, 4, 8),
    said: int = 32,
    turns: int = 3,
    progress: Callable[[str], None] = lambda doing: None,
) -> Speed:
    """Time a loaded model; every prompt and picture is a new one, so that nothing is found again.

    `said` are the tokens of each answer, `turns` the repeats of each figure. Lengths that the model or the memory for
    its keys and values cannot hold are left out. Raises InputError where none is left.
    """
    room = _room(model) - said
    fitting = [length for length in lengths if length <= room]
    if not fitting:
        raise InputError(f"the shortest prompt has {min(lengths)} tokens and {room} are the most: ask for shorter ones")
    if min(lengths) < 1 or min(users) < 1 or said < 2 or turns < 1:
        raise InputError("lengths, users and turns are at least 1, and an answer has at least 2 tokens")
    tokens = _Tokens(model)
    _answer(model, [tokens.prompt(min(fitting))], said)  # to warm up
    seen, picture_tokens = None, 0
    if model.config.vision is not None:
        progress("a picture")
        times = []
        for turn in range(turns + 1):
            prompt = model.prompt("?", images=[_picture(turn)])
            picture_tokens = prompt.token_ids.count(model.config.image_token_id)
            started = time.perf_counter()
            model.features(prompt)
            times.append(time.perf_counter() - started)
        seen = statistics.median(times[1:])
    rows = []
    for length in fitting:
        progress(f"{length:,} tokens of prompt")
        pairs = [_answer(model, [tokens.prompt(length)], said) for _ in range(turns)]
        rows.append(Length(length, *(statistics.median(pair[n] for pair in pairs) for n in (0, 1))))
    together = []
    for count in users:
        progress(f"{count} at once")
        rates = [_answer(model, [tokens.prompt(min(fitting)) for _ in range(count)], said)[1] for _ in range(turns)]
        together.append(Company(count, statistics.median(rates)))
    return Speed(tuple(rows), tuple(together), seen, picture_tokens)


class _Tokens:
    """Prompts of tokens drawn at random, none like another."""

    def __init__(self, model: LocalModel) -> None:
        ends = {*model.tokenizer.eos_ids, model.config.image_token_id}
        self._known = np.array([token for token in range(model.config.text.vocab_size) if token not in ends])
        self._draw = np.random.default_rng(time.time_ns())

    def prompt(self, length: int) -> list[int]:
        return [int(token) for token in self._draw.choice(self._known, length)]


def _answer(model: LocalModel, prompts: Sequence[Sequence[int]], said: int) -> tuple[float, float]:
    """Seconds until all have their first token, and the rate of all together from there on."""
    from lapilli.engine.sampler import SamplingOptions
    from lapilli.inputs.prompt import Prompt

    engine, options = model.engine, SamplingOptions(max_tokens=said)
    started = time.perf_counter()
    jobs = [engine.submit(Prompt(list(prompt)), options) for prompt in prompts]
    try:
        while any(job.request.reading and not job.over for job in jobs):
            engine.step()
        begun, before = time.perf_counter(), _said(jobs)
        while not all(job.over for job in jobs):
            engine.step()
        seconds = time.perf_counter() - begun
        # A model may end its answer with its first token: then it was too quick to be timed.
        return begun - started, max(_said(jobs) - before, 1) / max(seconds, 1e-9)
    finally:
        for job in jobs:
            engine.abort(job)


def _said(jobs: Sequence[Job]) -> int:
    return sum(job.request.said for job in jobs)


def _room(model: LocalModel) -> int:
    """The most tokens of a prompt and its answer."""
    pool = model.engine.scheduler.pool
    return min(model.config.text.max_positions, pool.count * pool.size)


def _picture(seed: int) -> Image:
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (336, 336, 3), dtype=np.uint8))
