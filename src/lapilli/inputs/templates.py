"""Chat templates: from messages to text that keeps apart what the template wrote and what people wrote.

A template is a stranger's program: Jinja sources run sandboxed in a child that is killed at its deadline.
What people wrote goes in between marks that nobody can guess and comes out as `Plain`, so that no word of theirs is
ever taken for a special token or a placeholder, and no template can lose or repeat any of it unseen.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, SupportsIndex

from lapilli.errors import TemplateError
from lapilli.ground.child import ChildError, call_in_child
from lapilli.ground.files import open_regular
from lapilli.inputs.chat import ImagePart, Message, TextPart
from lapilli.inputs.formats import FORMATS, Format, Picture, Plain, Segment, Trusted, joined

IMAGE_TOKEN = "<image>"

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
_MAX_FILE = 32 << 20

# A special token that tells a family's format, for models that come without a template.
_SIGNS = {"<|start_header_id|>": "llama3", "<|im_start|>": "chatml", "<|user|>": "phi3"}


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
    ) -> list[Segment]:
        variables = {**self.special, **_checked_options(options), "add_generation_prompt": add_generation_prompt}
        deadline = time.monotonic() + _SECONDS
        # Templates want content as parts or as one string, and do not say which: the first that keeps everything wins.
        as_parts: tuple[bool, ...] = (True, False) if any(message.images for message in messages) else (False, True)
        failures = []
        for parts in as_parts:
            marks = _Marks(messages, image_token)
            try:
                text = self._run({**variables, "messages": marks.write(parts)}, deadline)
                return joined(marks.read(text, parts))
            except _Unfit as failure:
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
            raise _Unfit(0, f"the chat template refuses this conversation: {answer['error']}")
        raise _Unfit(2, f"the chat template fails: {answer['error']}")


class _Unfit(Exception):
    """One way of giving content to a template did not work; the lowest rank explains it best."""

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(message)
        self.rank = rank


class _Marks:
    """Marks around what people wrote: digits only, so that templates pass them on as they are."""

    def __init__(self, messages: Sequence[Message], image_token: str) -> None:
        self._nonce = f"{secrets.randbelow(10**40):040d}"
        self._messages, self._image_token = messages, image_token
        self._owners: list[int] = []
        self._pictures = 0
        self._placed = 0

    def write(self, as_parts: bool) -> list[dict[str, Any]]:
        """The messages as a template sees them."""
        return [self._write_message(number, as_parts) for number in range(len(self._messages))]

    def _write_message(self, number: int, as_parts: bool) -> dict[str, Any]:
        message = self._messages[number]
        if not as_parts:
            texts = [
                self._mark("3", self._next_picture()) if isinstance(part, ImagePart) else self._wrap(part.text, number)
                for part in message.parts
            ]
            return {"role": message.role, "content": "\n".join(texts)}
        content: list[dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                content.append({"type": "text", "text": self._wrap(part.text, number)})
            else:
                self._next_picture()
                content.append({"type": "image"})
        return {"role": message.role, "content": content}

    def _wrap(self, text: str, number: int) -> str:
        # White space stays outside, where a template may trim it.
        core = text.strip()
        if not core:
            return text
        self._owners.append(number)
        index = len(self._owners) - 1
        before, _, after = text.partition(core)
        return before + self._mark("1", index) + core + self._mark("2", index) + after

    def _next_picture(self) -> int:
        self._pictures += 1
        return self._pictures - 1

    def _mark(self, kind: str, index: int) -> str:
        return f"{self._nonce}{kind}{index:08d}"

    def read(self, text: str, as_parts: bool) -> list[Segment]:
        """Cut a template's output at the marks, and see that every text and picture is there once.

        Raises _Unfit with the counts where one is not.
        """
        segments: list[Segment] = []
        written: Counter[int] = Counter()
        opened: int | None = None
        pieces = re.split(f"{self._nonce}([123])([0-9]{{8}})", text)
        self._add_trusted(segments, pieces[0])
        for kind, digits, piece in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            index = int(digits)
            if kind == "1" and opened is None and index < len(self._owners):
                opened = index
                written[index] += 1
                segments.append(Plain(piece, self._owners[index]))
                continue
            if kind == "2" and opened == index:
                opened = None
            elif kind == "3" and opened is None:
                segments.append(Picture(index))
            else:
                raise _Unfit(1, "the chat template cuts what people wrote into pieces")
            self._add_trusted(segments, piece)
        self._require_all(segments, written, closed=opened is None)
        if as_parts and _PRINTED_PART.search("".join(s.text for s in segments if isinstance(s, Trusted))):
            raise _Unfit(2, "the chat template prints the parts of a message instead of reading them")
        return segments

    def _add_trusted(self, segments: list[Segment], text: str) -> None:
        """Add text of the template, its own placeholders taken for the pictures in order."""
        first, *rest = text.split(self._image_token)
        segments.append(Trusted(first))
        for piece in rest:
            segments += [Picture(self._placed), Trusted(piece)]
            self._placed += 1

    def _require_all(self, segments: list[Segment], written: Counter[int], *, closed: bool) -> None:
        for index, owner in enumerate(self._owners):
            if written[index] != 1:
                whose = f"message {owner + 1} ({self._messages[owner].role})"
                raise _Unfit(1, f"the chat template writes a text of {whose} {written[index]} times, it must be once")
        if not closed:
            raise _Unfit(1, "the chat template cuts off the end of what people wrote")
        pictures = [segment.index for segment in segments if isinstance(segment, Picture)]
        if sorted(pictures) != list(range(self._pictures)):
            raise _Unfit(1, f"the chat template places {len(pictures)} pictures, the messages show {self._pictures}")


# A list of parts turned into text, in Python's way or in JSON's.
_PRINTED_PART = re.compile(r"""['"]type['"]:\s*['"](text|image)['"]""")


@dataclass(frozen=True)
class ChatTemplate:
    """How a model was taught to tell who is speaking: a Jinja program from its checkpoint, or a built-in format."""

    form: Jinja | Format

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        image_token: str = IMAGE_TOKEN,
        options: Mapping[str, str | bool] | None = None,
    ) -> list[Segment]:
        """Write a conversation out, ending with the cue for the assistant where `add_generation_prompt`.

        `image_token` is how this model's template writes a picture; `options` are variables of the template that a
        person may set, see `OPTIONS`.

        Raises TemplateError where the template fails, runs too long, says too much, or loses or repeats a text or a
        picture.
        """
        if isinstance(self.form, Format):
            if options:
                raise TemplateError(f"this conversation format has no options, {len(options)} were given")
            return self.form.render(messages, add_generation_prompt=add_generation_prompt)
        return self.form.render(
            messages, add_generation_prompt=add_generation_prompt, image_token=image_token, options=options or {}
        )

    @classmethod
    def from_jinja(cls, source: str, special: Mapping[str, str] | None = None) -> ChatTemplate:
        """A template in Jinja; `special` names its special strings (`bos_token`, `eos_token`, ...)."""
        return cls(Jinja(source, dict(special or {})))

    @classmethod
    def from_folder(cls, folder: str | Path) -> ChatTemplate | None:
        """The template of a checkpoint folder, None where it has none.

        Looks into `chat_template.jinja`, then under `chat_template` in `chat_template.json`, `processor_config.json`
        and `tokenizer_config.json`, as transformers does.
        """
        folder = Path(folder)
        config = _read_json(folder / "tokenizer_config.json")
        source = (
            _read_text(folder / "chat_template.jinja")
            or _default_of(_read_json(folder / "chat_template.json").get("chat_template"))
            or _default_of(_read_json(folder / "processor_config.json").get("chat_template"))
            or _default_of(config.get("chat_template"))
        )
        special = {**_special_strings(_read_json(folder / "special_tokens_map.json")), **_special_strings(config)}
        return cls(Jinja(source, special)) if source else None

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, object]) -> ChatTemplate | None:
        """The template that a GGUF file carries under `tokenizer.chat_template`, None where it has none."""
        source = metadata.get("tokenizer.chat_template")
        if not isinstance(source, str) or not source:
            return None
        tokens = metadata.get("tokenizer.ggml.tokens")
        special = {}
        for name, key in (
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
        ):
            index = metadata.get(f"tokenizer.ggml.{key}_token_id")
            if isinstance(index, SupportsIndex) and isinstance(tokens, Sequence) and 0 <= int(index) < len(tokens):
                special[name] = str(tokens[int(index)])
        return cls(Jinja(source, special))

    @classmethod
    def built_in(cls, name: str) -> ChatTemplate:
        """One of the formats in `FORMATS`, by name."""
        if name not in FORMATS:
            raise TemplateError(f"no conversation format {name[:40]!r}; known are {', '.join(FORMATS)}")
        return cls(FORMATS[name])

    @classmethod
    def for_vocabulary(cls, special_tokens: Mapping[str, int]) -> ChatTemplate:
        """The format whose special tokens a vocabulary has, for a model that came without a template."""
        for token, name in _SIGNS.items():
            if token in special_tokens:
                return cls(FORMATS[name])
        return cls(FORMATS["vicuna_v1"])


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


def _default_of(value: object) -> str:
    """The template itself, or the one named default where a file lists several."""
    if isinstance(value, Mapping):
        value = [{"name": name, "template": template} for name, template in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, Mapping)}
        value = named.get("default") or next(iter(named.values()), "")
    return value if isinstance(value, str) else ""


def _special_strings(config: Mapping[str, Any]) -> dict[str, str]:
    """The special strings that a template may name: `bos_token` and its like, as text or as an added token."""
    found = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, Mapping) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    extra = config.get("extra_special_tokens")
    return {**_special_strings(extra), **found} if isinstance(extra, Mapping) else found


def _read_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            content = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise TemplateError(f"{path.name}: {error.strerror}") from None
    if len(content) > _MAX_FILE:
        raise TemplateError(f"{path.name}: larger than {_MAX_FILE} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise TemplateError(f"{path.name}: not UTF-8 text") from None


def _read_json(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        raise TemplateError(f"{path.name}: not valid JSON") from None
    if not isinstance(values, dict):
        raise TemplateError(f"{path.name}: an object is needed, it holds a {type(values).__name__}")
    return values
