"""What attention remembers: keys and values of the tokens already read, and who may look at whom."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lapilli.config import TextConfig


class Cache(Protocol):
    """What a decoder is given to remember with: told once what comes, then asked by every layer."""

    def begin(self, new: int, valid_BT: Tensor | None) -> None:
        """`new` tokens a row are about to be read; `valid_BT` is False where a row has padding."""

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, window: int | None) -> Tensor:
        """Keep the new keys and values of a layer; what the queries find in all of that layer's (B, H, T, D)."""


class NoCache:
    """Remembers nothing but the pass itself: all of each row is read at once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def begin(self, new: int, valid_BT: Tensor | None) -> None:
        self.masks = Masks(new, new, valid_BT, self.device)

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, window: int | None) -> Tensor:
        return look(q_BHTD, k_BKTD, v_BKTD, *self.masks.of(window))


class KVCache:
    """Keys and values of B rows; rows of different lengths are padded on the left.

    Usage: `cache = KVCache(config, rows=2)`, then pass it to each forward; it grows as it is fed.
    """

    def __init__(
        self,
        config: TextConfig,
        rows: int,
        capacity: int = 256,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_layers, rows, config.num_kv_heads, capacity, config.head_dim)
        self.k_LBKSD = torch.empty(shape, dtype=dtype, device=device)
        self.v_LBKSD = torch.empty(shape, dtype=dtype, device=device)
        self.valid_BS = torch.zeros(rows, capacity, dtype=torch.bool, device=device)
        self.length = 0
        self.padded = False

    @property
    def capacity(self) -> int:
        return self.valid_BS.shape[1]

    def begin(self, new: int, valid_BT: Tensor | None = None) -> None:
        if self.length + new > self.capacity:
            self._grow(max(self.length + new, 2 * self.capacity))
        window = slice(self.length, self.length + new)
        if valid_BT is None:
            self.valid_BS[:, window] = True
        else:
            self.valid_BS[:, window] = valid_BT
            self.padded = self.padded or not bool(valid_BT.all())
        self.length += new
        valid_BS = self.valid_BS[:, : self.length] if self.padded else None
        self.masks = Masks(new, self.length, valid_BS, self.valid_BS.device)

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, window: int | None) -> Tensor:
        new = slice(self.length - k_BKTD.shape[2], self.length)
        self.k_LBKSD[layer, :, :, new] = k_BKTD
        self.v_LBKSD[layer, :, :, new] = v_BKTD
        k_BKSD, v_BKSD = self.k_LBKSD[layer, :, :, : self.length], self.v_LBKSD[layer, :, :, : self.length]
        return look(q_BHTD, k_BKSD, v_BKSD, *self.masks.of(window))

    def _grow(self, capacity: int) -> None:
        for name in ("k_LBKSD", "v_LBKSD"):
            old = getattr(self, name)
            wider = old.new_empty((*old.shape[:3], capacity, old.shape[4]))
            wider[:, :, :, : self.length] = old[:, :, :, : self.length]
            setattr(self, name, wider)
        valid = self.valid_BS.new_zeros(self.valid_BS.shape[0], capacity)
        valid[:, : self.length] = self.valid_BS[:, : self.length]
        self.valid_BS = valid


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


def look(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Scaled dot-product attention, grouped where there are fewer keys than queries (arXiv 2305.13245)."""
    grouped = q_BHTD.shape[1] != k_BKSD.shape[1]
    return F.scaled_dot_product_attention(q_BHTD, k_BKSD, v_BKSD, mask, is_causal=causal, enable_gqa=grouped)
