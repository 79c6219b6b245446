"""Modelfiles: how a model is made of others, in Ollama's language.

Follows https://docs.ollama.com/modelfile.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lapilli.errors import InputError

COMMANDS = (
    "from", "license", "template", "system", "adapter", "renderer", "parser", "parameter", "message", "requires",
    "draft",
)  # fmt: skip
ROLES = ("system", "user", "assistant")

PARAMETERS: Mapping[str, type] = {
    "num_keep": int, "seed": int, "num_predict": int, "top_k": int, "top_p": float, "min_p": float, "typical_p": float,
    "repeat_last_n": int, "temperature": float, "repeat_penalty": float, "presence_penalty": float,
    "frequency_penalty": float, "stop": list, "num_ctx": int, "num_batch": int, "num_gpu": int, "main_gpu": int,
    "use_mmap": bool, "num_thread": int, "draft_num_predict": int,
}  # fmt: skip
"""What a PARAMETER may name, and what it is."""

DEPRECATED = frozenset((
    "penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "mirostat", "mirostat_tau",
    "mirostat_eta", "tfs_z", "numa",
))  # fmt: skip
"""What a PARAMETER could once name: it is warned of, and without effect."""

MAX_CHARACTERS = 4 << 20
_WORD = re.compile(r"[ \t]*([^\s]+)")
_BLANK = " \t\r"
_QUOTES = '"""'


@dataclass(frozen=True, kw_only=True)
class Modelfile:
    """What a Modelfile says. Texts that it does not set are None; `warnings` tell of what has no effect."""

    sources: tuple[str, ...]
    adapters: tuple[str, ...] = ()
    template: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[tuple[str, str], ...] = ()
    licenses: tuple[str, ...] = ()
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    draft: str | None = None
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def parse(cls, text: str | bytes) -> Modelfile:
        """Read a Modelfile; bytes are UTF-8, or UTF-16 with its mark.

        Raises InputError that names the line.
        """
        reader = _Reader(_decoded(text) if isinstance(text, bytes) else text.removeprefix("\ufeff"))
        reader.read()
        if not reader.lists["from"]:
            raise InputError("no FROM line")
        last = {name: values[-1] if values else None for name, values in reader.lists.items()}
        return cls(
            sources=tuple(reader.lists["from"]),
            adapters=tuple(reader.lists["adapter"]),
            template=last["template"],
            system=last["system"],
            parameters=reader.parameters,
            messages=tuple(reader.messages),
            licenses=tuple(reader.lists["license"]),
            renderer=last["renderer"],
            parser=last["parser"],
            requires=last["requires"],
            draft=last["draft"],
            warnings=tuple(reader.warnings),
        )

    def render(self) -> str:
        """The Modelfile that reads back as this one. Raises InputError for a text that the language cannot hold."""
        lines = [*(f"FROM {_written(source)}" for source in self.sources)]
        lines += [f"ADAPTER {_written(adapter)}" for adapter in self.adapters]
        for name in ("template", "system", "renderer", "parser", "requires", "draft"):
            value = getattr(self, name)
            if value is not None:
                lines.append(f"{name.upper()} {_written(value)}")
        for name, value in self.parameters.items():
            lines += [f"PARAMETER {name} {_written(_spelt(item))}" for item in _items(value)]
        lines += [f"MESSAGE {role} {_written(content)}" for role, content in self.messages]
        lines += [f"LICENSE {_written(license)}" for license in self.licenses]
        return "\n".join(lines) + "\n"


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """Parameters a line each, as `show` prints them: the name in thirty columns, texts in quotes."""
    lines = []
    for name, value in sorted(parameters.items()):
        for item in _items(value):
            shown = json.dumps(item, ensure_ascii=False) if isinstance(item, str) else _spelt(item)
            lines.append(f"{name:<30} {shown}")
    return "\n".join(lines)


def read_parameter(name: str, text: str) -> Any:
    """The value of a PARAMETER. Raises InputError for a name that is not known, and for a value of another type."""
    kind = PARAMETERS.get(name)
    if kind is None:
        raise InputError(f"unknown parameter {name[:80]!r}")
    if kind is list:
        return text
    try:
        return _READ[kind](text)
    except (ValueError, KeyError):
        raise InputError(f"invalid {kind.__name__} value [{text[:80]}]") from None


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def _boolean(text: str) -> bool:
    return _BOOLEANS[text.lower()]


