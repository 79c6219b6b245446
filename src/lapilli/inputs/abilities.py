"""What a chat template can do, told from its text alone, without running it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lapilli.inputs.go.parser import parse

Language = Literal["go", "jinja"]

# What stands around thoughts, in published templates.
THOUGHT_TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
)


@dataclass(frozen=True)
class TemplateAbilities:
    """Whether a template has a place for tools, for thoughts, and for what comes after a gap."""

    uses_tools: bool = False
    thinks: bool = False
    inserts: bool = False


@functools.lru_cache(maxsize=64)
def template_abilities(language: Language, text: str) -> TemplateAbilities:
    """What a template can do, from the names that its program looks up.

    Raises TemplateError for a template in Go that cannot be read; Jinja is only skimmed, and never fails.
    """
    tagged = any(closing in text for _, closing in THOUGHT_TAGS)
    if language == "go":
        names = parse(text).names
        thinks = bool(names & {"think", "thinklevel", "thinking", "isthinkset"})
        return TemplateAbilities("tools" in names, tagged or thinks, "suffix" in names)
    names = frozenset(_names(text))
    thinks = bool(names & {"enable_thinking", "thinking", "reasoning_content", "reasoning_effort"})
    return TemplateAbilities("tools" in names, tagged or thinks, False)


_OPEN = re.compile(r"\{[{%#]")
# Within an action: texts, its end, names (and what is looked up in them), anything else.
_INSIDE = re.compile(
    r"""
      (?P<text>'[^'\\]*(?:\\.[^'\\]*)*' | "[^"\\]*(?:\\.[^"\\]*)*")
    | (?P<end>[%}]\})
    | (?P<name>[^\W\d]\w*)
    | [^'"%}\w]+ | .
    """,
    re.VERBOSE | re.DOTALL,
)


def _names(source: str) -> Iterator[str]:
    """The names in a Jinja program outside of its texts, and the keys that it looks up by a text."""
    at = 0
    while opened := _OPEN.search(source, at):
        at = opened.end()
        if opened[0] == "{#":
            at = source.find("#}", at) + 2
            if at < 2:
                return
            continue
        while word := _INSIDE.match(source, at):
            at = word.end()
            if word.lastgroup == "end":
                break
            if word.lastgroup == "name":
                yield word[0]
            elif word.lastgroup == "text" and source[word.start() - 1] == "[":
                yield word[0][1:-1]
