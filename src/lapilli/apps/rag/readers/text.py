"""The text that a reader writes: clean, with marks that count in it, and never longer than is allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lapilli.apps.rag.readers.refusal import RefusedError

_LINES = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters, halves of pairs, and what nobody sees: soft hyphens would hide words from a search.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\ufeff\ufffe\uffff]")
_HALVES = re.compile("[\ud800-\udfff]")
# Tags spell letters that no reader sees and a model reads; three flags are made of them.
_TAGS = re.compile("(\U0001f3f4?)([\U000e0000-\U000e007f]+)")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]")
_BLANKS = re.compile(r"[ \t\n\xa0]+")
_LONGEST_LABEL = 200


def clean(text: str) -> str:
    """The same text with lines that end in one way, and without characters that cannot be seen or stored."""
    if not _ODD.search(text):
        return text
    text = _COLOURS.sub("", _LINES.sub("\n", text))
    text = _HALVES.sub("\ufffd", _UNSEEN.sub("", text))
    return _TAGS.sub(lambda found: found[0] if found[1] and len(found[2]) < 9 else found[1], text)


def squeeze(text: str) -> str:
    """A text on one line, with one blank where there were many."""
    return _BLANKS.sub(" ", clean(text)).strip()


@dataclass(frozen=True)
class Hints:
    """What is known of a document beside its bytes: the name, and what a server says of its kind."""

    name: str = ""
    content_type: str = ""


class Text:
    """Text as it is written: `write` keeps a piece as it is, `flow` runs blanks together, `gap` divides blocks."""

    def __init__(self, most: int) -> None:
        self.title = ""
        self.meta: dict[str, str | int | float | bool] = {}
        self.length = 0
        self._most = most
        self._pieces: list[str] = []
        self._marks: list[tuple[int, str]] = []
        self._lines = 0  # ends of lines that are due before the next piece
        self._blank = False  # a blank that is due before the next word
        self._fresh = True  # nothing stands on the current line yet

    @property
    def fresh(self) -> bool:
        """Whether nothing stands on the current line yet."""
        return self._fresh

    @property
    def first_label(self) -> str:
        """The label of what was marked first; empty where nothing was."""
        return self._marks[0][1] if self._marks else ""

    def check(self, more: int) -> None:
        """Refuse before the work is done, where so many more characters would be too many."""
        if self.length + more > self._most:
            raise RefusedError(
                f"it holds more than the {self._most} characters of text that are read: divide it into several"
            )

    def write(self, text: str) -> None:
        """Add text as it is, but for what cannot be seen or stored."""
        text = clean(text)
        if text:
            self._settle()
            self._put(text)
            self._fresh = text.endswith("\n")

    def flow(self, text: str) -> None:
        """Add text in which any run of blanks and ends of lines is one blank."""
        text = _BLANKS.sub(" ", clean(text))
        words = text.strip(" ")
        if text.startswith(" ") and not self._fresh:
            self._blank = True
        if words:
            self._settle()
            self._put(words)
            self._fresh = False
            self._blank = text.endswith(" ")

    def line(self, text: str = "") -> None:
        """Add text and end the line."""
        self.write(text)
        self.end_line()

    def end_line(self) -> None:
        """Go to a new line, unless nothing stands on this one."""
        self._blank = False
        if not self._fresh:
            self._lines, self._fresh = max(self._lines, 1), True

    def gap(self) -> None:
        """Leave one empty line before what comes next."""
        self.end_line()
        if self.length:
            self._lines = 2 if not self._ended() else 1

    def place(self) -> int:
        """Where the next piece will begin; what was due before it is written now."""
        self._settle()
        return self.length

    def mark(self, label: str, at: int | None = None) -> None:
        """Say that something begins here, or at the character `at`."""
        label = squeeze(label)
        label = label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
        at = self.place() if at is None else at
        if not label or (self._marks and self._marks[-1] == (at, label)):
            return
        self._marks.append((at, label))

    def since(self, start: int) -> str:
        """What was written from a character on."""
        pieces: list[str] = []
        begin = self.length
        for piece in reversed(self._pieces):
            if begin <= start:
                break
            begin -= len(piece)
            pieces.append(piece)
        return "".join(reversed(pieces))[max(start - begin, 0) :]

    def finish(self) -> dict[str, Any]:
        """Everything, as one JSON value."""
        text = "".join(self._pieces).rstrip()
        marks = [[at, label] for at, label in sorted(self._marks, key=lambda mark: mark[0]) if at < len(text)]
        return {"title": squeeze(self.title)[:300], "text": text, "marks": marks, "meta": self.meta}

    def _ended(self) -> bool:
        """Whether what was written so far ends a line of itself."""
        return bool(self._pieces) and self._pieces[-1].endswith("\n")

    def _settle(self) -> None:
        if self._lines:
            self._put("\n" * self._lines)
            self._lines = 0
        elif self._blank:
            self._put(" ")
        self._blank = False

    def _put(self, text: str) -> None:
        self.length += len(text)
        if self.length > self._most:
            self.check(0)
        self._pieces.append(text)
