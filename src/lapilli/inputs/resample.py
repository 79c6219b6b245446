"""Pillow's resampling where Pillow itself would need the whole picture: a window out of a very large one.

A picture of 1 x 30000 brought to a short side of 336 is 336 x 10080000, of which 336 x 336 are kept. These few rows and
columns are computed alone, with Pillow's filters, fixed-point weights and rounding after each pass: the same bytes come
out where a picture grows, or a square shrinks. (Where others shrink, Pillow 13 may pass over columns before rows.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_PRECISION = 22
_COLUMNS_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class Line:
    """One axis: the pixels lie at `offset` on a canvas that is brought to `target`; `start:stop` of that is kept."""

    canvas: int
    offset: int
    target: int
    start: int
    stop: int


def resample_window(pixels_HWC: Bytes, rows: Line, columns: Line, fill: tuple[int, ...], resample: int) -> Bytes:
    """A window [rows, columns, C] of a picture that lies on a canvas of colour `fill` and is resized.

    `resample` counts as in Pillow: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.
    """
    background = np.array(fill, np.uint8)
    first = _weights(rows.canvas, rows.target, rows.start, resample)[0]
    last, weights = _weights(rows.canvas, rows.target, rows.stop - 1, resample)
    low, high = max(first - rows.offset, 0), max(last + len(weights) - rows.offset, 0)
    needed = replace(rows, offset=rows.offset + low)
    wide = _resample(pixels_HWC[low:high].transpose(1, 0, 2), columns, background, resample)
    # Rows of bare canvas stay what they are in the first pass, so the second may take them as given.
    return _resample(wide.transpose(1, 0, 2), needed, background, resample)


def _resample(pixels_LXC: Bytes, line: Line, fill: Bytes, resample: int) -> Bytes:
    length, across, channels = pixels_LXC.shape
    flat = pixels_LXC.reshape(length, across * channels)
    filling = np.tile(fill, across).astype(np.float64)
    out = np.empty((line.stop - line.start, across * channels), np.uint8)
    for row, position in enumerate(range(line.start, line.stop)):
        first, weights = _weights(line.canvas, line.target, position, resample)
        low = min(max(line.offset, first), first + len(weights))
        high = max(min(line.offset + length, first + len(weights)), low)
        if low == high:
            out[row] = filling
            continue
        inside = weights[low - first : high - first]
        outside = weights.sum() - inside.sum()
        for left in range(0, flat.shape[1], _COLUMNS_AT_ONCE):
            part = slice(left, left + _COLUMNS_AT_ONCE)
            # Integers below 2^53: exact in floating point, in any order.
            total = inside @ flat[low - line.offset : high - line.offset, part].astype(np.float64)
            total += outside * filling[part]
            out[row, part] = np.clip(np.floor((total + (1 << _PRECISION - 1)) / (1 << _PRECISION)), 0, 255)
    return out.reshape(-1, across, channels)


def _weights(source: int, target: int, position: int, resample: int) -> tuple[int, npt.NDArray[np.float64]]:
    """The first source pixel and the whole-number weights, of 2^22 together, behind one target pixel."""
    scale = source / target
    if source == target or resample == 0:
        return int((position + 0.5) * scale), np.array([float(1 << _PRECISION)])
    curve, support = _FILTERS[resample]
    stretch = max(scale, 1.0)
    centre = (position + 0.5) * scale
    first = max(int(centre - support * stretch + 0.5), 0)
    last = min(int(centre + support * stretch + 0.5), source)
    weights = np.array([curve((x - centre + 0.5) / stretch) for x in range(first, last)])
    scaled = weights / np.add.accumulate(weights)[-1] * (1 << _PRECISION)
    return first, np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5))


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0


def _bilinear(x: float) -> float:
    return max(1 - abs(x), 0.0)


def _bicubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return -0.5 * (((x - 5) * x + 8) * x - 4) if x < 2 else 0.0


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _hamming(x: float) -> float:
    return _sinc(x) * (0.54 + 0.46 * math.cos(x * math.pi)) if abs(x) < 1 else 0.0


_FILTERS: dict[int, tuple[Callable[[float], float], float]] = {
    1: (_lanczos, 3.0),
    2: (_bilinear, 1.0),
    3: (_bicubic, 2.0),
    4: (_box, 0.5),
    5: (_hamming, 1.0),
}
