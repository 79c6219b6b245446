"""Conversation formats that need no template program, and the pieces that every rendered conversation is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lapilli.errors import TemplateError
from lapilli.inputs.chat import ImagePart, Message


@dataclass(frozen=True)
class Trusted:
    """Text that the template wrote: it may hold special tokens."""

    text: str


@dataclass(frozen=True)
class Plain:
    """Text that somebody wrote in message number `message` (from 0), or to describe a tool (None): it stays text."""

    text: str
    message: int | None


@dataclass(frozen=True)
class Picture:
    """The place of picture number `index` (from 0, in the order of the messages)."""

    index: int


Segment: TypeAlias = Trusted | Plain | Picture


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """The segments without empty ones, neighbouring trusted texts made one."""
    whole: list[Segment] = []
    for segment in segments:
        if not isinstance(segment, Picture) and not segment.text:
            continue
        last = whole[-1] if whole else None
        if isinstance(segment, Trusted) and isinstance(last, Trusted):
            whole[-1] = Trusted(last.text + segment.text)
        else:
            whole.append(segment)
    return whole


@dataclass(frozen=True)
class Turn:
    """What is written before and after the words of one role."""

    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Format:
    """A conversation format that needs no program: what comes around each turn.

    Raises TemplateError for a role that the format has no place for.
    """

    user: Turn
    assistant: Turn
    system: Turn
    cue: str
    opening: str = ""
    default_system: str = ""
    system_in_user: bool = False
    between: str = "\n"
    trims: bool = False

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[Segment]:
        """Write a conversation out, ending with the cue for the assistant where `add_generation_prompt`."""
        return joined(self._segments(messages, add_generation_prompt))

    def _segments(self, messages: Sequence[Message], add_generation_prompt: bool) -> Iterator[Segment]:
        yield Trusted(self.opening)
        held: list[Segment] = []
        if self.default_system and not (messages and messages[0].role == "system"):
            held = [Trusted(self.system.before + self.default_system + self.system.after)]
        if not self.system_in_user:
            yield from held
            held = []
        shown = 0
        for number, message in enumerate(messages):
            if message.role == "tool" or message.tool_calls:
                what = "a tool message" if message.role == "tool" else "calls of tools"
                raise TemplateError(f"this conversation format has no place for {what}")
            turn = {"system": self.system, "user": self.user, "assistant": self.assistant}[message.role]
            body = [Trusted(turn.before), *held, *self._body(message, number, shown), Trusted(turn.after)]
            held = []
            shown += len(message.images)
            if message.role == "system" and self.system_in_user:
                held = body
            else:
                yield from body
        yield from held
        if add_generation_prompt:
            yield Trusted(self.cue)

    def _body(self, message: Message, number: int, shown: int) -> Iterator[Segment]:
        for place, part in enumerate(message.parts):
            if place:
                yield Trusted(self.between)
            if isinstance(part, ImagePart):
                yield Picture(shown)
                shown += 1
            else:
                yield Plain(part.text.strip() if self.trims else part.text, number)
        if message.parts and isinstance(message.parts[-1], ImagePart):
            yield Trusted(self.between)


_PERSON = (
    "A chat between a curious {0} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {0}'s questions."
)
_VICUNA = Format(
    user=Turn("USER: ", " "), assistant=Turn("ASSISTANT: ", "</s>"), system=Turn("", " "), cue="ASSISTANT:",
    default_system=_PERSON.format("user"),
)  # fmt: skip
_CHATML = Format(
    user=Turn("<|im_start|>user\n", "<|im_end|>\n"), assistant=Turn("<|im_start|>assistant\n", "<|im_end|>\n"),
    system=Turn("<|im_start|>system\n", "<|im_end|>\n"), cue="<|im_start|>assistant\n",
)  # fmt: skip

# The names are those of https://github.com/haotian-liu/LLaVA, and of the families' own documentation.
FORMATS: Mapping[str, Format] = {
    "vicuna_v1": _VICUNA,
    "llava_v1": Format(
        user=_VICUNA.user, assistant=_VICUNA.assistant, system=_VICUNA.system, cue=_VICUNA.cue,
        default_system=_PERSON.format("human"),
    ),
    "llava_hf": Format(user=_VICUNA.user, assistant=_VICUNA.assistant, system=_VICUNA.system, cue=_VICUNA.cue),
    "llava_llama_2": Format(
        user=Turn("<s>[INST] ", " [/INST]"), assistant=Turn(" ", " </s>"), system=Turn("<<SYS>>\n", "\n<</SYS>>\n\n"),
        cue="", system_in_user=True,
        default_system="You are a helpful language and vision assistant. You are able to understand the visual content "
        "that the user provides, and assist the user with a variety of tasks using natural language.",
    ),
    "mistral_instruct": Format(
        user=Turn("[INST] ", " [/INST]"), assistant=Turn(" ", " </s>"), system=Turn("<<SYS>>\n", "\n<</SYS>>\n\n"),
        cue="", system_in_user=True,
    ),
    "chatml": _CHATML,
    "chatml_direct": Format(
        user=Turn("<|im_start|>user\n", "<|im_end|>"), assistant=Turn("<|im_start|>assistant\n", "<|im_end|>"),
        system=Turn("<|im_start|>system\n", "<|im_end|>"), cue="<|im_start|>assistant\n",
        default_system="Answer the questions.",
    ),
    "llama3": Format(
        opening="<|begin_of_text|>", trims=True,
        user=Turn("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        assistant=Turn("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
        system=Turn("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        cue="<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "phi3": Format(
        user=Turn("<|user|>\n", "<|end|>\n"), assistant=Turn("<|assistant|>\n", "<|end|>\n"),
        system=Turn("<|system|>\n", "<|end|>\n"), cue="<|assistant|>\n",
    ),
    "plain": Format(user=Turn("", ""), assistant=Turn("", "\n"), system=Turn("", ""), cue="", between=""),
}  # fmt: skip
