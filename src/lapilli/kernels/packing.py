"""ggml's blocks as the kernels read them: 16 rows side by side, word by word; and the way back, in plain torch.

Follows the block layouts of ggml (https://github.com/ggml-org/ggml, ggml-common.h).
Names of shapes: T tiles of 16 rows (R), B blocks in a row, G groups of 32 weights in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 16
GROUP = 32


@dataclass(frozen=True)
class Part:
    """Bytes of a block that are interleaved in units of two or four."""

    start: int
    stop: int
    unit: int = 4
    flip: int = 0  # xor, byte by byte: 0x80 turns signed levels into unsigned ones


@dataclass(frozen=True)
class Factors:
    """Rows as weight = scale * level + lift: levels are whole numbers, a scale for each S weights, S 16 or 32."""

    level_NK: Tensor
    scale_NS: Tensor
    lift_NS: Tensor | None = None

    def weights(self) -> Tensor:
        """The rows as float32 (N, K), with ggml's own operations."""
        value_NSW = self.scale_NS[..., None] * torch.unflatten(self.level_NK, 1, (self.scale_NS.shape[1], -1))
        if self.lift_NS is not None:
            value_NSW += self.lift_NS[..., None]
        return value_NSW.flatten(1)


@dataclass(frozen=True)
class Layout:
    """A type: its number in cpu.h, its block, the parts in the order in which a tile has them, its factors."""

    code: int
    weights: int
    nbytes: int
    parts: tuple[Part, ...]
    factors: Callable[[Tensor], Factors]


def interleave(raw_TRBb: Tensor, layout: Layout) -> Tensor:
    """(T, 16, B, bytes of a block) -> (T, B, 16 * bytes), uint8."""
    tiles, _, blocks, size = raw_TRBb.shape
    packed = torch.empty((tiles, blocks, TILE * size), dtype=torch.uint8)
    for part, to in _places(packed, layout):
        piece = raw_TRBb[..., part.start : part.stop].contiguous()
        if part.flip:
            piece.bitwise_xor_(part.flip)
        to.copy_(piece.view(_word(part)).permute(0, 2, 3, 1))
    return packed


def separate(packed_TBb: Tensor, layout: Layout) -> Tensor:
    """(T, B, 16 * bytes) -> (T, 16, B, bytes of a block): `interleave` undone."""
    tiles, blocks, size = packed_TBb.shape
    raw = torch.empty((tiles, TILE, blocks, size // TILE), dtype=torch.uint8)
    for part, place in _places(packed_TBb, layout):
        piece = place.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format).view(torch.uint8)
        raw[..., part.start : part.stop] = piece.bitwise_xor_(part.flip) if part.flip else piece
    return raw


def _places(packed_TBb: Tensor, layout: Layout) -> list[tuple[Part, Tensor]]:
    """Each part with its place in the packed blocks, as (T, B, words, 16)."""
    places, at = [], 0
    for part in layout.parts:
        end = at + TILE * (part.stop - part.start)
        words = packed_TBb.view(_word(part))[..., at // part.unit : end // part.unit]
        places.append((part, torch.unflatten(words, -1, (-1, TILE))))
        at = end
    return places


def _word(part: Part) -> torch.dtype:
    return torch.int32 if part.unit == 4 else torch.int16


# Raw blocks (N, B, bytes) to factors, with ggml's own float32 operations.


def _q8_0(raw: Tensor) -> Factors:
    return Factors(_flat(raw[..., 2:34].contiguous().view(torch.int8)), _half(raw, 0))


def _q4_0(raw: Tensor) -> Factors:
    return Factors(_flat(_nibbles(raw[..., 2:18])) - 8, _half(raw, 0))


def _q4_1(raw: Tensor) -> Factors:
    return Factors(_flat(_nibbles(raw[..., 4:20])), _half(raw, 0), _half(raw, 2))


def _q4_k(raw: Tensor) -> Factors:
    a, b, c = raw[..., 4:8], raw[..., 8:12], raw[..., 12:16]
    step = torch.cat([a & 63, (c & 15) | (a >> 6 << 4)], dim=-1).float()
    lowest = torch.cat([b & 63, (c >> 4) | (b >> 6 << 4)], dim=-1).float()
    level = _nibbles(torch.unflatten(raw[..., 16:144], -1, (4, 32)))
    return Factors(_flat(level), _flat(_half(raw, 0)[..., None] * step), _flat(-(_half(raw, 2)[..., None] * lowest)))


def _q6_k(raw: Tensor) -> Factors:
    low = _nibbles(torch.unflatten(raw[..., 0:128], -1, (2, 64)))
    shift = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    high = torch.unflatten(raw[..., 128:192], -1, (2, 1, 32)) >> shift & 3
    step = raw[..., 192:208].contiguous().view(torch.int8).float()
    level = low | high.flatten(-2) << 4
    return Factors(_flat(level) - 32, _flat(_half(raw, 208)[..., None] * step))


def _flat(blocks: Tensor) -> Tensor:
    return blocks.flatten(1).float()


def _half(raw: Tensor, at: int) -> Tensor:
    return raw[..., at : at + 2].contiguous().view(torch.float16).squeeze(-1).float()


def _nibbles(packed: Tensor) -> Tensor:
    return torch.cat([packed & 15, packed >> 4], dim=-1)


LAYOUTS = {
    "Q4_0": Layout(0, 32, 18, (Part(2, 18), Part(0, 2, 2)), _q4_0),
    "Q4_1": Layout(1, 32, 20, (Part(4, 20), Part(0, 2, 2), Part(2, 4, 2)), _q4_1),
    "Q4_K": Layout(2, 256, 144, (Part(16, 144), Part(4, 16), Part(0, 2, 2), Part(2, 4, 2)), _q4_k),
    "Q6_K": Layout(3, 256, 210, (Part(0, 128), Part(128, 192), Part(192, 208), Part(208, 210, 2)), _q6_k),
    "Q8_0": Layout(4, 32, 34, (Part(2, 34, 4, 0x80), Part(0, 2, 2)), _q8_0),
}
