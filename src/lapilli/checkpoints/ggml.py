"""ggml's tensor types: how their blocks lie in memory, and the way there and back.

A quantized row is cut into blocks of W weights; each block has its own scale, some a lowest value too. The K types put
sub-blocks of 16 or 32 weights, with small integer scales, under half-precision scales for all 256.

Follows the block layouts of ggml (https://github.com/ggml-org/ggml, ggml-common.h).
Names of shapes: N blocks, W weights in a block, S sub-blocks in a block, K weights in a sub-block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from lapilli.checkpoints.fit import fit_affine, fit_centred, furthest, inverse_or_zero
from lapilli.errors import CheckpointError

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Blocks = npt.NDArray[Any]

CHUNK = 1 << 16  # weights worked on at a time: the temporaries stay in the cache


class TensorType(StrEnum):
    """How a tensor's weights are stored, by ggml's own names."""

    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    Q8_0 = "Q8_0"
    Q4_0 = "Q4_0"
    Q4_1 = "Q4_1"
    Q5_0 = "Q5_0"
    Q5_1 = "Q5_1"
    Q4_K = "Q4_K"
    Q5_K = "Q5_K"
    Q6_K = "Q6_K"

    @classmethod
    def _missing_(cls, value: object) -> TensorType:
        found = cls.__members__.get(value.upper()) if isinstance(value, str) else None
        if found is None:
            raise CheckpointError(f"no tensor type {str(value)[:40]!r}; there are {', '.join(cls)}")
        return found

    @property
    def code(self) -> int:
        """The number that stands for the type in a file."""
        return LAYOUTS[self].code

    @property
    def block_weights(self) -> int:
        """Weights in a block; a row must be a multiple of it."""
        return LAYOUTS[self].weights

    @property
    def block_bytes(self) -> int:
        """Bytes in a block."""
        return LAYOUTS[self].block.itemsize

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor of that shape. Raises CheckpointError where its rows are not whole blocks."""
        width = shape[-1] if shape else 1
        if width % self.block_weights:
            raise CheckpointError(f"rows of {width} weights are no multiple of {self}'s block of {self.block_weights}")
        return math.prod(shape) // self.block_weights * self.block_bytes


def dequantize(raw: Bytes | bytes, type: TensorType | str, shape: Sequence[int]) -> Floats:
    """Raw bytes of that type as float32 weights of that shape (numpy order: rows last).

    F32 comes back as a view of the given bytes, every other type as a new array.
    Raises CheckpointError where the bytes do not fit the shape.
    """
    type = TensorType(type)
    layout = LAYOUTS[type]
    stored = np.frombuffer(raw, dtype=np.uint8) if isinstance(raw, bytes) else raw.reshape(-1).view(np.uint8)
    if stored.size != type.nbytes(shape):
        raise CheckpointError(f"{type} of shape {tuple(shape)} is {type.nbytes(shape)} bytes, not {stored.size}")
    blocks = stored.view(layout.block)
    if type is TensorType.F32:
        return blocks.reshape(tuple(shape))
    weights_NW = np.empty((len(blocks), layout.weights), dtype=np.float32)
    with np.errstate(all="ignore"):  # a damaged scale may be infinite; that is for the caller to find
        for part in _parts(len(blocks), layout.weights):
            weights_NW[part] = layout.unpack(blocks[part])
    return weights_NW.reshape(tuple(shape))


def quantize(array: npt.NDArray[Any], type: TensorType | str) -> Bytes:
    """Weights (any float type, rows last) as the raw bytes of that type, one flat uint8 array.

    Raises CheckpointError for rows that are not whole blocks, and for weights the type cannot hold.
    """
    raw = np.empty(TensorType(type).nbytes(array.shape), dtype=np.uint8)
    at = 0
    for part in quantized_parts(array, type):
        raw[at : at + part.size] = part
        at += part.size
    return raw


def quantized_parts(array: npt.NDArray[Any], type: TensorType | str) -> Iterator[Bytes]:
    """`quantize`, a small part at a time, so that a tensor on its way to a file is never in memory twice."""
    type = TensorType(type)
    layout = LAYOUTS[type]
    type.nbytes(array.shape)
    source_NW = np.ascontiguousarray(array).reshape(-1, layout.weights)
    for part in _parts(len(source_NW), layout.weights):
        try:
            with np.errstate(over="raise", invalid="ignore"):
                weights_NW = source_NW[part].astype(np.float32, copy=False)
                if layout.weights > 1 and not np.isfinite(weights_NW).all():
                    raise CheckpointError(f"holds NaN or infinity, which {type} cannot")
                packed = np.ascontiguousarray(layout.pack(weights_NW))
        except FloatingPointError:
            sizes = np.abs(source_NW[part])
            worst = float(sizes[np.isfinite(sizes)].max())
            raise CheckpointError(f"holds {worst:g}, too large for {type}; BF16 and F32 can hold it") from None
        yield packed.view(np.uint8).reshape(-1)


