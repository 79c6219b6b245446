"""Attention, once for towers (everything sees everything) and once for decoders (the past only)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lapilli.config import TextConfig, VisionConfig
from lapilli.model.cache import Cache
from lapilli.model.rope import rotate


class VisionAttention(nn.Module):
    """Every patch looks at every patch."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.out = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x_BND: Tensor) -> Tensor:
        q, k, v = (_split_heads(project(x_BND), self.num_heads) for project in (self.q, self.k, self.v))
        out: Tensor = self.out(_join_heads(F.scaled_dot_product_attention(q, k, v)))
        return out


class CausalAttention(nn.Module):
    """Grouped-query attention (arXiv 2305.13245) over the past, through a sliding window where there is one."""

    def __init__(self, config: TextConfig, layer: int) -> None:
        super().__init__()
        size, wide = config.hidden_size, config.num_heads * config.head_dim
        narrow = config.num_kv_heads * config.head_dim
        self.layer = layer
        self.widths = (wide, narrow, narrow)
        self.window = config.window_of(layer)
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.q = nn.Linear(size, wide, bias=config.attention_bias)
        self.k = nn.Linear(size, narrow, bias=config.attention_bias)
        self.v = nn.Linear(size, narrow, bias=config.attention_bias)
        self.out = nn.Linear(wide, size, bias=config.output_bias)
        self.qkv: nn.Module | None = None
        """The three of them in one, where weights are quantized; then `q`, `k` and `v` stay unused."""

    def forward(self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], cache: Cache) -> Tensor:
        q_BTD, k_BTD, v_BTD = self._project(x_BTD)
        q_BHTD = rotate(_split_heads(q_BTD, self.num_heads), *rotation)
        k_BKTD = rotate(_split_heads(k_BTD, self.num_kv_heads), *rotation)
        v_BKTD = _split_heads(v_BTD, self.num_kv_heads)
        out: Tensor = self.out(_join_heads(cache.attend(self.layer, q_BHTD, k_BKTD, v_BKTD, self.window)))
        return out

    def _project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.qkv is None:
            return self.q(x_BTD), self.k(x_BTD), self.v(x_BTD)
        return self.qkv(x_BTD).split(self.widths, dim=-1)  # type: ignore[no-any-return]


def _split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    rows, tokens, size = x_BTD.shape
    return x_BTD.view(rows, tokens, heads, size // heads).transpose(1, 2)


def _join_heads(x_BHTD: Tensor) -> Tensor:
    return x_BHTD.transpose(1, 2).flatten(2)
