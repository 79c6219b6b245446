"""The compiled kernels: found, checked, and called through their C ABI.

Instruction sets are chosen at run time; the environment variable LAPILLI_KERNELS (avx512, avx2, torch) forces one.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lapilli.errors import InputError

FILE = Path(__file__).with_name("_cpu.so")
ABI = 2  # of cpu.cpp: a library of another number is left alone
VARIABLE = "LAPILLI_KERNELS"
LEVELS = {"avx512": 2, "avx2": 1}  # best first
NAMES = {"avx512": "avx512-vnni", "avx2": "avx2", "torch": "torch"}

LONG, INT, POINTER = ctypes.c_long, ctypes.c_int, ctypes.c_void_p


class AttentionJob(ctypes.Structure):
    """`Attention` of cpu.h."""

    _fields_ = (
        *((name, POINTER) for name in ("q", "k", "v", "tables", "contexts", "out")),
        *((name, LONG) for name in ("T", "H", "heads", "D", "S", "tables_stride", "window", "longest")),
        ("k_strides", LONG * 3),
        ("v_strides", LONG * 3),
        ("scale", ctypes.c_float),
        ("dtype", INT),
    )


@dataclass(frozen=True)
class Kernels:
    """An implementation: the library's functions and the instruction set to ask them for, or plain torch."""

    name: str
    level: int = 0
    linear: Callable[..., None] | None = None
    attend: Callable[..., None] | None = None
    decode: Callable[..., None] | None = None


def implementation() -> str:
    """What computes here: "avx512-vnni", "avx2" or "torch".

    Raises InputError where LAPILLI_KERNELS asks for something unknown, or not to be had here.
    """
    return NAMES[kernels().name]


@functools.cache
def kernels() -> Kernels:
    """The best implementation that there is, or the one that LAPILLI_KERNELS names; looked up once a process.

    Raises InputError where LAPILLI_KERNELS asks for something unknown, or not to be had here.
    """
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if wanted and wanted not in NAMES:
        raise InputError(f"{VARIABLE} is {wanted[:40]!r}; it may be {', '.join(NAMES)}")
    if wanted == "torch":
        return Kernels("torch")
    library = open_library()
    here = [name for name, level in LEVELS.items() if library is not None and library.lapilli_has(level)]
    if wanted and wanted not in here:
        why = "the kernels are not compiled" if library is None else "this processor has no such instructions"
        raise InputError(f"{VARIABLE} is {wanted!r}, but {why}; there is {', '.join([*here, 'torch'])}")
    if library is None or not here:
        return Kernels("torch")
    name = wanted or here[0]
    return Kernels(name, LEVELS[name], library.lapilli_linear, library.lapilli_attend, library.lapilli_decode)


@functools.cache
def open_library(file: Path = FILE) -> Any:
    """The compiled library with its functions' types declared; None where it is absent, foreign or of another ABI."""
    try:
        library = ctypes.CDLL(str(file))
        library.lapilli_abi.restype = INT
        if library.lapilli_abi() != ABI:
            return None
    except (OSError, AttributeError):
        return None
    library.lapilli_has.argtypes, library.lapilli_has.restype = [INT], INT
    library.lapilli_linear.argtypes = [POINTER, POINTER, POINTER, POINTER, LONG, LONG, LONG, INT, INT, INT, INT]
    library.lapilli_linear.restype = None
    library.lapilli_attend.argtypes, library.lapilli_attend.restype = [POINTER, INT, INT], None
    library.lapilli_decode.argtypes, library.lapilli_decode.restype = [POINTER, INT, INT], None
    library.lapilli_threads.argtypes, library.lapilli_threads.restype = [POINTER, POINTER], None
    library.lapilli_threads(*_threads_of_torch())
    return library


def _threads_of_torch() -> tuple[int | None, int | None]:
    """GOMP_parallel and GOMP_barrier of the very OpenMP library that torch runs on: one pool of threads for both."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        loaded = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        functions = (loaded.GOMP_parallel, loaded.GOMP_barrier)
        return ctypes.cast(functions[0], POINTER).value, ctypes.cast(functions[1], POINTER).value
    except (OSError, AttributeError):
        return None, None  # another OpenMP: the kernels run on the caller's thread
