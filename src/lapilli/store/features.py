"""Image features kept by content, in memory and on disk, so that a picture is encoded once.

cache = FeatureCache(1 << 30, folder)
key = feature_key(image.pixels_TCHW, image.height, image.width, tower_digest)
features = cache.get(key)   # None: encode the picture, then cache.put(key, Features.of(array))
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lapilli.errors import InputError
from lapilli.ground.files import open_regular, publish
from lapilli.ground.owner import ABANDONED_SECONDS

logger = logging.getLogger(__name__)

DTYPES: dict[str, npt.DTypeLike] = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
"""What features may be made of, and how numpy holds them: it has no bfloat16, so that comes as its bits."""

_NAMES = tuple(DTYPES)
_MAGIC = b"lapfeat\x01"
_HEADER = struct.Struct("<8s32sB3xII")  # magic, key, dtype, N, D; the body and a SHA-256 of both follow
_CHECKSUM = 32
_ENTRY = re.compile(r"[0-9a-f]{64}\.features")
_UNFINISHED = re.compile(r"\.[0-9a-f]{64}\.features\.[0-9a-f]+\.part")


@dataclass(frozen=True)
class Features:
    """One picture's features (N, D) as bytes in reading order, little-endian; `dtype` is a name of `DTYPES`.

    Raises InputError where dtype, shape and bytes do not agree.
    """

    dtype: str
    shape: tuple[int, int]
    data: bytes

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"features of dtype {self.dtype!r} cannot be kept: use {', '.join(DTYPES)}")
        if len(self.shape) != 2 or not all(0 < side < 1 << 32 for side in self.shape):
            raise InputError(f"features have shape {self.shape}: two sides, from 1 to {(1 << 32) - 1}, are needed")
        if len(self.data) != (needed := _size(self.dtype, self.shape)):
            raise InputError(f"features {self.shape} of {self.dtype} take {needed} bytes, {len(self.data)} were given")

    @classmethod
    def of(cls, features_ND: npt.NDArray[Any], dtype: str | None = None) -> Features:
        """The features in an array; bfloat16 comes as its bits (uint16), and is named by `dtype`."""
        name = dtype or features_ND.dtype.name
        if name not in DTYPES or features_ND.dtype != np.dtype(DTYPES[name]):
            raise InputError(f"an array of {features_ND.dtype} holds no features of dtype {name!r}")
        if features_ND.ndim != 2:
            raise InputError(f"features have shape {features_ND.shape}: two sides are needed")
        return cls(name, (features_ND.shape[0], features_ND.shape[1]), features_ND.tobytes())

    def array(self) -> npt.NDArray[Any]:
        """The features (N, D) as numpy holds them, not to be written on."""
        return np.frombuffer(self.data, DTYPES[self.dtype]).reshape(self.shape)


def feature_key(pixels: npt.NDArray[Any], height: int, width: int, tower_digest: str) -> str:
    """The one name of a picture's features: 64 hex digits.

    `pixels` are the picture as its processor prepared it, (height, width) its original size, which arranges tiles, and
    `tower_digest` says what encodes and projects it.
    """
    told = json.dumps([pixels.dtype.str, pixels.shape, height, width, tower_digest])
    digest = hashlib.sha256(told.encode() + b"\0")
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


class FeatureCache:
    """Features by key, the least recently used going first; safe with several threads, and processes on one folder.

    Memory never holds more than `budget_bytes` of features. With `folder` they are kept on disk too, to
    `disk_budget_bytes`; each further process writing at the same time may go over that by a sixteenth. What lies
    on disk is checked before it is used: a damaged entry, or another's, is dropped. Where writing fails, the cache
    warns once and goes on with memory.
    """

    def __init__(self, budget_bytes: int, folder: Path | None = None, disk_budget_bytes: int = 4 << 30) -> None:
        if budget_bytes < 0 or disk_budget_bytes < 0:
            raise InputError(f"budgets are {budget_bytes} and {disk_budget_bytes} bytes: they cannot be below 0")
        self.budget_bytes = budget_bytes
        self._kept: OrderedDict[str, Features] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()
        self._disk = None if folder is None else _Disk(folder, disk_budget_bytes)

    @property
    def used_bytes(self) -> int:
        """Bytes of features in memory."""
        return self._used

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Features | None:
        """The features of that key, None where they are not kept."""
        _check(key)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if self._disk is None:
            return found
        if found is not None:
            self._disk.touch(key)
            return found
        found = self._disk.read(key)
        if found is not None:
            self._remember(key, found)
        return found

    def put(self, key: str, features: Features) -> None:
        """Keep features; those larger than a budget are not kept there."""
        _check(key)
        self._remember(key, features)
        if self._disk is not None:
            self._disk.write(key, features)

    def _remember(self, key: str, features: Features) -> None:
        size = len(features.data)
        with self._lock:
            old = self._kept.pop(key, None)
            self._used -= 0 if old is None else len(old.data)
            if size > self.budget_bytes:
                return
            while self._used + size > self.budget_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._used -= len(oldest.data)
            self._kept[key] = features
            self._used += size


class _Disk:
    """The level below memory: one file a key, each with its own key, shape and checksum; the time of a file is its
    last use. Nothing here raises: a disk that fails is a disk that holds nothing.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        self.folder, self.budget = folder, budget
        self._lock = threading.Lock()
        self._room = 0  # bytes that may be written before the folder is looked at again
        self._writable = True

    def touch(self, key: str) -> None:
        with contextlib.suppress(OSError):  # another process made room, or the folder is not ours to write
            os.utime(self._path(key))

    def read(self, key: str) -> Features | None:
        try:
            with open_regular(self._path(key)) as file:
                length = min(os.fstat(file.fileno()).st_size, self.budget + 1)
                found = _decode(file.read(_HEADER.size), key, length)
                features = None if found is None else _checked(file.read(length - _HEADER.size), *found)
        except FileNotFoundError:
            return None
        except OSError:
            features = None
        if features is None:
            self._drop(key)
        else:
            self.touch(key)
        return features

    def write(self, key: str, features: Features) -> None:
        path, header = self._path(key), _encode(key, features)
        size = len(header) + len(features.data) + _CHECKSUM
        if not self._writable or size > self.budget or path.is_file():
            return
        try:
            with self._lock:
                self._make_room(size)
                with publish(path) as fresh, fresh.open("wb") as file:
                    file.write(header)
                    file.write(features.data)
                    file.write(_checksum(header, features.data))
        except (OSError, InputError) as error:
            self._writable = False
            logger.warning("image features are kept in memory alone, %s cannot be written: %s", self.folder, error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.features"

    def _drop(self, key: str) -> None:
        with contextlib.suppress(OSError):  # it stays, and is refused again next time
            self._path(key).unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Take `size` out of what may be written; where that is used up, look, and remove what lay unused longest.

        Looking again after every sixteenth of the budget is how processes learn of each other's files.
        """
        if size > self._room:
            files = sorted(self._entries(), reverse=True)
            used = sum(length for _, length, _ in files)
            step = max(size, self.budget // 16)
            while files and used > self.budget - step:
                _, length, path = files.pop()
                path.unlink(missing_ok=True)
                used -= length
            self._room = step
        self._room -= size

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """(last use in ns, bytes, path) of each entry; unfinished files that nobody will finish are removed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # pictures are nobody else's business
        with os.scandir(self.folder) as found:
            for entry in found:
                try:
                    state = entry.stat(follow_symlinks=False)
                    if _ENTRY.fullmatch(entry.name):
                        yield state.st_mtime_ns, state.st_size, Path(entry.path)
                    elif _UNFINISHED.fullmatch(entry.name) and time.time() - state.st_mtime > ABANDONED_SECONDS:
                        os.unlink(entry.path)
                except FileNotFoundError:
                    continue  # another process was quicker


def _check(key: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", key):
        raise InputError(f"{key[:80]!r} is no key of features: it has 64 hex digits, as feature_key gives it")


def _size(dtype: str, shape: tuple[int, int]) -> int:
    return shape[0] * shape[1] * np.dtype(DTYPES[dtype]).itemsize


def _checksum(header: bytes, data: bytes) -> bytes:
    digest = hashlib.sha256(header)
    digest.update(data)
    return digest.digest()


def _encode(key: str, features: Features) -> bytes:
    return _HEADER.pack(_MAGIC, bytes.fromhex(key), _NAMES.index(features.dtype), *features.shape)


def _decode(header: bytes, key: str, length: int) -> tuple[bytes, str, tuple[int, int]] | None:
    """The header, dtype and shape that it tells; None where it is not this key's, or does not fit the file's length."""
    if len(header) != _HEADER.size:
        return None
    magic, owner, number, count, width = _HEADER.unpack(header)
    if magic != _MAGIC or owner != bytes.fromhex(key) or number >= len(_NAMES) or not count * width:
        return None
    name, shape = _NAMES[number], (count, width)
    return (header, name, shape) if _HEADER.size + _size(name, shape) + _CHECKSUM == length else None


def _checked(rest: bytes, header: bytes, dtype: str, shape: tuple[int, int]) -> Features | None:
    """The features in the rest of a file, None where a bit of it changed."""
    data, checksum = rest[:-_CHECKSUM], rest[-_CHECKSUM:]
    if len(data) != _size(dtype, shape) or not hmac.compare_digest(checksum, _checksum(header, data)):
        return None
    return Features(dtype, shape, data)
