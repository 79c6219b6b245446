"""Matrices in ggml's quantized types, kept as they are and multiplied as they are.

Activations are rounded to int8 in groups of 32 along K (scale = largest size / 127, ties to even); a group's products
are summed as whole numbers, and the groups in float32, one after another. So a row of the answer has the same bits
whatever rows and however many threads are beside it.
Names of shapes: M rows of activations, K wide; N rows of the weight; G groups of 32 along K.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lapilli.errors import InputError
from lapilli.kernels.library import implementation, kernels
from lapilli.kernels.packing import GROUP, LAYOUTS, TILE, Factors, interleave, separate

__all__ = ["SUPPORTED", "QuantizedWeight", "implementation", "linear", "linear_reference", "supports"]

SUPPORTED = frozenset(LAYOUTS)
DTYPES = {torch.float32: 0, torch.bfloat16: 1}
AT_ONCE = 1 << 22  # numbers worked on at a time in plain torch


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A matrix (N, K) in a ggml quantized type, its rows interleaved by 16 for SIMD."""

    type: str
    shape: tuple[int, int]
    data: Tensor

    @classmethod
    def from_ggml(cls, raw: Tensor | npt.NDArray[Any], type: str, shape: Sequence[int]) -> QuantizedWeight:
        """The raw bytes of a tensor's blocks, as they lie in a GGUF file, rearranged; N is padded to whole tiles.

        Raises InputError for a type or a shape that `supports` denies, and for a wrong number of bytes.
        """
        if not supports(type, shape):
            raise InputError(
                f"no kernel for {type[:40]!r} of shape {tuple(shape)}; there are {', '.join(sorted(SUPPORTED))}, for "
                "matrices whose rows are whole blocks"
            )
        layout, (N, K) = LAYOUTS[type], shape
        stored = raw.contiguous() if isinstance(raw, Tensor) else torch.from_numpy(np.array(raw, copy=True))
        stored = stored.reshape(-1).view(torch.uint8)
        blocks = K // layout.weights
        if stored.numel() != N * blocks * layout.nbytes:
            raise InputError(
                f"{type} of shape {tuple(shape)} is {N * blocks * layout.nbytes} bytes, not {stored.numel()}"
            )
        rows_NBb = stored.view(N, blocks, layout.nbytes)
        data = torch.empty((-(-N // TILE), blocks, TILE * layout.nbytes), dtype=torch.uint8)
        for tiles in _tiles(len(data), blocks * layout.nbytes):
            part = rows_NBb[tiles.start * TILE : tiles.stop * TILE]
            missing = (tiles.stop - tiles.start) * TILE - len(part)
            if missing:
                part = torch.cat([part, part.new_zeros((missing, *part.shape[1:]))])
            data[tiles] = interleave(torch.unflatten(part, 0, (-1, TILE)), layout)
        return cls(type, (N, K), data.flatten())

    @classmethod
    def stacked(cls, parts: Sequence[QuantizedWeight]) -> QuantizedWeight | None:
        """The rows of several weights one under another, as one; None where types, K or odd rows do not allow it."""
        type, K = parts[0].type, parts[0].shape[1]
        if any(part.type != type or part.shape[1] != K or part.shape[0] % TILE for part in parts):
            return None
        return cls(type, (sum(part.shape[0] for part in parts), K), torch.cat([part.data for part in parts]))

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.data.numel()

    def dequantize(self) -> Tensor:
        """The weights as float32 (N, K), to the bit those of ggml."""
        weights_NK = torch.empty(self.shape)
        for rows, factors in _factors(self, self.shape[1]):
            weights_NK[rows] = factors.weights()
        return weights_NK


def supports(type: str, shape: Sequence[int]) -> bool:
    """Whether there is a kernel for a tensor of that type and shape: a matrix whose rows are whole blocks."""
    return type in LAYOUTS and len(shape) == 2 and min(shape) > 0 and shape[1] % LAYOUTS[type].weights == 0


def linear(x: Tensor, weight: QuantizedWeight, bias: Tensor | None = None) -> Tensor:
    """x (..., K) times the weight's transpose, plus bias (N,): (..., N) in x's type, float32 or bfloat16.

    A row that holds NaN or infinity becomes NaN. There is no gradient.
    Raises InputError for another width, type or device, and where a gradient is asked for.
    """
    _check(x, weight, bias)
    chosen = kernels()
    if chosen.linear is None:
        return linear_reference(x, weight, bias)
    N, K = weight.shape
    x = x.contiguous()
    y = torch.empty((*x.shape[:-1], N), dtype=x.dtype)
    bias = None if bias is None else bias.float().contiguous()
    chosen.linear(
        weight.data.data_ptr(),
        x.data_ptr(),
        None if bias is None else bias.data_ptr(),
        y.data_ptr(),
        x.numel() // K,
        N,
        K,
        LAYOUTS[weight.type].code,
        DTYPES[x.dtype],
        torch.get_num_threads(),
        chosen.level,
    )
    return y


def linear_reference(x: Tensor, weight: QuantizedWeight, bias: Tensor | None = None) -> Tensor:
    """`linear` in plain torch: the same numbers in the same order, up to the rounding of a fused multiply-add."""
    _check(x, weight, bias)
    (N, K), rows_MK = weight.shape, x.detach().reshape(-1, weight.shape[1]).float()
    level_MGW, scale_MG = _rounded(rows_MK)
    y_MN = torch.empty((len(rows_MK), N))
    for rows, factors in _factors(weight, K * max(1, len(rows_MK) // GROUP)):
        y_MN[:, rows] = _summed(level_MGW, scale_MG, factors)
    if bias is not None:
        y_MN += bias.detach().float()
    return y_MN.to(x.dtype).reshape(*x.shape[:-1], N)


def _summed(level_MGW: Tensor, scale_MG: Tensor, factors: Factors) -> Tensor:
    """Sums over K of some rows of the weight. Whole numbers below 2^24 are exact in float32, in whatever order."""
    S = factors.scale_NS.shape[1]
    a_SMW = level_MGW.reshape(len(level_MGW), S, factors.level_NK.shape[1] // S).transpose(0, 1)
    w_SWN = torch.unflatten(factors.level_NK, 1, (S, -1)).permute(1, 2, 0)
    whole_SMN = torch.bmm(a_SMW, w_SWN)
    sum_MN = torch.zeros(whole_SMN.shape[1:])
    each = S // level_MGW.shape[1]
    lifted_MG = scale_MG * level_MGW.sum(dim=-1)
    for s in range(S):
        by_MN = scale_MG[:, s // each, None] * factors.scale_NS[:, s]
        sum_MN = _fused(whole_SMN[s], by_MN, sum_MN)
        if factors.lift_NS is not None:
            sum_MN = _fused(lifted_MG[:, s, None], factors.lift_NS[:, s], sum_MN)
    return sum_MN


def _fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (a.double() * b.double() + c.double()).float()


def _rounded(rows_MK: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as whole numbers -127..127 (M, G, 32) and scales (M, G): NaN where a group is not finite."""
    x_MGW = torch.unflatten(rows_MK, 1, (rows_MK.shape[1] // GROUP, GROUP))
    scale_MG = x_MGW.abs().amax(dim=-1) / torch.tensor(127.0)
    good_MG = scale_MG.isfinite() & (scale_MG >= torch.finfo(torch.float32).tiny)
    level_MGW = (x_MGW / scale_MG[..., None]).round()
    level_MGW = torch.where(good_MG[..., None], level_MGW, 0.0)
    finite_MG = torch.where(scale_MG.isfinite(), 0.0, math.nan)
    return level_MGW, torch.where(good_MG, scale_MG, finite_MG)


def _factors(weight: QuantizedWeight, each: int) -> Iterator[tuple[slice, Factors]]:
    """Some rows at a time with their factors, where a row costs `each` numbers."""
    layout, (N, K) = LAYOUTS[weight.type], weight.shape
    packed_TBb = weight.data.view(-1, K // layout.weights, TILE * layout.nbytes)
    for tiles in _tiles(len(packed_TBb), each):
        rows = slice(tiles.start * TILE, min(tiles.stop * TILE, N))
        raw_NBb = separate(packed_TBb[tiles], layout).flatten(0, 1)
        yield rows, layout.factors(raw_NBb[: rows.stop - rows.start])


def _tiles(count: int, row: int) -> Iterator[slice]:
    step = max(1, AT_ONCE // (TILE * row))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _check(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> None:
    N, K = weight.shape
    if not x.ndim or x.shape[-1] != K:
        raise InputError(f"activations of shape {tuple(x.shape)} do not end in the weight's {K} columns")
    if x.dtype not in DTYPES or x.device.type != "cpu":
        raise InputError(
            f"activations are {x.dtype} on {x.device}; a quantized weight takes float32 or bfloat16 on cpu"
        )
    if bias is not None and bias.shape != (N,):
        raise InputError(f"a bias of shape {tuple(bias.shape)} does not fit the weight's {N} rows")
    if x.requires_grad and torch.is_grad_enabled():
        raise InputError("there is no gradient through a quantized weight; compute under torch.no_grad()")