_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_READ: Mapping[type, Callable[[str], Any]] = {int: _integer, float: _number, bool: _boolean}


class _Reader:
    """A place in a Modelfile's lines, and what was read up to there."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARACTERS:
            raise InputError(f"the Modelfile has {len(text)} characters, at most {MAX_CHARACTERS} are read")
        self.lines = text.split("\n")
        self.at = 0
        self.lists: dict[str, list[str]] = {name: [] for name in COMMANDS}
        self.parameters: dict[str, Any] = {}
        self.messages: list[tuple[str, str]] = []
        self.warnings: list[str] = []

    def read(self) -> None:
        while self.at < len(self.lines):
            line, number = self.lines[self.at].lstrip(_BLANK + "\f\v"), self.at + 1
            if not line or line.startswith("#"):
                self.at += 1
                continue
            try:
                self.command(line)
            except InputError as error:
                raise InputError(f"(line {number}): {error}") from None

    def command(self, line: str) -> None:
        word, rest = _split(line)
        name = word.lower()
        if name not in COMMANDS:
            known = ", ".join(f'"{command}"' for command in COMMANDS)
            raise InputError(f"command must be one of {known}; found {word[:40]!r}")
        if name == "parameter":
            self.parameter(rest)
        elif name == "message":
            role, rest = _split(rest)
            if role not in ROLES:
                raise InputError(f'message role must be one of "system", "user", or "assistant"; found {role[:40]!r}')
            self.messages.append((role, self.value(rest, "MESSAGE")))
        else:
            self.lists[name].append(self.value(rest, word.upper()))

    def parameter(self, rest: str) -> None:
        name, rest = _split(rest)
        text = self.value(rest, f"PARAMETER {name[:80]}".rstrip())
        if name in DEPRECATED:
            self.warnings.append(f"parameter {name} is deprecated and has no effect")
        elif isinstance(value := read_parameter(name, text), str):
            self.parameters.setdefault(name, []).append(value)
        else:
            self.parameters[name] = value

    def value(self, rest: str, what: str) -> str:
        """A value that begins here: bare to the end of the line, or in quotes to the line that ends with them."""
        rest = rest.lstrip(_BLANK)
        if not rest:
            raise InputError(f"{what} needs a value")
        if not rest.startswith('"'):
            self.at += 1
            return rest.rstrip(_BLANK)
        quotes = _QUOTES if rest.startswith(_QUOTES) else '"'
        pieces = [rest]
        for number in range(self.at, len(self.lines)):
            if number > self.at:
                pieces.append(self.lines[number])
            end = pieces[-1].rstrip(_BLANK)
            long_enough = number > self.at or len(end) >= 2 * len(quotes)
            if long_enough and end.endswith(quotes):
                self.at = number + 1
                pieces[-1] = end
                return "\n".join(pieces)[len(quotes) : -len(quotes)]
        raise InputError(f"{what} has a quote that is never closed")


def _split(text: str) -> tuple[str, str]:
    match = _WORD.match(text)
    return (match[1], text[match.end() :]) if match else ("", "")


_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def _decoded(raw: bytes) -> str:
    mark = next((mark for mark in _MARKS if raw.startswith(mark)), b"")
    try:
        return raw.removeprefix(mark).decode(_MARKS.get(mark, "utf-8"))
    except UnicodeDecodeError:
        raise InputError("the Modelfile is no UTF-8 text, nor UTF-16 with its mark") from None


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _spelt(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _written(value: str) -> str:
    """A value as it stands in a line: bare where it can, else between three quotes."""
    plain = value and "\n" not in value and not value.startswith('"') and value.strip(_BLANK) == value
    text = value if plain else f"{_QUOTES}{value}{_QUOTES}"
    reader = _Reader(text)
    try:
        back = reader.value(reader.lines[0], "it")
    except InputError:
        back = None
    if back != value or reader.at != len(reader.lines):
        raise InputError(f"a Modelfile cannot hold a text with a line that ends in three quotes: {value[:40]!r}")
    return text
