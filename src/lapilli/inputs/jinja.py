"""A chat template in Jinja, run in a child that is killed at its deadline."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lapilli.errors import TemplateError
from lapilli.ground.child import ChildError, call_in_child
from lapilli.inputs.chat import ImagePart, Message, TextPart
from lapilli.inputs.formats import Segment, Trusted, joined
from lapilli.inputs.marks import Marks, Unfit

# The variables of published templates that a person may set; every other name is refused.
OPTIONS: Mapping[str, Literal["flag", "word"]] = {
    "enable_thinking": "flag",
    "thinking": "flag",
    "reasoning_effort": "word",
    "date_string": "word",
}
_WORD = re.compile(r"[\w .,:/+-]{1,64}")

_SECONDS = 1.5
_MEMORY_MB = 256
_MAX_OUTPUT = 4 << 20
_MAX_SOURCE = 1 << 20

# A list of parts turned into text, in Python's way or in JSON's.
_PRINTED_PART = re.compile(r"""['"]type['"]:\s*['"](text|image)['"]""")


@dataclass(frozen=True)
class Jinja:
    """A chat template's program, as checkpoints carry it, and the special strings it may name."""

    source: str
    special: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.source) > _MAX_SOURCE:
            raise TemplateError(f"the chat template has {len(self.source)} characters, {_MAX_SOURCE} are allowed")

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        image_token: str,
        options: Mapping[str, str | bool],
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | str | None = None,
    ) -> list[Segment]:
        options = {**_thinking(think), **_checked_options(options)}
        variables = {**self.special, **options, "add_generation_prompt": add_generation_prompt}
        deadline = time.monotonic() + _SECONDS
        # Templates want content as parts or as one string, and do not say which: the first that keeps everything wins.
        as_parts = (True, False) if any(message.images for message in messages) else (False, True)
        # So it is with arguments: an object, or its JSON.
        as_json = (False, True) if any(message.tool_calls for message in messages) else (False,)
        failures = []
        for parts, spelled in itertools.product(as_parts, as_json):
            marks = Marks([message.role for message in messages])
            written = {"messages": _Writer(marks, parts, spelled).write(messages), "tools": marks.tools(tools) or None}
            try:
                segments = marks.read(self._run({**variables, **written}, deadline), image_token)
                if parts and _PRINTED_PART.search("".join(s.text for s in segments if isinstance(s, Trusted))):
                    raise Unfit(2, "the chat template prints the parts of a message instead of reading them")
                return joined(segments)
            except Unfit as failure:
                failures.append(failure)
        raise TemplateError(str(min(failures, key=lambda failure: failure.rank)))

    def _run(self, variables: Mapping[str, Any], deadline: float) -> str:
        request = {"source": self.source, "variables": variables, "limit": _MAX_OUTPUT}
        try:
            answer = call_in_child(
                "lapilli.inputs.sandbox:render_jinja",
                request,
                seconds=max(0.05, deadline - time.monotonic()),
                memory_mb=_MEMORY_MB,
                max_output_bytes=4 * _MAX_OUTPUT,
            )
        except ChildError as error:
            what = f"ran longer than {_SECONDS:g} s" if error.reason == "time" else str(error)
            raise TemplateError(f"the chat template was stopped: it {what}") from None
        if "text" in answer:
            return str(answer["text"])
        if answer["said"]:
            raise Unfit(0, f"the chat template refuses this conversation: {answer['error']}")
        raise Unfit(2, f"the chat template fails: {answer['error']}")


@dataclass
class _Writer:
    """Writes messages as a template sees them: content as parts or one string, arguments as an object or JSON."""

    marks: Marks
    as_parts: bool
    as_json: bool

    def write(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        return [self._message(message, number) for number, message in enumerate(messages)]

    def _message(self, message: Message, number: int) -> dict[str, Any]:
        written: dict[str, Any] = {"role": message.role, "content": self._content(message, number)}
        if message.thinking:
            # Both names are in use.
            thoughts = self.marks.once(message.thinking, number, needed=False)
            written |= {"reasoning_content": thoughts, "thinking": thoughts}
        if message.tool_calls:
            written["tool_calls"] = [self._call(message, place, number) for place in range(len(message.tool_calls))]
        if message.tool_name:
            written["name"] = self.marks.shared(message.tool_name, number)
        if message.tool_call_id:
            written["tool_call_id"] = self.marks.id(message.tool_call_id)
        return written

    def _content(self, message: Message, number: int) -> str | list[dict[str, str]]:
        # What stands beside calls is left out by some templates, by design.
        needed = not message.tool_calls
        if not self.as_parts:
            return "\n".join(
                self.marks.picture()
                if isinstance(part, ImagePart)
                else self.marks.once(part.text, number, needed=needed)
                for part in message.parts
            )
        content: list[dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                content.append({"type": "text", "text": self.marks.once(part.text, number, needed=needed)})
            else:
                self.marks.count_picture()
                content.append({"type": "image"})
        return content

    def _call(self, message: Message, place: int, number: int) -> dict[str, Any]:
        call = message.tool_calls[place]
        arguments: Any = self.marks.arguments(call, number)
        if self.as_json:
            arguments = json.dumps(arguments, ensure_ascii=False)
        written = {
            "type": "function",
            "function": {"name": self.marks.shared(call.name, number), "arguments": arguments},
        }
        return {**written, "id": self.marks.id(call.id)} if call.id else written


def _thinking(think: bool | str | None) -> dict[str, str | bool]:
    """The variables of published templates that turn thinking on, off, up and down."""
    if think is None:
        return {}
    wanted: dict[str, str | bool] = {"enable_thinking": bool(think), "thinking": bool(think)}
    return _checked_options({**wanted, "reasoning_effort": think} if isinstance(think, str) else wanted)


def _checked_options(options: Mapping[str, str | bool]) -> dict[str, str | bool]:
    for name, value in options.items():
        kind = OPTIONS.get(name)
        if kind is None:
            raise TemplateError(f"template option {str(name)[:40]!r} is not one of {', '.join(OPTIONS)}")
        if kind == "flag" and not isinstance(value, bool):
            raise TemplateError(f"template option {name} must be true or false")
        if kind == "word" and not (isinstance(value, str) and _WORD.fullmatch(value)):
            raise TemplateError(f"template option {name} must be up to 64 letters, digits and plain signs")
    return dict(options)
