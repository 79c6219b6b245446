"""What is asked on the command line: a prompt, the pictures that it names or that follow it, and standard input."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from lapilli.errors import ImageError, InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_STDIN_BYTES = 64 << 20

_SUFFIX = r"\.(?i:png|jpe?g|webp|gif|bmp|tiff?|avif|ppm|pgm|pbm)"
# A word, or a path 'in quotes' or "in quotes"; a word goes on over an escaped\ blank. Each character is looked at a
# fixed number of times, whatever the prompt.
_WORD = re.compile(
    rf"""(?<!\S)(?P<before>[(\[{{]*)"""
    rf"""(?:'(?P<single>[^'\n]*{_SUFFIX})'|"(?P<double>[^"\n]*{_SUFFIX})"|(?P<bare>(?:\\.|[^\s\\])+))"""
)
_BARE = re.compile(rf"""(?P<path>.*{_SUFFIX})(?P<after>[.,;:!?)\]}}'"]*)""", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """The text to ask and the pictures that go with it; no text at all is None."""

    prompt: str | None
    images: tuple[Image, ...] = ()


def read_question(
    prompt: str | None, pictures: Sequence[str], stdin: BinaryIO | None, note: Callable[[str], None]
) -> Question:
    """Put a question together; `stdin` is what was piped in, None where that is a terminal.

    Text from standard input goes before the prompt, a picture from there before the other pictures. Paths are looked
    for in the prompt only: piped text never opens a file. Raises InputError (a picture that cannot be used, or too much
    on standard input).
    """
    from lapilli.inputs.images import open_image

    images: list[Image] = []
    piped = _piped(stdin, images)
    if prompt is not None:
        prompt, found = take_paths(prompt, note)
        images += [open_image(path) for path in found]
    for position, picture in enumerate(pictures):
        images.append(_open_argument(picture, position))
    texts = [text for text in (piped, prompt) if text]
    if not texts and prompt is None and not images:
        return Question(None)
    return Question("\n\n".join(texts), tuple(images))


def take_paths(prompt: str, note: Callable[[str], None]) -> tuple[str, list[str]]:
    """The prompt without the paths of picture files in it, and those paths.

    Only a path where a file lies is taken; what merely looks like one stays text. In a prompt of several lines, such as
    a document to be summarised, a path must begin with `./`, `../`, `/` or `~/`.
    """
    paths: list[str] = []
    explicit = ("./", "../", "/", "~/") if "\n" in prompt.strip() else ""

    def take(match: re.Match[str]) -> str:
        written, after = match["single"] or match["double"], ""
        if written is None:
            bare = _BARE.fullmatch(match["bare"])
            if bare is None:
                return match[0]
            written, after = re.sub(r"\\(.)", r"\1", bare["path"]), bare["after"]
        path = os.path.expanduser(written)
        if not written.startswith(explicit):
            return match[0]
        if os.path.isfile(path):
            paths.append(path)
            return match["before"] + after
        if os.path.sep in written and "://" not in written:
            note(f"there is no file {written}: it stays in the prompt as text")
        return match[0]

    taken = _WORD.sub(take, prompt)
    return (re.sub(r"[ \t]{2,}", " ", taken) if paths else prompt).strip(), paths


def _open_argument(picture: str, position: int) -> Image:
    from lapilli.inputs.images import open_image

    path = os.path.expanduser(picture)
    if not os.path.exists(path):
        hint = "" if re.search(r"[./\\]", picture) or position else "; put the prompt in quotes"
        raise ImageError(f"{picture}: there is no such file{hint}")
    return open_image(path)


def _piped(stdin: BinaryIO | None, images: list[Image]) -> str:
    """The text on standard input; a picture there is added to the images instead."""
    if stdin is None:
        return ""
    data = stdin.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise InputError(f"standard input holds more than {MAX_STDIN_BYTES >> 20} MiB, the most that is read")
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError:
        from lapilli.inputs.images import open_image

        try:
            images.append(open_image(data))
        except ImageError as error:
            raise InputError(f"standard input is neither text in UTF-8 nor a picture ({error})") from error
        return ""


def piped_stdin() -> BinaryIO | None:
    """Standard input where something was piped or redirected into it, None at a terminal or where it is closed."""
    return None if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty() else sys.stdin.buffer
