"""Files that are either whole or not there, files that are really files, and the folders in a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lapilli.errors import InputError


@contextlib.contextmanager
def publish(path: str | Path, *, replace_folder: bool = False) -> Iterator[Path]:
    """Yield a fresh path beside `path` to put a file or a folder at; it becomes `path` when the block ends well.

    When the block raises, nothing is left behind and `path` is as it was. A file at `path` is replaced; a folder that
    holds anything is replaced only with `replace_folder`. Missing parent folders are made.

    Raises InputError where `path` is a folder that may not be replaced; OSError as the disk has it.
    """
    path = Path(path)
    if path.is_dir() and not replace_folder and any(path.iterdir()):
        raise InputError(f"{path}: this folder already holds files; give a new or an empty one")
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    fresh = path.with_name(f".{path.name}.{mark}.part")
    try:
        yield fresh
        _flush(fresh)
        if path.exists() and path.is_dir() != fresh.is_dir():
            raise InputError(f"{path}: a {_kind(fresh)} cannot take the place of a {_kind(path)}")
        if path.is_dir():
            _swap_folder(fresh, path, path.with_name(f".{path.name}.{mark}.old"))
        else:
            os.replace(fresh, path)
        flush(path.parent)
    finally:
        _remove(fresh)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, and nothing else: never waits on a FIFO, never reads a device.

    Raises OSError, with its `strerror` saying what is wrong.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "Is a folder, not a file", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def flush(path: Path) -> None:
    """Have what was written to a file, or which names a folder holds, survive a loss of power."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no handle on a folder to flush
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError:
        return []


def folder_age(folder: Path) -> float:
    """Seconds since something was last put into a folder, or taken out."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else "file"


def _swap_folder(fresh: Path, path: Path, aside: Path) -> None:
    os.rename(path, aside)
    try:
        os.rename(fresh, path)
    except OSError:
        os.rename(aside, path)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                flush(Path(folder, name))
            flush(Path(folder))
    else:
        flush(path)
