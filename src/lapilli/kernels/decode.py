"""A token each of a few rows through all layers of a quantized decoder, as one call: nothing waits for Python between.

Names of shapes: B rows, D numbers of the model's width; L layers of P pages with S places each, K heads of keys.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lapilli.kernels.library import INT, LONG, POINTER, kernels
from lapilli.kernels.packing import LAYOUTS
from lapilli.kernels.quantized import QuantizedWeight

MOST_ROWS = 16
DTYPES = {torch.float32: 0, torch.bfloat16: 1}

Product = tuple[QuantizedWeight, Tensor | None]
"""A quantized matrix and its bias."""


@dataclass(frozen=True)
class LayerWeights:
    """One layer: `inputs` are queries, keys and values, or all in one; `gated` gate and up, or both in one."""

    norm1: Tensor
    norm2: Tensor
    inputs: Sequence[Product]
    out: Product
    gated: Sequence[Product]
    down: Product
    window: int | None = None


@dataclass(frozen=True)
class DecoderShape:
    """The numbers that all layers share."""

    width: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary: int
    epsilon: float


class _Matrix(ctypes.Structure):
    """`Matrix` of cpu.h."""

    _fields_ = (("data", POINTER), ("bias", POINTER), ("N", LONG), ("K", LONG), ("type", LONG))


class _Layer(ctypes.Structure):
    """`Layer` of cpu.h."""

    _fields_ = (
        *((name, POINTER) for name in ("norm1", "norm2")),
        ("inputs", _Matrix * 3),
        ("out", _Matrix),
        ("gated", _Matrix * 2),
        ("down", _Matrix),
        *((name, POINTER) for name in ("k", "v")),
        ("window", LONG),
    )


class _Decode(ctypes.Structure):
    """`Decode` of cpu.h."""

    _fields_ = (
        ("layers", POINTER),
        *((name, POINTER) for name in ("x", "cos", "sin", "places", "tables", "contexts")),
        *((name, LONG) for name in ("count", "B", "width", "inner", "H", "heads", "D", "rotary", "S")),
        *((name, LONG) for name in ("tables_stride", "longest")),
        ("k_strides", LONG * 3),
        ("v_strides", LONG * 3),
        ("scale", ctypes.c_float),
        ("epsilon", ctypes.c_float),
        ("dtype", INT),
    )


def can_decode(head_dim: int) -> bool:
    """Whether this machine's kernels take whole decoders with heads of that size."""
    return kernels().decode is not None and head_dim % 16 == 0


class Stack:
    """The layers of a decoder with their pages, laid out for the kernel; it keeps alive what it points to."""

    def __init__(self, shape: DecoderShape, layers: Sequence[LayerWeights], k_LPSKD: Tensor, v_LPSKD: Tensor) -> None:
        self._shape, self._pages = shape, (k_LPSKD, v_LPSKD)
        self._kept: list[Tensor] = []
        self._layers = (_Layer * len(layers))(*(self._layer(one, n) for n, one in enumerate(layers)))

    def run(
        self, x_BD: Tensor, cos_BR: Tensor, sin_BR: Tensor, places_B: Tensor, tables: Tensor, contexts: Tensor
    ) -> None:
        """Turn embeddings x (float32) into hidden states before the last norm, in their place.

        Keys and values are kept at `places` (B, int64); `tables` (B, pages) and `contexts` (B,) are int32 as
        `paged_attention` takes them. Any number of rows; those of one sequence stand in the order of their places.
        """
        shape, (k, v) = self._shape, self._pages
        assert x_BD.dtype == torch.float32
        assert x_BD.is_contiguous()
        tables = tables.contiguous()
        for at in range(0, len(x_BD), MOST_ROWS):
            rows = slice(at, at + MOST_ROWS)
            each = [part[rows].contiguous() for part in (x_BD, cos_BR, sin_BR, places_B, tables, contexts)]
            job = _Decode(
                ctypes.addressof(self._layers),
                *(part.data_ptr() for part in each),
                *(len(self._layers), len(each[0]), shape.width, shape.inner, shape.heads, shape.kv_heads),
                *(shape.head_dim, shape.rotary, k.shape[2], tables.shape[1], int(each[5].max())),
                k.stride()[1:4],
                v.stride()[1:4],
                shape.head_dim**-0.5,
                shape.epsilon,
                DTYPES[k.dtype],
            )
            chosen = kernels()
            assert chosen.decode is not None
            chosen.decode(ctypes.addressof(job), torch.get_num_threads(), chosen.level)

    def _layer(self, one: LayerWeights, number: int) -> _Layer:
        k, v = (pages[number].data_ptr() for pages in self._pages)
        return _Layer(
            self._keep(one.norm1.float()),
            self._keep(one.norm2.float()),
            (_Matrix * 3)(*map(self._matrix, one.inputs)),
            self._matrix(one.out),
            (_Matrix * 2)(*map(self._matrix, one.gated)),
            self._matrix(one.down),
            k,
            v,
            one.window or 0,
        )

    def _matrix(self, product: Product) -> _Matrix:
        weight, bias = product
        (N, K), code = weight.shape, LAYOUTS[weight.type].code
        return _Matrix(self._keep(weight.data), None if bias is None else self._keep(bias.float()), N, K, code)

    def _keep(self, tensor: Tensor) -> int:
        self._kept.append(tensor.detach().contiguous())
        return self._kept[-1].data_ptr()
