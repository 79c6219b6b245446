"""An open GGUF file: its metadata and tensors by name, each checked as it is asked for."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from lapilli.checkpoints.ggml import Bytes, Floats, TensorType, dequantize
from lapilli.checkpoints.quoting import quoted
from lapilli.errors import CheckpointError


@dataclass(frozen=True, eq=False)
class GGUFTensor:
    """A tensor in an open file; its bytes are read from disk when they are touched."""

    name: str
    shape: tuple[int, ...]  # numpy order, rows last: the file's own order reversed
    type: TensorType
    data: Bytes  # the raw blocks, flat, a view of the file

    def dequantize(self) -> Floats:
        """The weights as float32 [*shape]; a view of the file for F32, else a new array."""
        return dequantize(self.data, self.type, self.shape)


class GGUFFile:
    """An open GGUF file: `metadata` and `tensors` by name, and getters that check what they give.

    Writing to an array of it changes memory only, never the file.
    """

    def __init__(
        self, name: str, version: int, metadata: Mapping[str, object], tensors: dict[str, GGUFTensor], pages: mmap.mmap
    ) -> None:
        self.name = name
        self.version = version
        self.metadata = metadata
        self.tensors = tensors
        self._pages = pages

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go. Arrays that still view it stay good; the last of them closes it."""
        self.tensors = {}
        with contextlib.suppress(BufferError):
            self._pages.close()

    def release(self, tensor: GGUFTensor) -> None:
        """Give the memory of a tensor's pages back, as after a copy was made; touched again, they are read again.

        What was written to an array of it before is lost.
        """
        if not hasattr(mmap, "MADV_DONTNEED") or self._pages.closed:
            return
        first = tensor.data.ctypes.data - np.frombuffer(self._pages, np.uint8).ctypes.data
        start = first // mmap.PAGESIZE * mmap.PAGESIZE
        self._pages.madvise(mmap.MADV_DONTNEED, start, first + tensor.data.nbytes - start)

    def __repr__(self) -> str:
        return f"GGUFFile({self.name!r}, {len(self.metadata)} keys, {len(self.tensors)} tensors)"

    def tensor(self, name: str, shape: Sequence[int] | None = None) -> GGUFTensor:
        """The tensor of that name. Raises CheckpointError where it is missing or of another shape."""
        found = self.tensors.get(name)
        if found is None:
            raise CheckpointError(f"{self.name}: tensor {name} is missing")
        if shape is not None and found.shape != tuple(shape):
            raise CheckpointError(f"{self.name}: tensor {name} has shape {found.shape}, must have {tuple(shape)}")
        return found

    # Each getter raises CheckpointError, naming the key, for a missing key without a default and for another type.

    def text(self, key: str, default: str | None = None) -> str:
        """The string under the key."""
        value = self._value(key, default)
        return value if isinstance(value, str) else self._not(key, value, "a string")

    def flag(self, key: str, default: bool | None = None) -> bool:
        """The boolean under the key."""
        value = self._value(key, default)
        return value if isinstance(value, bool) else self._not(key, value, "a boolean")

    def integer(
        self, key: str, default: int | None = None, *, minimum: int | None = None, maximum: int | None = None
    ) -> int:
        """The integer under the key, checked against both bounds."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self._not(key, value, "an integer")
        if minimum is not None and value < minimum:
            raise CheckpointError(f"{self.name}: {key} is {value}, must be at least {minimum}")
        if maximum is not None and value > maximum:
            raise CheckpointError(f"{self.name}: {key} is {value}, must be at most {maximum}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """The finite number under the key."""
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            self._not(key, value, "a finite number")
        return float(value)

    def texts(self, key: str) -> list[str]:
        """The array of strings under the key."""
        return self._array(key, str, "an array of strings")

    def integers(self, key: str, length: int | None = None) -> list[int]:
        """The array of integers under the key."""
        return self._array(key, int, "an array of integers", length)

    def numbers(self, key: str, length: int | None = None) -> list[float]:
        """The array of numbers under the key."""
        return [float(value) for value in self._array(key, (int, float), "an array of numbers", length)]

    def _value(self, key: str, default: object) -> object:
        value = self.metadata.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.name}: key {key} is missing")
        return value

    def _array(self, key: str, kind: type | tuple[type, ...], wanted: str, length: int | None = None) -> list[Any]:
        values = self._value(key, None)
        if not isinstance(values, list) or not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
            self._not(key, values, wanted)
        if length is not None and len(values) != length:
            raise CheckpointError(f"{self.name}: {key} has {len(values)} values, must have {length}")
        return values

    def _not(self, key: str, value: object, wanted: str) -> NoReturn:
        found = f"an array of {len(value)} values" if isinstance(value, list) else quoted(value)
        raise CheckpointError(f"{self.name}: {key} is {found}, must be {wanted}")
