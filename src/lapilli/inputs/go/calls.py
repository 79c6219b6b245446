"""How a template in Go writes a call of a tool: the text that comes before one."""

from __future__ import annotations

from lapilli.inputs.go.nodes import Action, Block, Choice, Text, children, names_in
from lapilli.inputs.go.parser import parse


def call_tag(source: str) -> str:
    """The first words that the template writes where an answer has calls, up to a brace; empty where there are none."""
    block = _block_of_calls(parse(source).main)
    words = _first_words(block) if block is not None else None
    return (words or "").partition("{")[0].strip()


def _block_of_calls(block: Block) -> Block | None:
    for node in block:
        if isinstance(node, Choice):
            for pipe, inner in node.branches:
                if "ToolCalls" in names_in(pipe):
                    return inner
        for inner in children(node):
            found = _block_of_calls(inner)
            if found is not None:
                return found
    return None


def _first_words(block: Block) -> str | None:
    """The first text that is not blank; None where something else is written before it."""
    for node in block:
        if isinstance(node, Text):
            if node.text.strip():
                return node.text
        elif isinstance(node, Action):
            if not node.pipe.declares and not node.pipe.assigns:
                return None
        else:
            return next((words for inner in children(node) if (words := _first_words(inner))), None)
    return None
