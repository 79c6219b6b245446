"""Chat templates: from messages to text that keeps apart what the template wrote and what people wrote.

A template is a stranger's program: Jinja runs sandboxed in a child that is killed at its deadline, Go's text/template
in an interpreter of ours that counts its steps. What people wrote goes in between marks that nobody can guess and comes
out as `Plain`, so that no word of theirs is ever taken for a special token or a placeholder, and no template can lose
or repeat any of it unseen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

from lapilli.errors import TemplateError
from lapilli.ground.files import open_regular
from lapilli.inputs.abilities import Language, TemplateAbilities, template_abilities
from lapilli.inputs.chat import Message, checked_tools
from lapilli.inputs.formats import FORMATS, Format, Segment
from lapilli.inputs.go.template import Go
from lapilli.inputs.jinja import OPTIONS, Jinja

__all__ = [
    "IMAGE_TOKEN",
    "OPTIONS",
    "ChatTemplate",
    "Go",
    "Jinja",
    "TemplateAbilities",
    "TemplateText",
    "template_abilities",
]

IMAGE_TOKEN = "<image>"

_MAX_FILE = 32 << 20

# A special token that tells a family's format, for models that come without a template.
_SIGNS = {"<|start_header_id|>": "llama3", "<|im_start|>": "chatml", "<|user|>": "phi3"}

# An action that only Go has, or a field: Jinja's names begin without a dot.
_GO = re.compile(r"\{\{-?\s*(?:if|range|with|else|end|define|template|block)\b|\{\{[^}]*[\s({-]\.[A-Z]")


@dataclass(frozen=True, kw_only=True)
class TemplateText:
    """A chat template as it is written, beside a model's weights or in a request: Go's text/template, or Jinja."""

    language: Language
    text: str

    @classmethod
    def of(cls, text: str) -> TemplateText:
        """The template, its language told from how it is written."""
        go = "{{" not in text or _GO.search(text) is not None
        return cls(language="go" if go and "{%" not in text else "jinja", text=text)


@dataclass(frozen=True)
class ChatTemplate:
    """How a model was taught to tell who is speaking: a program in Jinja or Go that came with it, or a format."""

    form: Jinja | Go | Format

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        image_token: str = IMAGE_TOKEN,
        options: Mapping[str, str | bool] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | str | None = None,
        suffix: str = "",
    ) -> list[Segment]:
        """Write a conversation out, ending with the cue for the assistant where `add_generation_prompt`.

        `image_token` is how this model's template writes a picture; `options` are variables of the template that a
        person may set, see `OPTIONS`. `tools` are what the assistant may call, in OpenAI's shape; `think` turns its
        thoughts on or off, or names their level; `suffix` is what comes after a gap that the answer fills. A Go
        template writes its cue by itself.

        Raises TemplateError where the template fails, runs too long, says too much, loses or repeats a text or a
        picture, or has no place for tools or a suffix; PromptError for tools that are none.
        """
        tools = checked_tools(tools)
        if tools and not self.uses_tools:
            raise TemplateError("this chat template has no place for tools")
        if any(message.tool_calls for message in messages) and not self.uses_tools:
            raise TemplateError("this chat template has no place for calls of tools")
        if suffix and not self.inserts:
            raise TemplateError("this chat template has no place for a suffix")
        if options and not isinstance(self.form, Jinja):
            raise TemplateError(f"this conversation format has no options, {len(options)} were given")
        if isinstance(self.form, Format):
            return self.form.render(messages, add_generation_prompt=add_generation_prompt)
        if isinstance(self.form, Go):
            return self.form.render(
                messages, add_generation_prompt=add_generation_prompt, tools=tools, think=think, suffix=suffix
            )
        return self.form.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            image_token=image_token,
            options=options or {},
            tools=tools,
            think=think,
        )

    @property
    def language(self) -> Language | None:
        """What the program is written in, None for a built-in format."""
        return None if isinstance(self.form, Format) else "go" if isinstance(self.form, Go) else "jinja"

    @property
    def uses_tools(self) -> bool:
        """Whether it has a place for tools."""
        return self._abilities.uses_tools

    @property
    def thinks(self) -> bool:
        """Whether its assistant thinks before it answers."""
        return self._abilities.thinks

    @property
    def inserts(self) -> bool:
        """Whether it has a place for a suffix: what comes after the answer."""
        return self._abilities.inserts

    @property
    def _abilities(self) -> TemplateAbilities:
        if isinstance(self.form, Format):
            return TemplateAbilities()
        return template_abilities("go" if isinstance(self.form, Go) else "jinja", self.form.source)

    @classmethod
    def from_text(cls, language: Language, text: str, special: Mapping[str, str] | None = None) -> ChatTemplate:
        """A template in either language; `special` is for Jinja alone."""
        return cls.from_go(text) if language == "go" else cls.from_jinja(text, special)

    @classmethod
    def from_go(cls, text: str) -> ChatTemplate:
        """A template in Go's text/template, as Ollama has them.

        Raises TemplateError, with the line, for one that cannot be read.
        """
        return cls(Go(text))

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