def q5_0_as_q8_0(raw: Bytes) -> Bytes:
    """Q5_0 blocks as Q8_0 ones of the very same weights: the same scales, the levels with a byte each."""
    blocks = np.ascontiguousarray(raw).reshape(-1).view(Q5_0)
    wide = np.empty(len(blocks), dtype=Q8_0)
    for part in _parts(len(blocks), 32):
        wide["d"][part] = blocks["d"][part]
        wide["q"][part] = _read_levels(blocks[part]).astype(np.int8) - np.int8(16)
    return wide.view(np.uint8)


def _parts(blocks: int, weights: int) -> Iterator[slice]:
    step = CHUNK // weights
    for start in range(0, blocks, step):
        yield slice(start, min(start + step, blocks))


# The plain types.


def _unpack_float(blocks: Blocks) -> Floats:
    return blocks.astype(np.float32)[:, None]


def _unpack_bf16(blocks: Blocks) -> Floats:
    return (blocks.astype(np.uint32) << np.uint32(16)).view(np.float32)[:, None]


def _pack_bf16(weights_NW: Floats) -> Blocks:
    """Round to nearest, ties to even; a NaN stays one, and quiet."""
    bits = weights_NW.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(weights_NW), quiet, rounded).astype("<u2")


# Blocks of 32 with one scale: weight = d * q, or with a lowest value too: weight = d * q + m.


def _unpack_q8_0(blocks: Blocks) -> Floats:
    return _column(blocks["d"]) * blocks["q"].astype(np.float32)


def _pack_q8_0(weights_NW: Floats) -> Blocks:
    d = np.abs(weights_NW).max(axis=-1, keepdims=True) / np.float32(127)
    scaled = weights_NW * inverse_or_zero(d)
    size = np.abs(scaled)
    whole = np.floor(size)
    q = np.copysign(whole + (size - whole >= 0.5), scaled)  # halves away from zero, unlike np.rint
    return _fill(Q8_0, d=d[:, 0], q=q)


def _unpack_centred(blocks: Blocks) -> Floats:
    q = _read_levels(blocks)
    middle = 16 if _has_high_bits(blocks.dtype) else 8
    return _column(blocks["d"]) * (q.astype(np.int8) - np.int8(middle)).astype(np.float32)


def _pack_centred(block: np.dtype[Any]) -> Callable[[Floats], Blocks]:
    """The weight furthest from zero lands exactly on the lowest level."""

    def pack(weights_NW: Floats) -> Blocks:
        middle = 16 if _has_high_bits(block) else 8
        d = furthest(weights_NW) / np.float32(-middle)
        q = np.trunc(weights_NW * inverse_or_zero(d) + np.float32(middle + 0.5)).clip(0, 2 * middle - 1)
        return _fill(block, d=d[:, 0], **_write_levels(q.astype(np.uint8), block))

    return pack


def _unpack_lifted(blocks: Blocks) -> Floats:
    return _column(blocks["d"]) * _read_levels(blocks).astype(np.float32) + _column(blocks["m"])


def _pack_lifted(block: np.dtype[Any]) -> Callable[[Floats], Blocks]:
    """The smallest and the largest weight land exactly on the lowest and the highest level."""

    def pack(weights_NW: Floats) -> Blocks:
        top = 31 if _has_high_bits(block) else 15
        low = weights_NW.min(axis=-1, keepdims=True)
        d = (weights_NW.max(axis=-1, keepdims=True) - low) / np.float32(top)
        q = np.trunc((weights_NW - low) * inverse_or_zero(d) + np.float32(0.5)).clip(0, top)
        return _fill(block, d=d[:, 0], m=low[:, 0], **_write_levels(q.astype(np.uint8), block))

    return pack


def _has_high_bits(block: np.dtype[Any]) -> bool:
    return "high" in (block.names or ())


def _read_levels(blocks: Blocks) -> Bytes:
    q = _nibbles(blocks["low"])
    if _has_high_bits(blocks.dtype):
        q |= np.unpackbits(blocks["high"], axis=-1, bitorder="little") << np.uint8(4)
    return q


