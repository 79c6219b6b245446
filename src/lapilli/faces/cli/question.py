"""What is asked on the command line: a prompt, the pictures that it names or that follow it, and standard input."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from lapilli.errors import ImageError, InputError
from lapilli.faces.pictures import take_paths

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_STDIN_BYTES = 64 << 20


@dataclass(frozen=True)
class Question:
    """The text to ask and the pictures that go with it; no text at all is None.

    `sources` are where the pictures came from: a path, or the bytes of a file.
    """

    prompt: str | None
    images: tuple[Image, ...] = ()
    sources: tuple[str | bytes, ...] = ()


def read_question(
    prompt: str | None, pictures: Sequence[str], stdin: BinaryIO | None, note: Callable[[str], None]
) -> Question:
    """Put a question together; `stdin` is what was piped in, None where that is a terminal.

    Text from standard input goes before the prompt, a picture from there before the other pictures. Paths are looked
    for in the prompt only: piped text never opens a file. Raises InputError (a picture that cannot be used, or too much
    on standard input).
    """
    from lapilli.inputs.images import open_image

    sources: list[str | bytes] = []
    piped = _piped(stdin, sources)
    if prompt is not None:
        prompt, found = take_paths(prompt, note)
        sources += found
    for position, picture in enumerate(pictures):
        sources.append(_expand_argument(picture, position))
    texts = [text for text in (piped, prompt) if text]
    if not texts and prompt is None and not sources:
        return Question(None)
    return Question("\n\n".join(texts), tuple(map(open_image, sources)), tuple(sources))


def _expand_argument(picture: str, position: int) -> str:
    path = os.path.expanduser(picture)
    if not os.path.exists(path):
        hint = "" if re.search(r"[./\\]", picture) or position else "; put the prompt in quotes"
        raise ImageError(f"{picture}: there is no such file{hint}")
    return path


def _piped(stdin: BinaryIO | None, sources: list[str | bytes]) -> str:
    """The text on standard input; a picture there is added to the sources instead."""
    if stdin is None:
        return ""
    try:
        data = stdin.read(MAX_STDIN_BYTES + 1)
    except OSError as error:
        # nohup leaves a standard input that cannot be read: nothing is there.
        if error.errno in (errno.EBADF, errno.EIO):
            return ""
        raise
    if len(data) > MAX_STDIN_BYTES:
        raise InputError(f"standard input holds more than {MAX_STDIN_BYTES >> 20} MiB, the most that is read")
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError:
        from lapilli.inputs.images import open_image

        try:
            open_image(data)
            sources.append(data)
        except ImageError as error:
            raise InputError(f"standard input is neither text in UTF-8 nor a picture ({error})") from error
        return ""


def piped_stdin() -> BinaryIO | None:
    """Standard input where something was piped or redirected into it, None at a terminal or where it is closed."""
    return None if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty() else sys.stdin.buffer
