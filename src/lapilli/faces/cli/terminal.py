"""What may reach a terminal: text, without the control characters that could drive it."""

from __future__ import annotations

from typing import TextIO

_CONTROLS = {code: None for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """The text without control characters, so that no file name or answer can move the cursor or set the title."""
    return text.translate(_CONTROLS)


def show(text: str, stream: TextIO) -> None:
    """Write text at once; to a terminal without control characters, to a file or a pipe as it is."""
    stream.write(printable(text) if stream.isatty() else text)
    stream.flush()
