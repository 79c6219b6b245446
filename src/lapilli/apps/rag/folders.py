"""Paths: what may be named, what lies in a folder, and files that are opened only where they really are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lapilli.apps.rag.kinds import suffix_kind
from lapilli.apps.rag.readers.sniffing import is_picture, is_text
from lapilli.errors import InputError
from lapilli.ground.files import open_regular

_LOOKED_AT = 4096


class OutsideError(InputError):
    """A path that may not be named; `status` is HTTP's word for that."""

    status = 403


def check_inside(path: Path, roots: Sequence[Path]) -> Path:
    """The path that this really is, links followed. Raises OutsideError where it lies in none of the roots.

    The words are the same whether there is such a file or not.
    """
    try:
        real = Path(os.path.realpath(path))
    except (OSError, ValueError):
        real = None
    if real is None or not any(real.is_relative_to(root) for root in roots):
        raise OutsideError("this path is outside of the folders that documents may come from")
    return real


def open_source(path: Path, roots: Sequence[Path] | None) -> BinaryIO:
    """Open a regular file; with `roots`, only where the opened one lies in them, whatever was changed meanwhile.

    Raises OSError; OutsideError for a file elsewhere.
    """
    if roots is None:
        return open_regular(path)
    check_inside(path, roots)
    file = open_regular(path)
    try:
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(check_inside(path, roots), follow_symlinks=False)):
            raise OutsideError("this path is outside of the folders that documents may come from")
    except BaseException:
        file.close()
        raise
    return file


def walk(folder: Path, kind: str | None, tell: Callable[[str], None]) -> Iterator[Path]:
    """The files below a folder that can be read, by name; `tell` hears what is left out.

    Hidden files are left out, and links: what they lead to in the folder is found under its own name.
    """
    left_out: Counter[str] = Counter()
    root = os.path.realpath(folder)
    todo = [folder]
    while todo:
        current = todo.pop()
        if current != folder and not current.is_dir():
            yield current
            continue
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            tell(f"{_relative(current, folder)}: {error.strerror or 'cannot be opened'}; left out")
            continue
        wanted = [Path(entry.path) for entry in entries if _is_wanted(entry, kind, root, tell, left_out)]
        todo += reversed(wanted)
    if left_out:
        kinds = ", ".join(f"{suffix} ({count})" for suffix, count in left_out.most_common(8))
        tell(f"left out {sum(left_out.values())} files of no kind that is read: {kinds}")


def is_utf8(name: str) -> bool:
    """Whether a path's name can be written down."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_wanted(
    entry: os.DirEntry[str], kind: str | None, root: str, tell: Callable[[str], None], left_out: Counter[str]
) -> bool:
    name = entry.name
    if name.startswith((".", "~$")):  # the latter are the locks of office programs
        return False
    try:
        if not is_utf8(name):
            tell(f"{name!a}: its name is not UTF-8; left out")
        elif entry.is_symlink():
            if not Path(os.path.realpath(entry.path)).is_relative_to(root):
                tell(f"{name}: a link that leads out of the folder; left out")
        elif entry.is_dir(follow_symlinks=False):
            return True
        elif not entry.is_file(follow_symlinks=False):
            tell(f"{name}: neither a file nor a folder; left out")
        elif entry.stat().st_size == 0:
            left_out["empty"] += 1
        elif _is_readable(entry.path, kind):
            return True
        else:
            left_out[Path(name).suffix or name] += 1
    except OSError as error:
        tell(f"{name}: {error.strerror or 'cannot be opened'}; left out")
    return False


def _is_readable(path: str, kind: str | None) -> bool:
    """Whether a file is of a kind that is read, or of the one asked for."""
    named = suffix_kind(path)
    if kind is not None and named is not None:
        return named == kind or (kind == "web" and named == "html")
    if named is not None:
        return True
    if kind not in (None, "text", "picture"):
        return False
    with open_regular(path) as file:
        head = file.read(_LOOKED_AT)
    return (kind != "picture" and is_text(head)) or (kind != "text" and is_picture(head))


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path != folder else folder.name
