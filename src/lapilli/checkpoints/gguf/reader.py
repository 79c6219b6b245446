"""Reading GGUF: every count, length and offset is held against the bytes left before anything is made from it."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lapilli.checkpoints.ggml import Bytes, TensorType
from lapilli.checkpoints.gguf.file import GGUFFile, GGUFTensor
from lapilli.checkpoints.gguf.layout import (
    ARRAY,
    BOOL,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_HEADER,
    MAX_ITEMS,
    MAX_KEYS,
    MAX_NAME,
    MAX_NESTING,
    MAX_TENSORS,
    NUMBER_TYPES,
    OLDER_MAGICS,
    OTHER_TYPES,
    SMALLEST,
    TEXT,
    VERSIONS,
    check_alignment,
)
from lapilli.checkpoints.quoting import file_name, quoted
from lapilli.errors import CheckpointError
from lapilli.ground.files import open_regular


def read_gguf(path: str | Path) -> GGUFFile:
    """Open a GGUF file of version 2 or 3, little-endian, and check all of it but the weights' values.

    Every count, length and offset is compared with the bytes left before anything is made from it.
    Arrays in the metadata come as lists of Python values.
    Raises CheckpointError that names the key or tensor and says both numbers.
    """
    name = file_name(path)
    try:
        with open_regular(path) as file:
            head = file.read(24)
            _check_head(name, head)
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be read: {(error.strerror or 'unknown error').lower()}") from None
    except ValueError as error:
        raise CheckpointError(f"{name}: cannot be opened: {error}") from None
    try:
        return _Reader(name, pages).read()
    except BaseException:
        pages.close()
        raise


def _check_head(name: str, head: bytes) -> None:
    magic = head[:4]
    if magic in OLDER_MAGICS:
        raise CheckpointError(f"{name}: is an old {OLDER_MAGICS[magic]} file; convert it to GGUF first")
    if magic not in (MAGIC, MAGIC[::-1]):
        raise CheckpointError(f"{name}: is no GGUF file: it begins with {magic!r}, not {MAGIC!r}")
    if len(head) < 8:
        raise CheckpointError(f"{name}: is cut short: {len(head)} bytes, a GGUF header has 24")
    version = int.from_bytes(head[4:8], "little")
    if magic != MAGIC or (version > 0xFFFF and int.from_bytes(head[4:8], "big") <= 0xFFFF):
        raise CheckpointError(f"{name}: is a big-endian GGUF file; only little-endian ones are read")
    if version not in VERSIONS:
        raise CheckpointError(f"{name}: is GGUF version {version}; versions 2 and 3 are read")
    if len(head) < 24:
        raise CheckpointError(f"{name}: is cut short: {len(head)} bytes, a GGUF header has 24")


TYPES = {type.code: type for type in TensorType}


@dataclass(frozen=True)
class _Placed:
    """A tensor as the file describes it, its bytes not yet touched."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    start: int
    size: int


