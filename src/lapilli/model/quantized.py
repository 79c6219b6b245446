"""Layers whose matrices stay quantized in memory; they take the places of `nn.Linear` and `nn.Embedding`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lapilli.kernels.packing import LAYOUTS, TILE, separate
from lapilli.kernels.quantized import QuantizedWeight, linear
from lapilli.model.attention import CausalAttention
from lapilli.model.layers import GatedMLP
from lapilli.model.llava import Llava


class _Quantized(nn.Module):
    """Holds a quantized matrix. Its bytes are a buffer: they move with the module, and no change of dtype sees them."""

    data: Tensor

    def __init__(self, weight: QuantizedWeight) -> None:
        super().__init__()
        self.register_buffer("data", weight.data)
        self._weight = weight

    @property
    def weight(self) -> QuantizedWeight:
        if self._weight.data is not self.data:
            self._weight = QuantizedWeight(self._weight.type, self._weight.shape, self.data)
        return self._weight

    def extra_repr(self) -> str:
        return f"{self._weight.type}, {self._weight.shape[0]} x {self._weight.shape[1]}"


class QuantizedLinear(_Quantized):
    """A linear layer over a quantized matrix (N, K): (..., K) to (..., N), float32 or bfloat16, without gradients."""

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None = None) -> None:
        super().__init__(weight)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @classmethod
    def stacked(cls, layers: Sequence[nn.Module | None]) -> QuantizedLinear | None:
        """Layers with the same input as one, outputs side by side; None where types or shapes do not allow it."""
        parts = [layer for layer in layers if isinstance(layer, QuantizedLinear)]
        biases: list[Tensor] = [part.bias for part in parts if part.bias is not None]
        if len(parts) != len(layers) or len(biases) not in (0, len(parts)):
            return None
        weight = QuantizedWeight.stacked([part.weight for part in parts])
        return None if weight is None else cls(weight, torch.cat(biases) if biases else None)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class QuantizedEmbedding(_Quantized):
    """A table of quantized rows (N, K): ids (...) to rows (..., K) of `dtype`, each expanded when it is looked up."""

    def __init__(self, weight: QuantizedWeight, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(weight)
        self.dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        return rows_of(self.weight, ids).to(self.dtype)


def rows_of(weight: QuantizedWeight, ids: Tensor) -> Tensor:
    """Some rows of the matrix as float32 (..., K), to the bit those of `weight.dequantize()`.

    Raises IndexError for a row that it does not have.
    """
    layout, (N, K), flat = LAYOUTS[weight.type], weight.shape, ids.flatten()
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= N):
        raise IndexError(f"row {int(flat.max())} of a table of {N}")
    tiles = weight.data.view(-1, K // layout.weights, TILE * layout.nbytes)[flat // TILE]
    raw = separate(tiles, layout)[torch.arange(len(flat)), flat % TILE]
    return layout.factors(raw).weights().reshape(*ids.shape, K)


def blocks_of(weight: QuantizedWeight) -> Tensor:
    """The matrix as a GGUF file has it: blocks (N, bytes of a row), uint8."""
    layout, (N, K) = LAYOUTS[weight.type], weight.shape
    packed = weight.data.view(-1, K // layout.weights, TILE * layout.nbytes)
    return separate(packed, layout).flatten(0, 1)[:N].flatten(1)


_TOGETHER = {CausalAttention: ("qkv", ("q", "k", "v")), GatedMLP: ("gate_up", ("gate", "up"))}


def fuse(owner: nn.Module) -> None:
    """Put queries, keys and values into one layer, or gate and up, once all are quantized and where types allow it.

    Fewer calls, and activations are rounded once for all. Modules other than attention and MLP stay as they are.
    """
    name, parts = _TOGETHER.get(type(owner), ("", ()))
    one = QuantizedLinear.stacked([getattr(owner, part) for part in parts]) if parts else None
    if one is not None:
        setattr(owner, name, one)
        for part in parts:
            setattr(owner, part, None)


def layer_of(model: Llava, name: str) -> tuple[QuantizedLinear | QuantizedEmbedding, slice]:
    """The layer, and its rows, that hold one of the parameters that the model had before it was quantized."""
    path = name.rpartition(".")[0]
    parent, _, part = path.rpartition(".")
    owner = model.get_submodule(parent)
    found, rows = getattr(owner, part), slice(None)
    if found is None and isinstance(owner, CausalAttention):
        number = ("q", "k", "v").index(part)
        start = sum(owner.widths[:number])
        found, rows = owner.qkv, slice(start, start + owner.widths[number])
    elif found is None and isinstance(owner, GatedMLP):
        half = model.config.text.intermediate_size
        found, rows = owner.gate_up, slice(0, half) if part == "gate" else slice(half, 2 * half)
    assert isinstance(found, QuantizedLinear | QuantizedEmbedding), f"{name} has no place"
    return found, rows


def sums_rows_alone(model: Llava) -> bool:
    """Whether every matrix that the decoder multiplies by is quantized.

    The kernels give a row the same bits whatever rows are beside it; a float matrix's product need not.
    """
    if model.language.head is None:
        return False  # tied to an embedding in floats
    return not any(isinstance(module, nn.Linear) for module in model.language.modules())
