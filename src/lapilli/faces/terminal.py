"""What may reach a terminal: text without the control characters that could drive it, broken between words."""

from __future__ import annotations

import shutil
from typing import TextIO

_CONTROLS = {code: None for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """The text without control characters, so that no file name or answer can move the cursor or set the title."""
    return text.translate(_CONTROLS)


def show(text: str, stream: TextIO) -> None:
    """Write text at once; to a terminal without control characters, to a file or a pipe as it is."""
    stream.write(printable(text) if stream.isatty() else text)
    stream.flush()


class Wrapping:
    """A terminal that is written to in pieces, with lines broken between words.

    A word is shown letter by letter as it comes; the one that reaches the edge is taken back and begins the next line.
    """

    def __init__(self, stream: TextIO, width: int | None = None) -> None:
        self._stream = stream
        self._width = width
        self._column = 0
        self._word = ""

    def write(self, text: str) -> None:
        """Write text at once, without control characters."""
        limit = (self._width or shutil.get_terminal_size().columns) - 1
        self._stream.write("".join(self._place(letter, limit) for letter in printable(text)))
        self._stream.flush()

    def _place(self, letter: str, limit: int) -> str:
        if letter == "\n":
            self._column, self._word = 0, ""
            return letter
        before, cells = "", _cells(letter)
        if self._column + cells > limit:
            before = self._break(letter, limit)
        if letter.isspace() or cells > 1:
            self._word = ""
        else:
            self._word += letter
        if letter.isspace() and self._column == 0 and before:
            return before  # the blank at which a line was broken is not shown
        self._column += cells
        return before + letter

    def _break(self, letter: str, limit: int) -> str:
        word, taken = self._word, sum(map(_cells, self._word))
        self._column, self._word = 0, ""
        if letter.isspace() or _cells(letter) > 1 or not 0 < taken < limit:
            return "\n"
        self._column, self._word = taken, word
        return f"\x1b[{taken}D\x1b[K\n{word}"


def _cells(letter: str) -> int:
    """How many columns a letter takes."""
    if letter.isascii():
        return 1
    from wcwidth import wcwidth

    return max(wcwidth(letter), 0)
