"""Writing GGUF: the header from what is known of the tensors, then each tensor as its turn comes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lapilli.checkpoints.ggml import TensorType, quantized_parts
from lapilli.checkpoints.gguf.file import GGUFTensor
from lapilli.checkpoints.gguf.layout import (
    ARRAY,
    BOOL,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_NAME,
    NUMBER_CODES,
    TEXT,
    VERSIONS,
    check_alignment,
)
from lapilli.checkpoints.quoting import file_name, quoted
from lapilli.errors import CheckpointError
from lapilli.ground.files import publish


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written; `values` is asked for only when its turn comes, so that a model need not be in memory.

    It returns floats [*shape], quantized on the way out, or the finished raw bytes of the type (uint8).
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType | str
    values: Callable[[], npt.NDArray[Any]]

    @classmethod
    def of(cls, name: str, array: npt.NDArray[Any], type: TensorType | str) -> TensorSource:
        """An array that is already there; one that maps a file costs no memory until it is written."""
        return cls(name, array.shape, type, lambda: array)


def write_gguf(
    path: str | Path,
    metadata: Mapping[str, object],
    tensors: Iterable[TensorSource | GGUFTensor],
    *,
    name: str | None = None,
) -> None:
    """Write a GGUF file of version 3, little-endian; it is at `path` when it is whole, or not at all.

    Python values take the types that llama.cpp expects: int UINT32, float FLOAT32, a list of int INT32, wider where
    they must be. A numpy scalar or array keeps its own type. Tensors of an open file are copied as they are.
    Raises CheckpointError, naming the file (as `name`, where it is to be told so), the key or the tensor, for what GGUF
    cannot hold.
    """
    name = file_name(path) if name is None else name
    sources = [_source(tensor) for tensor in tensors]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int | np.integer):
        raise CheckpointError(f"{name}: general.alignment is {quoted(alignment)}, must be an integer")
    check_alignment(name, int(alignment))
    header = _header(name, metadata, sources, int(alignment))
    with publish(path) as fresh, open(fresh, "wb") as file:
        file.write(header)
        _pad(file, int(alignment))
        for source in sources:
            _write_values(file, name, source)
            _pad(file, int(alignment))


def _source(tensor: TensorSource | GGUFTensor) -> TensorSource:
    if isinstance(tensor, TensorSource):
        return tensor
    return TensorSource(tensor.name, tensor.shape, tensor.type, lambda: tensor.data)


def _header(name: str, metadata: Mapping[str, object], sources: list[TensorSource], alignment: int) -> bytes:
    parts = [MAGIC, struct.pack("<IQQ", VERSIONS[-1], len(sources), len(metadata))]
    for key, value in metadata.items():
        try:
            if not 1 <= len(key.encode()) <= MAX_NAME:
                raise ValueError(f"a key has 1 to {MAX_NAME} bytes")
            parts += [_text(key), _value(value)]
        except (ValueError, OverflowError, struct.error, TypeError) as error:
            raise CheckpointError(f"{name}: key {quoted(key)} cannot be written: {error}") from None
    at = 0
    seen: set[str] = set()
    for source in sources:
        if source.name in seen:
            raise CheckpointError(f"{name}: tensor {quoted(source.name)} is there twice")
        if len(source.name.encode()) >= 64:
            raise CheckpointError(f"{name}: tensor {quoted(source.name)}: llama.cpp takes names under 64 bytes")
        seen.add(source.name)
        if len(source.shape) > MAX_DIMENSIONS or 0 in source.shape:
            raise CheckpointError(f"{name}: tensor {source.name} has shape {source.shape}; 1 to 4 dimensions above 0")
        type = TensorType(source.type)
        try:
            size = type.nbytes(source.shape)
        except CheckpointError as error:
            raise CheckpointError(f"{name}: tensor {source.name}: {error}") from None
        dimensions = struct.pack(f"<I{len(source.shape)}Q", len(source.shape), *source.shape[::-1])
        parts += [_text(source.name), dimensions, struct.pack("<IQ", type.code, at)]
        at += -(-size // alignment) * alignment
    return b"".join(parts)


def _value(value: object) -> bytes:
    """A metadata value with its type before it."""
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    if isinstance(value, bool | np.bool_):
        return struct.pack("<IB", BOOL, bool(value))
    if isinstance(value, np.generic):
        return struct.pack("<I", _code(value.dtype)) + value.tobytes()
    if isinstance(value, int):
        return _value(np.array(value, dtype=_narrowest([value], "u4", "i4"))[()])
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, list | tuple | np.ndarray):
        code, count, body = _array(value)
        return struct.pack("<IIQ", ARRAY, code, count) + body
    raise TypeError(f"GGUF has no type for {type(value).__name__}")


def _array(values: list[Any] | tuple[Any, ...] | npt.NDArray[Any]) -> tuple[int, int, bytes]:
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise ValueError(f"an array must have one dimension, not {values.ndim}")
        code = BOOL if values.dtype == np.bool_ else _code(values.dtype)
        return code, len(values), values.astype(values.dtype.newbyteorder("<")).tobytes()
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds = {type(value) for value in values}
    if kinds <= {str}:  # nothing at all too: of lists, only merges may be empty, and those are strings
        return TEXT, len(values), b"".join(map(_text, values))
    if kinds == {bool}:
        return BOOL, len(values), bytes(values)
    if kinds <= {int}:
        return _array(np.array(values, dtype=_narrowest(values, "i4", "u4")))
    if kinds <= {int, float}:
        return 6, len(values), struct.pack(f"<{len(values)}f", *values)
    raise TypeError(
        f"an array holds strings, booleans or numbers, not {' and '.join(sorted(kind.__name__ for kind in kinds))}"
    )


def _code(dtype: np.dtype[Any]) -> int:
    code = NUMBER_CODES.get(dtype.newbyteorder("<"))
    if code is None:
        raise TypeError(f"GGUF has no type for {dtype}")
    return code


def _narrowest(values: Sequence[int], *first: str) -> str:
    low, high = min(values, default=0), max(values, default=0)
    for name in (*first, "u8", "i8"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return f"<{name}"
    raise OverflowError(f"no integer of 64 bits holds both {low} and {high}")


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _write_values(file: BinaryIO, name: str, source: TensorSource) -> None:
    type = TensorType(source.type)
    try:
        values = source.values()
        if values.dtype == np.uint8:
            if values.nbytes != type.nbytes(source.shape):
                raise CheckpointError(f"gives {values.nbytes} bytes, must give {type.nbytes(source.shape)}")
            file.write(np.ascontiguousarray(values).data)
            return
        if values.shape != source.shape:
            raise CheckpointError(f"gives shape {values.shape}, must give {source.shape}")
        for part in quantized_parts(values, type):
            file.write(part.data)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: tensor {source.name}: {error}") from None


def _pad(file: BinaryIO, alignment: int) -> None:
    file.write(bytes(-file.tell() % alignment))
