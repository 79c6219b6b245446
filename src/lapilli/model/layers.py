"""The bricks that towers, projectors and decoders share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapilli.config import Activation


def activation(name: Activation) -> Callable[[Tensor], Tensor]:
    """The function of that name."""
    return _ACTIVATIONS[name]


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _identity(x: Tensor) -> Tensor:
    return x


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "quick_gelu": _quick_gelu,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": F.silu,
    "identity": _identity,
}


class RMSNorm(nn.Module):
    """Root mean square layer normalisation (arXiv 1910.07467), computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class MLP(nn.Module):
    """Up, activation, down: the feed-forward part of a vision tower."""

    def __init__(self, size: int, inner: int, act: Activation) -> None:
        super().__init__()
        self.up = nn.Linear(size, inner)
        self.down = nn.Linear(inner, size)
        self.activate = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.activate(self.up(x)))
        return out


class GatedMLP(nn.Module):
    """The gated feed-forward part of a decoder (arXiv 2002.05202)."""

    def __init__(self, size: int, inner: int, act: Activation, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(size, inner, bias=bias)
        self.up = nn.Linear(size, inner, bias=bias)
        self.down = nn.Linear(inner, size, bias=bias)
        self.activate = activation(act)
        self.gate_up: nn.Module | None = None
        """Both in one, where weights are quantized; then `gate` and `up` stay unused."""

    def forward(self, x: Tensor) -> Tensor:
        gate, up = (self.gate(x), self.up(x)) if self.gate_up is None else self.gate_up(x).chunk(2, dim=-1)
        out: Tensor = self.down(self.activate(gate) * up)
        return out
