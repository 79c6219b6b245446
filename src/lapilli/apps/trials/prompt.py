"""What the model is asked: one instruction for a whole job, and a trial's text in pieces that fit.

The instruction comes first in every call, word for word the same, so that it is read once; a trial's own words follow.
Nothing of a trial is cut away: what does not fit one question goes into the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

INSTRUCTION = (
    "List what this clinical trial gives or does to people, as JSON: name, type, role, and dose, route, frequency, "
    "duration where told. Copy the words of the text. Answer with an empty list where there is nothing."
)

# In the order in which they are asked about; the first are in every piece, so that each piece says what it is about.
HEAD = {"public_title": "Title", "conditions": "Condition"}
BODY = {
    "scientific_title": "Scientific title",
    "interventions": "Interventions",
    "arms": "Arms",
    "summary": "Summary",
}
_HEAD_MOST = 400


def prompt_hash() -> str:
    """What identifies the words of the question, for fingerprints."""
    text = repr((INSTRUCTION, sorted(HEAD.items()), sorted(BODY.items()), _HEAD_MOST))
    return hashlib.sha256(text.encode()).hexdigest()


def questions(fields: Mapping[str, str], *, most: int, names: Sequence[str] = ()) -> Iterator[str]:
    """A trial's text as questions of at most `most` characters, none of its words left out.

    `names` are interventions that are known: the model is asked for the rest about them. A head that is longer than its
    share goes into the body, whole. A trial without any text has no question.
    """
    head: list[str] = []
    body: list[tuple[str, str]] = []
    for name, label in HEAD.items():
        text = fields.get(name, "")
        if text and len(text) <= min(_HEAD_MOST, most // 4):
            head.append(f"{label}: {text}\n")
        elif text:
            body.append((label, text))
    body += [(label, fields[name]) for name, label in BODY.items() if fields.get(name)]
    known = f"Given: {'; '.join(names)}\n" if names else ""
    if len(known) > most // 3:
        known = ""
    begin = "".join(head)
    room = max(most - len(begin) - len(known), 1)
    pieces = list(_fill(_lines(body, room), room))
    for piece in pieces or ([""] if begin else []):
        yield f"{begin}{piece}{known}".rstrip("\n")


def _lines(body: Sequence[tuple[str, str]], room: int) -> Iterator[str]:
    """Each labelled text as lines that fit; a text that is cut says its label in each."""
    for label, text in body:
        start = f"{label}: "
        for part in cut(text, max(room - len(start) - 1, 1)):
            yield f"{start}{part}\n"


def _fill(lines: Iterator[str], room: int) -> Iterator[str]:
    piece = ""
    for line in lines:
        if piece and len(piece) + len(line) > room:
            yield piece
            piece = ""
        piece += line
    if piece:
        yield piece


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
