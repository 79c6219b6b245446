"""From what was asked to what the engine takes: prompts built and made to fit, options and constraints read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lapilli.checkpoints.load import Checkpoint
from lapilli.engine.ask import Ask
from lapilli.engine.grammar import Constraint
from lapilli.engine.sampler import SamplingOptions
from lapilli.errors import InputError, PromptError
from lapilli.inputs.chat import Message, conversation, show
from lapilli.inputs.formats import Picture
from lapilli.inputs.prompt import Prompt, PromptBuilder
from lapilli.inputs.templates import IMAGE_TOKEN, ChatTemplate, TemplateText

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class Intaken:
    """An ask, ready for the engine; `truncated` tokens of it were left out, `pictures` are kept for a heat map."""

    prompt: Prompt
    options: SamplingOptions
    constraint: Constraint | None
    context: int
    pictures: tuple[Image, ...] = ()
    truncated: int = 0


class Intake:
    """Reads the asks of one model; safe from several threads.

    `template` is used where an ask names none, `context` is the most that one may use.
    """

    def __init__(self, checkpoint: Checkpoint, template: TemplateText | None, context: int | None) -> None:
        self.config, self.prompts, self.generation = checkpoint.config, checkpoint.prompts, checkpoint.generation
        most = checkpoint.config.text.max_positions
        self.context = most if context is None else min(context, most)
        self._template = template
        self._builder_of = functools.lru_cache(maxsize=16)(self._make_builder)

    @property
    def template(self) -> ChatTemplate:
        """The chat template that is used where an ask names none. Raises TemplateError where it cannot be read."""
        return self._builder(None).chat_template

    def take(self, ask: Ask) -> Intaken:
        """Read an ask; raises what `conversation`, `PromptBuilder` and SamplingOptions raise, and PromptError with
        both counts where the prompt leaves no room for an answer."""
        options, context = self._options(ask.sampling), self._context(ask.context)
        constraint = None if ask.constraint is None else _constraint(*ask.constraint)
        self._check_before(ask.before)
        messages, pictures = self._messages(ask)
        if ask.heatmap and not pictures:
            raise PromptError("a heat map was asked for, and no picture is shown: show one, or ask without")
        extras, builder = _extras(ask), self._builder(ask.template)

        def build(kept: Sequence[Message]) -> Prompt:
            whole = builder.chat(kept, **extras) if ask.prompt is None else builder.raw(ask.prompt, pictures)
            return self._begun(whole, ask.begun)

        wanted = context if options.max_tokens is None else options.max_tokens
        fitting = _Fitting(self, build, messages, ask.before, context, max(1, min(wanted, context // 4)))
        prompt, truncated = fitting.cut() if ask.truncate else fitting.whole()
        return Intaken(prompt, options, constraint, context, pictures if ask.heatmap else (), truncated)

    def render(self, ask: Ask) -> str:
        """The prompt as text, `<image>` where a picture stands; nothing is checked against the context."""
        if ask.prompt is not None:
            return ask.prompt + ask.begun
        messages, _ = self._messages(ask)
        segments = self._builder(ask.template).chat_template.render(messages, **_extras(ask))
        texts = (IMAGE_TOKEN if isinstance(segment, Picture) else segment.text for segment in segments)
        return "".join(texts) + ask.begun

    def plain(self, text: str, truncate: bool, context: int | None) -> tuple[Prompt, int]:
        """The prompt of a text that is nothing but text, and how many tokens were cut off its end.

        Raises InputError where it is longer than the context and must not be cut.
        """
        tokenizer, most = self.prompts.tokenizer, self._context(context)
        ids = tokenizer.encode(text)
        if tokenizer.adds_bos and tokenizer.bos_id is not None:
            ids = [tokenizer.bos_id, *ids]
        if not ids:
            raise PromptError("the text to embed is empty: give at least one character")
        if len(ids) > most and not truncate:
            raise InputError(
                f"the input length exceeds the context length: it has {len(ids)} tokens, the context {most}; "
                "shorten it or let it be truncated"
            )
        return Prompt(ids[:most]), max(0, len(ids) - most)

    def joined(self, before: Sequence[int], prompt: Prompt) -> Prompt:
        """The prompt with token ids that come first; the beginning of a text is said once."""
        ids = prompt.token_ids
        if before and ids[:1] == [self.prompts.tokenizer.bos_id]:
            ids = ids[1:]
        return Prompt([*before, *ids], prompt.images)

    def _begun(self, prompt: Prompt, begun: str) -> Prompt:
        """The prompt with the beginning of the assistant's turn."""
        if not begun:
            return prompt
        ids = self.prompts.tokenizer.encode_segments([(begun, True)], at_start=False)
        return Prompt([*prompt.token_ids, *ids], prompt.images)

    def _messages(self, ask: Ask) -> tuple[list[Message], tuple[Image, ...]]:
        """The messages with their pictures opened, and all pictures in the order that they are shown in."""
        if (ask.prompt is None) == (not ask.messages):
            raise PromptError("either messages or a prompt must be given")
        if ask.prompt is not None:
            if ask.suffix or ask.tools:
                raise PromptError("a raw prompt has no place for a suffix or tools: give messages")
            return [], tuple(show(picture, paths=False).image for picture in ask.pictures)
        messages = conversation([_with_pictures(message, ask.pictures) for message in ask.messages], paths=False)
        return messages, tuple(image for message in messages for image in message.images)

    def _options(self, sampling: Mapping[str, Any]) -> SamplingOptions:
        unknown = sampling.keys() - {item.name for item in dataclasses.fields(SamplingOptions)}
        if unknown:
            raise InputError(f"{', '.join(sorted(unknown))[:80]}: no such sampling option")
        return SamplingOptions(**{"max_tokens": self.generation.max_new_tokens, **sampling})

    def _context(self, context: int | None) -> int:
        if context is None:
            return self.context
        if context < 1:
            raise InputError(f"the context is {context} tokens, it must be at least 1")
        return min(context, self.context)

    def _check_before(self, before: Sequence[int]) -> None:
        rows = self.config.text.vocab_size
        for index in before:
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < rows:
                raise InputError(f"context holds {str(index)[:40]}, token ids go from 0 to {rows - 1}")
        shown = sum(index == self.config.image_token_id for index in before) if self.prompts.sees else 0
        if shown:
            raise PromptError(
                f"context holds the places of {shown} features of pictures, which are not kept: "
                "send the conversation as messages, with its pictures"
            )

    def _builder(self, template: TemplateText | None) -> PromptBuilder:
        return self._builder_of(template or self._template)

    def _make_builder(self, template: TemplateText | None) -> PromptBuilder:
        if template is None:
            return self.prompts
        return PromptBuilder(
            self.config, self.prompts.tokenizer, self.prompts.image_processor, self._chat_template(template)
        )

    def _chat_template(self, template: TemplateText) -> ChatTemplate:
        tokenizer = self.prompts.tokenizer
        named = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
        special = {
            name: tokenizer.token_bytes(index, skip_special=False).decode("utf-8", "replace")
            for name, index in named.items()
            if index is not None
        }
        return ChatTemplate.from_text(template.language, template.text, special)


