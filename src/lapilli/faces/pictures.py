"""Pictures by their paths: found in what a person wrote, taken out of it, and made ready to be sent."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from pathlib import Path

_SUFFIX = r"\.(?i:png|jpe?g|webp|gif|bmp|tiff?|avif|ppm|pgm|pbm)"
# A word, or a path 'in quotes' or "in quotes"; a word goes on over an escaped\ blank. Each character is looked at a
# fixed number of times, whatever the prompt.
_WORD = re.compile(
    rf"""(?<!\S)(?P<before>[(\[{{]*)"""
    rf"""(?:'(?P<single>[^'\n]*{_SUFFIX})'|"(?P<double>[^"\n]*{_SUFFIX})"|(?P<bare>(?:\\.|[^\s\\])+))"""
)
_BARE = re.compile(rf"""(?P<path>.*{_SUFFIX})(?P<after>[.,;:!?)\]}}'"]*)""", re.DOTALL)


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
            written, after = _unescaped(bare["path"]), bare["after"]
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


def names_a_file(line: str) -> bool:
    """Whether a line that begins like a command begins with the path of a file instead."""
    match = _WORD.match(line)
    if match is None:
        return False
    written = match["single"] or match["double"] or match["bare"]
    bare = _BARE.fullmatch(written)
    return any(os.path.isfile(os.path.expanduser(path)) for path in (written, _unescaped(bare["path"]) if bare else ""))


def picture(data: bytes) -> str:
    """The bytes of a picture file as a message's `images` carry them."""
    return base64.b64encode(data).decode("ascii")


def read_picture(path: str | Path) -> bytes:
    """The bytes of a picture file, after they were looked at: what the door to pictures refuses is not sent.

    Raises ImageError.
    """
    from lapilli.ground.files import open_regular
    from lapilli.inputs.images import open_image

    open_image(str(path))
    with open_regular(path) as file:
        return file.read()


def _unescaped(path: str) -> str:
    r"""A path without the backslashes of a shell; where they are part of the path (C:\photo.png), as it is."""
    return path if "\\" in path and os.path.isfile(path) else re.sub(r"\\(.)", r"\1", path)
