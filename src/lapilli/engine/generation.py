"""Generation: read the prompts, then say one token a step until every answer has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lapilli.engine.answer import Answer, FinishReason
from lapilli.engine.sampler import Sampler, SamplingOptions
from lapilli.errors import PromptError
from lapilli.inputs.prompt import Prompt
from lapilli.inputs.tokenizer import TextStream, Tokenizer
from lapilli.model.cache import KVCache
from lapilli.model.llava import Llava


@dataclass
class Writing:
    """One answer being written: its prompt, what was said so far, and why it ended."""

    prompt: Prompt
    options: SamplingOptions
    stream: TextStream
    sampler: Sampler
    limit: int
    image_tokens: int
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    shown: int = 0
    finish_reason: FinishReason | None = None

    def say(self, token: int, eos_ids: frozenset[int]) -> None:
        """Take the next token in; ends at an end token, a stop text or the limit."""
        if token in eos_ids:
            self._end("stop")
            return
        self.token_ids.append(token)
        self._append(self.stream.push(token))
        if self.finish_reason is None and len(self.token_ids) >= self.limit:
            self._end("length")

    def fresh_text(self) -> str:
        """Text not shown yet, less what may still turn out to be the start of a stop text."""
        end = len(self.text)
        if self.finish_reason is None:
            end -= max((_overlap(self.text, stop) for stop in self.options.stop), default=0)
        fresh, self.shown = self.text[self.shown : end], max(self.shown, end)
        return fresh

    def _end(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self._append(self.stream.flush())

    def _append(self, piece: str) -> None:
        before = len(self.text)
        self.text += piece
        longest = max((len(stop) for stop in self.options.stop), default=0)
        window = max(0, before - longest)
        found = [at for stop in self.options.stop if (at := self.text.find(stop, window)) >= 0]
        if found:
            self.text, self.finish_reason = self.text[: min(found)], "stop"


@dataclass
class Times:
    """Seconds spent on pictures, on prompts and on answers."""

    image: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0


@torch.inference_mode()
def write(
    model: Llava, tokenizer: Tokenizer, prompts: Sequence[Prompt], options: Sequence[SamplingOptions]
) -> Iterator[list[tuple[int, str, Answer | None]]]:
    """Answer all prompts together; each step yields (which prompt, fresh text, the answer once it has ended).

    Raises PromptError where a prompt does not fit the model's context, before anything is computed.
    """
    writings = [_begin(model, tokenizer, *pair) for pair in zip(prompts, options, strict=True)]
    times = Times()
    open_rows = [number for number, writing in enumerate(writings) if writing.limit > 0]
    for number, writing in enumerate(writings):
        if writing.limit == 0:
            writing.finish_reason = "length"
            yield [(number, "", _answer(writing, times))]
    if not open_rows:
        return
    cache, scores_BV = _prefill(model, [writings[number] for number in open_rows], times)
    while open_rows:
        started = time.perf_counter()
        for number, scores_V in zip(open_rows, scores_BV, strict=True):
            writing = writings[number]
            writing.say(writing.sampler.choose(scores_V), tokenizer.eos_ids)
        going = [row for row, number in enumerate(open_rows) if writings[number].finish_reason is None]
        stepped, open_rows = open_rows, [open_rows[row] for row in going]
        if open_rows:
            if len(going) < len(stepped):
                cache.keep(torch.tensor(going, device=model.device))
            scores_BV = _decode(model, [writings[number] for number in open_rows], cache)
        times.decode += time.perf_counter() - started
        yield [
            (number, writing.fresh_text(), _answer(writing, times) if writing.finish_reason else None)
            for number in stepped
            for writing in (writings[number],)
        ]


def _begin(model: Llava, tokenizer: Tokenizer, prompt: Prompt, options: SamplingOptions) -> Writing:
    context, length = model.config.text.max_positions, len(prompt.token_ids)
    if length == 0:
        raise PromptError("the prompt is empty: ask something")
    if length >= context:
        raise PromptError(f"the prompt has {length} tokens, this model reads at most {context - 1}: shorten it")
    room = context - length
    limit = room if options.max_tokens is None else min(options.max_tokens, room)
    image_tokens = sum(model.config.image_tokens(image.height, image.width) for image in prompt.images)
    return Writing(prompt, options, TextStream(tokenizer), Sampler(options, prompt.token_ids), limit, image_tokens)


def _prefill(model: Llava, writings: Sequence[Writing], times: Times) -> tuple[KVCache, Tensor]:
    """Read all prompts, padded on the left to one length; scores (B, V) for what comes next."""
    started = time.perf_counter()
    features = model.encode_images(
        [
            (torch.from_numpy(image.pixels_TCHW), (image.height, image.width))
            for writing in writings
            for image in writing.prompt.images
        ]
    )
    times.image = time.perf_counter() - started
    started = time.perf_counter()
    lengths = [len(writing.prompt.token_ids) for writing in writings]
    longest = max(lengths)
    ids_BT = torch.tensor(
        [[0] * (longest - n) + list(w.prompt.token_ids) for n, w in zip(lengths, writings, strict=True)],
        device=model.device,
    )
    padding_B1 = torch.tensor([[longest - n] for n in lengths], device=model.device)
    slots_T = torch.arange(longest, device=model.device)
    valid_BT = slots_T >= padding_B1
    room = min(64, max(writing.limit for writing in writings))
    cache = KVCache(model.config.text, len(writings), longest + room, dtype=model.dtype, device=model.device)
    hidden_BTD = model(
        model.embed(ids_BT, features),
        (slots_T - padding_B1).clamp(min=0),
        cache,
        None if len(set(lengths)) == 1 else valid_BT,
    )
    scores_BV = model.logits(hidden_BTD[:, -1])
    times.prefill = time.perf_counter() - started
    return cache, scores_BV


def _decode(model: Llava, writings: Sequence[Writing], cache: KVCache) -> Tensor:
    """One more token a row; scores (B, V) for the one after."""
    ids_B1 = torch.tensor([[writing.token_ids[-1]] for writing in writings], device=model.device)
    positions_B1 = torch.tensor(
        [[len(writing.prompt.token_ids) + len(writing.token_ids) - 1] for writing in writings], device=model.device
    )
    # Not `embed`: a model that says its own placeholder's id must not be asked for a picture.
    return model.logits(model(model.language.embed(ids_B1), positions_B1, cache)[:, -1])


def _answer(writing: Writing, times: Times) -> Answer:
    assert writing.finish_reason is not None
    return Answer(
        text=writing.text,
        finish_reason=writing.finish_reason,
        token_ids=tuple(writing.token_ids),
        prompt_tokens=len(writing.prompt.token_ids),
        image_tokens=writing.image_tokens,
        image_seconds=times.image,
        prefill_seconds=times.prefill,
        decode_seconds=times.decode,
    )


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text begin the stop text."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