def _write_levels(q_NW: Bytes, block: np.dtype[Any]) -> dict[str, Bytes]:
    fields = {"low": _join_nibbles(q_NW)}
    if _has_high_bits(block):
        fields["high"] = np.packbits(q_NW >> np.uint8(4), axis=-1, bitorder="little")
    return fields


# The K types: 256 weights. Q4_K and Q5_K: weight = (d * scale) * q - (dmin * lowest), eight sub-blocks of 32 with
# 6-bit scales and lowest values. Q6_K: weight = (d * scale) * q, sixteen sub-blocks of 16 with 8-bit scales.


def _unpack_q4_k(blocks: Blocks) -> Floats:
    q_NSK = _nibbles(blocks["low"].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return _lower(blocks, q_NSK)


def _unpack_q5_k(blocks: Blocks) -> Floats:
    q_NSK = _nibbles(blocks["low"].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    bit = np.arange(8, dtype=np.uint8)[:, None]
    q_NSK |= ((blocks["high"][:, None, :] >> bit) & np.uint8(1)) << np.uint8(4)
    return _lower(blocks, q_NSK)


def _lower(blocks: Blocks, q_NSK: Bytes) -> Floats:
    scale_NS, lowest_NS = _read_six_bits(blocks["scales"])
    d_NS = _column(blocks["d"]) * scale_NS.astype(np.float32)
    m_NS = _column(blocks["dmin"]) * lowest_NS.astype(np.float32)
    return (d_NS[..., None] * q_NSK.astype(np.float32) - m_NS[..., None]).reshape(-1, 256)


def _pack_q4_k(weights_NW: Floats) -> Blocks:
    fields, q_NSK = _fit_block(weights_NW, top=15)
    low = _join_nibbles(q_NSK.reshape(-1, 4, 64)).reshape(-1, 128)
    return _fill(Q4_K, low=low, **fields)


def _pack_q5_k(weights_NW: Floats) -> Blocks:
    fields, q_NSK = _fit_block(weights_NW, top=31)
    low = _join_nibbles(q_NSK.reshape(-1, 4, 64)).reshape(-1, 128)
    bit = np.arange(8, dtype=np.uint8)[:, None]
    high = np.bitwise_or.reduce((q_NSK >> np.uint8(4)) << bit, axis=1)
    return _fill(Q5_K, low=low, high=high, **fields)


def _fit_block(weights_NW: Floats, top: int) -> tuple[dict[str, npt.NDArray[Any]], Bytes]:
    """Fit each sub-block, round the fits to six bits, then choose levels again under the rounded fits."""
    w_NSK = weights_NW.reshape(-1, 8, 32)
    scale, lowest = fit_affine(weights_NW.reshape(-1, 32), top)
    d, scale_NS = _to_steps(scale.reshape(-1, 8), 63)
    dmin, lowest_NS = _to_steps(-lowest.reshape(-1, 8), 63)
    d_NS = _column(d) * scale_NS
    m_NS = _column(dmin) * lowest_NS
    q_NSK = np.rint((w_NSK + m_NS[..., None]) * inverse_or_zero(d_NS)[..., None]).clip(0, top).astype(np.uint8)
    return {"d": d, "dmin": dmin, "scales": _write_six_bits(scale_NS, lowest_NS)}, q_NSK


def _unpack_q6_k(blocks: Blocks) -> Floats:
    low = _nibbles(blocks["low"].reshape(-1, 2, 64))
    shift = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    high = (blocks["high"].reshape(-1, 2, 1, 32) >> shift) & np.uint8(3)
    q = low | (high.reshape(-1, 2, 128) << np.uint8(4))
    q_NSK = (q.astype(np.int8) - np.int8(32)).reshape(-1, 16, 16).astype(np.float32)
    d_NS = _column(blocks["d"]) * blocks["scales"].astype(np.float32)
    return (d_NS[..., None] * q_NSK).reshape(-1, 256)


def _pack_q6_k(weights_NW: Floats) -> Blocks:
    scale_NS = fit_centred(weights_NW.reshape(-1, 16), 32).reshape(-1, 16)
    d, steps_NS = _to_steps(scale_NS, -128)
    d_NS = _column(d) * steps_NS
    q_NSK = np.rint(weights_NW.reshape(-1, 16, 16) * inverse_or_zero(d_NS)[..., None]).clip(-32, 31) + np.float32(32)
    q = q_NSK.astype(np.uint8).reshape(-1, 2, 128)
    shift = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    high = np.bitwise_or.reduce((q >> np.uint8(4)).reshape(-1, 2, 4, 32) << shift, axis=2)
    low = _join_nibbles(q & np.uint8(15))
    return _fill(Q6_K, low=low.reshape(-1, 128), high=high.reshape(-1, 64), scales=steps_NS, d=d)


def _to_steps(values_NS: Floats, end: int) -> tuple[npt.NDArray[np.float16], Floats]:
    """Values as whole steps of one half-precision scale a block, the value furthest from zero on step `end`."""
    d = (furthest(values_NS) / np.float32(end)).astype("<f2")
    low, high = (end, -end - 1) if end < 0 else (0, end)
    return d[:, 0], np.rint(values_NS * inverse_or_zero(d.astype(np.float32))).clip(low, high)


def _read_six_bits(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Eight scales and eight lowest values of six bits from twelve bytes."""
    scale, lowest, rest = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    top = np.uint8(6)
    return (
        np.concatenate([scale & 63, (rest & 15) | (scale >> top) << np.uint8(4)], axis=-1),
        np.concatenate([lowest & 63, (rest >> np.uint8(4)) | (lowest >> top) << np.uint8(4)], axis=-1),
    )


def _write_six_bits(scale_NS: Floats, lowest_NS: Floats) -> Bytes:
    scale, lowest = scale_NS.astype(np.uint8), lowest_NS.astype(np.uint8)
    four, six = np.uint8(4), np.uint8(6)
    return np.concatenate(
        [
            scale[:, :4] | (scale[:, 4:] >> four) << six,
            lowest[:, :4] | (lowest[:, 4:] >> four) << six,
            (scale[:, 4:] & 15) | (lowest[:, 4:] & 15) << four,
        ],
        axis=-1,
    )


# Small change.


def _nibbles(packed: Bytes) -> Bytes:
    """[..., B] bytes -> [..., 2B] levels: all low halves, then all high halves."""
    return np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)


def _join_nibbles(q: Bytes) -> Bytes:
    half = q.shape[-1] // 2
    return (q[..., :half] & np.uint8(15)) | (q[..., half:] << np.uint8(4))


def _column(scale: npt.NDArray[Any]) -> Floats:
    return scale.astype(np.float32)[:, None]


def _fill(block: np.dtype[Any], **fields: npt.NDArray[Any]) -> Blocks:
    blocks = np.empty(len(fields["d"]), dtype=block)
    for name, values in fields.items():
        blocks[name] = values
    return blocks


@dataclass(frozen=True)
class _Layout:
    code: int
    weights: int
    block: np.dtype[Any]
    unpack: Callable[[Blocks], Floats]
    pack: Callable[[Floats], Blocks]


Q8_0 = np.dtype([("d", "<f2"), ("q", "i1", 32)])
Q4_0 = np.dtype([("d", "<f2"), ("low", "u1", 16)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("low", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("high", "u1", 4), ("low", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("high", "u1", 4), ("low", "u1", 16)])
Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("low", "u1", 128)])
Q5_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("high", "u1", 32), ("low", "u1", 128)])
Q6_K = np.dtype([("low", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])

LAYOUTS = {
    TensorType.F32: _Layout(0, 1, np.dtype("<f4"), _unpack_float, lambda weights: weights.astype("<f4", copy=False)),
    TensorType.F16: _Layout(1, 1, np.dtype("<f2"), _unpack_float, lambda weights: weights.astype("<f2")),
    TensorType.BF16: _Layout(30, 1, np.dtype("<u2"), _unpack_bf16, _pack_bf16),
    TensorType.Q8_0: _Layout(8, 32, Q8_0, _unpack_q8_0, _pack_q8_0),
    TensorType.Q4_0: _Layout(2, 32, Q4_0, _unpack_centred, _pack_centred(Q4_0)),
    TensorType.Q4_1: _Layout(3, 32, Q4_1, _unpack_lifted, _pack_lifted(Q4_1)),
    TensorType.Q5_0: _Layout(6, 32, Q5_0, _unpack_centred, _pack_centred(Q5_0)),
    TensorType.Q5_1: _Layout(7, 32, Q5_1, _unpack_lifted, _pack_lifted(Q5_1)),
    TensorType.Q4_K: _Layout(12, 256, Q4_K, _unpack_q4_k, _pack_q4_k),
    TensorType.Q5_K: _Layout(13, 256, Q5_K, _unpack_q5_k, _pack_q5_k),
    TensorType.Q6_K: _Layout(14, 256, Q6_K, _unpack_q6_k, _pack_q6_k),
}
