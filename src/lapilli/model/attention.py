"""Attention, once for towers (everything sees everything) and once for decoders (the past only)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapilli.config import TextConfig, VisionConfig
from lapilli.model.cache import KVCache
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
        self.window = config.window_of(layer)
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.q = nn.Linear(size, wide, bias=config.attention_bias)
        self.k = nn.Linear(size, narrow, bias=config.attention_bias)
        self.v = nn.Linear(size, narrow, bias=config.attention_bias)
        self.out = nn.Linear(wide, size, bias=config.output_bias)

    def forward(self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], masks: Masks, cache: KVCache | None) -> Tensor:
        q_BHTD = rotate(_split_heads(self.q(x_BTD), self.num_heads), *rotation)
        k_BKSD = rotate(_split_heads(self.k(x_BTD), self.num_kv_heads), *rotation)
        v_BKSD = _split_heads(self.v(x_BTD), self.num_kv_heads)
        if cache is not None:
            k_BKSD, v_BKSD = cache.update(self.layer, k_BKSD, v_BKSD)
        mask, causal = masks.of(self.window)
        out_BHTD = F.scaled_dot_product_attention(
            q_BHTD, k_BKSD, v_BKSD, mask, is_causal=causal, enable_gqa=self.num_heads != self.num_kv_heads
        )
        out: Tensor = self.out(_join_heads(out_BHTD))
        return out


class Masks:
    """Who may look at whom in one forward pass, made once a window and shared by the layers.

    Slots count cache places, so T new tokens stand in the last T of S slots. `valid_BS` is False on padding.
    """

    def __init__(self, new: int, seen: int, valid_BS: Tensor | None, device: torch.device) -> None:
        self.new, self.seen, self.valid_BS, self.device = new, seen, valid_BS, device
        self._made: dict[int | None, tuple[Tensor | None, bool]] = {}

    def of(self, window: int | None) -> tuple[Tensor | None, bool]:
        """The mask (B or 1, 1, T, S; True may look) and whether plain causal attention says the same."""
        if window is not None and window >= self.seen:
            window = None
        if window not in self._made:
            self._made[window] = self._make(window)
        return self._made[window]

    def _make(self, window: int | None) -> tuple[Tensor | None, bool]:
        if self.valid_BS is None and window is None and (self.new == self.seen or self.new == 1):
            return None, self.new > 1
        query = torch.arange(self.seen - self.new, self.seen, device=self.device)[:, None]
        key = torch.arange(self.seen, device=self.device)[None, :]
        mask = key <= query
        if window is not None:
            mask &= key > query - window
        if self.valid_BS is None:
            return mask[None, None], False
        # A padding row would attend to nothing, and softmax over nothing is NaN: let it see itself.
        mask = (mask & self.valid_BS[:, None, :]) | (key == query)
        return mask[:, None], False


def _split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    rows, tokens, size = x_BTD.shape
    return x_BTD.view(rows, tokens, heads, size // heads).transpose(1, 2)


def _join_heads(x_BHTD: Tensor) -> Tensor:
    return x_BHTD.transpose(1, 2).flatten(2)