class _Fitting:
    """A prompt that must leave room for an answer within the context."""

    def __init__(
        self,
        intake: Intake,
        build: Callable[[Sequence[Message]], Prompt],
        messages: Sequence[Message],
        before: Sequence[int],
        context: int,
        room: int,
    ) -> None:
        self._intake, self._build, self._messages, self._before = intake, build, messages, before
        self._context, self._room = context, room

    def whole(self) -> tuple[Prompt, int]:
        prompt = self._intake.joined(self._before, self._build(self._messages))
        self._require(len(prompt.token_ids), "shorten it, raise the context, or let it be truncated")
        return prompt, 0

    def cut(self) -> tuple[Prompt, int]:
        """What fits, and how many tokens were left out: ids that come first, then the oldest turns.

        As much is left out as leaves the wanted room for the answer, or any room where that is not to be had.
        """
        prompt = self._build(self._messages)
        joined = self._intake.joined(self._before, prompt)
        length = len(joined.token_ids)
        if length < self._context:
            return joined, 0
        over = min(len(self._before), length - (self._context - self._room))
        joined = self._intake.joined(self._before[over:], prompt)
        turns = _turns(self._messages)
        if len(joined.token_ids) >= self._context and len(turns) > 1:
            joined = self._without_turns(turns)
        self._require(len(joined.token_ids), "its last turn alone is too long: shorten it, or raise the context")
        return joined, length - len(joined.token_ids)

    def _without_turns(self, turns: list[list[int]]) -> Prompt:
        """The prompt without its first turns, as few of them as will do; templates are costly, so by halves."""

        @functools.cache
        def built(count: int) -> Prompt:
            dropped = {place for turn in turns[:count] for place in turn}
            return self._build([message for place, message in enumerate(self._messages) if place not in dropped])

        low, high = 1, len(turns) - 1
        while low < high:
            middle = (low + high) // 2
            fits = len(built(middle).token_ids) <= self._context - self._room
            low, high = (low, middle) if fits else (middle + 1, high)
        return built(low)

    def _require(self, length: int, way_out: str) -> None:
        if length >= self._context:
            raise PromptError(
                f"the prompt has {length} tokens, at most {self._context - 1} fit into a context of {self._context}: "
                f"{way_out}"
            )


def _turns(messages: Sequence[Message]) -> list[list[int]]:
    """The numbers of the messages that are not the system's, each turn from one of the user's to the next."""
    turns: list[list[int]] = []
    for place, message in enumerate(messages):
        if message.role == "system":
            continue
        if not turns or message.role == "user":
            turns.append([])
        turns[-1].append(place)
    return turns


def _with_pictures(message: Mapping[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """A message that names its pictures by number, with the pictures themselves."""
    values = {name: value for name, value in message.items() if name != "pictures"}
    shown = message.get("pictures") or ()
    for number in shown:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(pictures):
            raise PromptError(f"a message shows picture {str(number)[:40]}, {len(pictures)} pictures were given")
    return {**values, "images": [pictures[number] for number in shown]} if shown else values


def _extras(ask: Ask) -> dict[str, Any]:
    """What templates are told beside the messages."""
    return {"tools": ask.tools, "think": ask.think, "suffix": ask.suffix}


def _constraint(kind: str, text: str) -> Constraint:
    # Not `Constraint.json_schema`: what that made must not be read by it again.
    if kind in ("json", "regex", "lark"):
        return Constraint(kind, text)  # type: ignore[arg-type]
    raise InputError(f"a constraint is json, regex or lark, not {kind[:40]!r}")