class _Reader:
    """A position in the file that never passes the end."""

    def __init__(self, name: str, pages: mmap.mmap) -> None:
        self.name = name
        self.pages = pages
        self.at = 4
        self.end = min(len(pages), MAX_HEADER)
        self.items_left = MAX_ITEMS

    def read(self) -> GGUFFile:
        version = self.unsigned(4, "the version")
        tensor_count = self.count(self.unsigned(8, "the number of tensors"), MAX_TENSORS, 24, "tensors")
        key_count = self.count(self.unsigned(8, "the number of keys"), MAX_KEYS, 13, "keys")
        metadata = self.metadata(key_count)
        if self.integer(metadata, "split.count", 1) > 1:
            part, parts = self.integer(metadata, "split.no", 0) + 1, self.integer(metadata, "split.count", 1)
            self.refuse(f"is part {part} of {parts} of a split model; join them (llama-gguf-split --merge)")
        alignment = self.integer(metadata, "general.alignment", DEFAULT_ALIGNMENT)
        check_alignment(self.name, alignment)
        placed = self.placed(tensor_count, alignment)
        data_start = -(-self.at // alignment) * alignment
        self.check_places(placed, len(self.pages) - data_start)
        tensors = {t.name: GGUFTensor(t.name, t.shape, t.type, self.view(data_start + t.start, t.size)) for t in placed}
        return GGUFFile(self.name, version, metadata, tensors, self.pages)

    def metadata(self, count: int) -> dict[str, object]:
        found: dict[str, object] = {}
        for index in range(count):
            key = self.text(f"the name of key {index}", MAX_NAME)
            if not key:
                self.refuse(f"the name of key {index} is empty")
            if key in found:
                self.refuse(f"key {quoted(key)} is there twice")
            what = f"key {quoted(key)}"
            found[key] = self.value(self.unsigned(4, what), what, MAX_NESTING)
        return found

    def value(self, code: int, what: str, nesting: int) -> object:
        if code == TEXT:
            return self.text(what)
        if code == ARRAY:
            inner, count = self.unsigned(4, what), self.unsigned(8, what)
            return self.array(inner, count, what, nesting)
        return self.array(code, 1, what, nesting)[0]

    def array(self, code: int, count: int, what: str, nesting: int) -> list[Any]:
        if code not in SMALLEST:
            self.refuse(f"{what} has value type {code}, which is unknown")
        self.items_left -= self.count(count, self.items_left, SMALLEST[code], f"values in {what}")
        if code == TEXT:
            return self.texts(count, what)
        if code == ARRAY:
            if nesting == 0:
                self.refuse(f"{what} has arrays more than {MAX_NESTING} deep")
            return [self.value(ARRAY, what, nesting - 1) for _ in range(count)]
        dtype = np.dtype("u1") if code == BOOL else NUMBER_TYPES[code]
        values: list[Any] = np.frombuffer(self.take(count * dtype.itemsize, what), dtype=dtype).tolist()
        if code == BOOL:
            if any(value > 1 for value in values):
                self.refuse(f"{what} has a boolean of {max(values)}, must be 0 or 1")
            return [bool(value) for value in values]
        return values

    def texts(self, count: int, what: str) -> list[str]:
        """`text`, many times: a vocabulary has hundreds of thousands, so the loop is kept bare."""
        pages, at, end = self.pages, self.at, self.end
        length_at = struct.Struct("<Q").unpack_from
        found = []
        for index in range(count):
            if end - at < 8:
                self.refuse(f"{what} has {count} strings, but the file ends in string {index}")
            (length,) = length_at(pages, at)
            at += 8
            if length > end - at:
                self.refuse(f"string {index} of {what} has {length} bytes, but only {end - at} are left")
            try:
                found.append(str(pages[at : at + length], "utf-8"))
            except UnicodeDecodeError:
                self.refuse(f"string {index} of {what} is not UTF-8")
            at += length
        self.at = at
        return found

    def text(self, what: str, limit: int = MAX_HEADER) -> str:
        length = self.unsigned(8, what)
        if length > min(limit, self.end - self.at):
            self.refuse(f"{what} has {length} bytes, but only {min(limit, self.end - self.at)} are left or allowed")
        try:
            return str(self.take(length, what), "utf-8")
        except UnicodeDecodeError:
            self.refuse(f"{what} is not UTF-8")

    def placed(self, count: int, alignment: int) -> list[_Placed]:
        found: dict[str, _Placed] = {}
        for index in range(count):
            name = self.text(f"the name of tensor {index}", MAX_NAME)
            if name in found:
                self.refuse(f"tensor {quoted(name)} is there twice")
            what = f"tensor {quoted(name)}"
            rank = self.unsigned(4, what)
            if rank > MAX_DIMENSIONS:
                self.refuse(f"{what} has {rank} dimensions, at most {MAX_DIMENSIONS} are allowed")
            shape = tuple(self.unsigned(8, what) for _ in range(rank))[::-1]
            if 0 in shape:
                self.refuse(f"{what} has a dimension of 0")
            type = self.tensor_type(self.unsigned(4, what), what)
            start = self.unsigned(8, what)
            if start % alignment:
                self.refuse(f"{what} begins at {start}, which is no multiple of the alignment {alignment}")
            try:
                size = type.nbytes(shape)
            except CheckpointError as error:
                self.refuse(f"{what}: {error}")
            found[name] = _Placed(name, shape, type, start, size)
        return list(found.values())

    def tensor_type(self, code: int, what: str) -> TensorType:
        if code in TYPES:
            return TYPES[code]
        stored = OTHER_TYPES.get(code, f"of the unknown type {code}")
        self.refuse(f"{what} is {stored}; lapilli reads {', '.join(TensorType)}")

    def check_places(self, placed: list[_Placed], size: int) -> None:
        previous, previous_end = "", 0
        for tensor in sorted(placed, key=lambda tensor: tensor.start):
            what = f"tensor {quoted(tensor.name)}"
            if tensor.start + tensor.size > size:
                self.refuse(f"{what} has {tensor.size} bytes at {tensor.start}, but {max(size, 0)} are left")
            if tensor.start < previous_end:
                self.refuse(f"{what} begins at {tensor.start}, inside {previous}, which ends at {previous_end}")
            previous, previous_end = what, tensor.start + tensor.size

    def integer(self, metadata: Mapping[str, object], key: str, default: int) -> int:
        value = metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(f"{key} is {quoted(value)}, must be an integer")
        return value

    def count(self, count: int, limit: int, smallest: int, what: str) -> int:
        """A count, once as many of the smallest things fit the bytes left."""
        if count > limit:
            self.refuse(f"claims {count} {what}, at most {limit} are allowed")
        if count * smallest > self.end - self.at:
            self.refuse(f"claims {count} {what}, at least {count * smallest} bytes, but {self.end - self.at} are left")
        return count

    def unsigned(self, width: int, what: str) -> int:
        return int.from_bytes(self.take(width, what), "little")

    def take(self, length: int, what: str) -> bytes:
        if length > self.end - self.at:
            self.refuse(f"is cut short in {what}: {length} bytes wanted, {self.end - self.at} are left")
        self.at += length
        return self.pages[self.at - length : self.at]

    def view(self, start: int, size: int) -> Bytes:
        return np.frombuffer(self.pages, dtype=np.uint8, count=size, offset=start)

    def refuse(self, why: str) -> NoReturn:
        raise CheckpointError(f"{self.name}: {why}")
