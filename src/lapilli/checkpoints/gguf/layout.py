"""What GGUF's bytes mean, and the limits that no real file comes near."""

from __future__ import annotations

import numpy as np

from lapilli.errors import CheckpointError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

# What no real file comes near: a stranger's file may cost no more than this.
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_DIMENSIONS = 4
MAX_NAME = 1 << 10
MAX_HEADER = 1 << 27
MAX_ITEMS = 1 << 22
MAX_NESTING = 4
MAX_ALIGNMENT = 1 << 16

BOOL, TEXT, ARRAY = 7, 8, 9
NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 10: "<u8", 11: "<i8", 12: "<f8"}
NUMBER_TYPES = {code: np.dtype(name) for code, name in NUMBERS.items()}
NUMBER_CODES = {dtype: code for code, dtype in NUMBER_TYPES.items()}
SMALLEST = {code: dtype.itemsize for code, dtype in NUMBER_TYPES.items()} | {BOOL: 1, TEXT: 8, ARRAY: 12}

OTHER_TYPES = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
OLDER_MAGICS = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA"}


def check_alignment(name: str, alignment: int) -> None:
    if not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise CheckpointError(
            f"{name}: general.alignment is {alignment}, must be a power of two from 8 to {MAX_ALIGNMENT}"
        )
