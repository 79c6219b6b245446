"""What the model is asked: one instruction for a whole job, and a trial's text in pieces that fit.

The instruction comes first in every call, word for word the same, so that it is read once; a trial's own words follow.
Nothing of a trial is cut away: what does not fit one question goes into the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

INSTRUCTION = (
    "List what this clinical trial gives or does to people, as JSON: name, type, role, and dose, route, frequency, "
    "duration where told. Copy the words of the text. Answer with an empty list where there is nothing."
)
"""For models of a small context, which are trained to it."""

# Long enough that it fills a chunk of the engine's, which is what is kept and found again.
FULL_INSTRUCTION = (
    "List what this clinical trial gives or does to people, as JSON: its interventions, each with name, type and role, "
    "and with dose, route, frequency and duration where they are told. Copy names and values from the text, word for "
    "word; keep names short, and name each intervention once. Role: experimental is what is tested, comparator what it "
    "is held against, placebo what only looks like it, background what all groups get. Type: Biological is vaccines, "
    "cells, blood and antibodies; Behavioral is training, advice and talks; Other is what fits nowhere else. Answer "
    "with an empty list where nothing is given."
)
SMALL_CONTEXT = 2048

# In the order in which they are asked about; the first are in every piece, so that each piece says what it is about.
HEAD = {"public_title": "Title", "conditions": "Condition"}
BODY = {
    "scientific_title": "Scientific title",
    "interventions": "Interventions",
    "arms": "Arms",
    "summary": "Summary",
}
SHORTEST = 80
_HEAD_MOST = 400


def instruction_for(context: int | None) -> str:
    """The instruction for a model of this context (in tokens): few words where there is little room."""
    return INSTRUCTION if context is not None and context <= SMALL_CONTEXT else FULL_INSTRUCTION


def prompt_hash() -> str:
    """What identifies the words of the question, for fingerprints."""
    text = repr((INSTRUCTION, FULL_INSTRUCTION, SMALL_CONTEXT, sorted(HEAD.items()), sorted(BODY.items()), _HEAD_MOST))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Question:
    """One piece of a trial: what it is about, the lines to look through with their labels, and what is known."""

    head: str
    lines: tuple[tuple[str, str], ...]
    names: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What the model reads after the instruction."""
        body = "".join(f"{label}: {text}\n" for label, text in self.lines)
        return f"{self.head}{body}{_known(self.names)}".rstrip("\n")

    def halves(self) -> tuple[Question, ...]:
        """The same in two questions, cut where half of its lines is; none where there is too little to cut."""
        size = sum(len(text) for _, text in self.lines)
        if size < 2 * SHORTEST:
            return ()
        first: list[tuple[str, str]] = []
        second: list[tuple[str, str]] = []
        left = size // 2
        for label, text in self.lines:
            if left >= len(text):
                first.append((label, text))
            elif left > 0:
                begin = next(cut(text, left))
                first.append((label, begin))
                second.append((label, text[len(begin) :]))
            else:
                second.append((label, text))
            left -= len(text)
        return tuple(Question(self.head, tuple(part), self.names) for part in (first, second))


def questions(fields: Mapping[str, str], *, most: int, names: Sequence[str] = ()) -> list[Question]:
    """A trial's text as questions of at most `most` characters, none of its words left out.

    `names` are interventions that are known: the model is asked for the rest about them. A head that is longer than its
    share goes into the body, whole. A trial without any text has no question.
    """
    head, body = "", []
    for name, label in HEAD.items():
        text = fields.get(name, "")
        if text and len(text) <= min(_HEAD_MOST, most // 4):
            head += f"{label}: {text}\n"
        elif text:
            body.append((label, text))
    body += [(label, fields[name]) for name, label in BODY.items() if fields.get(name)]
    known = tuple(names) if len(_known(names)) <= most // 3 else ()
    room = max(most - len(head) - len(_known(known)), SHORTEST)
    found = [Question(head, tuple(lines), known) for lines in _fill(body, room)]
    return found or ([Question(head, (), known)] if head else [])


def _known(names: Sequence[str]) -> str:
    return f"Given: {'; '.join(names)}\n" if names else ""


def _fill(body: Sequence[tuple[str, str]], room: int) -> Iterator[list[tuple[str, str]]]:
    """Lines in groups that fit; a text that is cut has its label on each of its pieces."""
    lines: list[tuple[str, str]] = []
    left = room
    for label, text in body:
        for part in cut(text, max(room - len(label) - 3, 1)):
            size = len(part) + len(label) + 3
            if lines and size > left:
                yield lines
                lines, left = [], room
            lines.append((label, part))
            left -= size
    if lines:
        yield lines


def cut(text: str, most: int) -> Iterator[str]:
    """A text in pieces of at most `most` characters, cut after a line, a sentence or a word; together they are it."""
    start = 0
    while len(text) - start > most:
        window = text[start : start + most]
        end = 0
        for mark in ("\n", ". ", "; ", "。", " "):
            end = window.rfind(mark) + len(mark) if mark in window[most // 2 :] else 0
            if end > 0:
                break
        end = end or most
        yield text[start : start + end]
        start += end
    if start < len(text):
        yield text[start:]
